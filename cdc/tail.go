package cdc

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrInside means that a history ends inside a transaction where a boundary is
// needed.
var ErrInside = errors.New("cdc: the history ends inside a transaction")

// Inside reports whether the history ends in parts of an unfinished
// transaction, which only an epoch or a break record may follow.
func (t *Tail) Inside() bool { return t.Chain.h != nil }

// AppendTail appends the encoding of the end of a history, from which
// [ParseTail] lets another one continue. A tail inside a transaction gives
// [ErrInside]: the chain over the parts has no encoding.
func AppendTail(dst []byte, t Tail) ([]byte, error) {
	if t.Inside() {
		return nil, ErrInside
	}
	le := binary.LittleEndian
	dst = le.AppendUint64(dst, uint64(t.Next))
	dst = append(dst, t.Position.Lineage[:]...)
	dst = le.AppendUint64(dst, uint64(t.Position.Epoch))
	dst = le.AppendUint64(dst, uint64(t.Position.LSN))
	dst = append(dst, t.Position.Hash[:]...)
	return appendBoundary(dst, &t.Boundary), nil
}

// ParseTail decodes what AppendTail wrote; b must hold exactly that.
func ParseTail(b []byte) (Tail, error) {
	r := reader{b: b}
	t := Tail{Next: LSN(r.uint64())}
	t.Position = Position{Lineage: r.id(), Epoch: Epoch(r.uint64()), LSN: LSN(r.uint64()), Hash: r.id()}
	t.Boundary = *r.boundary()
	t.Chain = ChainAt(t.Position.Hash)
	if r.err == nil && (len(r.b) != 0 || t.Next == 0) {
		r.err = fmt.Errorf("%w: %d bytes after the tail, next LSN %d", ErrCorrupt, len(r.b), t.Next)
	}
	return t, r.err
}
