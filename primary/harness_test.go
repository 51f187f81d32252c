package primary

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// A bench is a source, its pipeline and where that ships to.
type bench struct {
	t      *testing.T
	ctx    context.Context
	path   string
	dir    string
	stream *fakeStream
	store  snapshot.Store
	app    *sqlite.Conn
	edit   func(*Options)

	p     *Pipeline
	ended chan error
	stop  func() error
}

func newBench(t *testing.T, schema string) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	dir := t.TempDir()
	b := &bench{t: t, ctx: ctx, path: filepath.Join(dir, "app.db"), dir: filepath.Join(dir, "data"), stream: newFakeStream(), store: snapshot.NewDir(filepath.Join(dir, "snapshots"))}
	b.connect()
	b.exec(schema)
	t.Cleanup(func() {
		if b.stop != nil {
			b.end()
		}
		if err := b.app.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// connect opens the application's connection.
func (b *bench) connect() {
	b.t.Helper()
	var err error
	if b.app, err = sqlite.Open(b.path, sqlite.Options{Plain: true, Create: true, BusyTimeout: 10 * time.Second}); err != nil {
		b.t.Fatal(err)
	}
	b.exec("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0")
}

func (b *bench) exec(sql string) {
	b.t.Helper()
	if err := b.app.Exec(sql); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) options() Options {
	o := Options{
		Name: "app", Path: b.path, Dir: b.dir, Node: "test", Stream: b.stream, Snapshots: b.store, Sources: &Sources{},
		Capture:   testCaptureOptions(),
		Snapshot:  SnapshotOptions{Interval: time.Hour, AfterBytes: 1 << 30, Keep: 2, Codec: snapshot.S2},
		ChangeLog: ChangeLogOptions{SegmentBytes: 1 << 20, RetainFor: 10 * time.Minute},
		Clock:     time.Now, Logger: slog.New(slog.DiscardHandler),
	}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if b.edit != nil {
		b.edit(&o)
	}
	return o
}

// start runs a new pipeline, as a new process would.
func (b *bench) start() {
	b.t.Helper()
	p, err := New(b.options())
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	b.p, b.ended, b.stop = p, done, func() error { cancel(); return <-done }
}

// await waits for Run to end by itself.
func (b *bench) await() error {
	b.t.Helper()
	stop := b.stop
	b.stop = nil
	select {
	case err := <-b.ended:
		return err
	case <-b.ctx.Done():
		return errors.Join(stop(), b.ctx.Err())
	}
}

func (b *bench) end() {
	b.t.Helper()
	err := b.stop()
	b.stop = nil
	if !errors.Is(err, context.Canceled) {
		b.t.Fatalf("Run returned %v", err)
	}
}

func (b *bench) sync() cdc.Position {
	b.t.Helper()
	at, err := b.p.Sync(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return at
}

// captured are all records of the change log. The stream may have been trimmed
// below a snapshot.
func (b *bench) captured() (recs []cdc.Record) {
	b.t.Helper()
	r, err := wal.OpenReader(filepath.Join(b.dir, "log"), 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	for {
		rec, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return recs
		}
		if err != nil {
			b.t.Fatal(err)
		}
		decoded, err := cdc.Decode(bytes.Clone(rec))
		if err != nil {
			b.t.Fatal(err)
		}
		recs = append(recs, decoded)
	}
}

// kinds are the kinds of the captured records.
func (b *bench) kinds() (kinds []cdc.Kind) {
	b.t.Helper()
	for _, r := range b.captured() {
		kinds = append(kinds, r.Kind)
	}
	return kinds
}

func (b *bench) has(k cdc.Kind) bool {
	for _, kind := range b.kinds() {
		if kind == k {
			return true
		}
	}
	return false
}

// inserted counts the captured inserts into table t.
func (b *bench) inserted() (n int) {
	b.t.Helper()
	var d cdc.Decoder
	for _, r := range b.captured() {
		err := d.Decode(r, func(c *cdc.Change) error {
			if c.Op == cdc.OpInsert && c.Table.Name == "t" {
				n++
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return n
}

const oneTable = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"

// awaitSnapshot waits for a snapshot at or above lsn, which nobody asks for.
func (b *bench) awaitSnapshot(lsn cdc.LSN) snapshot.Manifest {
	b.t.Helper()
	err := b.p.changed.wait(b.ctx, func() bool { return b.p.Status().Snapshot.Newest >= lsn })
	if err != nil {
		b.t.Fatalf("no snapshot at or above %d: %v, status %+v", lsn, err, b.p.Status())
	}
	m, err := snapshot.Latest(b.ctx, b.store, lsn)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}
