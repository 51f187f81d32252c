package primary

import (
	"testing"
	"time"
)

// TestBreather: syncs keep a distance only where transactions never pause, and one
// that depends on what a sync takes.
func TestBreather(t *testing.T) {
	for _, c := range []struct{ last, sync, want time.Duration }{
		{0, 200 * time.Microsecond, leastBreather}, // nothing was written meanwhile
		{leastBreather, 200 * time.Microsecond, 2 * leastBreather},
		{2 * time.Millisecond, 200 * time.Microsecond, 3 * time.Millisecond}, // a sixteenth
		{4 * time.Millisecond, 10 * time.Millisecond, mostBreather},
		{time.Millisecond, time.Microsecond, leastBreather}, // change_log.fsync: false
	} {
		if got := (&capture{syncTook: c.sync}).breather(c.last); got != c.want {
			t.Errorf("after %s, with syncs of %s: %s, want %s", c.last, c.sync, got, c.want)
		}
	}
}
