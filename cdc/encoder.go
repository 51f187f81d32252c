package cdc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

// groupBody is the size in bytes at which whole transactions that share a
// record stop being joined by further ones.
const groupBody = 64 << 10

// An Encoder cuts the operations of one transaction after another into
// numbered records, and chains them. Not safe for concurrent use.
//
// Every transaction declares its tables itself, so that a record can be cut
// after any whole transaction.
type Encoder struct {
	emit   func(rec []byte, h Head, b *Boundary) error
	packer *Packer
	epoch  Epoch
	next   LSN
	chain  Chain
	base   Boundary // lineage, term and running totals

	body      []byte
	continued bool // body begins inside an operation

	whole    int // bytes of body that are whole transactions
	ended    Boundary
	inside   Boundary    // totals including the transaction in hand
	tables   []TableHash // after the whole transactions in body; sorted by name
	out      []byte
	position Position
}

// A Tail is the end of a history: where the next record goes.
type Tail struct {
	Position Position // of the last boundary; zero before the first
	Boundary Boundary // the last boundary; before the first only its Lineage is set
	Next     LSN      // of the next record
	Chain    Chain    // after the last record, parts included
}

// AppendFramed appends an encoded operation with its length before it.
func AppendFramed(dst, op []byte) []byte { return appendBytes(dst, op) }

// NewEncoder continues the history that ends at t. emit receives every record
// in order; rec is valid during the call.
func NewEncoder(t Tail, epoch Epoch, term ID, emit func(rec []byte, h Head, b *Boundary) error) *Encoder {
	base := t.Boundary
	base.Term, base.Tables = term, nil
	return &Encoder{emit: emit, epoch: epoch, next: t.Next, base: base, inside: base, chain: t.Chain.Clone(), position: t.Position}
}

// PackWith makes p pack the records from now on; without it S2 does.
func (e *Encoder) PackWith(p *Packer) { e.packer = p }

// Op adds one operation, encoded by AppendOp, to the transaction in hand. It
// writes a part when the record is full.
func (e *Encoder) Op(op []byte) error {
	if err := e.begin(len(op), Op(op[0])); err != nil {
		return err
	}
	for len(e.body)+len(op) > MaxBody {
		k := MaxBody - len(e.body)
		e.body = append(e.body, op[:k]...)
		op = op[k:]
		if err := e.cut(); err != nil {
			return err
		}
		e.continued = true
	}
	e.body = append(e.body, op...)
	return nil
}

