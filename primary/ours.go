package primary

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// unreadable reports whether the change log cannot be read where err comes from, neither
// now nor later: it is damaged there, or the disk is.
func unreadable(err error) bool { return errors.Is(err, wal.ErrDamaged) || errors.Is(err, unix.EIO) }

// isOurs reports whether a snapshot is of the history in the change log. What can be
// compared with nothing, because the change log cannot be read there, is ours unless its
// term is known to be another primary's. An error is no verdict.
func (r *recovery) isOurs(log *wal.Log, m snapshot.Manifest) (bool, error) {
	strange, err := r.stranger(log, m)
	if unreadable(err) {
		return m.Term == (cdc.ID{}) || !r.terms.strange(m.Term, m.Position.Epoch), nil
	}
	return err == nil && !strange, err
}

// stranger reports whether the history in the change log does not go through a snapshot.
// Lineage and LSN do not tell: a copy of the data directory goes on with both, and so does
// the directory itself when it was put back from a backup or has lost its end. The hash
// does, and below the change log what strangeBelow asks for.
func (r *recovery) stranger(log *wal.Log, m snapshot.Manifest) (bool, error) {
	at, tail := m.Position, log.Tail().Position
	switch {
	case at.Lineage != tail.Lineage || at.LSN > tail.LSN:
		return true, nil
	case at.LSN == tail.LSN:
		return at != tail, nil
	case at.LSN > log.Durable(): // what is frozen for one of ours is not
		return true, nil
	case log.First() == 0: // it goes on from tail, and has no record yet
		return at.Epoch > tail.Epoch, nil
	}
	hash, err := hashIn(log, at.LSN)
	if errors.Is(err, wal.ErrTrimmed) {
		return strangeBelow(log, r, at.Lineage, m.Term, at.Epoch)
	}
	return hash != at.Hash, err
}

// hashIn is the chain hash at a boundary record that is not the last one, something else
// at what is none. It is in the boundary that follows; only where that is not durable yet,
// or a break, the records are read, which may be many. The error wraps wal.ErrTrimmed where
// neither is left.
func hashIn(log *wal.Log, at cdc.LSN) (cdc.Hash, error) {
	next, err := log.Boundary(at + 1)
	switch {
	case err == nil && next.Kind != cdc.Break:
		return next.Boundary.Prev, nil
	case err != nil && !errors.Is(err, wal.ErrNone):
		return cdc.Hash{}, err
	}
	hash, err := hashAt(at, func(lsn cdc.LSN) ([]byte, error) {
		b, err := log.Record(lsn)
		if errors.Is(err, wal.ErrTrimmed) {
			err = fs.ErrNotExist
		}
		return b, err
	})
	if err == nil && at < log.First() { // by now, and the hash may be cut short
		err = wal.ErrTrimmed
	}
	return hash, err
}
