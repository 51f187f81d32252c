package primary

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/wal"
)

// TestFrozenIsExactlyALSN freezes the source again and again while hostile
// programs write. Each frozen state, copied page by page while they go on, must
// be a sound database that holds what the records up to its LSN add up to.
func TestFrozenIsExactlyALSN(t *testing.T) {
	path := makeSource(t, hostileSchema)
	book := newLedger()
	c := startCapture(t, path, newMemoryLog(book.visit), testCaptureOptions())
	tr := enlist(t, path, strings.Fields("writer bigwriter spread checkpointer opener")...)
	for states, refused := 0, 0; states < 25; {
		frozen, err := c.freeze()
		if errors.Is(err, errFreeze) && refused < 25 { // the programs left no gap, and nothing is lost by that
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		copied := make(chan error, 1)
		to := filepath.Join(t.TempDir(), "copy.db")
		go func() { copied <- copyPages(frozen, to) }()
		want := book.clone()
		for waiting := true; waiting; { // the source moves on, the frozen state must not
			select {
			case err := <-copied:
				if err != nil {
					t.Fatal(err)
				}
				waiting = false
			default:
				n, err := c.poll()
				if err != nil {
					t.Fatal(err)
				}
				if err := c.maintain(n, true); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := frozen.Close(); err != nil {
			t.Fatal(err)
		}
		want.compare(t, to)
		if len(want.gaps) > 0 {
			t.Fatalf("frozen at %v: %d differences, first: %s", frozen.At, len(want.gaps), want.gaps[0])
		}
		states++
	}
	tr.dismiss(func() error { _, err := c.poll(); return err })
}

func copyPages(f *Frozen, to string) (err error) {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf := make([]byte, 16*f.PageSize())
	for page := uint32(1); page <= f.Pages(); {
		n, err := f.ReadPages(context.Background(), page, buf)
		if err != nil {
			return err
		}
		if _, err := out.Write(buf[:n*f.PageSize()]); err != nil {
			return err
		}
		page += uint32(n)
	}
	return nil
}

// clone copies the state and forgets the gaps.
func (l *ledger) clone() *ledger {
	c := newLedger()
	for k, v := range l.seq {
		c.seq[k] = v
	}
	return c
}

// TestTooLongSQLiteWALIsGivenUp lets the capture fall behind by more than the
// bound: it must give up the pin rather than the application's disk.
func TestTooLongSQLiteWALIsGivenUp(t *testing.T) {
	b := newBench(t, "CREATE TABLE t(v)")
	src, err := openSource(b.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.close(); err != nil {
			t.Error(err)
		}
	})
	now := time.Now()
	o := testCaptureOptions()
	o.MaxSQLiteWAL = 256 << 10
	c, err := newCapture(context.Background(), src, newMemoryLog(newLedger().visit), captureSetup{dir: t.TempDir(), options: o, clock: func() time.Time { return now }, logger: b.options().Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.maintain(0, false); err != nil {
		t.Fatal(err)
	}
	b.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO t SELECT randomblob(3000) FROM n")
	now = now.Add(2 * lookAfter)
	if err := c.maintain(0, false); !errors.Is(err, errSpace) || !errors.Is(err, errLost) {
		t.Fatalf("600 kB behind with a bound of 256 kB: %v", err)
	}
}

// TestBacklogThatATermFinds: what was neither captured nor started over while no pin
// was held is captured by the next term, however long it is. To give the pin up for
// it again and again would be to capture nothing as long as nothing is written.
func TestBacklogThatATermFinds(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)")
	inserted := 0
	log := newMemoryLog(func(ch *cdc.Change) error {
		if ch.Op == cdc.OpInsert {
			inserted++
		}
		return nil
	})
	app := openApp(t, path)
	bounded := func(s *captureSetup) { s.options.MaxSQLiteWAL = 256 << 10 }
	write := func() {
		t.Helper()
		if err := app.Exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<40) INSERT INTO t SELECT randomblob(3000) FROM n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Exec("PRAGMA wal_autocheckpoint=0"); err != nil {
		t.Fatal(err)
	}
	t.Run("a term that gives up", func(t *testing.T) {
		now := time.Now()
		c, err := startWith(t, path, log, func(s *captureSetup) {
			bounded(s)
			s.clock = func() time.Time { return now }
		})
		if err != nil {
			t.Fatal(err)
		}
		write()
		if _, err := c.poll(); err != nil {
			t.Fatal(err)
		}
		if err := c.maintain(1, false); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			write()
		}
		now = now.Add(2 * lookAfter)
		if _, err := c.poll(); !errors.Is(err, errSpace) {
			t.Fatalf("800 kB behind with a bound of 256 kB: %v", err)
		}
	})
	c, err := startWith(t, path, log, bounded)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.poll(); err != nil || n != 5 {
		t.Fatalf("%d transactions: %v", n, err)
	}
	if inserted != 240 {
		t.Errorf("%d rows were captured, want 240", inserted)
	}
}

// TestSnapshotGivesWayToABusyWriter: that there is always something to capture keeps
// nobody from seeing how long the SQLite WAL has become under a snapshot's pin.
func TestSnapshotGivesWayToABusyWriter(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)")
	app := openApp(t, path)
	now := time.Now()
	c, err := startWith(t, path, newMemoryLog(newLedger().visit), func(s *captureSetup) {
		s.options.MaxSQLiteWAL = 256 << 10
		s.clock = func() time.Time { return now }
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.maintain(0, true); err != nil || c.upkeep.pressed {
		t.Fatalf("pressed: %t, %v", c.upkeep.pressed, err)
	}
	if err := app.Exec("INSERT INTO t SELECT randomblob(200000)"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * lookAfter)
	n, err := c.poll()
	if err == nil {
		err = c.maintain(n, true)
	}
	if err != nil || n != 1 || !c.upkeep.pressed {
		t.Errorf("%d transactions, pressed: %t, %v", n, c.upkeep.pressed, err)
	}
}

// TestLongSQLiteWALOfAnIdleSource: a snapshot, and a comparison, does not make way for an
// application that writes nothing, however long the SQLite WAL is that it has left.
func TestLongSQLiteWALOfAnIdleSource(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)")
	app := openApp(t, path)
	var later time.Duration
	c, err := startWith(t, path, newMemoryLog(newLedger().visit), func(s *captureSetup) {
		s.options.MaxSQLiteWAL = 256 << 10
		s.clock = func() time.Time { return time.Now().Add(later) }
	})
	noError(t, err)
	reader := openApp(t, path) // keeps the SQLite WAL as long as it is
	noError(t, reader.OpenRead())
	write := func() {
		noError(t, app.Exec("INSERT INTO t SELECT randomblob(200000)"))
		if n, err := c.poll(); err != nil || n != 1 {
			t.Fatalf("%d transactions: %v", n, err)
		}
	}
	pressed := func(held bool) bool {
		later += 2 * lookAfter
		noError(t, c.maintain(0, held))
		return c.upkeep.pressed
	}
	write()
	if pressed(false) || pressed(true) || pressed(true) {
		t.Error("it makes way, and nobody writes")
	}
	write()
	if !pressed(true) {
		t.Error("it does not make way for who writes")
	}
	if pressed(false) || pressed(true) {
		t.Error("the next one makes way, and nobody has written since")
	}
}

// TestWaitersOutliveTerms: what ends a term and is found out by the next one is no
// answer to a sync, nor to whoever asked for a snapshot.
func TestWaitersOutliveTerms(t *testing.T) {
	waiters := map[string]func(context.Context, *Pipeline) error{
		"sync": func(ctx context.Context, p *Pipeline) error {
			_, err := p.Sync(ctx)
			return err
		},
		"snapshot": func(ctx context.Context, p *Pipeline) error {
			_, err := p.Snapshot(ctx)
			return err
		},
	}
	for name, wait := range waiters {
		for _, end := range []error{errSpace, errLost, errReplaced} {
			b := newBench(t, oneTable)
			p, err := New(b.options())
			if err != nil {
				t.Fatal(err)
			}
			log, err := wal.Open(t.TempDir(), wal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.ctx)
			g, ctx := errgroup.WithContext(ctx)
			p.capturing.Store(true)
			g.Go(func() error { return p.snapshots.Run(ctx, log) })
			other := errors.New("what the second term says")
			g.Go(func() error {
				for _, err := range []error{fmt.Errorf("first term: %w", end), other} {
					select {
					case call := <-p.calls:
						call.done <- err
					case <-ctx.Done(): // the first answer was passed on
					}
				}
				return nil
			})
			if err := wait(ctx, p); !errors.Is(err, other) {
				t.Errorf("%v: the %s says %v", end, name, err)
			}
			cancel()
			if err := g.Wait(); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := log.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
