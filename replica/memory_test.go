package replica

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// taken is the most that SQLite takes in the process while f runs, in bytes, beside what
// it has at the start.
func taken(f func()) int64 {
	before := sqlite.MemoryUsed()
	sqlite.MemoryPeak()
	f()
	return sqlite.MemoryPeak() - before
}

// TestMemoryOfAnIndex: what is sorted for an index of many rows goes to a file.
func TestMemoryOfAnIndex(t *testing.T) {
	const rows, key = 15_000, 1000
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY); INSERT INTO t SELECT value FROM "+series(1, rows))
	g.o.Apply.CacheBytes = 2 << 20
	g.start()
	g.wait()
	most := taken(func() {
		g.step("CREATE INDEX i ON t(hex(zeroblob(500)))")
		g.wait()
	})
	if most > rows*key/2 {
		t.Errorf("an index of %d bytes took %d of memory", rows*key, most)
	}
}

// TestMemoryOfAReseed: nor are the rows that a snapshot brings in memory at once, nor the
// pages that they come into.
func TestMemoryOfAReseed(t *testing.T) {
	const rows, row = 15_000, 1000
	dir := t.TempDir()
	s := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	must(t, s.c.Exec("INSERT INTO t SELECT 2*value, zeroblob(1000) FROM "+series(1, rows)))
	base := claimed(t, dir, s.snapshot())
	must(t, s.c.Exec("INSERT INTO t SELECT 2*value+1, zeroblob(1000) FROM "+series(1, rows)))
	to := s.mark()
	snapshot := filepath.Join(dir, "snapshot.db")
	must(t, os.WriteFile(snapshot, claimed(t, dir, s.snapshot()), 0o600))
	r, err := New(Options{Database: "app", Path: filepath.Join(dir, "replica.db"), Stream: s.log, Snapshots: &snapshots{}})
	must(t, err)
	r.a = reopened(t, dir, base)
	most := taken(func() { must(t, r.adopt(t.Context(), snapshot, to)) })
	if most > rows*row/2 {
		t.Errorf("rows of %d bytes took %d of memory", rows*row, most)
	}
	n, err := r.a.guard.conn.QueryInt("SELECT count(*) FROM t")
	must(t, err)
	if n != 2*rows {
		t.Errorf("%d rows", n)
	}
	must(t, r.a.guard.close())
}
