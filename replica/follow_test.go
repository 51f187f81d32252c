package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// The replica's own SQLite WAL starts over again and again while transactions
// come one by one, although the write lock is held between them.
func TestSQLiteWALStaysSmall(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	g.start()
	largest := int64(0)
	for i := range 2000 {
		g.insert("t", int64(i), encode(nil, "x"))
		must(t, g.enc.Flush())
		g.wait()
		largest = max(largest, g.r.Status().SQLiteWAL)
	}
	if largest > 2<<20 || largest < idleCheckpoint/2 {
		t.Errorf("the SQLite WAL grew to %d bytes, want about %d", largest, idleCheckpoint)
	}
	if c := g.r.Status().Counters; c.Commits != 2000 {
		t.Errorf("%d commits", c.Commits)
	}
}

// A backlog is applied in groups, and its SQLite WAL is cut at the given size.
func TestBacklogIsGrouped(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.snaps.add(g.snapshot())
	for i := range 1000 {
		g.insert("t", int64(i), encode(i))
		must(t, g.enc.Flush())
	}
	g.o.Apply.GroupMaxRecords = 100
	g.start()
	g.wait()
	s := g.r.Status()
	if s.Counters.Records != 1000 || s.Counters.Transactions != 1000 || s.Counters.Commits < 10 || s.Counters.Commits > 900 {
		t.Errorf("counters %+v", s.Counters)
	}
}

func TestHoldAt(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.step("INSERT INTO t VALUES(0)")
	g.wait()
	var at cdc.LSN
	var want contents
	view, err := g.r.HoldAt(g.ctx, func(context.Context) (cdc.LSN, error) {
		before := g.r.Status().Applied.LSN
		for i := range 20 {
			lsn := g.step(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
			if i == 9 {
				at, want = lsn, content(t, g.c)
			}
		}
		if now := g.r.Status().Applied.LSN; now != before {
			t.Errorf("applied up to %d while holding at %d", now, before)
		}
		return at, nil
	})
	must(t, err)
	g.wait() // applying goes on under the view
	if view.Position().LSN != at {
		t.Errorf("view at %d, want %d", view.Position().LSN, at)
	}
	tables, _, err := view.Content(g.ctx, nil)
	must(t, err)
	if diff := cmp.Diff(want.Tables, tables); diff != "" {
		t.Errorf("view differs:\n%s", diff)
	}
	must(t, view.Close())
	g.equal()
}

func TestHoldAtFails(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.step("INSERT INTO t VALUES(0)")
	g.wait()
	refuse := errors.New("refused")
	if _, err := g.r.HoldAt(g.ctx, func(context.Context) (cdc.LSN, error) { return 0, refuse }); !errors.Is(err, refuse) {
		t.Errorf("choose failed: %v", err)
	}
	if _, err := g.r.HoldAt(g.ctx, func(context.Context) (cdc.LSN, error) { return 1, nil }); err == nil || !strings.Contains(err.Error(), "below") {
		t.Errorf("LSN in the past: %v", err)
	}
	ctx, cancel := context.WithCancel(g.ctx)
	_, err := g.r.HoldAt(ctx, func(context.Context) (cdc.LSN, error) {
		time.AfterFunc(0, cancel)
		return 1000, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits: %v", err)
	}
	g.step("INSERT INTO t VALUES(1)")
	g.equal() // a hold that failed holds nothing back
}

// A file restored from a snapshot and brought to an LSN is what the source was.
func TestFileReplay(t *testing.T) {
	g := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE); INSERT INTO t(u) VALUES(1),(2)")
	snap := g.snapshot()
	g.step("UPDATE t SET u=-u; UPDATE t SET u=3+u")
	g.step("INSERT INTO t SELECT NULL, value||zeroblob(1000) FROM " + series(10, 2000))
	upTo := g.step("CREATE INDEX i ON t(u); PRAGMA user_version=3")
	want := content(t, g.c)
	g.step("DROP TABLE t")
	for _, strip := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "restored.db")
		must(t, snap.Restore(context.Background(), path, func(int64) {}))
		f, err := OpenFile(path, FileOptions{At: snap.At})
		must(t, err)
		for _, rec := range g.log.all()[snap.At.LSN:upTo] {
			must(t, f.Apply(rec))
		}
		if f.Position().LSN != upTo {
			t.Errorf("at %d, want %d", f.Position().LSN, upTo)
		}
		must(t, f.Finish(strip))
		c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
		must(t, err)
		if diff := cmp.Diff(want, content(t, c)); diff != "" {
			t.Errorf("restored file differs:\n%s", diff)
		}
		n, err := c.QueryInt(`SELECT count(*) FROM sqlite_schema WHERE name LIKE '\_replicator%' ESCAPE '\'`)
		if err != nil || (n == 0) != strip {
			t.Errorf("strip %t leaves %d tables of our own, %v", strip, n, err)
		}
		must(t, c.Close())
	}
}

