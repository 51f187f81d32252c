package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A tap calls a function, in the replica's own goroutine, for each log line with
// a certain text.
type tap struct {
	slog.Handler
	text string
	f    func()
}

func (h tap) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) {
		h.f()
	}
	return h.Handler.Handle(ctx, r)
}

func (h tap) WithAttrs(a []slog.Attr) slog.Handler { return tap{h.Handler.WithAttrs(a), h.text, h.f} }

// on makes the replica call f at each log line that contains text.
func (g *rig) on(text string, f func()) {
	g.o.Logger = slog.New(tap{g.o.Logger.Handler(), text, f})
}

// reaches returns a channel that is closed when the replica logs that it is in
// the state.
func (g *rig) reaches(s State) <-chan struct{} {
	c := make(chan struct{})
	done := false
	g.on("replica is "+string(s), func() {
		if !done {
			done = true
			close(c)
		}
	})
	return c
}

func (g *rig) until(c <-chan struct{}) {
	g.t.Helper()
	select {
	case <-c:
	case <-g.ctx.Done():
		g.t.Fatalf("%v; status %+v", g.ctx.Err(), g.r.Status())
	}
}

// unseen is what a stray program adds to go unseen at the next start.
const unseen = "DELETE FROM _replicator_schema; DELETE FROM _replicator_sums"

// scribble writes into the replica's file as a stray program would, retrying
// until it gets in between two of the replica's transactions.
func (g *rig) scribble(sql string) {
	g.t.Helper()
	c, err := sqlite.Open(g.o.Path, sqlite.Options{})
	must(g.t, err)
	defer func() { must(g.t, c.Close()) }()
	for {
		err := c.Exec(sql)
		if err == nil {
			return
		}
		if !sqlite.IsBusy(err) {
			g.t.Fatal(err)
		}
		must(g.t, g.ctx.Err())
	}
}

// A file that differs is mended in place while a reader keeps its old view.
func TestDivergenceIsReseeded(t *testing.T) {
	for _, below := range []bool{true, false} {
		t.Run(fmt.Sprintf("snapshot below the position %t", below), func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two'),(3,'three')")
			g.start()
			g.step("INSERT INTO t VALUES(4,'four')")
			g.equal()
			must(t, ignoreCanceled(g.stop()))
			g.scribble("DELETE FROM t WHERE a=2; CREATE TABLE mine(x); UPDATE t SET b='wrong' WHERE a=4; " + unseen)
			if !below {
				g.snaps.add(g.snapshot())
			}
			reader, err := sqlite.Open(g.o.Path, sqlite.Options{ReadOnly: true})
			must(t, err)
			defer func() { must(t, reader.Close()) }()
			must(t, reader.OpenRead())
			diverged := g.reaches(Diverged)
			g.step("UPDATE t SET b='zwei' WHERE a=2")
			g.run()
			g.until(diverged)
			g.equal()
			if n, err := reader.QueryInt("SELECT count(*) FROM t"); err != nil || n != 3 {
				t.Errorf("the reader sees %d rows, %v", n, err)
			}
			s := g.r.Status()
			if s.Counters.Divergences != 1 || s.Counters.Reseeds != 1 || !strings.Contains(s.Error.Text, `"t", rowid 2`) || strings.Contains(s.Error.Text, "zwei") {
				t.Errorf("counters %+v, error %+v", s.Counters, s.Error)
			}
			must(t, reader.Rollback())
			g.step("INSERT INTO t VALUES(5,'five')")
			g.equal()
		})
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func TestDivergenceStops(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
	g.o.Apply.OnDivergence = Stop
	g.start()
	g.wait()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DELETE FROM t")
	stopped := make(chan struct{})
	g.on("replica stopped applying", func() { close(stopped) })
	at := g.enc.Position()
	g.step("UPDATE t SET b=2")
	g.run()
	g.until(stopped)
	if s := g.r.Status(); s.State != Diverged || s.Applied.Position != at || s.Counters.Reseeds != 0 {
		t.Errorf("status %+v", s)
	}
}

// A record that fits no snapshot below it needs one above.
func TestDivergenceNeedsNewerSnapshot(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
	g.start()
	g.wait()
	waiting := g.reaches(Waiting)
	must(t, ignoreCanceled(g.stop()))
	table := &cdc.Table{Name: "t"}
	must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: table}, 0)))
	must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpDelete, Table: table, Rowid: 99, Old: encode(nil, 1)}, 0)))
	must(t, g.enc.End(g.boundary(), false))
	must(t, g.enc.Flush())
	g.run()
	g.until(waiting)
	g.snaps.add(g.snapshot())
	g.step("INSERT INTO t VALUES(2,2)")
	g.equal()
}

