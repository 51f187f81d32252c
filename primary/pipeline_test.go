package primary

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

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
