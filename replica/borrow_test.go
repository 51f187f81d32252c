package replica

import "testing"

// TestBorrowInASchemaThatDoesNotParse: a view of a table that is gone, and a
// trigger that writes through it, are no concern of a table whose rowid has no
// name left.
func TestBorrowInASchemaThatDoesNotParse(t *testing.T) {
	g := newRig(t, `CREATE TABLE gone(a); CREATE VIEW broken AS SELECT * FROM gone; CREATE TABLE t(rowid TEXT, oid INT, _rowid_ REAL);
CREATE INDEX i ON t(oid, rowid); CREATE VIEW sound AS SELECT oid FROM t;
CREATE TRIGGER tr AFTER DELETE ON t BEGIN INSERT INTO gone SELECT a FROM broken WHERE a=old.oid; END; DROP TABLE gone`)
	g.start()
	g.wait()
	for rowid := range int64(3) {
		g.exec("INSERT INTO t VALUES('row', 1, 1.5)")
		g.insert("t", rowid+1, encode("row", 1, 1.5)) // by hand: no SQL reads the rowid
		must(t, g.enc.Flush())
		g.equal()
	}
	if n := g.r.Status().Counters; n.Divergences != 0 || n.Reseeds != 0 {
		t.Errorf("equal only because it was seeded again: %+v", n)
	}
}

// TestReseedOfATableWithoutARowidName: such a file is replaced, since no SQL can
// bring its rows to the ones of a snapshot.
func TestReseedOfATableWithoutARowidName(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(rowid TEXT, oid INT, _rowid_ REAL); INSERT INTO t VALUES('one', 1, 1.5); CREATE TABLE plain(a)")
	g.start()
	g.wait()
	must(t, g.enc.Break(g.boundary(), "test"))
	g.exec("INSERT INTO t VALUES('two', 2, 2.5)")
	g.insert("t", 2, encode("two", 2, 2.5))
	must(t, g.enc.Flush())
	g.snaps.add(g.snapshot())
	g.equal()
	g.step("INSERT INTO plain VALUES(1)")
	g.equal()
}
