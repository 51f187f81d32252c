package primary

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
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
