package replica

import (
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

const sealTables = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two'); CREATE TABLE idle(x); INSERT INTO idle VALUES(1); CREATE INDEX i ON t(b)"

// TestStrayWhileStopped: whatever is put into the file while the replica is away is
// found when it starts, with no transaction of the source to tell.
func TestStrayWhileStopped(t *testing.T) {
	for _, c := range []struct {
		name, sql string
		rows      bool // it shows in rows, and not in the schema
	}{
		{"trigger", "CREATE TRIGGER stray AFTER INSERT ON t BEGIN DELETE FROM idle; END", false},
		{"table", "CREATE TABLE stray(x)", false},
		{"index", "CREATE UNIQUE INDEX stray ON t(b)", false},
		{"view", "CREATE VIEW stray AS SELECT 1", false},
		{"index dropped", "DROP INDEX i", false},
		{"table dropped", "DROP TABLE idle", false},
		{"column", "ALTER TABLE idle ADD COLUMN y", false},
		{"statistics", "ANALYZE", false},
		{"edited by hand", "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=replace(sql, '(x)', '(x INT)') WHERE name='idle'", false},
		{"row changed", "UPDATE idle SET x=2", true},
		{"row inserted", "INSERT INTO idle VALUES(7)", true},
		{"row deleted", "DELETE FROM idle", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, sealTables)
			audited := g.audits()
			g.start()
			g.step("ALTER TABLE t ADD COLUMN c; INSERT INTO t VALUES(3,'three',3)")
			g.equal()
			g.until(audited)
			must(t, ignoreCanceled(g.stop()))
			g.scribble(c.sql)
			seeded := make(chan struct{})
			g.on("replica file seeded again", func() { close(seeded) })
			g.run()
			g.until(seeded)
			g.step("INSERT INTO t VALUES(4,'four',4)")
			g.equal()
			n := g.r.Status().Counters
			if n.Reseeds != 1 || (n.Mismatches == 1) != c.rows || (n.StrayWrites == 1) == c.rows {
				t.Errorf("counters %+v, error %+v", n, g.r.Status().Error)
			}
		})
	}
}

// TestNobodyElseWrote is the control: what the replica does itself breaks no seal,
// however it ends.
func TestNobodyElseWrote(t *testing.T) {
	g := newRig(t, sealTables)
	audited := g.audits()
	g.start()
	for _, sql := range []string{"INSERT INTO t VALUES(3,'three')", "CREATE TABLE more(a)", "DROP INDEX i; ANALYZE", "ALTER TABLE t RENAME TO u", "VACUUM"} {
		g.step(sql)
		g.equal()
		g.until(audited)
		must(t, ignoreCanceled(g.stop()))
		g.run()
		g.equal()
		if s := g.r.Status(); s.Counters.Reseeds+s.Counters.StrayWrites+s.Counters.Divergences != 0 || s.Error != nil {
			t.Fatalf("%s: counters %+v, error %+v", sql, s.Counters, s.Error)
		}
	}
	// After a kill the hashes are of an earlier LSN, and say nothing.
	must(t, ignoreCanceled(g.stop()))
	g.scribble("UPDATE _replicator_sums SET lsn=lsn-1, sum=zeroblob(16)")
	g.run()
	g.until(audited)
	g.step("INSERT INTO more VALUES(1)")
	g.equal()
	if n := g.r.Status().Counters; n.Reseeds != 0 {
		t.Errorf("counters %+v", n)
	}
}

// TestFoundWrongAndStopped: what was found and not mended yet is mended by the next
// run. A file of an earlier version has no seal, and gets one.
func TestFoundWrongAndStopped(t *testing.T) {
	g := newRig(t, sealTables)
	g.o.Apply.OnDivergence = Stop
	stopped := g.reaches(Diverged)
	g.start()
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DROP TABLE _replicator_schema; DROP TABLE _replicator_sums")
	g.run()
	g.step("CREATE TABLE more(a)")
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("CREATE TABLE stray(x)")
	g.run()
	g.until(stopped)
	must(t, ignoreCanceled(g.stop()))
	c, err := sqlite.Open(g.o.Path, sqlite.Options{ReadOnly: true})
	must(t, err)
	sum, err := readSeal(c)
	must(t, c.Close())
	if err != nil || sum != broken {
		t.Fatalf("seal %q, %v", sum, err)
	}
	g.o.Apply.OnDivergence = Reseed
	g.run()
	g.step("INSERT INTO more VALUES(1)")
	g.equal()
	if s := g.r.Status(); s.Counters.Reseeds != 1 || !strings.Contains(s.Error.Text, "another program wrote") {
		t.Errorf("counters %+v, error %+v", s.Counters, s.Error)
	}
}
