package primary

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// TestPhantomIsNotCaptured: where the application's fsync of the SQLite WAL fails, its
// transaction does, and yet the frames stand in the file, valid to the last checksum.
// Only mxFrame tells that they are not committed, and the next transaction overwrites
// them.
func TestPhantomIsNotCaptured(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE t(v)")
	app := openApp(t, path)
	var captured []string
	c := startCapture(t, path, newMemoryLog(func(ch *cdc.Change) error {
		if ch.Op == cdc.OpInsert {
			captured = append(captured, string(ch.New))
		}
		return nil
	}), testCaptureOptions())
	insert(t, app, "first")
	polls(t, c, 1)
	leavePhantom(t, c, path)
	polls(t, c, 0)
	insert(t, app, "second")
	polls(t, c, 1)
	if len(captured) != 2 || !strings.Contains(captured[0], "first") || !strings.Contains(captured[1], "second") {
		t.Errorf("captured %q", captured)
	}
}

func insert(t *testing.T, app *sqlite.Conn, v string) {
	t.Helper()
	if err := app.Exec("INSERT INTO t VALUES (?)", v); err != nil {
		t.Fatal(err)
	}
}

func polls(t *testing.T, c *capture, want int) {
	t.Helper()
	if n, err := c.poll(); n != want || err != nil {
		t.Fatalf("captured %d transactions, want %d: %v", n, want, err)
	}
}

// leavePhantom puts a transaction behind the last one, as a copy of the database gets
// it. Other processes touch the files: to close one here would drop this process's locks.
func leavePhantom(t *testing.T, c *capture, path string) {
	t.Helper()
	twin := filepath.Join(t.TempDir(), filepath.Base(path))
	run(t, "cp", path, path+"-wal", filepath.Dir(twin))
	insert(t, openApp(t, twin), "phantom")
	at := c.follower.position()
	offset := sqlitefile.FrameOffset(at.Frame+1, at.PageSize)
	run(t, "dd", "if="+twin+"-wal", "of="+path+"-wal", "conv=notrunc", "status=none",
		"iflag=skip_bytes", "oflag=seek_bytes", fmt.Sprintf("skip=%d", offset), fmt.Sprintf("seek=%d", offset))
	run(t, "cp", path+"-wal", twin+"-seen")
	file, err := os.Open(twin + "-seen")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // reading only
	r := sqlitefile.NewWALReader(file)
	if err := r.Resume(at); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := r.Next(math.MaxUint32); !ok || err != nil {
		t.Fatalf("the phantom is no valid transaction: %t, %v", ok, err)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
