package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Many connections with large caches share what one may take, and write and read all
// the same.
func TestShareMemory(t *testing.T) {
	const each, share = 8 << 20, 12 << 20
	defer ShareMemory(0)
	dir := t.TempDir()
	fill := func(name string) int64 {
		before := MemoryUsed()
		for i := range 4 {
			c, err := Open(filepath.Join(dir, fmt.Sprint(name, i)), Options{Create: true, CacheBytes: each})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// Each transaction changes more pages than there is room for.
			err = c.Exec(`PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<4000) INSERT INTO t SELECT i, zeroblob(3000) FROM n;
UPDATE t SET v=randomblob(3000)`)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := c.QueryInt("SELECT sum(length(v)) FROM t"); err != nil || n != 4000*3000 {
				t.Fatalf("%d bytes are read, %v", n, err)
			}
			if ok, err := c.QueryText("PRAGMA integrity_check"); err != nil || ok != "ok" {
				t.Fatalf("%s, %v", ok, err)
			}
		}
		return MemoryUsed() - before
	}
	if alone := fill("alone"); alone < 4*each/2 {
		t.Fatalf("without a bound they take %d bytes: the test shows nothing", alone)
	}
	ShareMemory(MemoryUsed() + share)
	if shared := fill("shared"); shared > share*5/4 {
		t.Errorf("they take %d bytes of a share of %d", shared, share)
	}
}

// TestTempDir: what is sorted and does not fit into the cache is where it is said to be,
// in a file without a name.
func TestTempDir(t *testing.T) {
	dir := t.TempDir()
	TempDir(dir)
	defer TempDir("")
	c, err := Open(filepath.Join(t.TempDir(), "db"), Options{Create: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	files := 0
	err = c.Query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<4000) SELECT hex(zeroblob(500))||i AS v FROM n ORDER BY v LIMIT 3900", nil, func(Row) error {
		if files > 0 {
			return nil
		}
		fds, err := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) && strings.HasSuffix(to, "(deleted)") {
				files++
			}
		}
		return err
	})
	must(t, err)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 || files == 0 {
		t.Errorf("%d temporary files in %s, of which %v have names, %v", files, dir, left, err)
	}
}
