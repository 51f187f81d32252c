package cdc

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A session runs an encoder, and what it emits through a verifier and a decoder.
type session struct {
	enc      *Encoder
	verifier *Verifier
	decoder  Decoder
	rng      *rand.Rand
	packer   *Packer

	epoch     Epoch
	n         int      // transactions ended
	hand      [][]byte // operations of the transaction in hand, as AppendOp encoded them
	waiting   []ended  // transactions that no commit record has covered yet
	published [][]byte // what the decoder must have given
	got       [][]byte
	ended     int // OpEnds among them
	committed int // OpEnds among published
	tail      Tail
	table     Table
}

// An ended transaction.
type ended struct {
	ops [][]byte
	at  time.Time // of its capture
}

func newSession(seed uint64) *session {
	s := &session{verifier: NewVerifier(Position{}), rng: rand.New(rand.NewPCG(seed, 0)), table: Table{Name: "t"}}
	s.tail = Tail{Next: 1, Boundary: Boundary{Lineage: ID{1}}}
	return s
}

// term continues the history in a new encoder.
func (s *session) term() error {
	s.epoch++
	s.hand, s.waiting = nil, nil
	s.enc = NewEncoder(s.tail, s.epoch, ID{2, byte(s.epoch)}, s.take)
	s.enc.PackWith(s.packer)
	return s.enc.Epoch(Boundary{CapturedAt: at(s.n)})
}

func at(n int) time.Time { return time.Unix(int64(1000+n), 0).UTC() }

func (s *session) take(rec []byte, h Head, b *Boundary) error {
	if len(rec) > MaxRecord {
		return errors.New("a record over MaxRecord")
	}
	r, err := s.verifier.Verify(rec, false)
	if err != nil {
		return err
	}
	if len(r.Body) > MaxBody || (b != nil) != (r.Boundary != nil) {
		return errors.New("a record that cannot be")
	}
	if r.Kind != Part && r.Kind != Commit {
		s.got = s.got[:len(s.published)] // an unfinished transaction is rolled back
	}
	if err := s.decoder.Decode(r, s.visit); err != nil {
		return err
	}
	s.tail.Next, s.tail.Chain, s.tail.Position = h.LSN+1, s.verifier.Chain(), s.verifier.Position()
	if b == nil {
		return nil
	}
	s.tail.Boundary = *r.Boundary
	if r.Kind == Commit {
		return s.commit(r)
	}
	return nil
}

// commit checks a commit record against what was ended before it. A record that
// makes room for the end of a transaction does not cover that one.
func (s *session) commit(r Record) error {
	n := s.ended - s.committed
	if n < 1 || n > len(s.waiting) {
		return errors.New("a commit of transactions that did not end")
	}
	covered := s.waiting[:n]
	s.waiting, s.committed = s.waiting[n:], s.ended
	for _, tx := range covered {
		s.published = append(s.published, tx.ops...)
	}
	if len(s.got) != len(s.published) {
		return errors.New("a commit without all of its operations, or with more")
	}
	var size, changes uint64
	for _, op := range s.published {
		size += uint64(len(AppendFramed(nil, op)))
		if o := Op(op[0]); o == OpDelete || o == OpUpdate || o == OpInsert {
			changes++
		}
	}
	b := r.Boundary
	if b.Transactions != uint64(s.ended) || b.Bytes != size || b.Changes != changes {
		return errors.New("wrong totals")
	}
	if !b.CapturedAt.Equal(covered[0].at) {
		return errors.New("not the capture time of the oldest transaction in the record")
	}
	return nil
}

func (s *session) visit(c *Change) error {
	s.got = append(s.got, AppendOp(nil, c, 0))
	if c.Op == OpEnd {
		s.ended++
	}
	return nil
}

// row adds a row of size bytes, compressible or not.
func (s *session) row(op Op, size int, zero bool) error {
	if len(s.hand) == 0 {
		if err := s.op(&Change{Op: OpTable, Table: &s.table}); err != nil {
			return err
		}
	}
	row := make([]byte, size)
	for i := 0; !zero && i < len(row); i++ {
		row[i] = byte(s.rng.Uint32())
	}
	c := &Change{Op: op, Table: &s.table, Rowid: s.rng.Int64()}
	if op != OpInsert {
		c.Old = row
	}
	if op != OpDelete {
		c.New = row[:size/2]
	}
	return s.op(c)
}

