package primary

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// interrupted starts over a source of which something was missed, with a store
// that fails as given, and waits until the pipeline says that it waits.
func interrupted(t *testing.T, list, get error) (*bench, *failingStore) {
	t.Helper()
	b := newBench(t, oneTable)
	store := &failingStore{Store: b.store}
	b.store = store
	b.edit = func(o *Options) {
		o.Capture.MaxSQLiteWAL = 1 << 20
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return noReplay{}, nil }
	}
	b.start()
	b.exec("INSERT INTO t(v) VALUES(1),(2)")
	b.sync()
	if _, err := b.p.Snapshot(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.end()
	b.exec("INSERT INTO t(v) VALUES('missed')")
	b.reconnect()
	store.set(list, get)
	b.start()
	waits := func() bool { return b.p.Status().State == StateOffline }
	if err := b.p.changed.wait(b.ctx, waits); err != nil {
		t.Fatalf("it does not wait: %+v, %v", b.p.Status(), b.kinds())
	}
	return b, store
}

// TestResyncWaitsForTheStore: a store that fails for a moment breaks no history,
// and what is written while it does is seen one by one.
func TestResyncWaitsForTheStore(t *testing.T) {
	away := fmt.Errorf("NATS is away: %w", fakeCondition("unavailable"))
	for _, c := range []struct {
		name      string
		list, get error
		text      string
	}{
		{"unavailable", away, nil, "NATS is away"},
		{"unavailable after the list", nil, away, "NATS is away"},
		{"input/output error", nil, unix.EIO, "input/output error"},
		{"not mounted", unix.ENODEV, nil, "no such device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, store := interrupted(t, c.list, c.get)
			before := b.p.Status()
			if !strings.Contains(before.Error, c.text) {
				t.Errorf("it waits because of %q, want %q", before.Error, c.text)
			}
			b.exec("INSERT INTO t(v) VALUES('a')")
			b.exec("INSERT INTO t(v) VALUES('b')")
			tried, _, _ := store.answers()
			if err := store.tried.wait(b.ctx, func() bool { n, _, _ := store.answers(); return n > tried+1 }); err != nil {
				t.Fatalf("it is not tried again: %v", err)
			}
			store.set(nil, nil)
			b.sync()
			b.awaitSnapshot(1) // which is asked for by itself
			after := b.p.Status()
			if n := after.Totals.Transactions - before.Totals.Transactions; b.has(cdc.Break) || n != 3 {
				t.Errorf("captured %d transactions in %v, want one for what was missed and two", n, b.kinds())
			}
			if got := b.operations(before.Position.LSN); got != "insert 3" {
				t.Errorf("captured %q since, want 3 inserts", got)
			}
			if after.State != StateStreaming {
				t.Errorf("the state is %s, %s", after.State, after.Error)
			}
		})
	}
}

// TestResyncWaitsWithinBounds: the application does not pay for a store that
// stays away.
func TestResyncWaitsWithinBounds(t *testing.T) {
	b, _ := interrupted(t, fakeCondition("unavailable"), nil)
	for range 20 {
		b.exec("INSERT INTO t(v) VALUES(randomblob(100000))")
	}
	b.sync()
	if !b.has(cdc.Break) {
		t.Errorf("captured %v, want a break", b.kinds())
	}
}

// TestResyncWaitsForAWriter: a snapshot that was restored to be compared is not given up because
// of a program that keeps the write lock for long, when the pin has to be taken again.
func TestResyncWaitsForAWriter(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
	app, err := sqlite.Open(path, sqlite.Options{Plain: true})
	noError(t, err)
	defer func() { noError(t, app.Close()) }()
	log := newMemoryLog(func(*cdc.Change) error { return nil })
	src, err := openSource(path)
	noError(t, err)
	defer func() { noError(t, src.close()) }()
	now, told, rebuilt := time.Now(), 0, 0
	setup := captureSetup{
		dir: t.TempDir(), options: testCaptureOptions(), logger: testLogger(), doubts: &doubts{},
		clock: func() time.Time { now = now.Add(attachPatience); return now },
		waits: func(err error) {
			if errors.Is(err, errLocked) {
				told++
				noError(t, app.Exec("COMMIT"))
			}
		},
		rebuild: func(context.Context, cdc.Position) (string, error) {
			rebuilt++
			base := filepath.Join(t.TempDir(), "base.db")
			noError(t, app.Exec("VACUUM INTO '"+base+"'; BEGIN IMMEDIATE; INSERT INTO t(v) VALUES(1)"))
			return base, nil
		},
	}
	c, err := newCapture(t.Context(), src, log, setup)
	noError(t, err)
	noError(t, c.close())
	noError(t, setup.doubts.raise(errPastSQLite, nil))
	setup.options.MaxSQLiteWAL = -1 // so that the pin is let go
	c, err = newCapture(t.Context(), src, log, setup)
	noError(t, err)
	if told != 1 || rebuilt != 1 || c.broken != 0 {
		t.Errorf("%d snapshots were restored, the writer was waited for %d times, the break is at %d", rebuilt, told, c.broken)
	}
	noError(t, c.close())
}

