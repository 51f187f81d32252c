package primary

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// TestHeaderChanges: rows cannot be compared across another usable size of pages, as a
// VACUUM makes it, or another encoding, as a backup that is written over the source may
// have. To decode that again would fail again: it is a doubt, in no snapshot.
func TestHeaderChanges(t *testing.T) {
	for name, change := range map[string][]string{
		"reserved bytes": {".filectrl reserve_bytes 8", "VACUUM"},
		"encoding":       {".restore other.db"},
	} {
		t.Run(name, func(t *testing.T) {
			path := makeSource(t, "PRAGMA journal_mode=WAL; "+oneTable)
			shell := func(arguments ...string) {
				t.Helper()
				c := exec.CommandContext(t.Context(), "sqlite3", arguments...)
				c.Dir = filepath.Dir(path)
				if out, err := c.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			shell("other.db", "PRAGMA encoding='UTF-16le'; "+oneTable)
			c := startCapture(t, path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
			shell(append([]string{path}, change...)...)
			_, err := c.poll()
			if !errors.Is(err, errHeaderChanged) {
				t.Fatalf("nothing is tested: %v", err)
			}
			p := Pipeline{doubts: &doubts{}}
			p.doubtAfter(err)
			if d := p.doubts.standing(); d == nil || d.Sound != nil {
				t.Errorf("after %v the doubt is %+v", err, d)
			}
		})
	}
}

// TestStateOfAHeaderChange: while it is found out that nothing can be compared, the database
// is no failed one.
func TestStateOfAHeaderChange(t *testing.T) {
	b := newBench(t, oneTable)
	compared := b.resyncing()
	b.start()
	b.awaitSnapshot(b.sync().LSN)
	if out, err := exec.CommandContext(b.ctx, "sqlite3", b.path, ".filectrl reserve_bytes 8", "VACUUM").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	compared()
}
