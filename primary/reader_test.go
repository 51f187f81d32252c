package primary

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// foreignReader opens a read transaction in another process and returns its number and
// what ends it.
func foreignReader(t *testing.T, path string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sqlite3", path)
	in, err := cmd.StdinPipe()
	noError(t, err)
	out, err := cmd.StdoutPipe()
	noError(t, err)
	cmd.Stderr = os.Stderr
	noError(t, cmd.Start())
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = in.Close() // ends the shell
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	_, err = io.WriteString(in, "BEGIN; SELECT 'reading', count(*) FROM t;\n")
	noError(t, err)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "reading") {
		t.Fatalf("the reader says %q: %v", line, err)
	}
	return cmd.Process.Pid, end
}

// A reader that never ends makes the SQLite WAL grow: the status says so with its size,
// since when, and who it is, long before the bound, and stops when it ends.
func TestForeignReader(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.Capture.TurnoverBytes = 64 << 10 }
	b.start()
	b.awaitSnapshot(b.sync().LSN)
	// Writers that go on are all that wakes the capture.
	until := func(done func(*HeldWAL) bool) (h *HeldWAL) {
		t.Helper()
		for {
			for range 10 {
				b.exec("INSERT INTO t(v) VALUES(randomblob(3000))")
			}
			b.sync()
			if h = b.p.Status().Capture.Held; done(h) {
				return h
			}
		}
	}
	before := time.Now()
	pid, end := foreignReader(t, b.path)
	first := until(func(h *HeldWAL) bool { return h != nil })
	if first.Bytes < heldFrom*64<<10 || first.Since.Before(before) || first.Since.After(time.Now()) {
		t.Errorf("held: %+v", first)
	}
	if len(first.Processes) != 1 || first.Processes[0] != pid {
		t.Errorf("held by %v, want %d", first.Processes, pid)
	}
	later := until(func(h *HeldWAL) bool { return h == nil || h.Bytes > first.Bytes })
	if later == nil || !later.Since.Equal(first.Since) {
		t.Fatalf("first %+v, later %+v", first, later)
	}
	s := b.p.Status()
	if s.State != StateStreaming || s.Error != "" {
		t.Errorf("%s: %s", s.State, s.Error)
	}
	generations := s.Capture.Generations
	end()
	until(func(h *HeldWAL) bool { return h == nil })
	if s := b.p.Status(); s.Capture.Generations == generations {
		t.Error("the warning is gone and the SQLite WAL has not started over")
	}
}

// TestShortReader: one that ends in time is no warning, however often it comes.
func TestShortReader(t *testing.T) {
	b := newBench(t, oneTable)
	c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	most := heldFrom * c.options.TurnoverBytes
	for _, tt := range []struct {
		since time.Time
		size  int64
		want  bool
	}{
		{time.Now(), most - 1, false}, {time.Time{}, 2 * most, false}, {time.Now(), most, true}, {time.Now(), 2 * most, true}, {time.Time{}, 2 * most, false},
	} {
		c.follower.heldSince = tt.since
		noError(t, c.noteReader(tt.size))
		if got := c.upkeep.reader; (got != nil) != tt.want || got != nil && got.Bytes != tt.size {
			t.Errorf("%d bytes, held since %s: %+v", tt.size, tt.since, got)
		}
	}
}
