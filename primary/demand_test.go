package primary

import (
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
