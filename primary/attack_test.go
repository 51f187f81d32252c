package primary

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
	"github.com/sqlite-replicator/replicator/wal"
)

// BenchmarkSmallAfterBig decodes one-page transactions after one of many pages.
func BenchmarkSmallAfterBig(b *testing.B) {
	for _, pages := range []int{1, 500_000} {
		b.Run("", func(b *testing.B) {
			f := &follower{view: &view{pages: 1 << 20, cache: newPageCache(4096, mostCache)}, sink: func(_, _ sqlitefile.Pages, _ sqlitefile.WALTransaction, _ []uint32) error { return nil }}
			big := sqlitefile.WALTransaction{First: 1, Last: uint32(pages), DBSize: 1 << 20}
			for i := range pages {
				big.Pages = append(big.Pages, uint32(i)+1)
			}
			if err := f.decode(big); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := f.decode(sqlitefile.WALTransaction{First: 1, Last: 1, DBSize: 1 << 20, Pages: []uint32{7}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSourceBehindASymbolicLink: SQLite puts -wal and -shm beside the file that
// a link leads to.
func TestSourceBehindASymbolicLink(t *testing.T) {
	path := makeSource(t, oneTable)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	src, err := openSource(link)
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	if err := src.unmoved(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Remove(link), os.Symlink(makeSource(t, oneTable), link)); err != nil {
		t.Fatal(err)
	}
	if err := src.unmoved(); !errors.Is(err, errReplaced) {
		t.Errorf("the link leads elsewhere: %v", err)
	}
}

// locked reports whether anyone has a lock on the file. It leaves the descriptor
// open until the end of the test: to close it would drop this process's locks.
func locked(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: 0x40000000, Len: 512}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk); err != nil {
		t.Fatal(err)
	}
	return lk.Type != unix.F_UNLCK
}

// TestSecondNameLeavesTheLocksAlone: a database under two names is refused
// before a descriptor of it is opened, whose close would drop the locks.
func TestSecondNameLeavesTheLocksAlone(t *testing.T) {
	b := newBench(t, oneTable)
	sources := &Sources{}
	b.edit = func(o *Options) { o.Sources = sources }
	b.start()
	b.sync()
	o := b.options()
	o.Name, o.Dir, o.Stream = "other", filepath.Join(t.TempDir(), "other"), newFakeStream()
	if err := b.app.Close(); err != nil { // its locks are this process's, too
		t.Fatal(err)
	}
	b.app = nil
	if !locked(t, b.path) {
		t.Fatal("a running pipeline holds no lock")
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.term(b.ctx, nil); err == nil {
		t.Error("one file under two names was accepted")
	}
	if !locked(t, b.path) {
		t.Error("the locks of the first pipeline are gone")
	}
	b.connect()
}

// startWith is startCapture with a setup of the test's.
func startWith(t *testing.T, path string, log changeLog, edit func(*captureSetup)) (*capture, error) {
	t.Helper()
	src, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	setup := captureSetup{dir: t.TempDir(), options: testCaptureOptions(), clock: time.Now, logger: slog.New(slog.DiscardHandler)}
	if edit != nil {
		edit(&setup)
	}
	c, err := newCapture(context.Background(), src, log, setup)
	if err != nil {
		return nil, errors.Join(err, src.close())
	}
	t.Cleanup(func() {
		if err := errors.Join(c.close(), src.close()); err != nil {
			t.Error(err)
		}
	})
	return c, nil
}

func openApp(t *testing.T, path string) *sqlite.Conn {
	t.Helper()
	app, err := sqlite.Open(path, sqlite.Options{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	return app
}

// fastClock moves a second with each look, so that patience ends at once.
func fastClock() func() time.Time {
	now := time.Now()
	return func() time.Time { now = now.Add(time.Second); return now }
}

// TestNothingStaysUnsynced: what is decoded while a turnover or a freeze waits
// for the write lock in vain must become durable although nothing follows.
func TestNothingStaysUnsynced(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	app := openApp(t, path)
	log := newMemoryLog(func(*cdc.Change) error { return nil })
	c, err := startWith(t, path, log, func(s *captureSetup) { s.clock = fastClock() })
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Exec("INSERT INTO t(v) VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	if err := app.BeginImmediate(); err != nil {
		t.Fatal(err)
	}
	before := log.synced
	if ok, err := c.follower.lock(5 * time.Second); err != nil || ok {
		t.Fatal(ok, err)
	}
	if _, err := c.poll(); err != nil {
		t.Fatal(err)
	}
	if log.synced != before+1 {
		t.Errorf("durable up to %d, as before", log.synced)
	}
}

// TestTurnoverThatGetsNoLockBacksOff: a long write transaction must not make
// the capture sync and spin without a pause.
func TestTurnoverThatGetsNoLockBacksOff(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	app := openApp(t, path)
	c, err := startWith(t, path, newMemoryLog(func(*cdc.Change) error { return nil }), func(s *captureSetup) { s.clock = fastClock() })
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Exec("INSERT INTO t(v) VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	reader := openApp(t, path) // keeps the turnover in a gap from succeeding
	if err := reader.OpenRead(); err != nil {
		t.Fatal(err)
	}
	if err := app.Exec("INSERT INTO t(v) VALUES(2)"); err != nil {
		t.Fatal(err)
	}
	if err := app.BeginImmediate(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.poll(); err != nil {
		t.Fatal(err)
	}
	if err := c.turnover(true); err != nil {
		t.Fatal(err)
	}
	if c.upkeep.notBefore.IsZero() {
		t.Error("the next turnover is tried at once")
	}
}

// TestWriteLockWaitsForTheBacklog: a large transaction is decoded before the
// write lock is taken, not under it.
func TestWriteLockWaitsForTheBacklog(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	app := openApp(t, path)
	c, err := startWith(t, path, newMemoryLog(func(*cdc.Change) error { return nil }), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t(v) SELECT zeroblob(3000) FROM n"); err != nil {
		t.Fatal(err)
	}
	ok, err := c.follower.lock(time.Minute)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	defer c.src.helper.Rollback()
	m, err := c.src.marks()
	if err != nil {
		t.Fatal(err)
	}
	if at := c.follower.position().Frame; m.Frames-at > lockedFrames {
		t.Errorf("the write lock is held with %d frames to decode", m.Frames-at)
	}
}

// TestTermWaitsForItsPin: when the pin cannot be taken up again after a resync that
// failed, the term must not go on without it.
func TestTermWaitsForItsPin(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	log := newMemoryLog(func(*cdc.Change) error { return nil })
	app := openApp(t, path)
	t.Run("a term before", func(t *testing.T) {
		c, err := startWith(t, path, log, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := app.Exec("INSERT INTO t(v) VALUES(1)"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.poll(); err != nil {
			t.Fatal(err)
		}
	})
	log.tail.Boundary.Source.Salt[0]++ // nothing can be proved
	waited := false
	c, err := startWith(t, path, log, func(s *captureSetup) {
		s.clock = fastClock()
		s.options.MaxSQLiteWAL = 1 // so that the pin is given up meanwhile
		s.rebuild = func(context.Context, cdc.Position) (string, error) {
			return "", errors.Join(errors.New("no snapshot"), app.BeginImmediate())
		}
		s.waits = func(err error) {
			if errors.Is(err, errLocked) {
				waited = true
				noError(t, app.Rollback())
			}
		}
	})
	noError(t, err)
	if !waited || c.follower.pinned < 0 || c.broken == 0 {
		t.Errorf("the term began with pin %d; it waited: %t; the break is at %d", c.follower.pinned, waited, c.broken)
	}
}

// TestWriterRightAfterAttach: a writer that starts the SQLite WAL over as soon
// as attach gives the write lock back is followed, too.
func TestWriterRightAfterAttach(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	app := openApp(t, path)
	src, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	if err := app.Exec("INSERT INTO t(v) VALUES(1); PRAGMA wal_checkpoint(PASSIVE)"); err != nil {
		t.Fatal(err)
	}
	n := 0
	sink := func(_, _ sqlitefile.Pages, _ sqlitefile.WALTransaction, _ []uint32) error { n++; return nil }
	f := newFollower(src, sink, func() error { return nil }, time.Second, time.Now)
	m, err := f.pinPresent(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer f.release()
	if err := app.Exec("INSERT INTO t(v) VALUES(2)"); err != nil {
		t.Fatal(err)
	}
	if err := f.build(m); err != nil {
		t.Fatal(err)
	}
	if _, err := f.poll(); err != nil || n != 1 {
		t.Errorf("%d transactions: %v", n, err)
	}
}

// TestUndecodableTransactionIsPassed: once the source is in order again, the
// capture goes on behind a transaction that it cannot decode, and it does not
// write an epoch record for each attempt until then.
func TestUndecodableTransactionIsPassed(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	b.exec("CREATE TABLE _replicator_x(v)")
	failed := func() bool { return b.p.Status().State == StateFailed }
	for !failed() {
		nap(time.Millisecond)
		if b.ctx.Err() != nil {
			t.Fatal("the reserved name was accepted")
		}
	}
	b.exec("DROP TABLE _replicator_x; INSERT INTO t(v) VALUES(1)")
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	at, err := b.p.Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if at.LSN > 5 {
		t.Errorf("%d records for one failure: %v", at.LSN, b.kinds())
	}
	if !b.has(cdc.Break) {
		t.Error("the history goes on over a transaction that was not decoded")
	}
}

// TestTrimmedBeforePublished: a stream that is empty when the change log has
// already given up its first records goes on above them.
func TestTrimmedBeforePublished(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	b.exec("INSERT INTO t(v) VALUES(1)")
	b.sync()
	b.end()
	log := openLog(t, b)
	s := &shipper{stream: b.stream, log: trimmedLog(t, log), logger: b.options().Logger}
	b.stream.set(func(f *fakeStream) { f.first, f.last = 1, 0; clear(f.records) })
	after, err := s.reconcile(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after+1 < s.log.First() {
		t.Errorf("published from %d, the change log begins at %d", after+1, s.log.First())
	}
}

// TestForeignStreamBelowTheChangeLog: another primary's stream is not purged
// because it is shorter than what was trimmed here.
func TestForeignStreamBelowTheChangeLog(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	b.exec("INSERT INTO t(v) VALUES(1)")
	b.sync()
	b.end()
	log := trimmedLog(t, openLog(t, b))
	other := newBench(t, oneTable)
	other.start()
	other.sync()
	other.end()
	s := &shipper{stream: other.stream, log: log, logger: b.options().Logger}
	if _, err := s.reconcile(b.ctx); !errors.Is(err, ErrFenced) {
		t.Errorf("a foreign stream: %v", err)
	}
	if len(other.stream.records) != 1 {
		t.Error("the foreign stream was purged")
	}
	own := &shipper{stream: b.stream, log: log, logger: b.options().Logger}
	b.stream.set(func(f *fakeStream) { f.last = 1; delete(f.records, 2) })
	if after, err := own.reconcile(b.ctx); err != nil || after+1 < log.First() {
		t.Errorf("our own stream goes on after %d: %v", after, err)
	}
}

func openLog(t *testing.T, b *bench) *wal.Log {
	t.Helper()
	log, err := wal.Open(filepath.Join(b.dir, "log"), wal.Options{SegmentBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

// trimmedLog appends to log until a trim has taken its first records.
func trimmedLog(t *testing.T, log *wal.Log) *wal.Log {
	t.Helper()
	term, err := cdc.NewID(nil)
	if err != nil {
		t.Fatal(err)
	}
	tail := log.Tail()
	e := cdc.NewEncoder(tail, tail.Position.Epoch+1, term, log.Append)
	for range 3 {
		if err := errors.Join(e.Epoch(cdc.Boundary{Source: tail.Boundary.Source}), log.Sync()); err != nil {
			t.Fatal(err)
		}
		tail = log.Tail()
		e = cdc.NewEncoder(tail, tail.Position.Epoch+1, term, log.Append)
	}
	if err := log.Trim(log.Durable()); err != nil {
		t.Fatal(err)
	}
	if log.First() < 3 {
		t.Fatalf("the change log still begins at %d", log.First())
	}
	return log
}

// TestStreamBeginsWithTheChangeLog: a snapshot right before the first record of
// the change log must lead into a stream that is made anew.
func TestStreamBeginsWithTheChangeLog(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	b.end()
	log := trimmedLog(t, openLog(t, b))
	s := &shipper{stream: newFakeStream(), log: log, created: func() {}, logger: b.options().Logger}
	if after, err := s.reconcile(b.ctx); err != nil || after != log.First()-1 {
		t.Errorf("the stream begins after %d, the change log at %d: %v", after, log.First(), err)
	}
}

// TestLostStoreIsFilledAgain: when NATS has lost everything, the stream is made
// again from the change log, and without a snapshot nobody could take it up.
func TestLostStoreIsFilledAgain(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	b.awaitSnapshot(1)
	names, err := b.store.List(b.ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := b.store.Delete(b.ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	b.stream.set(func(s *fakeStream) { s.exists, s.first, s.last = false, 0, 0; clear(s.records) })
	b.exec("INSERT INTO t(v) VALUES(1)")
	b.sync()
	err = b.p.changed.wait(b.ctx, func() bool {
		list, err := b.store.List(b.ctx, "")
		return err == nil && len(list) > 0
	})
	if err != nil {
		t.Errorf("no new snapshot: %v", err)
	}
}