// OpFrom is Op for an operation of size bytes that r gives, which is at no time in
// memory as a whole.
func (e *Encoder) OpFrom(r io.Reader, size int) error {
	var kind [1]byte
	if _, err := io.ReadFull(r, kind[:]); err != nil {
		return err
	}
	if err := e.begin(size, Op(kind[0])); err != nil {
		return err
	}
	r = io.MultiReader(bytes.NewReader(kind[:]), r)
	for left := size; left > 0; {
		if len(e.body) == MaxBody {
			if err := e.cut(); err != nil {
				return err
			}
			e.continued = true
		}
		at := len(e.body)
		n := min(left, MaxBody-at)
		e.body = slices.Grow(e.body, n)[:at+n]
		if _, err := io.ReadFull(r, e.body[at:]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// begin adds the length of an operation, and makes room for all of it if a record can
// hold it.
func (e *Encoder) begin(size int, kind Op) error {
	var prefix [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(prefix[:], uint64(size))
	e.inside.Bytes += uint64(n + size)
	if kind == OpDelete || kind == OpUpdate || kind == OpInsert {
		e.inside.Changes++
	}
	for len(e.body) > 0 && len(e.body)+n+size > MaxBody {
		if err := e.cut(); err != nil {
			return err
		}
	}
	e.body = append(e.body, prefix[:n]...)
	return nil
}

// End completes the transaction in hand. Lineage, term, totals and chain are
// the encoder's; of b it takes CapturedAt, Source and Tables. Of transactions that
// share a record, the last one that names a table in Tables counts: after a
// transaction that drops or renames tables, Flush before the next one. The
// transaction is emitted at the next Flush, or earlier when enough of them wait.
func (e *Encoder) End(b Boundary, resync bool) error {
	var buf [4]byte
	if err := e.Op(AppendOp(buf[:0], &Change{Op: OpEnd, Resync: resync}, 0)); err != nil {
		return err
	}
	first := e.ended.CapturedAt
	e.inside.Transactions++
	e.inside.Source, e.inside.CapturedAt = b.Source, b.CapturedAt
	e.tables = mergeHashes(e.tables, b.Tables)
	waiting := e.whole > 0
	e.ended, e.whole = e.inside, len(e.body)
	if waiting {
		e.ended.CapturedAt = first
	}
	if len(e.body) >= groupBody {
		return e.Flush()
	}
	return nil
}

// Flush emits the whole transactions that wait, as one commit record.
func (e *Encoder) Flush() error {
	if e.whole == 0 {
		return nil
	}
	rest := append([]byte(nil), e.body[e.whole:]...)
	e.body = e.body[:e.whole]
	b := e.ended
	b.Tables = e.tables
	if err := e.write(Commit, &b); err != nil {
		return err
	}
	e.whole, e.tables = 0, nil
	e.body = append(e.body, rest...)
	return nil
}

// Pending reports whether whole transactions wait for Flush.
func (e *Encoder) Pending() bool { return e.whole > 0 }

// Abandon drops what was not emitted yet of a transaction that cannot be
// completed. Parts of it that were emitted stay; only Epoch or Break may
// follow them.
func (e *Encoder) Abandon() {
	e.body = e.body[:e.whole]
	e.inside = e.ended
	if e.whole == 0 {
		e.inside, e.continued = e.base, false
	}
}

// Epoch begins the term: the first record that a new primary writes.
func (e *Encoder) Epoch(b Boundary) error { return e.mark(EpochStart, b, "") }

// Break states that the history cannot be continued from what came before, and
// starts a new hash chain. reason is for people.
func (e *Encoder) Break(b Boundary, reason string) error {
	e.chain = Chain{}
	return e.mark(Break, b, reason)
}

func (e *Encoder) mark(k Kind, b Boundary, reason string) error {
	if len(e.body) != 0 {
		return fmt.Errorf("cdc: %s record while a transaction is in hand", k)
	}
	e.inside = e.base
	e.inside.CapturedAt, e.inside.Source = b.CapturedAt, b.Source
	e.body = append(e.body, reason...)
	boundary := e.inside
	return e.write(k, &boundary)
}

// Position names the last boundary that was emitted.
func (e *Encoder) Position() Position { return e.position }

// Last is the boundary that Position names.
func (e *Encoder) Last() Boundary { return e.base }

// cut emits what is whole as a commit record, else what there is as a part.
func (e *Encoder) cut() error {
	if e.whole > 0 {
		return e.Flush()
	}
	return e.write(Part, nil)
}

func (e *Encoder) write(k Kind, b *Boundary) error {
	h := Head{Kind: k, LSN: e.next, Epoch: e.epoch}
	if e.continued {
		h.flags |= flagContinued
	}
	if b != nil {
		b.Prev = e.chain.prev
	}
	e.out = appendRecord(e.out[:0], h, b, e.body, e.packer)
	h.Length = len(e.out)
	if err := e.emit(e.out, h, b); err != nil {
		return fmt.Errorf("cdc: write record %d: %w", e.next, err)
	}
	hash := e.chain.Add(e.out, k)
	if b != nil {
		e.base = *b
		e.base.Tables = nil
		e.position = Position{Lineage: b.Lineage, Epoch: e.epoch, LSN: e.next, Hash: hash}
	}
	e.next++
	e.body, e.continued = e.body[:0], false
	return nil
}

// maxHashes bounds the table hashes of a record, in bytes, so that with the largest
// body it stays below MaxRecord. Nobody relies on a hash being there.
const maxHashes = MaxRecord - MaxBody - HeaderSize - 256

// mergeHashes adds the hashes after a later transaction. What does not fit is
// left out.
func mergeHashes(list, later []TableHash) []TableHash {
	if len(later) == 0 {
		return list
	}
	list = append(list, later...)
	slices.SortStableFunc(list, func(a, b TableHash) int { return strings.Compare(a.Table, b.Table) })
	kept, size := list[:0], 0
	for i, h := range list {
		if i+1 < len(list) && list[i+1].Table == h.Table {
			continue
		}
		if size += binary.MaxVarintLen32 + len(h.Table) + len(h.Sum); size > maxHashes {
			break
		}
		kept = append(kept, h)
	}
	return kept
}
