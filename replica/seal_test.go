package replica

import (
	"bytes"
	"context"
	"errors"
	"os"
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
	if sum := g.sealed(); sum != broken {
		t.Fatalf("seal %q", sum)
	}
	g.o.Apply.OnDivergence = Reseed
	g.run()
	g.step("INSERT INTO more VALUES(1)")
	g.equal()
	if s := g.r.Status(); s.Counters.Reseeds != 1 || !strings.Contains(s.Error.Text, "another program wrote") {
		t.Errorf("counters %+v, error %+v", s.Counters, s.Error)
	}
}

// sealed is the hash of the schema in the file, or what stands for it.
func (g *rig) sealed() string {
	g.t.Helper()
	c, err := sqlite.Open(g.o.Path, sqlite.Options{ReadOnly: true})
	must(g.t, err)
	sum, err := readSeal(c)
	must(g.t, errors.Join(err, c.Close()))
	return sum
}

// TestWrongSnapshotIsNotForgotten: where an older snapshot did not help, the replica waits
// for a newer one, and still does so after it was started again.
func TestWrongSnapshotIsNotForgotten(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one')")
	audited, logger := g.audits(), g.o.Logger
	snap := g.snapshot()
	restore := snap.Restore
	snap.Restore = func(ctx context.Context, path string, progress func(int64)) error {
		must(t, restore(ctx, path, progress))
		b, err := os.ReadFile(path)
		must(t, err)
		return os.WriteFile(path, bytes.ReplaceAll(b, []byte("one"), []byte("eno")), 0o600)
	}
	g.snaps.add(snap)
	waiting := g.reaches(Waiting)
	g.run()
	g.wait()
	g.until(audited)
	g.step("INSERT INTO t VALUES(2,'two')") // its hash does not hold, and not after a re-seed either
	g.until(waiting)
	for range 2 {
		must(t, ignoreCanceled(g.stop()))
		if sum := g.sealed(); parseBroken(sum) == nil || parseBroken(sum).min == 0 {
			t.Fatalf("seal %q", sum)
		}
		g.o.Logger = logger
		waiting = g.reaches(Waiting)
		g.run()
		g.until(waiting)
	}
	g.snaps.add(g.snapshot())
	g.step("INSERT INTO t VALUES(3,'three')")
	g.equal()
}

// TestFoundWrongAndKilled: what was found is in the file at once.
func TestFoundWrongAndKilled(t *testing.T) {
	g := newRig(t, sealTables)
	g.o.Apply.OnDivergence = Stop
	stopped := make(chan struct{})
	g.on("replica stopped applying", func() { close(stopped) })
	g.start()
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DELETE FROM t; " + unseen)
	g.run()
	g.step("UPDATE t SET b='zwei' WHERE a=2")
	g.until(stopped)
	if sum := g.sealed(); sum != broken {
		t.Errorf("seal %q", sum)
	}
}

// TestOpenComparesFirst: a file that could not be compared with its seal is not open, and
// the next try compares it.
func TestOpenComparesFirst(t *testing.T) {
	g := newRig(t, sealTables)
	g.start()
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DROP TABLE _replicator_schema; DROP TABLE _replicator_sums") // as of an earlier version
	other, err := sqlite.Open(g.o.Path, sqlite.Options{})
	must(t, err)
	defer func() { must(t, other.Close()) }()
	must(t, other.BeginImmediate())
	r, err := New(g.o)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // one try
	if err := r.open(ctx); err == nil || r.a != nil {
		t.Fatalf("open: %v; the file counts as open: %t", err, r.a != nil)
	}
	must(t, other.Rollback())
	must(t, r.open(t.Context()))
	if r.a.cookie == unsealed || g.sealed() == "" {
		t.Errorf("not sealed: %q", g.sealed())
	}
	must(t, r.a.guard.close())
}

// TestReseedForgetsHashes: those that were written for the rows before are not those of the
// rows after it, though the LSN is the same.
func TestReseedForgetsHashes(t *testing.T) {
	g := newRig(t, sealTables)
	audited := g.audits()
	g.start()
	g.equal()
	g.until(audited)
	must(t, ignoreCanceled(g.stop()))
	seeded := make(chan struct{})
	g.on("replica file seeded again", func() { close(seeded) })
	g.scribble("CREATE TABLE stray(x)")
	g.run()
	g.until(seeded)
	c, err := sqlite.Open(g.o.Path, sqlite.Options{ReadOnly: true})
	must(t, err)
	n, err := c.QueryInt("SELECT count(*) FROM _replicator_sums")
	if must(t, errors.Join(err, c.Close())); n != 0 {
		t.Errorf("%d hashes are left", n)
	}
}
