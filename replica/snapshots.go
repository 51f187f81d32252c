package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// ErrNoSnapshot is wrapped when there is no snapshot as new as is needed. It is a
// reason to wait: the primary makes them.
var ErrNoSnapshot = errors.New("replica: no snapshot to start from yet; the primary makes one when it starts")

// errStore is wrapped when snapshots cannot be read at present.
var errStore = errors.New("replica: snapshots out of reach")

// Snapshots finds full copies of the source database.
type Snapshots interface {
	// Newest gives the newest snapshot at or above min whose position fits. The error
	// wraps ErrNoSnapshot when there is none.
	Newest(ctx context.Context, min cdc.LSN, fits func(cdc.Position) bool) (Snapshot, error)
}

// A Snapshot is the source database exactly as of a position.
type Snapshot struct {
	At    Mark
	Bytes int64 // of the database
	// Restore writes the database to path, replacing nothing; it may continue a
	// partial file of its own. progress takes the bytes done.
	Restore func(ctx context.Context, path string, progress func(done int64)) error
}

// FromStore finds snapshots in a store of package snapshot. One that turns out to
// be damaged is passed over from then on.
func FromStore(store snapshot.Store, o snapshot.Options) Snapshots {
	return &storeSnapshots{store: store, o: o, damaged: make(map[string]bool)}
}

type storeSnapshots struct {
	store snapshot.Store
	o     snapshot.Options

	mu      sync.Mutex
	damaged map[string]bool // by id
}

// Newest implements Snapshots.
func (s *storeSnapshots) Newest(ctx context.Context, min cdc.LSN, fits func(cdc.Position) bool) (Snapshot, error) {
	list, unusable := snapshot.List(ctx, s.store)
	if unusable != nil && !errors.Is(unusable, snapshot.ErrDamaged) && !errors.Is(unusable, snapshot.ErrVersion) {
		return Snapshot{}, unusable
	}
	for _, m := range slices.Backward(list) {
		if m.Position.LSN >= min && fits(m.Position) && !s.isDamaged(m.ID) {
			return s.describe(m), nil
		}
	}
	err := ErrNoSnapshot
	if min > 0 {
		err = fmt.Errorf("%w (at or above LSN %d)", ErrNoSnapshot, min)
	}
	return Snapshot{}, errors.Join(err, unusable)
}

func (s *storeSnapshots) isDamaged(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged[id]
}

func (s *storeSnapshots) describe(m snapshot.Manifest) Snapshot {
	t := m.Totals
	return Snapshot{
		At:    Mark{Position: m.Position, Transactions: t.Transactions, Bytes: t.Bytes, CapturedAt: t.CapturedAt},
		Bytes: m.Size(),
		Restore: func(ctx context.Context, path string, progress func(int64)) error {
			return s.restore(ctx, m, path, progress)
		},
	}
}

func (s *storeSnapshots) restore(ctx context.Context, m snapshot.Manifest, path string, progress func(int64)) error {
	o := s.o
	o.Progress = func(p snapshot.Progress) { progress(p.Bytes) }
	err := snapshot.Restore(ctx, s.store, m, path, o)
	if errors.Is(err, snapshot.ErrExists) {
		// Left by a restore of another snapshot, or of one never installed.
		if err := removeDatabase(path); err != nil {
			return err
		}
		err = snapshot.Restore(ctx, s.store, m, path, o)
	}
	if errors.Is(err, snapshot.ErrDamaged) {
		s.mu.Lock()
		s.damaged[m.ID] = true
		s.mu.Unlock()
		err = errors.Join(err, removeDatabase(path))
	}
	return err
}
