package wal

import (
	"fmt"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A history is the end of the change log and the rule by which it grows. Append
// and Open go through it alike.
type history struct {
	tail cdc.Tail
	cut  cdc.LSN // the LSN that follows the last boundary
}

func newHistory(t cdc.Tail) history {
	t.Chain = t.Chain.Clone()
	return history{tail: t, cut: t.Next}
}

// follows reports how the record with head h and boundary b fails to continue
// the history. It does not look at the records that b's hash covers: Append
// trusts the encoder, and whoever consumes the log has a cdc.Verifier.
func (y *history) follows(h cdc.Head, b *cdc.Boundary) error {
	t := &y.tail
	switch {
	case h.LSN != t.Next:
		return fmt.Errorf("%w: record %d where %d is due", cdc.ErrGap, h.LSN, t.Next)
	case h.Epoch < t.Position.Epoch:
		return fmt.Errorf("%w: record %d has epoch %d after epoch %d", cdc.ErrFork, h.LSN, h.Epoch, t.Position.Epoch)
	case (b != nil) != h.Kind.Boundary():
		return fmt.Errorf("%w: %s record %d, boundary %t", cdc.ErrCorrupt, h.Kind, h.LSN, b != nil)
	case b == nil || h.Kind == cdc.Break:
		return nil
	case b.Prev != t.Chain.Prev():
		return fmt.Errorf("%w: record %d follows hash %s, want %s", cdc.ErrFork, h.LSN, b.Prev, t.Chain.Prev())
	case t.Position.LSN != 0 && b.Lineage != t.Position.Lineage:
		return fmt.Errorf("%w: record %d is of lineage %s, want %s", cdc.ErrFork, h.LSN, b.Lineage, t.Position.Lineage)
	}
	return nil
}

// add moves the end past rec, which follows.
func (y *history) add(rec []byte, h cdc.Head, b *cdc.Boundary) {
	t := &y.tail
	if h.Kind == cdc.Break {
		t.Chain = cdc.Chain{}
	}
	hash := t.Chain.Add(rec, h.Kind)
	t.Next = h.LSN + 1
	if b != nil {
		t.Position = cdc.Position{Lineage: b.Lineage, Epoch: h.Epoch, LSN: h.LSN, Hash: hash}
		t.Boundary = *b
		t.Boundary.Tables = nil
		y.cut = t.Next
	}
}

// back forgets the parts after the last boundary.
func (y *history) back() {
	y.tail.Next, y.tail.Chain = y.cut, cdc.ChainAt(y.tail.Position.Hash)
}

// inside reports whether parts of an unfinished transaction end the history.
func (y *history) inside() bool { return y.tail.Next != y.cut }

// copy is the end, for others to keep.
func (y *history) copy() cdc.Tail {
	t := y.tail
	t.Chain = t.Chain.Clone()
	return t
}
