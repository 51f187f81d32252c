package primary

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
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

// TestLongStallIsReported: whoever wonders why a write took so long finds it in the log.
func TestLongStallIsReported(t *testing.T) {
	path := makeSource(t, oneTable)
	c := startCapture(t, path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	var out bytes.Buffer
	c.logger = slog.New(slog.NewTextHandler(&out, nil))
	app := openApp(t, path)
	checkpoint, now := c.src.checkpoint, time.Now()
	c.follower.clock = func() time.Time { return now }
	for _, took := range []time.Duration{longStall - 1, longStall} {
		c.src.checkpoint = func() error {
			err := checkpoint()
			if c.src.helper.InTransaction() {
				now = now.Add(took)
				return err
			}
			return errors.Join(err, app.Exec("INSERT INTO t(v) VALUES('x')")) // no gap to turn over in
		}
		noError(t, app.Exec("INSERT INTO t(v) VALUES('x')"))
		_, err := c.poll()
		noError(t, err)
		noError(t, c.turnover(true))
		if told := strings.Contains(out.String(), "kept writers waiting"); told != (took >= longStall) {
			t.Errorf("after %s: %q", took, out.String())
		}
	}
}
