package primary

import (
	"context"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A forgetfulStore loses the chunks of one snapshot after it took them.
type forgetfulStore struct {
	snapshot.Store
	mu       sync.Mutex
	loseNext bool
	lost     string // id
}

func (s *forgetfulStore) losing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loseNext = true
}

func (s *forgetfulStore) Put(ctx context.Context, name string, data []byte) error {
	s.mu.Lock()
	if s.loseNext {
		s.loseNext, s.lost = false, path.Dir(name)
	}
	s.mu.Unlock()
	return s.Store.Put(ctx, name, data)
}

func (s *forgetfulStore) Get(ctx context.Context, name string) ([]byte, error) {
	data, err := s.Store.Get(ctx, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if path.Dir(name) == s.lost && !strings.Contains(path.Base(name), "manifest") {
		clear(data)
	}
	return data, err
}

// TestChangeLogKeepsWhatASnapshotLost: the change log gives up only what a snapshot
// that was read back stands in for. A store that lost one gets another.
func TestChangeLogKeepsWhatASnapshotLost(t *testing.T) {
	b := newBench(t, oneTable)
	store := &forgetfulStore{Store: b.store}
	b.store = store
	b.edit = func(o *Options) {
		o.ChangeLog = ChangeLogOptions{SegmentBytes: 1, RetainFor: time.Nanosecond}
		o.Snapshot.Keep = 1
	}
	b.start()
	first := b.awaitSnapshot(b.sync().LSN)
	snap := func() snapshot.Manifest {
		t.Helper()
		b.exec("INSERT INTO t(v) VALUES(1)")
		at := b.sync()
		m, err := b.p.Snapshot(b.ctx)
		if err != nil || m.Position.LSN < at.LSN {
			t.Fatalf("snapshot at %d after %d: %v", m.Position.LSN, at.LSN, err)
		}
		return m
	}
	until := func(what string, done func(Status) bool) {
		t.Helper()
		if err := b.p.changed.wait(b.ctx, func() bool { return done(b.p.Status()) }); err != nil {
			t.Fatalf("%s: %v, status %+v", what, err, b.p.Status())
		}
	}
	sound := snap()
	until("trimmed below a sound snapshot", func(s Status) bool {
		return s.ChangeLog.First >= sound.Position.LSN-1 && s.ChangeLog.First > first.Position.LSN
	})

	from := b.p.Status().ChangeLog.First
	store.losing()
	bad := snap()
	until("another one in place of the damaged one", func(Status) bool { return b.p.snapshots.readBack.isDamaged(bad.ID) })
	if got := b.p.Status().ChangeLog.First; got != from {
		t.Errorf("the change log begins at %d and not at %d, and the snapshot at %d is damaged", got, from, bad.Position.LSN)
	}
	until("trimmed below the one in its place", func(s Status) bool { return s.ChangeLog.First > from })
	if m, err := snapshot.Latest(b.ctx, store, cdc.LSN(0)); err != nil || m.ID == bad.ID {
		t.Errorf("the newest snapshot is %s, %v; that was the damaged one", m.ID, err)
	}
}
