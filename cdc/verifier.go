package cdc

import (
	"errors"
	"fmt"
)

// Errors that say how a record fails to follow the one before it.
var (
	// ErrGap means that records are missing.
	ErrGap = errors.New("cdc: gap in the records")
	// ErrFork means that the record belongs to another history.
	ErrFork = errors.New("cdc: record of another history")
	// ErrBreak means that a break record bars the way: a snapshot at or above
	// its LSN is needed.
	ErrBreak = errors.New("cdc: break in the history")
)

// A Verifier checks that each record follows the one before it: LSN, epoch,
// checksum, lineage and hash chain. Not safe for concurrent use.
type Verifier struct {
	at     Position
	next   LSN
	chain  Chain
	unpack unpacker
}

// NewVerifier verifies what follows the position at. A zero Lineage accepts
// whichever comes first.
func NewVerifier(at Position) *Verifier {
	return &Verifier{at: at, next: at.LSN + 1, chain: ChainAt(at.Hash)}
}

// Position is that of the last boundary verified.
func (v *Verifier) Position() Position { return v.at }

// Next is the LSN that the next record must have.
func (v *Verifier) Next() LSN { return v.next }

// Chain is a copy of the chain after the last record verified.
func (v *Verifier) Chain() Chain { return v.chain.Clone() }

// Verify decodes b and checks that it follows. On an error nothing changes. A
// break record gives ErrBreak unless it is the first record of all or
// crossBreak is true, which only the owner of the log may ask for.
func (v *Verifier) Verify(b []byte, crossBreak bool) (Record, error) {
	rec, err := v.unpack.decode(b)
	if err != nil {
		return Record{}, err
	}
	if rec.LSN != v.next {
		return Record{}, fmt.Errorf("%w: record %d where %d is due", ErrGap, rec.LSN, v.next)
	}
	if rec.Epoch < v.at.Epoch || rec.Epoch > v.at.Epoch && rec.Kind != EpochStart && v.at.LSN != 0 {
		return Record{}, fmt.Errorf("%w: record %d has epoch %d after epoch %d", ErrFork, rec.LSN, rec.Epoch, v.at.Epoch)
	}
	if rec.Kind == Break && v.next != 1 && !crossBreak {
		return Record{}, fmt.Errorf("%w at LSN %d: %s", ErrBreak, rec.LSN, rec.Body)
	}
	if rec.Boundary != nil {
		if err := v.follows(rec); err != nil {
			return Record{}, err
		}
	}
	v.accept(rec, b)
	return rec, nil
}

func (v *Verifier) follows(rec Record) error {
	if v.at.Lineage != (ID{}) && rec.Boundary.Lineage != v.at.Lineage {
		return fmt.Errorf("%w: record %d is of lineage %s, want %s", ErrFork, rec.LSN, rec.Boundary.Lineage, v.at.Lineage)
	}
	if rec.Kind != Break && rec.Boundary.Prev != v.chain.Prev() {
		return fmt.Errorf("%w: record %d follows hash %s, want %s", ErrFork, rec.LSN, rec.Boundary.Prev, v.chain.Prev())
	}
	return nil
}

func (v *Verifier) accept(rec Record, b []byte) {
	if rec.Kind == Break {
		v.chain = Chain{}
	}
	hash := v.chain.Add(b, rec.Kind)
	v.next++
	if rec.Boundary != nil {
		v.at = Position{Lineage: rec.Boundary.Lineage, Epoch: rec.Epoch, LSN: rec.LSN, Hash: hash}
	}
}
