package primary

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// A stuckStore takes nothing until ctx ends.
type stuckStore struct {
	snapshot.Store
	once  sync.Once
	stuck chan struct{} // closed at the first Put
}

func (s *stuckStore) Put(ctx context.Context, _ string, _ []byte) error {
	s.once.Do(func() { close(s.stuck) })
	<-ctx.Done()
	return context.Cause(ctx)
}

// A stop in the middle of a snapshot is no failure of it.
func TestStopDuringASnapshotIsNoFailure(t *testing.T) {
	b := newBench(t, "CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(100000))")
	store := &stuckStore{Store: b.store, stuck: make(chan struct{})}
	var log bytes.Buffer
	b.edit = func(o *Options) { o.Snapshots, o.Logger = store, slog.New(slog.NewTextHandler(&log, nil)) }
	b.start()
	select {
	case <-store.stuck:
	case <-b.ctx.Done():
		t.Fatal("no snapshot is made")
	}
	b.end()
	if text := log.String(); strings.Contains(text, "snapshot failed") || !strings.Contains(text, "capturing") {
		t.Errorf("the log:\n%s", text)
	}
}