func (s *session) op(c *Change) error {
	op := AppendOp(nil, c, 0)
	s.hand = append(s.hand, op)
	return s.enc.Op(op)
}

func (s *session) end(resync bool) error {
	s.n++
	ops := append(s.hand, AppendOp(nil, &Change{Op: OpEnd, Resync: resync}, 0))
	s.hand = nil
	s.waiting = append(s.waiting, ended{ops, at(s.n)})
	return s.enc.End(Boundary{CapturedAt: at(s.n)}, resync)
}

func (s *session) abandon() error {
	s.enc.Abandon()
	s.hand = nil
	if err := s.enc.Flush(); err != nil {
		return err
	}
	return s.term()
}

func TestEncoder(t *testing.T) {
	sizes := []int{0, 1, 100, 5000, groupBody, MaxBody - 60, MaxBody - 1, MaxBody, MaxBody + 1, 3 << 20}
	packers := packers(t)
	rapid.Check(t, func(t *rapid.T) {
		s := newSession(rapid.Uint64().Draw(t, "seed"))
		s.packer = packers[rapid.SampledFrom([]Codec{S2, Zstd}).Draw(t, "codec")]
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		check(s.term())
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				size := rapid.SampledFrom(sizes).Draw(t, "size")
				op := rapid.SampledFrom([]Op{OpDelete, OpUpdate, OpInsert}).Draw(t, "op")
				check(s.row(op, size, rapid.Bool().Draw(t, "zero")))
			case 3, 4, 5, 6:
				check(s.row(OpInsert, rapid.IntRange(0, 300).Draw(t, "small"), false))
				check(s.end(rapid.Bool().Draw(t, "resync")))
			case 7:
				if len(s.hand) == 0 {
					check(s.enc.Flush())
				}
			case 8:
				check(s.abandon())
			case 9:
				if len(s.hand) == 0 {
					check(s.enc.Flush())
					check(s.term())
				}
			}
		}
		if len(s.hand) > 0 {
			check(s.end(false))
		}
		check(s.enc.Flush())
		if len(s.got) != len(s.published) {
			t.Fatalf("%d operations came out, %d went in", len(s.got), len(s.published))
		}
		for i := range s.got {
			if !bytes.Equal(s.got[i], s.published[i]) {
				t.Fatalf("operation %d of %d differs", i, len(s.got))
			}
		}
		if s.decoder.Inside() || s.enc.Pending() {
			t.Fatal("something is left")
		}
		if s.verifier.Position() != s.enc.Position() {
			t.Fatalf("the verifier is at %v, the encoder at %v", s.verifier.Position(), s.enc.Position())
		}
	})
}

// The record of a waiting transaction that continues an operation says so even
// when the transaction after it is abandoned.
func TestAbandonKeepsContinuation(t *testing.T) {
	s := newSession(1)
	must(t, s.term())
	must(t, s.row(OpInsert, 2*(MaxBody+100), false))
	must(t, s.end(false))
	if !s.enc.Pending() {
		t.Fatal("the end of the large transaction does not wait")
	}
	must(t, s.row(OpInsert, 10, false))
	must(t, s.abandon())
	if s.ended != 1 {
		t.Errorf("%d transactions came out, want 1", s.ended)
	}
}

// A tail taken inside a transaction has its own hasher.
func TestTailIsIndependent(t *testing.T) {
	s := newSession(1)
	must(t, s.term())
	must(t, s.row(OpInsert, 3<<20, false))
	tail := s.tail
	var first Position
	for range 2 {
		e := NewEncoder(tail, 9, ID{}, func([]byte, Head, *Boundary) error { return nil })
		must(t, e.Epoch(Boundary{}))
		if first == (Position{}) {
			first = e.Position()
		}
		if e.Position() != first {
			t.Errorf("two encoders from one tail: %s and %s", e.Position().Hash, first.Hash)
		}
	}
}

