package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
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
	g.r.Heard(Heartbeat{Position: snap.At.Position, Captured: snap.At.LSN, Published: snap.At.LSN, ReceivedAt: time.Now()})
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
	_, err := g.r.HoldAt(g.ctx, func(context.Context) (cdc.LSN, error) { return at, nil })
	if !errors.Is(err, cdc.ErrVersion) || errors.Is(err, ErrDiverged) {
		t.Errorf("who waits for a view hears %v", err)
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

// TestDiskFullInAReseed: the snapshot is there, and is not restored again and again for want
// of room to take it over.
func TestDiskFullInAReseed(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t SELECT value, zeroblob(1000) FROM "+series(1, 100))
	restores := 0
	g.snaps.add(afterRestores(g.snapshot(), func() { restores++ }))
	g.run()
	g.step("INSERT INTO t VALUES(101, 'a record to catch up with')")
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DELETE FROM t; CREATE TABLE stray(x)") // seen before anything is applied
	g.scribble("VACUUM")
	limit := func(pages int) { must(t, g.r.a.guard.conn.Exec(fmt.Sprintf("PRAGMA max_page_count=%d", pages))) }
	tries := 0
	g.o.Snapshots = looked{g.snaps, func() {
		if tries++; tries == 1 {
			limit(8)
		}
		if tries == 5 {
			limit(1 << 30)
		}
	}}
	g.run()
	g.step("INSERT INTO t VALUES(102, 1)")
	g.equal()
	if tries < 5 || restores != 2 {
		t.Errorf("%d tries, %d restores", tries, restores)
	}
}

// TestStreamAwayInAReseed: nor is it where the stream is out of reach before the file has
// caught up.
func TestStreamAwayInAReseed(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	restores := 0
	g.snaps.add(afterRestores(g.snapshot(), func() { restores++ }))
	g.run()
	g.step("INSERT INTO t VALUES('a record to catch up with')")
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("CREATE TABLE stray(x)") // seen before the stream is asked for anything
	g.log.fail = errAway
	g.run()
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
	if s := g.r.Status(); restores != 2 || s.Counters.Reseeds != 1 {
		t.Errorf("%d restores, counters %+v", restores, s.Counters)
	}
}

// TestStopInAReseed: nor is it where the replica is stopped before it has taken it over.
func TestStopInAReseed(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	restores, stop := 0, func() {}
	g.snaps.add(afterRestores(g.snapshot(), func() { restores++; stop() }))
	g.run()
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DELETE FROM t; CREATE TABLE stray(x)")
	whole := g.ctx
	g.ctx, stop = context.WithCancel(whole)
	defer stop()
	g.run()
	<-g.ctx.Done() // with all of the snapshot restored
	must(t, ignoreCanceled(g.stop()))
	g.ctx = whole
	g.run()
	g.step("INSERT INTO t VALUES(2)")
	g.equal()
	if restores != 2 {
		t.Errorf("%d restores", restores)
	}
}

// afterRestores is snap, and what happens after each time that it was restored.
func afterRestores(snap Snapshot, after func()) Snapshot {
	restore := snap.Restore
	snap.Restore = func(ctx context.Context, path string, progress func(int64)) error {
		defer after()
		return restore(ctx, path, progress)
	}
	return snap
}

// A looked is snapshots, and what happens before each look at them.
type looked struct {
	Snapshots
	before func()
}

func (l looked) Newest(ctx context.Context, min cdc.LSN, fits func(cdc.Position) bool) (Snapshot, error) {
	l.before()
	return l.Snapshots.Newest(ctx, min, fits)
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
				g.r.Heard(Heartbeat{Position: cdc.Position{Lineage: cdc.ID{9}, Epoch: 1, LSN: 1}, Captured: 1, Published: 1, ReceivedAt: time.Now()})
			})
			g.log.fail = fail
			g.start()
			g.until(waiting)
			if s := g.r.Status(); !strings.Contains(s.Error.Text, "another history") {
				t.Errorf("error %+v", s.Error)
			}
			ctx, cancel := context.WithCancel(g.ctx)
			cancel()
			if _, err := g.r.WaitFor(ctx, cdc.Position{LSN: 1, Epoch: 1}); !errors.Is(err, context.Canceled) {
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

// TestTroubleThatLastsIsTold: whatever keeps records from being applied, the state says so
// while they are tried again, and no longer.
func TestTroubleThatLastsIsTold(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.o.SpoolDir = filepath.Join(t.TempDir(), "spool")
	g.on("replica file open", func() { // no record can be kept
		g.r.a.spool.limit = 0
		must(t, os.Remove(g.o.SpoolDir))
	})
	stuck := g.reaches(Offline)
	g.start()
	g.step("INSERT INTO t VALUES(1)")
	g.until(stuck)
	if s := g.r.Status(); s.State != Offline || !strings.Contains(s.Error.Text, "spool") {
		t.Errorf("%s, error %+v", s.State, s.Error)
	}
	must(t, os.Mkdir(g.o.SpoolDir, 0o700))
	g.equal()
	if s := g.r.Status(); s.State != Streaming || s.Counters.Reseeds != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestTroubleThatComesAgain: what was over in between is news, and no trouble that lasts.
func TestTroubleThatComesAgain(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.o.SpoolDir = filepath.Join(t.TempDir(), "spool")
	told := 0
	g.on("replica stopped applying", func() {
		told++
		must(t, os.Mkdir(g.o.SpoolDir, 0o700))
	})
	g.on("replica is offline", func() {
		t.Error("offline at the first try")
		must(t, os.Mkdir(g.o.SpoolDir, 0o700))
	})
	g.on("replica file open", func() { g.r.a.spool.limit = 0 })
	g.start()
	g.wait()
	for i := range 3 {
		must(t, os.Remove(g.o.SpoolDir))
		g.step(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		g.equal()
	}
	must(t, ignoreCanceled(g.stop()))
	if told != 3 {
		t.Errorf("told %d times, want 3", told)
	}
}
