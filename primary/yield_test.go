package primary

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// TestOwnCheckpointsOfTheApplication runs FULL, RESTART and TRUNCATE checkpoints
// from another program while the capture holds its pin. Each must get through
// well before its busy timeout, which it reports by a first column of 0, and no
// change may be lost.
func TestOwnCheckpointsOfTheApplication(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	rows := 0
	for range 5 {
		for _, mode := range []string{"FULL", "RESTART", "TRUNCATE"} {
			b.exec("INSERT INTO t(v) VALUES(1)")
			b.sync()
			b.exec("INSERT INTO t(v) VALUES(2)")
			rows += 2
			out, err := exec.CommandContext(b.ctx, "sqlite3", "-cmd", ".timeout 20000", b.path, "PRAGMA wal_checkpoint("+mode+")").CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "0|") {
				t.Fatalf("%s: %s %v", mode, out, err)
			}
		}
	}
	b.sync()
	if b.has(cdc.Break) {
		t.Error("the history was broken")
	}
	if got := b.inserted(); got != rows {
		t.Errorf("captured %d rows, want %d", got, rows)
	}
	if b.p.Status().Capture.Yields == 0 {
		t.Error("no checkpoint ever met the pin: the test shows nothing")
	}
}
