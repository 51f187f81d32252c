// Package clock is the system's clock as the packages are given one. Each of them
// says in an interface of its own what it asks of a clock.
package clock

import (
	"context"
	"time"
)

// System is the system's clock.
type System struct{}

// Now is the present.
func (System) Now() time.Time { return time.Now() }

// Sleep returns nil after d, or why ctx ended when that comes first.
func (System) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