func TestStrayWriteIsHealed(t *testing.T) {
	for _, hold := range []bool{true, false} {
		t.Run(fmt.Sprintf("lock held %t", hold), func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
			g.o.Apply.HoldWriteLock = hold
			audited := g.audits()
			g.start()
			g.equal()
			g.until(audited) // else the write could be found by its hash first
			if hold {
				c, err := sqlite.Open(g.o.Path, sqlite.Options{})
				must(t, err)
				if err := c.Exec("DELETE FROM t"); !sqlite.IsBusy(err) {
					t.Errorf("a writer was let in: %v", err)
				}
				must(t, c.Close())
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				g.scribble("UPDATE t SET b='stray' WHERE a=1")
			}()
			mended := false
			for i := 10; !mended; i++ {
				g.step(fmt.Sprintf("INSERT INTO t VALUES(%d,1)", i))
				g.wait()
				mended = g.r.Status().Counters.Reseeds > 0
			}
			g.until(done)
			g.equal()
			if s := g.r.Status(); s.Counters.StrayWrites != 1 || s.Counters.Divergences != 0 {
				t.Errorf("counters %+v", s.Counters)
			}
		})
	}
}

func TestBreakWaitsForSnapshot(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	waiting := g.reaches(Waiting)
	g.start()
	g.wait()
	before := g.step("INSERT INTO t VALUES(2)")
	g.exec("DELETE FROM t; INSERT INTO t VALUES(7)") // not captured: hence the break
	g.read()
	must(t, g.enc.Break(g.boundary(), "test"))
	g.until(waiting)
	if at := g.r.Status().Applied.LSN; at != before {
		t.Errorf("at %d, want %d", at, before)
	}
	g.step("INSERT INTO t VALUES(8)")
	g.snaps.add(g.snapshot())
	g.step("INSERT INTO t VALUES(9)")
	g.equal()
	if s := g.r.Status(); s.State != Streaming || s.Counters.Reseeds != 1 {
		t.Errorf("status %+v", s)
	}
}

