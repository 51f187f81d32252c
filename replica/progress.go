package replica

import "time"

// progressEvery is the time between two log lines about a piece of work.
const progressEvery = 10 * time.Second

// Progress is how far a longer piece of work has come.
type Progress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
	Unit  string `json:"unit"` // "bytes" of a restore, "records" of catching up
	// Waits says what for, while the work has not begun: Done is 0.
	Waits string `json:"waits,omitempty"`
}

// Pace is how fast the work went since it began, in units a second, and how long
// the rest takes at that pace. known is false while nothing has been done.
func (p Progress) Pace(since time.Duration) (perSecond float64, left time.Duration, known bool) {
	if p.Done == 0 || since <= 0 {
		return 0, 0, false
	}
	perSecond = float64(p.Done) / since.Seconds()
	if p.Total > p.Done {
		left = time.Duration(float64(p.Total-p.Done) / perSecond * float64(time.Second))
	}
	return perSecond, left, true
}

// Percent is how much of the work is done, 100 when all of it is.
func (p Progress) Percent() int {
	if p.Done >= p.Total {
		return 100
	}
	return int(float64(p.Done) / float64(p.Total) * 100)
}

func (b *board) progress(p Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.advance(p)
}

// advance shows how far the work of the present state has come, and logs it every
// progressEvery.
func (b *board) advance(p Progress) {
	now := b.clock.Now()
	if waited := b.s.Progress; waited != nil && waited.Waits != "" && p.Waits == "" {
		b.s.Since = now // the work begins
	}
	b.s.Progress = &p
	if b.told.Before(b.s.Since) {
		b.told = b.s.Since
	}
	if now.Sub(b.told) < progressEvery {
		return
	}
	b.told = now
	args := []any{"unit", p.Unit, "done", p.Done, "total", p.Total, "percent", p.Percent()}
	if rate, left, known := p.Pace(now.Sub(b.s.Since)); known {
		args = append(args, "per_second", uint64(rate), "eta", left.Round(time.Second))
	}
	b.log.Info("replica is "+string(b.s.State), args...)
}
