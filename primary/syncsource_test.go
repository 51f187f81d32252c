package primary

import (
	"os"
	"strings"
	"testing"
)

// TestSyncSource: with sync_source, what the SQLite WAL holds only in memory never
// becomes durable here, from where it would be published. The fsync of the SQLite
// WAL is made to fail: a pipe has none.
func TestSyncSource(t *testing.T) {
	for _, on := range []bool{false, true} {
		path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
		log := newMemoryLog(newLedger().visit)
		o := testCaptureOptions()
		o.SyncSource = on
		c := startCapture(t, path, log, o)
		app := openApp(t, path)
		if err := app.Exec("INSERT INTO t(v) VALUES(1)"); err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		before, file := log.synced, c.src.log
		c.src.log = r // reader and view keep the file
		_, err = c.poll()
		c.src.log = file
		if e := r.Close(); e != nil {
			t.Error(e)
		}
		if e := w.Close(); e != nil {
			t.Error(e)
		}
		if log.tail.Next == before+1 {
			t.Fatalf("sync_source %t: nothing was captured", on)
		}
		if failed := err != nil && strings.Contains(err.Error(), "sync the SQLite WAL"); failed != on || (log.synced > before) == on {
			t.Errorf("sync_source %t: the poll gave %v, and the change log was synced up to %d, before %d", on, err, log.synced, before)
		}
		if !on {
			continue
		}
		if err := c.durable(); err != nil || log.synced == before {
			t.Errorf("with an fsync that works: %v, the change log was synced up to %d", err, log.synced)
		}
	}
}
