package replica

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// TestValueAgainstItsType: a value that no SQL can write comes to the replica with
// a snapshot, and until there is one the replica says what it waits for.
func TestValueAgainstItsType(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT); INSERT INTO t VALUES(1,'one')")
	diverged, replaced := g.reaches(Diverged), make(chan struct{})
	g.on("replacing the file", func() { close(replaced) })
	g.start()
	g.equal()
	text := func(sql string) string {
		return "UPDATE sqlite_schema SET sql='" + sql + "' WHERE name='t'; PRAGMA writable_schema=RESET;"
	}
	lsn := g.step("PRAGMA writable_schema=ON;" + text("CREATE TABLE t(a INTEGER PRIMARY KEY, b)") + "INSERT INTO t VALUES(2,5);" +
		"PRAGMA writable_schema=ON;" + text("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)"))
	g.until(diverged)
	g.snaps.add(g.snapshot())
	g.until(replaced)
	g.step("INSERT INTO t VALUES(3,'three')")
	g.wait()
	c, err := sqlite.Open(g.o.Path, sqlite.Options{ReadOnly: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if diff := cmp.Diff(content(t, g.c), content(t, c)); diff != "" { // an integrity check complains of both
		t.Errorf("replica differs (-source +replica):\n%s", diff)
	}
	s := g.r.Status()
	if s.Counters.Divergences == 0 || s.Error == nil || !strings.Contains(s.Error.Text, "not of its column's type") {
		t.Errorf("LSN %d: counters %+v, error %+v", lsn, s.Counters, s.Error)
	}
}