// TestFileStopsAtABreak: a restore or a resync does not cross one, and has what was before.
func TestFileStopsAtABreak(t *testing.T) {
	g := newSource(t, "CREATE TABLE t(a)")
	snap := g.snapshot()
	upTo := g.step("INSERT INTO t VALUES(1)")
	want := content(t, g.c)
	must(t, g.enc.Break(g.boundary(), "test"))
	path := filepath.Join(t.TempDir(), "restored.db")
	must(t, snap.Restore(context.Background(), path, func(int64) {}))
	f, err := OpenFile(path, FileOptions{At: snap.At})
	must(t, err)
	records := g.log.all()
	for _, rec := range records[snap.At.LSN:upTo] {
		must(t, f.Apply(rec))
	}
	if err := f.Apply(records[upTo]); !errors.Is(err, cdc.ErrBreak) {
		t.Errorf("Apply of a break: %v", err)
	}
	must(t, f.Close())
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
	must(t, err)
	if at, _, err := readPosition(c); err != nil || at.LSN > upTo {
		t.Errorf("the file is at %v, %v", at, err)
	} else if at.LSN == upTo {
		if diff := cmp.Diff(want, content(t, c)); diff != "" {
			t.Errorf("restored file differs:\n%s", diff)
		}
	}
	must(t, c.Close())
}

func TestFileRefusesGap(t *testing.T) {
	g := newSource(t, "CREATE TABLE t(a)")
	snap := g.snapshot()
	g.step("INSERT INTO t VALUES(1)")
	g.step("INSERT INTO t VALUES(2)")
	path := filepath.Join(t.TempDir(), "restored.db")
	must(t, snap.Restore(context.Background(), path, func(int64) {}))
	f, err := OpenFile(path, FileOptions{At: snap.At})
	must(t, err)
	if err := f.Apply(g.log.all()[snap.At.LSN+1]); !errors.Is(err, cdc.ErrGap) {
		t.Errorf("Apply: %v", err)
	}
	must(t, f.Close())
	if _, err := OpenFile(path, FileOptions{}); err != nil {
		t.Errorf("reopen: %v", err)
	}
}

// An index that this program cannot maintain is left off, and follows the
// source's changes by name only.
func TestIndexLeftOff(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.wait()
	change := func(old, now *cdc.SchemaObject) {
		t.Helper()
		must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{Old: old, New: now}}, 0)))
		must(t, g.enc.End(g.boundary(), false))
		must(t, g.enc.Flush())
		g.wait()
	}
	a := &cdc.SchemaObject{Type: "index", Name: "i", Table: "t", SQL: "CREATE INDEX i ON t(a COLLATE elsewhere)"}
	b := &cdc.SchemaObject{Type: "index", Name: "i", Table: "t", SQL: "CREATE INDEX i ON t(unheard_of(a))"}
	change(nil, a)
	g.step("INSERT INTO t VALUES('row')")
	g.equal()
	if l := g.r.Status().LeftOff; len(l) != 1 || l[0].Name != "i" || l[0].Table != "t" || !strings.Contains(l[0].Reason, "elsewhere") {
		t.Errorf("left off: %+v", l)
	}
	must(t, ignoreCanceled(g.stop()))
	g.run()
	change(a, b)
	if l := g.r.Status().LeftOff; len(l) != 1 || l[0].SQL != b.SQL {
		t.Errorf("after an edit, left off: %+v", l)
	}
	change(b, nil)
	if l := g.r.Status().LeftOff; len(l) != 0 {
		t.Errorf("after a drop, left off: %+v", l)
	}
	g.equal()
}