func BenchmarkEncoder(b *testing.B) {
	table := &Table{Name: "t"}
	declare := AppendOp(nil, &Change{Op: OpTable, Table: table}, 0)
	row := AppendOp(nil, &Change{Op: OpInsert, Table: table, Rowid: 1, New: bytes.Repeat([]byte("some text "), 10)}, 0)
	var size int64
	e := NewEncoder(Tail{Next: 1}, 1, ID{}, func(rec []byte, _ Head, _ *Boundary) error {
		size += int64(len(rec))
		return nil
	})
	b.ReportAllocs()
	b.SetBytes(int64(len(declare) + len(row) + 2))
	for b.Loop() {
		must(b, e.Op(declare))
		must(b, e.Op(row))
		must(b, e.End(Boundary{}, false))
	}
	must(b, e.Flush())
	b.ReportMetric(float64(size)/float64(b.N), "stored-B/tx")
}

// BenchmarkPack packs and unpacks 64 KiB of text of 64 different letters.
func BenchmarkPack(b *testing.B) {
	body := make([]byte, 64<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range body {
		body[i] = byte(' ' + rng.IntN(64))
	}
	for codec, p := range packers(b) {
		packed, flag := p.append(nil, body)
		b.Run(string(codec)+"/pack", func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				packed, _ = p.append(packed[:0], body)
			}
			b.ReportMetric(float64(len(packed))/float64(len(body)), "ratio")
		})
		b.Run(string(codec)+"/unpack", func(b *testing.B) {
			var u unpacker
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := u.unpack(Head{flags: flag, rawBody: uint32(len(body))}, packed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The end of a transaction may not fit: the record that makes room for it covers
// only the transactions before it.
func TestEndMakesRoomForItself(t *testing.T) {
	for size := MaxBody - 100; size < MaxBody; size++ {
		s := newSession(1)
		must(t, s.term())
		must(t, s.row(OpInsert, 0, false))
		must(t, s.end(false))
		must(t, s.row(OpDelete, size, true))
		early := s.committed > 0
		must(t, s.end(false))
		if !early && s.enc.Position().LSN == 3 { // the epoch, and a record for each
			return
		}
	}
	t.Fatal("no size of a row makes the end of its transaction alone too much")
}

// TestOpFrom: an operation that is read comes out as one that is given, wherever the
// records are cut.
func TestOpFrom(t *testing.T) {
	table := &Table{Name: "t"}
	for _, size := range []int{1, 1000, MaxBody - 40, MaxBody, MaxBody + 1, 2*MaxBody - 10, 3 * MaxBody} {
		for _, before := range []int{0, 100, MaxBody - 30} {
			var given, read [][]byte
			record := func(list *[][]byte) func([]byte, Head, *Boundary) error {
				return func(rec []byte, _ Head, _ *Boundary) error {
					*list = append(*list, bytes.Clone(rec))
					return nil
				}
			}
			a := NewEncoder(Tail{Next: 1}, 1, ID{1}, record(&given))
			b := NewEncoder(Tail{Next: 1}, 1, ID{1}, record(&read))
			for _, c := range []*Change{
				{Op: OpTable, Table: table},
				{Op: OpDelete, Table: table, Rowid: 4, Old: make([]byte, before)},
				{Op: OpUpdate, Table: table, Rowid: 5, Old: bytes.Repeat([]byte("a"), size), New: bytes.Repeat([]byte("b"), 10)},
				{Op: OpInsert, Table: table, Rowid: -6, New: bytes.Repeat([]byte("c"), size)},
			} {
				op := AppendOp(nil, c, 0)
				if err := a.Op(op); err != nil {
					t.Fatal(err)
				}
				if c.Op == OpTable {
					if err := b.Op(op); err != nil {
						t.Fatal(err)
					}
					continue
				}
				image := func(b []byte) Image { return Image{len(b), bytes.NewReader(b)} }
				r, n := OpReader(c, 0, image(c.Old), image(c.New))
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, op) || n != len(op) {
					t.Fatalf("%v: read are %d bytes, said %d, want %d: %v", c.Op, len(got), n, len(op), err)
				}
				if err := b.OpFrom(bytes.NewReader(op), n); err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range []*Encoder{a, b} {
				if err := errors.Join(e.End(Boundary{}, false), e.Flush()); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.EqualFunc(given, read, bytes.Equal) {
				t.Errorf("operations of %d bytes after %d: %d records, and %d others", size, before, len(given), len(read))
			}
		}
	}
}
