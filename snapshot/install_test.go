package snapshot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A scene is a directory by name of file, before an install of new.db as app.db.
type scene map[string][]byte

func (s scene) lay(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, b := range s {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readScene(t *testing.T, dir string) scene {
	t.Helper()
	s := scene{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if s[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func open(t *testing.T, path string, o sqlite.Options) *sqlite.Conn {
	t.Helper()
	c, err := sqlite.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func exec(t *testing.T, c *sqlite.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if err := c.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// fillTable gives every one of 500 rows, many pages, the generation gen.
const (
	createTable = `CREATE TABLE t(id INTEGER PRIMARY KEY, gen INTEGER, pad TEXT)`
	fillTable   = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)
		INSERT INTO t SELECT i, 1, printf('%0200d', i) FROM n`
)

// database builds app.db of the given journal mode at generation 1; grow may
// take it further before it is read.
func database(t *testing.T, mode string, grow func(c *sqlite.Conn)) scene {
	t.Helper()
	dir := t.TempDir()
	c := open(t, filepath.Join(dir, "app.db"), sqlite.Options{Create: true})
	exec(t, c, "PRAGMA journal_mode="+mode, createTable, fillTable)
	if mode == "WAL" {
		truncate(t, c)
	}
	var s scene
	if grow != nil {
		grow(c)
		s = readScene(t, dir)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if s == nil {
		s = readScene(t, dir)
	}
	return s
}

// scenes returns the states an old database can be in, each at generation 2.
func scenes(t *testing.T) map[string]scene {
	t.Helper()
	up := "UPDATE t SET gen=2"
	closed := database(t, "DELETE", func(c *sqlite.Conn) { exec(t, c, up) })
	checkpointed := database(t, "WAL", func(c *sqlite.Conn) {
		exec(t, c, up)
		truncate(t, c)
	})
	// A checkpoint that a crash cut short: half of the pages are in the database,
	// all of them in the SQLite WAL.
	torn := database(t, "WAL", func(c *sqlite.Conn) { exec(t, c, up) })
	for at := 0; at < len(torn["app.db"]); at += 2 * 4096 {
		copy(torn["app.db"][at:at+4096], checkpointed["app.db"][at:])
	}
	// A transaction that a crash cut short: the database is half at generation 3,
	// and the journal knows the way back.
	hot := database(t, "DELETE", func(c *sqlite.Conn) {
		exec(t, c, up, "PRAGMA cache_size=5", "PRAGMA cache_spill=5", "BEGIN", "UPDATE t SET gen=3")
	})
	if len(hot["app.db-journal"]) == 0 || len(torn["app.db-wal"]) == 0 {
		t.Fatal("the scenes lack a journal or a SQLite WAL")
	}
	all := map[string]scene{
		"closed": closed, "checkpointed": checkpointed, "torn checkpoint": torn, "hot journal": hot,
		"none": {}, "stale WAL": {"app.db-wal": torn["app.db-wal"], "app.db-shm": torn["app.db-shm"]},
	}
	// Other pages than the old one has, so that a replay into it shows.
	fresh := database(t, "WAL", func(c *sqlite.Conn) {
		exec(t, c, "CREATE TABLE old AS SELECT * FROM t", "DROP TABLE t", createTable,
			"INSERT INTO t SELECT id, 9, pad FROM old", "DROP TABLE old")
		truncate(t, c)
	})
	for _, s := range all {
		s["new.db"] = fresh["app.db"]
	}
	return all
}

func truncate(t *testing.T, c *sqlite.Conn) {
	t.Helper()
	if _, err := c.Checkpoint(sqlite.Truncate); err != nil {
		t.Fatal(err)
	}
}

// generation opens app.db as an application does, and returns what it finds: "2",
// "9", "none", or something wrong.
func generation(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "app.db")
	if _, err := os.Stat(path); err != nil {
		return "none"
	}
	c, err := sqlite.Open(path, sqlite.Options{Plain: true})
	if err != nil {
		return err.Error()
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	check, err := c.QueryText("PRAGMA integrity_check")
	if err != nil || check != "ok" {
		return "corrupt: " + check
	}
	s, err := c.QueryText("SELECT group_concat(gen || ' x ' || n) FROM (SELECT gen, count(*) AS n FROM t GROUP BY gen)")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(s, " x 500")
}

// crash returns every state in which a crash or power failure can leave the
// directory while the steps run: after each step, all before the last syncdir
// have happened, and of those since then any subset.
func crash(t *testing.T, s scene, steps []step) (states []scene) {
	t.Helper()
	synced := []step{}
	var loose []step
	for n := range len(steps) + 1 {
		for subset := range 1 << len(loose) {
			after := scene{}
			for name, b := range s {
				after[name] = b
			}
			for _, st := range synced {
				after.do(st)
			}
			for i, st := range loose {
				if subset>>i&1 == 1 {
					after.do(st)
				}
			}
			states = append(states, after)
		}
		if n == len(steps) {
			break
		}
		if steps[n].Op == "syncdir" {
			synced, loose = append(synced, loose...), nil
		} else {
			loose = append(loose, steps[n])
		}
	}
	return states
}

func (s scene) do(st step) {
	switch st.Op {
	case "remove":
		delete(s, st.Name)
	case "rename":
		if b, ok := s[st.Name]; ok {
			s[st.To] = b
			delete(s, st.Name)
		}
	}
}

// At every crash point SQLite finds the old database or the new one; none only
// where the old one cannot do without its SQLite WAL or journal, and then the
// new file is still there to install again.
func TestInstallCrash(t *testing.T) {
	for name, s := range scenes(t) {
		t.Run(name, func(t *testing.T) {
			mayBeNone := name != "closed" && name != "checkpointed"
			dir := s.lay(t)
			dfs := &traceFS{}
			if err := install(dfs, filepath.Join(dir, "new.db"), filepath.Join(dir, "app.db")); err != nil {
				t.Fatal(err)
			}
			if got := generation(t, dir); got != "9" {
				t.Fatalf("installed generation %q, want 9", got)
			}
			seen := map[string]int{}
			for _, after := range crash(t, s, dfs.steps) {
				dir := after.lay(t)
				got := generation(t, dir)
				seen[got]++
				if got != "2" && got != "9" && (got != "none" || !mayBeNone) {
					t.Fatalf("after a crash: generation %q, steps %v", got, dfs.steps)
				}
				if _, err := os.Stat(filepath.Join(dir, "new.db")); err != nil {
					continue // installed
				}
				if err := Install(filepath.Join(dir, "new.db"), filepath.Join(dir, "app.db")); err != nil {
					t.Fatal(err)
				}
				if got := generation(t, dir); got != "9" {
					t.Fatalf("installed again: generation %q, want 9", got)
				}
			}
			if seen["9"] == 0 || len(seen) < 2 {
				t.Errorf("crashes left %v", seen)
			}
		})
	}
}

// The orders that come to mind first are wrong, and the test above would say so.
func TestInstallNaiveOrders(t *testing.T) {
	rename := step{"rename", "new.db", "app.db"}
	removeWAL := step{Op: "remove", Name: "app.db-wal"}
	sync := step{Op: "syncdir"}
	s := scenes(t)["torn checkpoint"]
	for name, steps := range map[string][]step{
		"rename first": {rename, sync, removeWAL, sync},
		"remove first": {removeWAL, sync, rename, sync},
	} {
		bad := ""
		for _, after := range crash(t, s, steps) {
			if got := generation(t, after.lay(t)); got != "2" && got != "9" {
				bad = got
			}
		}
		if bad == "" {
			t.Errorf("%s is harmless: the scene or the model of a crash proves nothing", name)
		}
		t.Logf("%s: a crash leaves %q", name, bad)
	}
}

func TestInstallRefuses(t *testing.T) {
	for _, suffix := range []string{".partial", "-wal", "-journal"} {
		s := scene{"new.db": {1}, "new.db" + suffix: {1}, "app.db": {2}, "app.db-wal": {3}}
		dir := s.lay(t)
		if err := Install(filepath.Join(dir, "new.db"), filepath.Join(dir, "app.db")); err == nil {
			t.Errorf("Install accepts a file with %s", suffix)
		}
		if after := readScene(t, dir); len(after) != len(s) {
			t.Errorf("Install refuses %s and leaves %d files of %d", suffix, len(after), len(s))
		}
	}
	dir := scene{"app.db": {2}, "app.db-wal": {3}}.lay(t)
	if err := Install(filepath.Join(dir, "new.db"), filepath.Join(dir, "app.db")); err == nil {
		t.Error("Install accepts a missing file")
	}
	if len(readScene(t, dir)) != 2 {
		t.Error("Install of a missing file removes the old one")
	}
}

func TestInstallKeepsMode(t *testing.T) {
	dir := scene{"new.db": {1}, "app.db": {2}}.lay(t)
	if err := os.Chmod(filepath.Join(dir, "app.db"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Install(filepath.Join(dir, "new.db"), filepath.Join(dir, "app.db")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "app.db"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode is %v, want that of the old file", info.Mode())
	}
}

// A real database goes through a store and comes out as itself.
func TestRealDatabase(t *testing.T) {
	db := database(t, "WAL", nil)["app.db"]
	store := NewDir(filepath.Join(t.TempDir(), "snapshots"))
	m := mustMake(t, store, &memSource{pageSize: 4096, data: db}, 5, Options{})
	if m.Encoding != "UTF-8" {
		t.Errorf("encoding is %q", m.Encoding)
	}
	dir := t.TempDir()
	tmp := filepath.Join(dir, "app.db.restoring")
	if err := Restore(t.Context(), store, m, tmp, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Install(tmp, filepath.Join(dir, "app.db")); err != nil {
		t.Fatal(err)
	}
	if got := generation(t, dir); got != "1" {
		t.Errorf("restored generation %q, want 1", got)
	}
}

var _ durable.FS = (*traceFS)(nil)
