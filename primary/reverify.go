package primary

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// A reverifier reads the oldest snapshot back before the change log gives up the
// records that could stand in for it. NATS acknowledges before it fsyncs: what a
// store took is believed only when it is still there a while later.
type reverifier struct {
	p *Pipeline

	mu      sync.Mutex
	proved  cdc.LSN         // of the newest snapshot that was read back
	damaged map[string]bool // those that could not be, by id
	found   bool            // one was found since the last call of foundDamage
	busy    bool            // one is being read
	next    time.Time       // before it, nothing is tried
}

// open forgets what was proved: the records in its place may be others.
func (v *reverifier) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.proved = 0
}

// below is the LSN below which no record is needed besides the snapshots.
func (v *reverifier) below() cdc.LSN {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.proved
}

// isDamaged reports whether a snapshot was found damaged.
func (v *reverifier) isDamaged(id string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.damaged[id]
}

// noteDamage tells that a snapshot cannot be read back: another one takes its
// place.
func (v *reverifier) noteDamage(m snapshot.Manifest, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.damaged == nil {
		v.damaged = make(map[string]bool)
	}
	v.damaged[m.ID], v.found = true, true
	v.p.o.Logger.Error("a snapshot cannot be read back; another one is made", "lsn", m.Position.LSN, "err", err)
}

// foundDamage reports whether a damaged snapshot was found since the last call.
func (v *reverifier) foundDamage() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() { v.found = false }()
	return v.found
}

// consider begins to read the oldest snapshot back, when the change log would lose
// a segment by it. done is called when that changed something.
func (v *reverifier) consider(ctx context.Context, readers *sync.WaitGroup, log *wal.Log, oldest cdc.LSN, done func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.busy || oldest <= v.proved || v.p.o.Clock().Before(v.next) || !log.Disposable(oldest) {
		return
	}
	v.busy = true
	readers.Go(func() {
		m, next, err := v.read(ctx, log, oldest)
		v.finish(m, next, err)
		done()
	})
}

// read reads the snapshot at lsn back, or says when it is old enough for that.
func (v *reverifier) read(ctx context.Context, log *wal.Log, lsn cdc.LSN) (m snapshot.Manifest, next time.Time, err error) {
	list, err := snapshot.List(ctx, v.p.o.Snapshots)
	if list == nil {
		return m, next, err
	}
	for _, m := range list {
		if m.Position.LSN != lsn {
			continue
		}
		if ours, err := v.p.recovery().isOurs(log, m); err != nil || !ours {
			if err != nil {
				return m, next, err
			}
			continue
		}
		if v.isDamaged(m.ID) { // another one is being made
			return m, v.p.o.Clock().Add(dueEvery), nil
		}
		if young := v.p.o.ChangeLog.RetainFor - ageOf(m, v.p.o.Clock()); young > 0 {
			return m, v.p.o.Clock().Add(young), nil
		}
		done, err := v.p.o.Sources.Turns.Take(ctx, m.Size(), nil)
		if err != nil {
			return m, next, err
		}
		defer done()
		return m, next, snapshot.Verify(ctx, v.p.o.Snapshots, m, snapshot.Options{Parallel: 1})
	}
	return m, next, fmt.Errorf("the snapshot at LSN %d: %w", lsn, fs.ErrNotExist)
}

func (v *reverifier) finish(m snapshot.Manifest, next time.Time, err error) {
	if errors.Is(err, snapshot.ErrDamaged) {
		v.noteDamage(m, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.busy, v.next = false, next
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, snapshot.ErrDamaged):
	case err != nil:
		v.next = v.p.o.Clock().Add(snapshotBackOff)
		v.p.o.Logger.Warn("a snapshot was not read back; the change log keeps its records, and it is tried again", "err", err, "after", snapshotBackOff)
	case next.IsZero():
		v.proved = max(v.proved, m.Position.LSN)
	}
}
