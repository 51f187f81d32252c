package snapshot

import (
	"context"
	"sync"
	"time"
)

// A Clock is the time that this package sees; the zero [Options] mean the
// system's.
type Clock interface {
	Now() time.Time
	// Sleep returns nil after d, or the context's error when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// Progress is how far a Make, Verify or Restore has come. Sizes are bytes of the
// database, unless they say otherwise.
type Progress struct {
	ID      string    `json:"id"`      // of the snapshot
	Bytes   int64     `json:"bytes"`   // done
	Total   int64     `json:"total"`   // of the whole database
	Resumed int64     `json:"resumed"` // part of Bytes that an earlier restore had done
	Stored  int64     `json:"stored"`  // bytes moved to or from the store
	Started time.Time `json:"started"`
	// Waits says what for, while the work has not begun: all else is zero.
	Waits string `json:"waits,omitempty"`
}

// Percent is in [0, 100]; an empty database is done.
func (p Progress) Percent() float64 {
	if p.Total <= 0 {
		return 100
	}
	return 100 * float64(p.Bytes) / float64(p.Total)
}

// Rate is in bytes of database a second since the start, not counting what was
// resumed; 0 while unknown.
func (p Progress) Rate(now time.Time) float64 {
	d := now.Sub(p.Started)
	if d <= 0 {
		return 0
	}
	return float64(p.Bytes-p.Resumed) / d.Seconds()
}

// ETA is the time left at the present rate. It is false while the rate is
// unknown.
func (p Progress) ETA(now time.Time) (time.Duration, bool) {
	left := p.Total - p.Bytes
	if left <= 0 {
		return 0, true
	}
	rate := p.Rate(now)
	if rate <= 0 {
		return 0, false
	}
	s := float64(left) / rate
	if s > maxETA.Seconds() {
		return maxETA, true
	}
	return time.Duration(s * float64(time.Second)), true
}

// maxETA keeps an absurd rate from overflowing a Duration.
const maxETA = 10 * 365 * 24 * time.Hour

// A meter adds up the progress of several workers and reports it, one call at a
// time.
type meter struct {
	mu     sync.Mutex
	p      Progress
	report func(Progress)
}

func newMeter(o Options, s Manifest) *meter {
	m := &meter{p: Progress{ID: s.ID, Total: s.Size(), Started: o.Clock.Now()}, report: o.Progress}
	m.add(0, 0, 0)
	return m
}

func (m *meter) add(bytes, stored, resumed int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Bytes += bytes
	m.p.Stored += stored
	m.p.Resumed += resumed
	if m.report != nil {
		m.report(m.p)
	}
}
