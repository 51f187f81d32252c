package stream

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

// TestStoreBecameSmaller: a stream has reserved more than the store may hold now, as on a
// disk that the application has filled meanwhile. It can be published to, and
// bounded anew, and then the limit of the store is the smaller one.
func TestStoreBecameSmaller(t *testing.T) {
	const before, now = 64 << 20, 24 << 20
	ctx := testContext(t)
	dir := t.TempDir()
	start := func(maxStore int64) (srv *Server, c *Conn, stop func()) {
		srv, end := startServer(t, ServerOptions{Dir: dir, MaxStore: maxStore, Streams: map[string]int64{"app": maxStore / 2, "new": maxStore / 2}})
		c = connect(t, Options{Server: srv})
		return srv, c, func() { c.Close(); end() }
	}
	_, c, stop := start(before)
	publish(t, create(t, c, 1, StreamConfig{MaxBytes: before / 2}), 0, 5)
	stop()

	srv, c, _ := start(now)
	s := c.Stream("app", StreamConfig{MaxBytes: now / 2})
	if err := s.Publish(ctx, 5, upTo(5, 7, record), func(cdc.LSN) {}); !errors.Is(err, io.EOF) {
		t.Errorf("publish: %v", err)
	}
	if err := c.Stream("new", StreamConfig{MaxBytes: now / 2}).Create(ctx, 1); err != nil {
		t.Error(err)
	}
	if err := c.Objects("new", 1).Put(ctx, "snapshot", []byte("bytes")); err != nil {
		t.Error(err)
	}
	if err := s.Reconfigure(ctx); err != nil {
		t.Error(err)
	}
	for changed := c.Changed(); srv.MaxStore() != now+1; changed = c.Changed() {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("MaxStore() = %d after the streams were bounded, want %d", srv.MaxStore(), now+1)
		}
	}
	if err := c.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 7, 9)
}

func TestLookAtStore(t *testing.T) {
	const limit = 64 << 20
	dir := t.TempDir()
	look := func(databases ...string) StoreRoom {
		t.Helper()
		room, err := LookAtStore(dir, limit, databases)
		if err != nil {
			t.Fatal(err)
		}
		return room
	}
	if diff := cmp.Diff(StoreRoom{Streams: limit}, look("app")); diff != "" {
		t.Errorf("nothing stored yet: %s", diff)
	}
	srv, stop := startServer(t, ServerOptions{Dir: dir, MaxStore: limit})
	c := connect(t, Options{Server: srv})
	for db, bytes := range map[string]int64{"app": 20 << 20, "old": 10 << 20, "older": 5 << 20, "free": 0} {
		if err := c.Stream(db, StreamConfig{MaxBytes: bytes}).Create(testContext(t), 1); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	stop()
	broken := filepath.Join(dir, "jetstream", "$G", "streams", "broken", "meta.inf")
	if err := errors.Join(os.Mkdir(filepath.Dir(broken), 0o700), os.WriteFile(broken, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want := StoreRoom{Streams: limit - 15<<20, Others: []string{"REPLICATOR_old", "REPLICATOR_older"}}
	if diff := cmp.Diff(want, look("app", "new")); diff != "" {
		t.Error(diff)
	}
	if _, err := LookAtStore(filepath.Join(dir, "absent"), 0, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// TestStoreBesideOtherFiles: a store has no claim to the room of the application's files
// beside it, be they larger than the disk.
func TestStoreBesideOtherFiles(t *testing.T) {
	const sparse = 1 << 42
	dir := t.TempDir()
	before, err := LookAtStore(dir, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(dir, "app.db")
	if err := errors.Join(os.WriteFile(app, nil, 0o600), os.Truncate(app, sparse)); err != nil {
		t.Fatal(err)
	}
	if after, err := LookAtStore(dir, 0, nil); err != nil || after.Streams > before.Streams+sparse/2 {
		t.Errorf("a store of nothing may hold %d bytes, and beside a file of %d bytes %d, %v", before.Streams, sparse, after.Streams, err)
	}
}

func TestPromised(t *testing.T) {
	stored := map[string]int64{"REPLICATOR_shrinks": 10, "REPLICATOR_grows": 1, "OTHER": 100}
	wanted := map[string]int64{"shrinks": 2, "grows": 3, "new": 1000}
	for _, tt := range []struct {
		stored, wanted map[string]int64
		now, then      int64
	}{
		{nil, nil, 0, 0},
		{stored, nil, 111, 111},
		{nil, wanted, 1005, 1005},
		{stored, wanted, 1113, 1105},
	} {
		if now, then := promised(tt.stored, tt.wanted); now != tt.now || then != tt.then {
			t.Errorf("%v, %v: now %d, then %d; want %d, %d", tt.stored, tt.wanted, now, then, tt.now, tt.then)
		}
	}
}
