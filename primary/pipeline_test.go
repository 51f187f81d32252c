package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

func TestFirstRecordIsAnEpochAndSyncCoversIt(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	if at := b.sync(); at.LSN != 1 || at.Epoch != 1 {
		t.Errorf("nothing was written: sync gives %v, want 1@1", at)
	}
	b.exec("INSERT INTO t(v) VALUES(1),(2)")
	if at := b.sync(); at.LSN != 2 || b.inserted() != 2 {
		t.Errorf("sync gives %v and %d inserts were published, want 2@1 and 2", at, b.inserted())
	}
}

// The four cases of a restart, and what of them can be proved.
func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name   string
		down   func(b *bench) // while the pipeline is down
		broken bool
	}{
		{"nothing happened", func(b *bench) {}, false},
		{"frames added", func(b *bench) { b.exec("INSERT INTO t(v) VALUES(3)"); b.exec("INSERT INTO t(v) VALUES(4)") }, false},
		{"frames added and checkpointed", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(PASSIVE)")
		}, true},
		// Only the database file itself can tell: SQLite has forgotten the checkpoint.
		{"another page checkpointed, then every process died", func(b *bench) {
			b.exec("INSERT INTO u(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(PASSIVE)")
			b.dieAndRecover()
		}, true},
		// The page's image as of the position is in the SQLite WAL.
		{"the same page checkpointed, then every process died", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(PASSIVE)")
			b.dieAndRecover()
		}, false},
		{"frames added, then every process died", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.dieAndRecover()
		}, false},
		{"started over", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(RESTART)")
			b.exec("INSERT INTO t(v) VALUES(4)")
		}, true},
		{"truncated", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable+"; CREATE TABLE u(id INTEGER PRIMARY KEY, v)")
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
			b.start()
			b.sync()
			b.exec("INSERT INTO t(v) VALUES(1),(2)")
			b.sync()
			b.end()
			c.down(b)
			b.start()
			at := b.sync()
			if got := b.has(cdc.Break); got != c.broken {
				t.Fatalf("break record: %t, want %t", got, c.broken)
			}
			if at.Epoch != 2 {
				t.Errorf("second term has epoch %d", at.Epoch)
			}
			rows, err := b.app.QueryInt("SELECT count(*) FROM t")
			if err != nil {
				t.Fatal(err)
			}
			if !c.broken {
				if b.inserted() != int(rows) {
					t.Errorf("%d inserts published, %d rows", b.inserted(), rows)
				}
				return
			}
			if m := b.awaitSnapshot(at.LSN); m.Position.LSN < at.LSN {
				t.Errorf("snapshot at %d after a break at %d", m.Position.LSN, at.LSN)
			}
		})
	}
}

// TestResync repeats what cannot be proved, with a snapshot at hand: what was
// missed follows as one transaction, and nothing is broken.
func TestResync(t *testing.T) {
	many := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO t(v) SELECT i FROM n"
	for _, c := range []struct {
		name string
		down func(b *bench)
		want string // the changes of the resync, counted by operation
	}{
		{"the last connection closed", func(b *bench) { b.reconnect() }, ""},
		{"written, closed and written", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.reconnect()
			b.exec("UPDATE t SET v=10 WHERE id=1; DELETE FROM t WHERE id=2")
		}, "delete 1 insert 1 update 1"},
		{"another generation", func(b *bench) {
			b.exec(many)
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
			b.exec("CREATE TABLE w(x); INSERT INTO w VALUES(1)")
		}, "insert 501 schema 1"},
		{"vacuumed", func(b *bench) { b.exec("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)") }, ""},
		{"replaced by a backup", func(b *bench) {
			b.exec("DELETE FROM t WHERE id=1; VACUUM INTO '" + b.path + ".backup'")
			if err := b.app.Close(); err != nil {
				b.t.Fatal(err)
			}
			if err := os.Rename(b.path+".backup", b.path); err != nil {
				b.t.Fatal(err)
			}
			b.connect()
		}, "delete 1"},
		{"lost its last commit in a power failure", func(b *bench) {
			if err := b.app.Close(); err != nil {
				b.t.Fatal(err)
			}
			if err := errors.Join(copyFile(b.path+".before", b.path), os.RemoveAll(b.path+"-wal"), os.RemoveAll(b.path+"-shm")); err != nil {
				b.t.Fatal(err)
			}
			b.connect()
		}, "delete 2"},
		{"page size changed", func(b *bench) {
			b.exec("PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=WAL")
		}, "break"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable)
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
			if err := copyFile(b.path, b.path+".before"); err != nil {
				t.Fatal(err)
			}
			b.edit = func(o *Options) {
				o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return noReplay{}, nil }
			}
			b.start()
			b.sync()
			b.exec("INSERT INTO t(v) VALUES(1),(2)")
			before := b.sync()
			if _, err := b.p.Snapshot(b.ctx); err != nil {
				t.Fatal(err)
			}
			b.end()
			c.down(b)
			b.start()
			b.sync()
			if got := b.operations(before.LSN); got != c.want {
				t.Errorf("captured %q, want %q", got, c.want)
			}
			b.exec("INSERT INTO t(v) VALUES(99)")
			b.sync()
		})
	}
}

