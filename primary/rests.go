package primary

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// Bounds of what hashing rows and inspecting cost others. Work for 20 ms at a time
// doubled the lag of the transactions meanwhile, which waited for a turn.
const (
	sumTurn    = 100 * time.Microsecond // of work, after which others of the process have a turn
	sumRest    = time.Millisecond       // the least time to rest, which is for as long as was worked,
	sumMakeWay = 3                      // times as long while a transaction is on its way, and at once,
	sumYield   = 8                      // and while a snapshot is made or restored,
	sumPatient = time.Minute            // but the latter not for longer than this: it holds a pin
)

// A rests lets work go on for a moment at a time only: a transaction that is on its
// way meanwhile waits for no longer than that.
type rests struct {
	clock   func() time.Time
	sleep   func(context.Context, time.Duration) error
	yields  func() bool              // to what replicas may be waiting for
	makeWay func(now time.Time) bool // for a transaction
	began   time.Time
	since   time.Time     // work is not accounted for
	owed    time.Duration // rest, for work that was done; less than 0: too much was taken
}

// rests are those of a job that begins now.
func (s *summer) rests() *rests {
	now := s.p.o.Clock()
	return &rests{clock: s.p.o.Clock, sleep: sleep, yields: s.p.snapshots.busy, makeWay: s.p.notice.lately, began: now, since: now}
}

func (r *rests) rest(ctx context.Context) error {
	now := r.clock()
	worked := now.Sub(r.since)
	if worked < sumTurn {
		return nil
	}
	r.since = now
	least := sumRest
	switch {
	case now.Sub(r.began) < sumPatient && r.yields():
		worked *= sumYield
	case r.makeWay(now):
		worked, least = worked*sumMakeWay, 0
	}
	if r.owed += worked; r.owed < least {
		runtime.Gosched()
		return nil
	}
	err := r.sleep(ctx, r.owed)
	r.since = r.clock()
	// The runtime's timers may be late by as much as the rest; that is made up for.
	r.owed = max(r.owed-r.since.Sub(now), -sumRest)
	return err
}

// A lastNotice is when a write to the source was last heard of. The zero value has heard of
// none. Safe for concurrent use.
type lastNotice struct{ at atomic.Int64 } // Unix time in nanoseconds

func (n *lastNotice) note(now time.Time) { n.at.Store(now.UnixNano()) }

// lately reports whether what was written may not be published yet.
func (n *lastNotice) lately(now time.Time) bool {
	ago := time.Duration(now.UnixNano() - n.at.Load())
	return ago >= 0 && ago < onItsWay
}

// onItsWay is about how long a transaction takes from the first notice of it until a
// replica has it.
const onItsWay = time.Millisecond
