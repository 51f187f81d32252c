// Package wallclock sets clocks for tests as somebody sets that of a machine.
package wallclock

import (
	"time"
	"unsafe"
)

// Set is t by a wall clock that is off by whole seconds. What Go measures between two
// times is what it was, since nobody can set the monotonic clock; after [time.Time.Add],
// which moves both, whatever waits for a deadline would wait for as long.
func Set(t time.Time, by time.Duration) time.Time {
	const nanoBits = 30 // of time.Time's first field; the seconds are above them
	at := t
	*(*uint64)(unsafe.Pointer(&at)) += uint64(by/time.Second) << nanoBits
	if at.Sub(t) != 0 || at.Round(0).Sub(t.Round(0)) != by {
		panic("wallclock: a time has no monotonic reading, or is not made as it was in Go 1.26")
	}
	return at
}