// So is one that the snapshot has already.
func TestIndexLeftOffOfSnapshot(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); CREATE INDEX fine ON t(a); CREATE INDEX i ON t(a); CREATE INDEX e ON t(a+1)")
	snap := g.snapshot()
	restore := snap.Restore
	snap.Restore = func(ctx context.Context, path string, progress func(int64)) error {
		must(t, restore(ctx, path, progress))
		c, err := sqlite.Open(path, sqlite.Options{CheckpointOnClose: true})
		must(t, err)
		must(t, c.Exec("PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE INDEX i ON t(a COLLATE elsewhere)' WHERE name='i'; UPDATE sqlite_schema SET sql='CREATE INDEX e ON t(unheard_of(a))' WHERE name='e'"))
		return c.Close()
	}
	g.snaps.add(snap)
	g.exec("DROP INDEX i; DROP INDEX e")
	g.read()
	g.start()
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
	check := func() {
		t.Helper()
		if l := g.r.Status().LeftOff; len(l) != 2 || l[0].Name != "e" || l[1].Name != "i" {
			t.Errorf("left off: %+v", l)
		}
	}
	check()
	must(t, ignoreCanceled(g.stop())) // and of one that a re-seed comes from
	g.scribble("DELETE FROM t; DELETE FROM _replicator_left_off")
	g.step("UPDATE t SET a=2")
	g.run()
	g.equal()
	check()
}

// setClock is a clock that stands still until it is set.
type setClock struct{ now time.Time }

func (c *setClock) Now() time.Time { return c.now }

func (c *setClock) Sleep(ctx context.Context, _ time.Duration) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestDiskFullUntilProved: between two tries a disk is as full as it was. It is not any
// more once something was written to it, or once there is nothing to write.
func TestDiskFullUntilProved(t *testing.T) {
	clock := &setClock{testTime}
	b := newBoard("app", clock, Options{}.logger())
	at := cdc.Position{Lineage: cdc.ID{1}, Epoch: 1, LSN: 5}
	beat := func(published cdc.LSN) {
		b.hear(Heartbeat{Position: at, Published: published, SentAt: clock.now, ReceivedAt: clock.now})
	}
	is := func(what string, want State) {
		t.Helper()
		if s := b.status().State; s != want {
			t.Errorf("%s: %s, want %s", what, s, want)
		}
	}
	full := func() {
		b.trouble(syscall.ENOSPC)
		b.set(DiskFull)
	}
	beat(5)
	b.applied(Mark{Position: at}, func(*Status) { b.move(Streaming) })
	full()
	clock.now = clock.now.Add(time.Second)
	b.goesOn()
	b.applied(Mark{Position: at}, func(*Status) {}) // shown again, by the heartbeat of before
	is("it tries again", DiskFull)
	clock.now = clock.now.Add(time.Second)
	beat(6)
	is("a record waits", DiskFull)
	full()
	beat(5)
	is("it pauses", DiskFull)
	b.goesOn()
	clock.now = clock.now.Add(time.Second)
	beat(5)
	is("nothing waits", Streaming)
	full()
	beat(7)
	b.goesOn()
	is("more records wait", DiskFull)
	b.applied(Mark{Position: at}, func(*Status) { b.move(CatchingUp) })
	is("a commit succeeded", CatchingUp)
}

func TestLag(t *testing.T) {
	lineage := cdc.ID{1}
	at := func(lsn cdc.LSN) cdc.Position { return cdc.Position{Lineage: lineage, Epoch: 1, LSN: lsn} }
	clock := &setClock{testTime}
	b := newBoard("app", clock, Options{}.logger())
	seconds := func(want float64) {
		t.Helper()
		l := b.status().Lag
		if l.Seconds == nil || *l.Seconds != want || l.Since != nil {
			t.Errorf("lag %+v, want %v s", l, want)
		}
	}
	unknown := func(since time.Time) {
		t.Helper()
		if l := b.status().Lag; l.Seconds != nil || l.Since == nil || !l.Since.Equal(since) {
			t.Errorf("lag %+v, want unknown since %v", l, since)
		}
	}
	beat := func(lsn cdc.LSN, total uint64) {
		// The primary's clock is an hour ahead.
		b.hear(Heartbeat{Position: at(lsn), Published: lsn, Transactions: total, Bytes: 10 * total,
			SentAt: clock.now.Add(time.Hour), ReceivedAt: clock.now, Offset: time.Hour})
	}
	apply := func(lsn cdc.LSN, total uint64, captured time.Time) {
		b.applied(Mark{Position: at(lsn), Transactions: total, Bytes: 10 * total, CapturedAt: captured}, func(*Status) {})
	}
	b.set(CatchingUp)
	unknown(testTime)
	apply(5, 50, testTime.Add(time.Hour-10*time.Second))
	unknown(testTime)
	beat(9, 90)
	seconds(10)
	if s := b.status(); s.Lag.Transactions != 40 || s.Lag.Bytes != 400 || s.State != CatchingUp {
		t.Errorf("status %+v", s)
	}
	apply(9, 90, testTime.Add(time.Hour-4*time.Second))
	seconds(0)
	if s := b.status(); s.State != Streaming {
		t.Errorf("state %s", s.State)
	}
	clock.now = testTime.Add(3 * time.Second)
	seconds(0)
	beat(10, 91) // what came is younger than the heartbeat before it
	seconds(3)
	last := clock.now
	clock.now = clock.now.Add(6 * time.Second)
	unknown(last)
	if s := b.status(); s.State != Offline || !s.Since.Equal(last) {
		t.Errorf("state %s since %v", s.State, s.Since)
	}
	beat(10, 91)
	seconds(9)
}

