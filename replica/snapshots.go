package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// ErrNoSnapshot is wrapped when there is no snapshot as new as is needed. It is a
// reason to wait: the primary makes them.
var ErrNoSnapshot = errors.New("replica: no snapshot to start from yet; the primary makes one when it starts")

// Snapshots finds full copies of the source database.
type Snapshots interface {
	// Newest gives the newest snapshot at or above min. The error wraps
	// ErrNoSnapshot when there is none.
	Newest(ctx context.Context, min cdc.LSN) (Snapshot, error)
}

// A Snapshot is the source database exactly as of a position.
type Snapshot struct {
	At    Mark
	Bytes int64 // of the database
	// Restore writes the database to path, replacing nothing; it may continue a
	// partial file of its own. progress takes the bytes done.
	Restore func(ctx context.Context, path string, progress func(done int64)) error
}

// FromStore finds snapshots in a store of package snapshot.
func FromStore(store snapshot.Store, o snapshot.Options) Snapshots { return storeSnapshots{store, o} }

type storeSnapshots struct {
	store snapshot.Store
	o     snapshot.Options
}

func (s storeSnapshots) Newest(ctx context.Context, min cdc.LSN) (Snapshot, error) {
	m, err := snapshot.Latest(ctx, s.store, min)
	if errors.Is(err, snapshot.ErrNone) {
		return Snapshot{}, fmt.Errorf("%w: %w", ErrNoSnapshot, err)
	}
	if err != nil {
		return Snapshot{}, err
	}
	t := m.Totals
	return Snapshot{
		At:    Mark{Position: m.Position, Transactions: t.Transactions, Bytes: t.Bytes, CapturedAt: t.CapturedAt},
		Bytes: m.Size(),
		Restore: func(ctx context.Context, path string, progress func(int64)) error {
			o := s.o
			o.Progress = func(p snapshot.Progress) { progress(p.Bytes) }
			err := snapshot.Restore(ctx, s.store, m, path, o)
			if !errors.Is(err, snapshot.ErrExists) {
				return err
			}
			// Left by a restore of another snapshot, or of one never installed.
			if err := removeDatabase(path); err != nil {
				return err
			}
			return snapshot.Restore(ctx, s.store, m, path, o)
		},
	}, nil
}