// noReplay stands for a snapshot that is at the last position already.
type noReplay struct{}

func (noReplay) Apply([]byte) error { return errors.New("nothing should be replayed") }
func (noReplay) Finish() error      { return nil }
func (noReplay) Close() error       { return nil }

// reconnect closes the last connection, which checkpoints and deletes the SQLite
// WAL, and opens another.
func (b *bench) reconnect() {
	b.t.Helper()
	if err := b.app.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.connect()
}

// operations counts what was captured after lsn.
func (b *bench) operations(lsn cdc.LSN) string {
	b.t.Helper()
	count := map[string]int{}
	var d cdc.Decoder
	for _, r := range b.captured() {
		if r.Kind == cdc.Break {
			return "break"
		}
		err := d.Decode(r, func(c *cdc.Change) error {
			if r.LSN > lsn && c.Op != cdc.OpTable && c.Op != cdc.OpEnd {
				count[c.Op.String()]++
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	var words []string
	for _, op := range slices.Sorted(maps.Keys(count)) {
		words = append(words, fmt.Sprintf("%s %d", op, count[op]))
	}
	return strings.Join(words, " ")
}

// dieAndRecover leaves database and SQLite WAL as they are and makes the next
// connection recover, which forgets what was checkpointed.
func (b *bench) dieAndRecover() {
	b.t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(b.path+suffix, b.path+".kept"+suffix); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.app.Close(); err != nil {
		b.t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} { // the same inode, as after a kill
		if err := copyFile(b.path+".kept"+suffix, b.path+suffix); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.Remove(b.path + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	b.connect()
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

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

// TestKilledInsideATransaction fails the change log at each record of a
// transaction of several records. The next term aborts what is there of it and
// captures it again.
func TestKilledInsideATransaction(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	app, err := sqlite.Open(path, sqlite.Options{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	rows := 0
	log := newMemoryLog(func(c *cdc.Change) error {
		if c.Op == cdc.OpInsert {
			rows++
		}
		return nil
	})
	limit := &failingLog{memoryLog: log}
	first := true
	for at := 1; ; at++ {
		limit.left = -1
		src, err := openSource(path)
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCapture(context.Background(), src, limit, captureSetup{dir: t.TempDir(), options: testCaptureOptions(), clock: time.Now, logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if first {
			first = false
			if err := app.Exec("INSERT INTO t(v) VALUES(0)"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.poll(); err != nil {
				t.Fatal(err)
			}
			if err := app.Exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t(v) SELECT randomblob(700) FROM n"); err != nil {
				t.Fatal(err)
			}
		}
		limit.left, rows = at, 0
		_, err = c.poll()
		if errors.Is(err, errLog) {
			if log.decoder.Inside() != (at > 1) {
				t.Errorf("failed at record %d: a transaction is open: %t", at, log.decoder.Inside())
			}
			if err := errors.Join(c.close(), src.close()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if rows != 3000 || at < 4 {
			t.Errorf("captured %d rows in %d records, want 3000 in more than 3", rows, at-1)
		}
		if err := errors.Join(c.close(), src.close()); err != nil {
			t.Fatal(err)
		}
		return
	}
}

// A failingLog takes a number of records and then fails.
type failingLog struct {
	*memoryLog
	left int // -1: takes everything
}

func (f *failingLog) Append(rec []byte, h cdc.Head, b *cdc.Boundary) error {
	if f.left == 0 {
		return unix.ENOSPC
	}
	if f.left > 0 {
		if f.left--; f.left == 0 {
			return unix.ENOSPC
		}
	}
	return f.memoryLog.Append(rec, h, b)
}

func TestSourcesThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is not a database. ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	exclusive := makeSource(t, oneTable)
	c, err := sqlite.Open(exclusive, sqlite.Options{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Exec("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t(v) VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want error
		text string
	}{
		{filepath.Join(dir, "absent.db"), errAbsent, "absent.db"},
		{empty, errAbsent, "empty.db"},
		{text, ErrNotDatabase, "unencrypted"},
		{dir, ErrNotDatabase, "is a directory"},
	} {
		src, err := openSource(c.path)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v and %q", c.path, err, c.want, c.text)
		}
		if err == nil {
			_ = src.close()
		}
	}
}

func TestReplacedFilesAreSeen(t *testing.T) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		b := newBench(t, oneTable)
		src, err := openSource(b.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := src.unmoved(); err != nil {
			t.Errorf("untouched: %v", err)
		}
		if err := os.Rename(b.path+suffix, b.path+suffix+".away"); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(b.path+suffix+".away", b.path+suffix); err != nil {
			t.Fatal(err)
		}
		if err := src.unmoved(); !errors.Is(err, errReplaced) {
			t.Errorf("%q replaced: %v", suffix, err)
		}
		if err := src.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestReconcile(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *bench, s *fakeStream)
		fenced bool
	}{
		{"lost acknowledgements", func(*bench, *fakeStream) {}, false},
		{"behind", func(_ *bench, s *fakeStream) { delete(s.records, s.last); s.last-- }, false},
		{"deleted", func(_ *bench, s *fakeStream) { s.exists, s.first, s.last = false, 0, 0; clear(s.records) }, false},
		{"purged", func(_ *bench, s *fakeStream) { clear(s.records) }, false},
		{"foreign last record", func(_ *bench, s *fakeStream) { s.records[s.last] = []byte("foreign") }, true},
		{"foreign records above", func(_ *bench, s *fakeStream) { s.last++; s.records[s.last] = []byte("foreign") }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable)
			b.start()
			b.sync()
			b.exec("INSERT INTO t(v) VALUES(1)")
			b.sync()
			b.end()
			b.stream.set(func(s *fakeStream) { c.change(b, s) })
			b.start()
			if c.fenced {
				err := b.await()
				if !errors.Is(err, ErrFenced) || b.p.Status().State != StateFenced {
					t.Errorf("Run returned %v, state %s", err, b.p.Status().State)
				}
				return
			}
			b.exec("INSERT INTO t(v) VALUES(2)")
			b.sync()
			if _, err := b.stream.all(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStreamSmallerThanATransaction publishes past what cannot fit, above a
// snapshot.
func TestStreamSmallerThanATransaction(t *testing.T) {
	b := newBench(t, oneTable)
	b.stream.limit = 256 << 10
	b.start()
	b.sync()
	b.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t(v) SELECT randomblob(700) FROM n")
	at := b.sync()
	if m := b.awaitSnapshot(1); m.Position.LSN < at.LSN {
		t.Errorf("snapshot at %d, the transaction ended at %d", m.Position.LSN, at.LSN)
	}
	b.exec("INSERT INTO t(v) VALUES(1)")
	if got := b.sync(); got.LSN != at.LSN+1 {
		t.Errorf("the next transaction is at %v, want %d", got, at.LSN+1)
	}
}

// TestChangeLogGivesUpWhatNATSDoesNotTake bounds the change log while NATS is
// away. When it comes back, the stream goes on where the change log begins, and
// a snapshot bridges the gap.
func TestChangeLogGivesUpWhatNATSDoesNotTake(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.ChangeLog.MaxBytes, o.ChangeLog.SegmentBytes = 1<<20, 64<<10 }
	b.start()
	b.sync()
	before := b.awaitSnapshot(1)
	b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
	for range 40 {
		b.exec("INSERT INTO t(v) VALUES(randomblob(100000))")
	}
	bounded := func() bool { s := b.p.Status(); return s.ChangeLog.First > before.Position.LSN+1 }
	if err := b.p.changed.wait(b.ctx, bounded); err != nil {
		t.Fatalf("the change log keeps everything: %+v", b.p.Status())
	}
	b.stream.set(func(s *fakeStream) { s.down = nil })
	at := b.sync()
	state, err := b.stream.State(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if state.First <= before.Position.LSN+1 || state.Last != at.LSN {
		t.Errorf("the stream holds %d to %d, synced %v", state.First, state.Last, at)
	}
	b.awaitSnapshot(state.First - 1)
}
