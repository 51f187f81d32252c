package primary

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// TestHold: what a replica restores, or has yet to apply, is not trimmed under it,
// as long as it is heard of and within the bounds.
func TestHold(t *testing.T) {
	for _, c := range []struct {
		name      string
		restoring bool
		node      string
		most      int64
		age       time.Duration // bound of the stream
		snapshot  bool          // the old one is kept
		stream    bool          // and the records after it
	}{
		{"nobody", false, "", 1 << 20, 0, false, false},
		{"restoring", true, "replica-1", 1 << 20, 0, true, true},
		{"applying", false, "replica-1", 1 << 20, 0, false, true},
		{"restoring more than may be held", true, "replica-1", 10, 0, false, false},
		{"applying what is too old", false, "replica-1", 1 << 20, time.Minute, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable)
			var later atomic.Int64
			b.edit = func(o *Options) {
				o.Snapshot.Keep, o.Snapshot.MaxHeld, o.Snapshot.StreamAge = 1, c.most, c.age
				o.Clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			}
			b.stream.began = time.Now().Add(-time.Hour)
			b.start()
			b.awaitSnapshot(1)
			b.write(5)
			old := b.snapshot()
			b.write(5)
			if c.node != "" {
				b.p.Hold(c.node, Need{After: old, Restoring: c.restoring})
			}
			b.write(5)
			newest := b.snapshot()
			if got := b.keeps(old); got != c.snapshot {
				t.Errorf("the snapshot is kept: %t, want %t", got, c.snapshot)
			}
			if got := b.streamFirst() <= old; got != c.stream {
				t.Errorf("the stream is kept: %t, want %t", got, c.stream)
			}
			later.Add(int64(2 * holdFor)) // nothing is heard any more
			err := b.p.changed.wait(b.ctx, func() bool { return !b.keeps(old) && b.streamFirst() >= newest })
			if err != nil {
				t.Errorf("a dead replica holds on: the stream begins at %d, %v", b.streamFirst(), err)
			}
		})
	}
}

// snapshot makes one and returns when everything below was trimmed.
func (b *bench) snapshot() cdc.LSN {
	b.t.Helper()
	m, err := b.p.Snapshot(b.ctx)
	if err == nil { // what is not published is not trimmed
		err = b.p.changed.wait(b.ctx, func() bool { return b.p.published() >= m.Position.LSN })
	}
	if err == nil {
		_, err = b.p.Snapshot(b.ctx) // at the same place, after the trim
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return m.Position.LSN
}

func (b *bench) keeps(lsn cdc.LSN) bool {
	b.t.Helper()
	list, err := snapshot.List(b.ctx, b.store)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range list {
		if m.Position.LSN == lsn {
			return true
		}
	}
	return false
}

func (b *bench) streamFirst() cdc.LSN {
	b.t.Helper()
	s, err := b.stream.State(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.First
}

// TestHoldersAreBounded: whoever sends reports under many names holds no more.
func TestHoldersAreBounded(t *testing.T) {
	b := newBench(t, oneTable)
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * holders {
		p.Hold(string(rune(i+1)), Need{After: cdc.LSN(i + 1)})
	}
	if n := len(p.snapshots.needs.by); n != holders {
		t.Errorf("%d hold", n)
	}
	if p.snapshots.busy() {
		t.Error("none is restoring, and the primary says that it is busy")
	}
	p.Hold(string(rune(2)), Need{After: 2, Restoring: true})
	if !p.snapshots.busy() {
		t.Error("one is restoring, and the primary says that it is not busy")
	}
	p.Hold(string(rune(1)), Need{})
	if n := len(p.snapshots.needs.by); n != holders-1 {
		t.Errorf("%d hold after one has let go", n)
	}
}

// TestStreamAge: snapshots follow each other closely enough for the oldest of
// those that are kept to be no older than a record may be.
func TestStreamAge(t *testing.T) {
	for _, c := range []struct{ interval, age, want time.Duration }{
		{24 * time.Hour, 0, 24 * time.Hour}, {24 * time.Hour, 2 * time.Hour, time.Hour}, {time.Minute, 2 * time.Hour, time.Minute},
	} {
		o := SnapshotOptions{Interval: c.interval, StreamAge: c.age, Keep: 2}
		if got := o.interval(); got != c.want {
			t.Errorf("interval %s, age %s: %s, want %s", c.interval, c.age, got, c.want)
		}
	}
}

// TestStreamAgeTrims: records go although nobody asks for a snapshot and the
// source has hardly grown.
func TestStreamAgeTrims(t *testing.T) {
	b := newBench(t, oneTable)
	var later atomic.Int64
	b.edit = func(o *Options) {
		o.Snapshot.Keep, o.Snapshot.Interval, o.Snapshot.StreamAge = 2, 1000*time.Hour, time.Hour
		o.Clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}
	b.start()
	first := b.awaitSnapshot(1).Position.LSN
	for range 2 {
		b.write(3)
		before := b.p.Status().Snapshot.Newest
		later.Add(int64(31 * time.Minute))
		b.awaitSnapshot(before + 1)
	}
	s := b.p.Status().Snapshot
	err := b.p.changed.wait(b.ctx, func() bool { return b.streamFirst() > first && !b.keeps(first) })
	if err != nil {
		t.Fatalf("the stream begins at %d: %v", b.streamFirst(), err)
	}
	if got := b.streamFirst(); got > s.Newest {
		t.Errorf("the stream begins at %d, above the snapshots %+v", got, s)
	}
}
