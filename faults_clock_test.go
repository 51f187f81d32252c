package replicator_test

import (
	"testing"
	"time"
)

// TestClockSteps: somebody sets the clock of the primary, or of the replica, by
// hours and years, forwards and back, while they work. Time decides nothing that
// could be lost: only when snapshots are made and how the lag reads.
func TestClockSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := newPlant(t, 131)
	p.tuning.snapshot.Interval = time.Hour
	f := p.begin()
	const day = 24 * time.Hour
	for _, step := range []struct {
		name  string
		clock *shiftedClock
		by    time.Duration
	}{
		{"primary an hour on", p.clock, time.Hour},
		{"replica a day back", p.remote, -day},
		{"primary two days back", p.clock, -2 * day},
		{"replica a year on", p.remote, 365 * day},
		{"primary a year on", p.clock, 365 * day},
		{"both a year back", p.clock, -365 * day},
		{"and the replica", p.remote, -365 * day},
	} {
		p.app.begin()
		step.clock.set(step.by)
		at, err := p.pipeline.Sync(p.ctx)
		p.must(err)
		p.reach(f, at)
		p.app.end()
		p.even(f)
		if lag := f.Status().Lag.Seconds; lag != nil && *lag < 0 {
			p.fail("%s: the lag is %v s", step.name, *lag)
		}
		// The interval has passed, or the newest snapshot is of a time to come.
		newest := p.pipeline.Status().Snapshot.Newest
		if step.clock == p.clock {
			p.app.do(10)
			p.soon(step.name+": another snapshot", patience, func() bool { return p.pipeline.Status().Snapshot.Newest > newest })
		}
	}
	p.healed(f)
}
