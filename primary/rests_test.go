package primary

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// TestRests: work takes half of the time, a ninth while it yields, a quarter where
// transactions never pause, and never more than a moment at once, although timers are
// late.
func TestRests(t *testing.T) {
	const page, late, pages = 30 * time.Microsecond, 700 * time.Microsecond, 100_000
	for _, c := range []struct {
		yields, writes bool
		rest           int // times the work
	}{{false, false, 1}, {true, false, sumYield}, {false, true, sumMakeWay}, {true, true, sumYield}} {
		now := time.Unix(0, 0)
		var slept, longest time.Duration
		work := time.Duration(0) // since the last rest
		r := rests{
			clock:  func() time.Time { return now },
			yields: func() bool { return c.yields }, makeWay: func(time.Time) bool { return c.writes },
			began: now, since: now,
			sleep: func(_ context.Context, d time.Duration) error {
				now, slept = now.Add(d+late), slept+d+late
				longest, work = max(longest, work), 0
				return nil
			},
		}
		for range pages {
			now, work = now.Add(page), work+page
			if err := r.rest(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		want := time.Duration(c.rest) * pages * page
		if off := (want - slept).Abs(); off > 2*sumRest {
			t.Errorf("%+v: rested for %s, want %s", c, slept, want)
		}
		if most := 2*sumRest + sumTurn; longest > most {
			t.Errorf("%+v: worked for %s at once, want at most %s", c, longest, most)
		}
	}
}

// TestRestsEndPatience: what holds a pin does not yield for ever.
func TestRestsEndPatience(t *testing.T) {
	now := time.Unix(0, 0)
	slept := time.Duration(0)
	r := rests{
		clock: func() time.Time { return now }, yields: func() bool { return true }, makeWay: func(time.Time) bool { return false },
		began: now.Add(-sumPatient), since: now,
		sleep: func(_ context.Context, d time.Duration) error {
			slept = d
			return nil
		},
	}
	now = now.Add(sumRest)
	if err := r.rest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if slept != sumRest {
		t.Errorf("rested for %s after %s of work, want as long", slept, sumRest)
	}
}

// TestRestsMakeWay: a transaction on its way ends the work at hand.
func TestRestsMakeWay(t *testing.T) {
	now := time.Unix(1e9, 0)
	var h lastNotice
	rested := false
	r := rests{
		clock: func() time.Time { return now }, yields: func() bool { return false }, makeWay: h.lately,
		began: now, since: now,
		sleep: func(context.Context, time.Duration) error {
			rested = true
			return nil
		},
	}
	for _, c := range []struct {
		hear, want bool
	}{{false, false}, {true, true}} {
		if c.hear {
			h.note(now)
		}
		now = now.Add(sumTurn)
		if err := r.rest(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rested != c.want {
			t.Errorf("heard %t: rested %t", c.hear, rested)
		}
	}
	if h.lately(now.Add(onItsWay)) || h.lately(now.Add(-time.Hour)) {
		t.Error("heard for ever")
	}
}

// TestRestsAfterWorkAlone: that it took an hour until there was a term, since the file or
// NATS was away, keeps nobody from hashing and inspecting when there is one.
func TestRestsAfterWorkAlone(t *testing.T) {
	b := newBench(t, oneTable)
	c := startCapture(t, b.path, newMemoryLog(nil), testCaptureOptions())
	var ahead atomic.Int64
	b.edit = func(o *Options) { o.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } }
	p, err := New(b.options())
	noError(t, err)
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	wanted, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- p.summer.Run(ctx, wanted) }()
	wanted <- struct{}{}
	for asks := 0; ; asks++ {
		select {
		case call := <-p.calls:
			if asks == 0 {
				ahead.Add(int64(time.Hour))
			}
			call.done <- call.do(c)
			continue
		case wanted <- struct{}{}:
		case <-ctx.Done():
			t.Error("it rests as long as it has waited for a term")
		}
		if asks < 2 {
			t.Errorf("%d questions for a base", asks)
		}
		break
	}
	cancel()
	if err := <-done; !errors.Is(err, ctx.Err()) {
		t.Error(err)
	}
}
