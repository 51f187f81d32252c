package primary

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// TestDemand: a replica that waits although there is a snapshot gets another
// one, but not again and again.
func TestDemand(t *testing.T) {
	b := newBench(t, oneTable)
	now := time.Unix(1_000_000, 0)
	b.edit = func(o *Options) { o.Clock = func() time.Time { return now } }
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	d := &p.snapshots.demand
	newest := snapshot.Manifest{CreatedAt: now}
	newest.Position.LSN = 7
	step := func(pass time.Duration, want bool) {
		t.Helper()
		now = now.Add(pass)
		p.WantSnapshot()
		if got := d.open(now, newest); got != want {
			t.Errorf("%s old: due is %t, want %t", now.Sub(newest.CreatedAt), got, want)
		}
	}
	if now = now.Add(time.Hour); d.open(now, newest) {
		t.Error("due although nobody asks")
	}
	newest.CreatedAt = now
	step(0, false)
	step(demandAfter/2, false)
	step(demandAfter/2, true)
	d.met()
	newest.CreatedAt = now
	step(demandAfter, false)
	step(demandAfter, true)
	now = now.Add(2 * demandFor)
	if d.open(now, newest) {
		t.Error("due although the replica is gone")
	}
	d.met()
	newest.CreatedAt = now
	step(demandAfter, true) // another replica, another trouble

	// It waited, was served, and says no more.
	d.met()
	newest.CreatedAt = now.Add(time.Second)
	if now = now.Add(demandFor - time.Second); d.open(now, newest) {
		t.Error("due although nobody waits since the newest was made")
	}

	newest.CreatedAt = now.Add(24 * time.Hour) // the clock was set back
	p.WantSnapshot()
	if !d.open(now, newest) {
		t.Error("a snapshot of a time to come is taken for a young one")
	}

	d.first = 8 // follows the newest
	now = now.Add(2 * demandFor)
	if d.open(now, newest) {
		t.Error("due although the stream leads on")
	}
	if d.first = 9; !d.open(now, newest) {
		t.Error("not due although the stream begins above the newest snapshot")
	}
}

// TestFullStreamLetsSnapshotsRest: a full stream asks for a snapshot again and
// again, and where the store is full, too, each of them would read the database.
func TestFullStreamLetsSnapshotsRest(t *testing.T) {
	b := newBench(t, oneTable)
	now := time.Unix(1_000_000, 0)
	b.edit = func(o *Options) { o.Clock = func() time.Time { return now } }
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	b.stream.set(func(s *fakeStream) { s.exists = true })
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	full, tries := errors.New("the store is full"), 0
	go func() {
		for {
			select {
			case done := <-p.snapshots.requests:
				tries++
				p.snapshots.report(full)
				done <- made{err: full}
			case <-ctx.Done():
				return
			}
		}
	}()
	for _, c := range []struct{ pass, want int }{{0, 1}, {2, 1}, {12, 1}, {1, 2}, {1, 2}, {14, 3}} {
		now = now.Add(time.Duration(c.pass) * time.Second)
		if _, err := p.snapshots.makeRoom(ctx); err == nil {
			t.Error("there is room")
		}
		if tries != c.want {
			t.Fatalf("%s: %d snapshots tried, want %d", now, tries, c.want)
		}
	}
}
