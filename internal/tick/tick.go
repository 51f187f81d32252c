// Package tick makes what a process does now and then fall together.
//
// To wake a thread costs as much as most of what is then done in it: a hundred
// databases, each with a few timers of its own, wake a daemon that has nothing
// to do a thousand times a second; with common ticks it is twice.
package tick

import (
	"context"
	"time"
)

// Until is the time from now to the next tick: the multiples of every, by the
// wall clock. It is more than 0 and at most every.
func Until(now time.Time, every time.Duration) time.Duration {
	return every - time.Duration(now.UnixNano())%every
}

// A Ticker is a time.Ticker whose ticks are those of the whole process. One
// goroutine uses it.
type Ticker struct {
	C     <-chan time.Time
	timer *time.Timer
	every time.Duration
}

// NewTicker begins with the next multiple of every. Next must follow each value
// that came through C.
func NewTicker(every time.Duration) *Ticker {
	t := time.NewTimer(Until(time.Now(), every))
	return &Ticker{C: t.C, timer: t, every: every}
}

// Next asks for another tick.
func (t *Ticker) Next() { t.timer.Reset(Until(time.Now(), t.every)) }

// Stop ends the ticks.
func (t *Ticker) Stop() { t.timer.Stop() }

// Wait returns at the next tick, or with why ctx ended before.
func Wait(ctx context.Context, every time.Duration) error {
	t := NewTicker(every)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
