package replica

import (
	"strings"
	"testing"
)

// unheard makes the text of a table call a function that this program does not have, as it
// is where the application has registered one: there it may write the table.
func unheard(table, expr string) string {
	return "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=replace(sql, '" + expr + "', 'unheard_of(a)') WHERE name='" + table + "'; PRAGMA writable_schema=RESET;"
}

// TestCheckOfAFunctionThatIsNotThere: it keeps no table away, live and when the file is
// seeded. Constraints hold back nothing of what happened anyway.
func TestCheckOfAFunctionThatIsNotThere(t *testing.T) {
	g := newRig(t, "CREATE TABLE base(x); PRAGMA ignore_check_constraints=ON")
	g.start()
	g.step("CREATE TABLE c(a UNIQUE CHECK(a>0), b); CREATE TABLE w(a PRIMARY KEY CHECK(a>0)) WITHOUT ROWID;" + unheard("c", "a>0") + unheard("w", "a>0"))
	g.equal()
	g.step("INSERT INTO c(a,b) VALUES(1,1),(2,2); INSERT INTO w VALUES('w'); UPDATE c SET b=b+1 WHERE a=1; ALTER TABLE c ADD COLUMN d")
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DROP TABLE c")
	seeded := make(chan struct{})
	g.on("replica file seeded again", func() { close(seeded) })
	g.run()
	g.until(seeded)
	g.step("INSERT INTO c(a,b) VALUES(3,3)")
	g.equal()
	if n := g.r.Status().Counters; n.Divergences != 0 {
		t.Errorf("counters %+v", n)
	}
}

// TestColumnOfAFunctionThatIsNotThere: a row with such a generated column cannot be
// written, and the replica says so.
func TestColumnOfAFunctionThatIsNotThere(t *testing.T) {
	g := newRig(t, "CREATE TABLE s(a, g AS (a+0) STORED);"+unheard("s", "a+0"))
	failed := g.reaches(Failed)
	g.start()
	g.insert("s", 1, encode("x", "y"))
	must(t, g.enc.Flush())
	g.until(failed)
	if s := g.r.Status(); !strings.Contains(s.Error.Text, "unheard_of") || !strings.Contains(s.Error.Text, `"s"`) {
		t.Errorf("error %+v", s.Error)
	}
}

// TestReseedBesideACollationThatIsNotThere: a table whose key needs one cannot be written,
// and so the snapshot takes the place of the file.
func TestReseedBesideACollationThatIsNotThere(t *testing.T) {
	g := newRig(t, "CREATE TABLE u(a UNIQUE); INSERT INTO u VALUES('x'); CREATE TABLE t(a); PRAGMA writable_schema=ON; "+
		"UPDATE sqlite_schema SET sql='CREATE TABLE u(a COLLATE elsewhere UNIQUE)' WHERE name='u'; PRAGMA writable_schema=RESET")
	g.start()
	g.step("INSERT INTO t VALUES(1)")
	g.wait()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("CREATE TABLE stray(x)")
	replaced := make(chan struct{})
	g.on("replacing the file", func() { close(replaced) })
	g.run()
	g.until(replaced)
	g.step("INSERT INTO t VALUES(2)")
	g.wait()
}