// TestChangeLogBeforeAnythingIsKnown: a change log may be past its bound when a process starts,
// as the bound follows the free space. Before snapshots and stream are known, all of it seems
// to be needed alike, and a resync that waits for them needs it.
func TestChangeLogBeforeAnythingIsKnown(t *testing.T) {
	b := newBench(t, oneTable)
	store := &failingStore{Store: b.store}
	b.store = store
	most := int64(0)
	b.edit = func(o *Options) {
		o.ChangeLog.SegmentBytes, o.ChangeLog.MaxBytes = 16<<10, most
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return tally{new(int)}, nil }
	}
	b.start()
	write := func(times int) {
		for range times {
			b.exec("INSERT INTO t(v) VALUES(randomblob(30000))")
			b.sync()
		}
	}
	write(8)
	at := b.snapshot()
	write(3)
	b.end()
	b.reconnect() // no frames: a resync
	store.set(fakeCondition("unavailable"), nil)
	most = 150 << 10
	b.start()
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().State == StateOffline }))
	for range 3 { // the third is taken after what the first one led to
		b.p.snapshots.wake <- struct{}{}
	}
	store.set(nil, nil)
	b.sync()
	recs, err := b.stream.all()
	if broken := func(r cdc.Record) bool { return r.Kind == cdc.Break }; err != nil || slices.ContainsFunc(recs, broken) {
		t.Errorf("the history was broken: %v; the snapshot is at %d, the change log begins at %d", err, at, b.p.Status().ChangeLog.First)
	}
}

// TestChangeLogOfNobody: that nothing is known does not let the change log grow for ever.
func TestChangeLogOfNobody(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.ChangeLog.MaxBytes = 1 << 10 }
	p, err := New(b.options())
	noError(t, err)
	log, err := wal.Open(t.TempDir(), wal.Options{SegmentBytes: 1})
	noError(t, err)
	t.Cleanup(func() { noError(t, log.Close()) })
	epoch := cdc.Epoch(0)
	grow := func(size int64) {
		for log.Size() <= size {
			epoch++
			e := cdc.NewEncoder(log.Tail(), epoch, cdc.ID{1}, log.Append)
			noError(t, errors.Join(e.Epoch(cdc.Boundary{}), log.Sync()))
		}
	}
	grow(8 << 10)
	first, s := log.First(), p.snapshots
	s.unknown = unknownBound(log, 1<<10)
	noError(t, s.trimLog(log))
	if log.First() != first {
		t.Errorf("given up: %d to %d", first, log.First()-1)
	}
	grow(s.unknown)
	noError(t, s.trimLog(log))
	if log.Size() > s.unknown {
		t.Errorf("the change log has %d bytes", log.Size())
	}
}

// TestTrimStopsAtWhatIsPublished: a snapshot may be above that. What replicas follow
// until then stays in the stream.
func TestTrimStopsAtWhatIsPublished(t *testing.T) {
	b := newBench(t, oneTable)
	p, err := New(b.options())
	noError(t, err)
	p.ship.Store(&shipper{})
	p.ship.Load().published.Store(3)
	p.ship.Load().ours.Store(true)
	b.stream.set(func(s *fakeStream) {
		s.exists, s.first, s.last = true, 1, 5
		for lsn := s.first; lsn <= s.last; lsn++ {
			s.records[lsn] = []byte("record")
		}
	})
	done, err := p.snapshots.purge(b.ctx, 10)
	if err != nil || done || b.streamFirst() != 3 || len(b.stream.records) != 3 {
		t.Errorf("the stream begins at %d with %d records, done: %t, %v", b.streamFirst(), len(b.stream.records), done, err)
	}
}

// TestTrimBesideADamagedManifest: what cannot be read of one snapshot does not keep what no
// other one needs in the stream.
func TestTrimBesideADamagedManifest(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.Snapshot.Keep = 1 }
	noError(t, b.store.Put(b.ctx, "00000000000000000001-0000000000000000/manifest.json", []byte("torn")))
	b.start()
	b.awaitSnapshot(b.sync().LSN)
	b.write(3)
	if at := b.snapshot(); b.streamFirst() != at {
		t.Errorf("the stream begins at %d, the only snapshot that can be read is at %d", b.streamFirst(), at)
	}
}

// A stubbornStore deletes nothing while it is told so.
type stubbornStore struct {
	snapshot.Store
	refuses atomic.Bool
}

func (s *stubbornStore) Delete(ctx context.Context, name string) error {
	if s.refuses.Load() {
		return fakeCondition("unavailable")
	}
	return s.Store.Delete(ctx, name)
}

// TestDeletedLaterBesideADamagedManifest: nor does it keep what could not be deleted at first
// from being deleted.
func TestDeletedLaterBesideADamagedManifest(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.Snapshot.Keep = 1 }
	store := &stubbornStore{Store: b.store}
	b.store = store
	noError(t, store.Put(b.ctx, "00000000000000000001-0000000000000000/manifest.json", []byte("torn")))
	b.start()
	first := b.awaitSnapshot(b.sync().LSN)
	there := func() bool {
		names, err := store.List(b.ctx, first.ID+"/")
		noError(t, err)
		return len(names) > 0
	}
	b.write(3)
	store.refuses.Store(true)
	b.snapshot()
	if !there() {
		t.Fatal("nothing is tested")
	}
	store.refuses.Store(false)
	noError(t, b.p.changed.wait(b.ctx, func() bool { return !there() })) // each tick notifies
}

// TestAckHistory: NATS acknowledges before it fsyncs. What counts is what it had
// acknowledged a while ago.
func TestAckHistory(t *testing.T) {
	began := time.Unix(1_000_000, 0)
	h := ackHistory{keep: 10 * time.Minute}
	for _, c := range []struct {
		minute     int
		lsn, known cdc.LSN
	}{{0, 5, 0}, {1, 9, 0}, {9, 20, 0}, {10, 30, 5}, {11, 31, 9}, {18, 40, 9}, {19, 41, 20}, {40, 50, 41}} {
		now := began.Add(time.Duration(c.minute) * time.Minute)
		h.note(now, c.lsn)
		if got := h.before(now); got != c.known {
			t.Errorf("minute %d: %d was acknowledged for long enough, want %d", c.minute, got, c.known)
		}
	}
}