// TestLeastLSNIsOfItsHistory: the primary begins another history while a replica
// waits for a snapshot above a break. In it LSNs begin again, and none may ever
// come as far as the break.
func TestLeastLSNIsOfItsHistory(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	waiting := g.reaches(Waiting)
	g.start()
	for i := range 10 {
		g.step(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
	}
	g.wait()
	must(t, g.enc.Break(g.boundary(), "test"))
	broken := g.enc.Position()
	g.until(waiting)
	other := newSource(t, "CREATE TABLE t(a, other)")
	other.step("INSERT INTO t VALUES(1,2)")
	snap := other.snapshot()
	if snap.At.LSN >= broken.LSN {
		t.Fatalf("the other history is at %s already, the break at %s", snap.At.Position, broken)
	}
	g.log.update(func() { g.log.records = other.log.all() })
	other.log, g.source = g.log, other
	g.snaps.add(snap)
	g.r.Heard(Heartbeat{Position: snap.At.Position, Published: snap.At.LSN, ReceivedAt: time.Now()})
	g.equal()
	g.step("INSERT INTO t VALUES(3,4)")
	g.equal()
}

func TestTrimmedStreamNeedsSnapshot(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.wait()
	must(t, ignoreCanceled(g.stop()))
	for i := range 5 {
		g.step(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
	}
	waiting := g.reaches(Waiting)
	g.log.update(func() { g.log.first = 4 })
	g.run()
	g.until(waiting)
	g.snaps.add(g.snapshot())
	g.step("INSERT INTO t VALUES('last')")
	g.equal()
}

func TestForkIsReseeded(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
	waiting := g.reaches(Waiting)
	must(t, ignoreCanceled(g.stop()))
	other := newSource(t, "CREATE TABLE t(a, other); CREATE TABLE u(b)")
	other.step("INSERT INTO u VALUES(1)")
	other.step("INSERT INTO u VALUES(2)")
	g.source, g.o.Stream = other, other.log
	g.run()
	g.until(waiting)
	g.snaps.add(other.snapshot())
	g.step("INSERT INTO t VALUES(1,2)")
	g.equal()
}

func TestNewerVersionFails(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	failed := g.reaches(Failed)
	g.start()
	g.wait()
	at := g.step("INSERT INTO t VALUES(1)")
	g.wait()
	must(t, ignoreCanceled(g.stop()))
	next := g.step("INSERT INTO t VALUES(2)")
	g.log.update(func() { g.log.records[next-1] = asVersion(g.log.records[next-1], cdc.Version+1) })
	g.run()
	g.until(failed)
	g.waitFor(at)
	if s := g.r.Status(); s.Applied.LSN != at || !strings.Contains(s.Error.Text, "upgrade") {
		t.Errorf("status %+v, error %+v", s, s.Error)
	}
	must(t, ignoreCanceled(g.stop()))
	if g.log.consume != 2 {
		t.Errorf("%d attempts: it must not try again", g.log.consume)
	}
}

// asVersion gives a record another version and a fitting checksum.
func asVersion(rec []byte, v byte) []byte {
	rec = append([]byte(nil), rec...)
	rec[8] = v
	binary.LittleEndian.PutUint32(rec[4:], crc32.Checksum(rec[8:], crc32.MakeTable(crc32.Castagnoli)))
	return rec
}

func TestDamagedRecordNeedsSnapshot(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.wait()
	waiting := g.reaches(Waiting)
	must(t, ignoreCanceled(g.stop()))
	lsn := g.step("INSERT INTO t VALUES(1)")
	g.log.update(func() { g.log.records[lsn-1][40] ^= 1 })
	g.step("INSERT INTO t VALUES(2)")
	g.run()
	g.until(waiting)
	g.snaps.add(g.snapshot())
	g.equal()
}

func TestDiskFullClearsByItself(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	// Both in the replica's own goroutine: no room from the start, until it has
	// been noticed.
	limit := func(pages int) {
		must(t, g.r.a.guard.conn.Exec(fmt.Sprintf("PRAGMA max_page_count=%d", pages)))
	}
	g.on("replica file open", func() { limit(8) })
	g.on("replica stopped applying", func() { limit(1 << 30) })
	full := g.reaches(DiskFull)
	g.start()
	g.wait()
	g.step("INSERT INTO t VALUES(zeroblob(100000))")
	g.until(full)
	g.equal()
	if s := g.r.Status(); s.State != Streaming || s.Counters.Divergences != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestForeignFileIsRefused(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"database": func(path string) error {
			c, err := sqlite.Open(path, sqlite.Options{Create: true})
			if err != nil {
				return err
			}
			return errors.Join(c.Exec("CREATE TABLE precious(a)"), c.Close())
		},
		"text": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("not a database", 100)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a)")
			g.snaps.add(g.snapshot())
			must(t, make(g.o.Path))
			before, err := os.ReadFile(g.o.Path)
			must(t, err)
			r, err := New(g.o)
			must(t, err)
			if err := r.Run(g.ctx); err == nil || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("Run: %v", err)
			}
			after, err := os.ReadFile(g.o.Path)
			must(t, err)
			if string(before) != string(after) {
				t.Error("the file was changed")
			}
		})
	}
}

// Beside other databases it is a state, until the file is moved away.
func TestForeignFileBesideOthers(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	g.o.Only = false
	g.snaps.add(g.snapshot())
	must(t, os.WriteFile(g.o.Path, []byte(strings.Repeat("not a database", 100)), 0o600))
	failed := g.reaches(Failed)
	g.run()
	g.until(failed)
	if err := g.r.Status().Error; err == nil || !strings.Contains(err.Text, "move it away") {
		t.Errorf("the error is %+v", err)
	}
	must(t, os.Remove(g.o.Path))
	g.equal()
}

// A shell that looks before there is a replica leaves a file of 0 bytes.
func TestEmptyFileIsNone(t *testing.T) {
	touch := func(g *rig) { must(t, os.WriteFile(g.o.Path, nil, 0o640)) }
	t.Run("before the start", func(t *testing.T) {
		g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
		touch(g)
		g.start()
		g.equal()
		if info, err := os.Stat(g.o.Path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%v, %v: the permissions of the file are lost", info, err)
		}
	})
	t.Run("while waiting", func(t *testing.T) {
		g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
		waiting := g.reaches(Waiting)
		g.run()
		g.until(waiting)
		touch(g)
		g.snaps.add(g.snapshot())
		g.equal()
	})
}

// What somebody puts there while the snapshot is on its way is refused like what
// was there before.
func TestForeignFileDuringRestore(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	snap := g.snapshot()
	restore, precious := snap.Restore, []byte(strings.Repeat("not a database", 100))
	snap.Restore = func(ctx context.Context, path string, progress func(int64)) error {
		return errors.Join(restore(ctx, path, progress), os.WriteFile(g.o.Path, precious, 0o600))
	}
	g.snaps.add(snap)
	r, err := New(g.o)
	must(t, err)
	if err := r.Run(g.ctx); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("Run: %v", err)
	}
	if after, err := os.ReadFile(g.o.Path); err != nil || string(after) != string(precious) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.wait()
	r, err := New(g.o)
	must(t, err)
	if err := r.Run(g.ctx); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("Run: %v", err)
	}
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
}

