package cdc

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxOp bounds one operation, in bytes: two images of SQLite's largest row
// (10^9 bytes, its default limit) and their framing.
const maxOp = 2_100_000_000

// errShort means that the bytes at hand end before the operation's length.
var errShort = errors.New("short")

// A Decoder gives back the operations of a sequence of records. It must see
// every record from a boundary on, in order; it checks neither LSN nor chain,
// that is [Verifier]'s part. Not safe for concurrent use.
type Decoder struct {
	tables  []*Table          // of the transaction in hand
	known   map[string]*Table // what declarations meant, by their bytes
	pending []byte            // an operation, with its length, that the next record continues
	inside  bool              // between the first operation of a transaction and its end
}

// What a decoder remembers of declarations: most transactions name tables that earlier
// ones have named.
const (
	maxKnown      = 1024
	maxKnownBytes = 1 << 10 // of one
)

// Reset forgets an unfinished transaction.
func (d *Decoder) Reset() { *d = Decoder{} }

// Inside reports whether a transaction is unfinished.
func (d *Decoder) Inside() bool { return d.inside }

// Decode calls visit with every operation that ends in rec, OpEnd included.
// An epoch or break record resets the decoder and has no operations: the
// caller rolls back what it holds of an unfinished transaction. A change is valid
// until visit returns; its Table may be kept, and is the same for as long as its
// declaration is, across transactions, too.
func (d *Decoder) Decode(rec Record, visit func(*Change) error) error {
	if rec.Kind == EpochStart || rec.Kind == Break {
		d.Reset()
		return nil
	}
	if rec.Continued != (len(d.pending) > 0) {
		return fmt.Errorf("%w: record %d continues an operation: %t, one is open: %t", ErrCorrupt, rec.LSN, rec.Continued, len(d.pending) > 0)
	}
	var c Change // one for all operations of the record
	body, err := d.finish(rec.Body, &c, visit)
	if err != nil {
		return fmt.Errorf("record %d: %w", rec.LSN, err)
	}
	for len(body) > 0 {
		op, rest, err := splitOp(body)
		if errors.Is(err, errShort) {
			d.pending, body = append(d.pending, body...), nil
			break
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", rec.LSN, err)
		}
		if err := d.visit(op, &c, visit); err != nil {
			return fmt.Errorf("record %d: %w", rec.LSN, err)
		}
		body = rest
	}
	if rec.Kind == Commit && (d.inside || len(d.pending) > 0) {
		return fmt.Errorf("%w: record %d commits an unfinished transaction", ErrCorrupt, rec.LSN)
	}
	return nil
}

// finish completes the pending operation from the front of body.
func (d *Decoder) finish(body []byte, c *Change, visit func(*Change) error) ([]byte, error) {
	if len(d.pending) == 0 {
		return body, nil
	}
	n, used := binary.Uvarint(d.pending)
	if used <= 0 || n > maxOp { // the encoder never cuts inside a length
		return nil, fmt.Errorf("%w: length of a continued operation", ErrCorrupt)
	}
	size := used + int(n)
	missing := size - len(d.pending)
	if missing > len(body) {
		d.keep(body, size)
		return nil, nil
	}
	d.keep(body[:missing], size)
	err := d.visit(d.pending[used:], c, visit)
	d.pending = nil
	return body[missing:], err
}

// keep adds to the pending operation, which will have size bytes. A claimed size
// allocates no more than eight times what is there; all of a large row is then there
// once, and not a second time in a buffer that grows.
func (d *Decoder) keep(b []byte, size int) {
	if need := len(d.pending) + len(b); need > cap(d.pending) {
		to := size
		if need < size/8 {
			to = 2 * need
		}
		d.pending = append(make([]byte, 0, max(to, need)), d.pending...)
	}
	d.pending = append(d.pending, b...)
}

func (d *Decoder) visit(op []byte, c *Change, visit func(*Change) error) error {
	var err error
	if Op(op[0]) == OpTable {
		err = d.declare(op, c)
	} else {
		err = parseOp(op, d.tables, c)
	}
	if err != nil {
		return err
	}
	if c.Op == OpEnd {
		d.forgetTables()
	}
	d.inside = c.Op != OpEnd
	return visit(c)
}

// declare adds a table to the transaction in hand.
func (d *Decoder) declare(op []byte, c *Change) error {
	if len(d.tables) >= MaxTables {
		return fmt.Errorf("%w: a transaction declares more than %d tables", ErrCorrupt, MaxTables)
	}
	*c = Change{Op: OpTable, Table: d.known[string(op)]}
	if c.Table == nil {
		if err := parseOp(op, nil, c); err != nil {
			return err
		}
		d.remember(op, c.Table)
	}
	d.tables = append(d.tables, c.Table)
	return nil
}

func (d *Decoder) remember(op []byte, t *Table) {
	if len(op) > maxKnownBytes {
		return
	}
	if d.known == nil || len(d.known) >= maxKnown {
		d.known = make(map[string]*Table)
	}
	d.known[string(op)] = t
}

// forgetTables ends the transaction. What it named stays only while that is little.
func (d *Decoder) forgetTables() {
	if len(d.tables) > maxKnown {
		d.tables = nil
	}
	clear(d.tables)
	d.tables = d.tables[:0]
}

func splitOp(b []byte) (op, rest []byte, err error) {
	n, used := binary.Uvarint(b)
	switch {
	case used == 0:
		return nil, nil, errShort
	case used < 0 || n > maxOp || n == 0:
		return nil, nil, fmt.Errorf("%w: length of an operation", ErrCorrupt)
	case n > uint64(len(b)-used):
		return nil, nil, errShort
	}
	return b[used : used+int(n)], b[used+int(n):], nil
}

// SplitOps calls visit with each encoded operation in b, a run of whole
// operations with their lengths, as AppendFramed writes them.
func SplitOps(b []byte, visit func(op []byte) error) error {
	for len(b) > 0 {
		op, rest, err := splitOp(b)
		if err != nil {
			return fmt.Errorf("%w: run of operations", ErrCorrupt)
		}
		if err := visit(op); err != nil {
			return err
		}
		b = rest
	}
	return nil
}
