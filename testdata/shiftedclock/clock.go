// Package clock takes the place of internal/clock in a program that is built to be
// tested: somebody has set the clock of its machine, and may do so again.
package clock

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/sqlite-replicator/replicator/testdata/wallclock"
)

// System is the system's clock, off by as many nanoseconds as the file says that
// $SHIFTED_CLOCK names. Without the file it is right.
type System struct{}

// Now is the present, as this machine has it.
func (System) Now() time.Time {
	now := time.Now()
	text, err := os.ReadFile(os.Getenv("SHIFTED_CLOCK"))
	if err != nil {
		return now
	}
	by, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil { // it is being written
		return now
	}
	return wallclock.Set(now, time.Duration(by))
}

// Sleep is that of internal/clock: who sets a clock does not end a sleep.
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