func TestWaitFor(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	lsn := g.step("INSERT INTO t VALUES(1)")
	if at, err := g.r.WaitFor(g.ctx, cdc.Position{Lineage: g.enc.Position().Lineage, Epoch: 1, LSN: lsn}); err != nil || at != g.enc.Position() {
		t.Errorf("%v, %v", at, err)
	}
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	want := fmt.Sprintf("wait for LSN %d of app: applied up to %d in epoch 1: context canceled", lsn+1, lsn)
	if at, err := g.r.WaitFor(ctx, cdc.Position{LSN: lsn + 1}); !errors.Is(err, context.Canceled) || at.LSN != lsn || err.Error() != want {
		t.Errorf("beyond: %v, %v; want %s", at, err, want)
	}
	if _, err := g.r.WaitFor(ctx, cdc.Position{LSN: lsn, Epoch: 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("next epoch: %v", err)
	}
	// A primary that lost its data begins at 1: it may say so before its first heartbeat comes.
	if _, err := g.r.WaitFor(ctx, cdc.Position{LSN: 1, Epoch: 1, Lineage: cdc.ID{9}}); !errors.Is(err, context.Canceled) {
		t.Errorf("another lineage: %v", err)
	}
	g.r.board.differs(true)
	if _, err := g.r.WaitFor(ctx, cdc.Position{LSN: lsn}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "a file that differs") {
		t.Errorf("known to differ: %v", err)
	}
	g.r.board.differs(false)
	if _, err := g.r.WaitFor(ctx, cdc.Position{LSN: lsn}); err != nil {
		t.Errorf("mended: %v", err)
	}
}

func TestNewChecksOptions(t *testing.T) {
	_, err := New(Options{Apply: Apply{OnDivergence: "pray", GroupMaxBytes: -1}})
	for _, want := range []string{"a path", "a stream", "pray", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// reports collects what is reported.
type reports chan Status

// Report implements Reports.
func (r reports) Report(s Status) {
	select {
	case r <- s:
	default:
	}
}

func TestReports(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	c := make(reports, 1)
	g.o.Reports = c
	g.start()
	lsn := g.step("INSERT INTO t VALUES(1)")
	for {
		select {
		case s := <-c:
			if s.Applied.LSN == lsn {
				return
			}
		case <-g.ctx.Done():
			t.Fatal("the position was not reported")
		}
	}
}

// What a large transaction made of the SQLite WAL is given back to the disk.
func TestSQLiteWALShrinks(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.o.Apply.CheckpointBytes = 1 << 20
	g.o.Apply.VerifyRows = false // a reader keeps the SQLite WAL from starting over
	g.start()
	size := func() int64 {
		info, err := os.Stat(g.o.Path + "-wal")
		must(t, err)
		return info.Size()
	}
	g.step("INSERT INTO t SELECT randomblob(12000) FROM " + series(1, 1000))
	g.wait()
	if n := size(); n < 12_000_000 {
		t.Fatalf("12 MB of rows in one transaction made a SQLite WAL of %d bytes", n)
	}
	g.step("INSERT INTO t VALUES('small')")
	g.wait()
	if n := size(); n > 2<<20 {
		t.Errorf("after the next transaction the SQLite WAL has %d bytes still", n)
	}
}

// Under backlog the SQLite WAL is cut between transactions at the given size.
func TestBacklogIsCheckpointed(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.snaps.add(g.snapshot())
	value := make([]byte, 300<<10)
	for i := range 40 {
		g.insert("t", int64(i), encode(value))
		must(t, g.enc.Flush())
	}
	g.o.Apply.GroupMaxRecords, g.o.Apply.CheckpointBytes = 1, 2<<20
	g.o.Apply.VerifyRows = false // a reader keeps the SQLite WAL from starting over
	g.start()
	g.wait()
	info, err := os.Stat(g.o.Path + "-wal")
	must(t, err)
	if n := info.Size(); n < 1<<20 || n > 4<<20 {
		t.Errorf("12 MB of rows left a SQLite WAL of %d bytes, want about 2 MiB", n)
	}
}