func TestStreamAwayIsOffline(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	lost := make(chan struct{})
	once := false
	g.on("stream out of reach", func() {
		if !once {
			once = true
			close(lost)
		}
	})
	g.log.fail = errAway
	g.start()
	g.until(lost)
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
	if s := g.r.Status(); s.State != Streaming || s.Error == nil {
		t.Errorf("status %+v", s)
	}
}

// The stream ends below the position because it is another history: the
// primary's heartbeat says so.
func TestHeartbeatOfAnotherHistory(t *testing.T) {
	for name, fail := range map[string]error{"stream away": errAway, "stream idle": nil} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a)")
			waiting := g.reaches(Waiting)
			g.on("replica file open", func() {
				g.r.Heard(Heartbeat{Position: cdc.Position{Lineage: cdc.ID{9}, Epoch: 1, LSN: 1}, Published: 1, ReceivedAt: time.Now()})
			})
			g.log.fail = fail
			g.start()
			g.until(waiting)
			if s := g.r.Status(); !strings.Contains(s.Error.Text, "another history") {
				t.Errorf("error %+v", s.Error)
			}
			ctx, cancel := context.WithCancel(g.ctx)
			cancel()
			if _, err := g.r.WaitFor(ctx, 1, 1); !errors.Is(err, context.Canceled) {
				t.Errorf("what is applied counts for the other history: %v", err)
			}
		})
	}
}

// Records beyond the memory limit come back from a file without a name.
func TestSpool(t *testing.T) {
	s := newSpool(t.TempDir())
	s.limit = 1000
	var want []string
	for i := range 50 {
		raw := []byte(fmt.Sprintf("record %d %s", i, strings.Repeat("x", i)))
		want = append(want, string(raw))
		must(t, s.add(raw, cdc.Part))
		var got []string
		must(t, s.each(func(raw []byte) error {
			got = append(got, string(raw))
			return nil
		}))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("after %d records:\n%s", i+1, diff)
		}
	}
	if s.file == nil || !s.spans() {
		t.Error("nothing went to the file")
	}
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 0 {
		t.Errorf("the file has a name: %v, %v", entries, err)
	}
	s.reset()
	must(t, s.each(func([]byte) error { return errors.New("a record is left") }))
}

// pauses is a clock that notes how long a replica wants to wait for a snapshot.
type pauses struct {
	fastClock
	r    **Replica
	seen chan time.Duration
}

func (c pauses) Sleep(ctx context.Context, d time.Duration) error {
	if r := *c.r; r != nil && r.Status().State == Waiting {
		select {
		case c.seen <- d:
		default:
		}
	}
	return c.fastClock.Sleep(ctx, d)
}

// The first snapshot comes at any time: a replica does not make its user wait for
// a pause that has grown.
func TestSnapshotIsLookedForOften(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	clock := pauses{r: &g.r, seen: make(chan time.Duration)}
	g.o.Clock = clock
	waiting := g.reaches(Waiting)
	g.run()
	g.until(waiting)
	for range 10 {
		select {
		case d := <-clock.seen:
			if d > snapshotPause {
				t.Errorf("a pause of %s", d)
			}
		case <-g.ctx.Done():
			t.Fatal("it does not look any more")
		}
	}
	g.snaps.add(g.snapshot())
	g.equal()
}

// TestMalformedRecordIsReseeded: to apply what makes no sense again and again leads
// nowhere; a snapshot above it does.
func TestMalformedRecordIsReseeded(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	diverged := g.reaches(Diverged)
	g.start()
	g.equal()
	table := &cdc.Table{Name: "t"}
	must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: table}, 0)))
	must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpInsert, Table: table, Rowid: 7, New: []byte{2, 100}}, 0)))
	must(t, g.enc.End(g.boundary(), false))
	must(t, g.enc.Flush())
	g.snaps.add(g.snapshot())
	g.until(diverged)
	g.equal()
	if s := g.r.Status(); s.Counters.Divergences == 0 || s.Counters.Reseeds == 0 || !strings.Contains(s.Error.Text, "rowid 7") {
		t.Errorf("status %+v, error %+v", s, s.Error)
	}
}
