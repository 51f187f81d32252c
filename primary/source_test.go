package primary

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

func TestSourcesThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("this is not a database. ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	exclusive := makeSource(t, oneTable)
	c, err := sqlite.Open(exclusive, sqlite.Options{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Exec("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t(v) VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	noWAL := makeSource(t, oneTable) // root may write to any directory
	if err := os.Mkdir(noWAL+"-wal", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want error
		text string
	}{
		{filepath.Join(dir, "absent.db"), errAbsent, "absent.db"},
		{empty, errAbsent, "empty.db"},
		{text, ErrNotDatabase, "unencrypted"},
		{dir, ErrNotDatabase, "is a directory"},
		{exclusive, errExclusive, "locking_mode=EXCLUSIVE"},
		{noWAL, nil, "must be writable"},
	} {
		src, err := openSource(c.path)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v and %q", c.path, err, c.want, c.text)
		}
		if err == nil {
			_ = src.close()
		}
	}
}

func TestReplacedFilesAreSeen(t *testing.T) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		b := newBench(t, oneTable)
		src, err := openSource(b.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := src.unmoved(); err != nil {
			t.Errorf("untouched: %v", err)
		}
		if err := os.Rename(b.path+suffix, b.path+suffix+".away"); err != nil {
			t.Fatal(err)
		}
		if err := copyFile(b.path+suffix+".away", b.path+suffix); err != nil {
			t.Fatal(err)
		}
		if err := src.unmoved(); !errors.Is(err, errReplaced) {
			t.Errorf("%q replaced: %v", suffix, err)
		}
		if err := src.close(); err != nil {
			t.Error(err)
		}
	}
}

// TestGlance: whatever a program does to the SQLite WAL shows at a glance, and
// nothing else does.
func TestGlance(t *testing.T) {
	b := newBench(t, oneTable)
	c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	for _, s := range []struct {
		sql   string
		taken int // transactions
		shows bool
	}{
		{"SELECT count(*) FROM t", 0, false},
		{"INSERT INTO t(v) VALUES(1)", 1, true},
		{"BEGIN IMMEDIATE; INSERT INTO t(v) VALUES(2); ROLLBACK", 0, false},
		{"INSERT INTO t(v) VALUES(1); INSERT INTO t(v) VALUES(1)", 2, true},
		{"PRAGMA wal_checkpoint(PASSIVE)", 0, true},
		{"PRAGMA wal_checkpoint(PASSIVE)", 0, false},
		{"DELETE FROM t", 1, true},
	} {
		if _, err := c.poll(); err != nil {
			t.Fatal(err)
		}
		if seen := c.follower.seen; seen != c.src.glance() || !seen.whole() {
			t.Fatalf("before %q: what was seen is not what is there", s.sql)
		}
		b.exec(s.sql)
		if got := c.follower.seen != c.src.glance(); got != s.shows {
			t.Errorf("%q shows: %t, want %t", s.sql, got, s.shows)
		}
		if n, err := c.poll(); n != s.taken || err != nil {
			t.Errorf("%q: %d transactions, %v, want %d", s.sql, n, err, s.taken)
		}
	}
	torn := c.src.glance()
	torn[16]++ // mxFrame of one copy
	if torn.whole() || new(glance).whole() {
		t.Error("a header that is being written, or was never, passes for a whole one")
	}
}
