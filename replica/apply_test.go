package replica

import (
	"fmt"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// applied runs each SQL text as one transaction of the source and compares after
// each, so that a failure names it.
func applied(t *testing.T, setup string, steps ...string) *rig {
	t.Helper()
	g := newRig(t, setup)
	g.start()
	g.wait()
	for _, sql := range steps {
		g.step(sql)
		t.Log(sql)
		g.equal()
	}
	if n := g.r.Status().Counters.Reseeds; n != 0 {
		t.Errorf("%d re-seeds", n)
	}
	return g
}

func TestApplyRows(t *testing.T) {
	tests := []struct {
		name, setup string
		steps       []string
		swaps       bool // needs the second way
	}{
		{"kinds", "CREATE TABLE t(a, b)", []string{
			"INSERT INTO t VALUES(1, 1.5), ('x', x'00ff'), (NULL, ''), (-1, x'')",
			"UPDATE t SET b=a, a=b",
			"DELETE FROM t WHERE rowid%2=0; INSERT INTO t VALUES('', zeroblob(70000))",
			"DELETE FROM t",
		}, false},
		{"without rowid", "CREATE TABLE w(v, k TEXT, n INTEGER, PRIMARY KEY(n, k)) WITHOUT ROWID", []string{
			"INSERT INTO w VALUES(1,'a',1),(2,'b',1),(3,'a',2)",
			"UPDATE w SET v=v+1; DELETE FROM w WHERE k='b'",
			"UPDATE w SET n=n+10",
		}, false},
		{"unique swap", "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v); INSERT INTO t VALUES(1,1,'a'),(2,2,'b'),(3,3,'c')", []string{
			"UPDATE t SET u=-u; UPDATE t SET u=CASE u WHEN -1 THEN 2 WHEN -2 THEN 1 ELSE 3 END",
			"INSERT INTO t VALUES(4,4,'d')",
		}, true},
		{"unique shift", "CREATE TABLE t(u INTEGER UNIQUE); INSERT INTO t SELECT value FROM " + series(1, 200), []string{
			"UPDATE t SET u=-u; UPDATE t SET u=1-u",
		}, true},
		{"unique in a cycle of rows that come and go", "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE); INSERT INTO t VALUES(1,1),(2,2),(3,3)", []string{
			"DELETE FROM t WHERE id=1; UPDATE t SET u=1 WHERE id=2; INSERT INTO t VALUES(9,2)",
			"UPDATE t SET u=-u; UPDATE t SET u=CASE id WHEN 2 THEN 2 WHEN 9 THEN 3 ELSE 1 END; INSERT INTO t VALUES(10,10)",
		}, true},
		{"two tables, one swaps", "CREATE TABLE a(u UNIQUE); CREATE TABLE b(x); INSERT INTO a VALUES(1),(2)", []string{
			"UPDATE a SET u=-u; UPDATE a SET u=3+u; INSERT INTO b SELECT value FROM " + series(1, 3000),
		}, true},
		{"header", "CREATE TABLE t(a)", []string{
			"PRAGMA user_version=7", "PRAGMA application_id=-9; INSERT INTO t VALUES(1)", "PRAGMA user_version=-1",
		}, false},
		{"constraints do not hold back what happened", "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p(id), n CHECK(n<10)); PRAGMA ignore_check_constraints=ON", []string{
			"INSERT INTO c VALUES(77, 77)",
		}, false},
		{"triggers do not fire", "CREATE TABLE t(a); CREATE TABLE l(a); CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO l VALUES(new.a); END", []string{
			"INSERT INTO t VALUES(1),(2)",
		}, false},
		{"generated columns", "CREATE TABLE t(a, v AS (a*2), s AS (a*3) STORED, b)", []string{
			"INSERT INTO t(a,b) VALUES(1,1),(2,2)", "UPDATE t SET a=a+1",
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := applied(t, tt.setup, tt.steps...)
			if n := g.r.Status().Counters.Swaps; (n > 0) != tt.swaps {
				t.Errorf("%d SQLite transactions were done again", n)
			}
		})
	}
}

// series is a subquery of the integers from first to last, as value.
func series(first, last int) string {
	return fmt.Sprintf("(WITH RECURSIVE s(value) AS (SELECT %d UNION ALL SELECT value+1 FROM s WHERE value<%d) SELECT value FROM s)", first, last)
}

func TestApplySchema(t *testing.T) {
	tests := []struct {
		name, setup string
		steps       []string
	}{
		{"tables and indexes", "CREATE TABLE base(x)", []string{
			"CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b, c TEXT DEFAULT 'd')",
			"INSERT INTO t(a,b) VALUES(1,2),(3,4),(5,6); CREATE INDEX tb ON t(b); CREATE UNIQUE INDEX tab ON t(a,b) WHERE b>2; CREATE INDEX te ON t(a+b)",
			"DROP INDEX tb; CREATE INDEX tb ON t(c)",
			"DROP TABLE t",
			"CREATE TABLE t(z); INSERT INTO t VALUES(1); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES(1,2)",
			"DROP TABLE w; DROP TABLE t; CREATE TABLE w(other); INSERT INTO w VALUES(1)",
			"ALTER TABLE w ADD COLUMN n DEFAULT 5; CREATE TABLE x AS SELECT * FROM w",
		}},
		{"alter", "CREATE TABLE p(id INTEGER PRIMARY KEY, a, b, c TEXT DEFAULT 'd', UNIQUE(a)); CREATE INDEX pb ON p(b); CREATE VIEW pv AS SELECT a,b FROM p; CREATE TRIGGER pt AFTER INSERT ON p BEGIN SELECT 1; END; INSERT INTO p(a,b) VALUES(1,2),(3,4)", []string{
			"ALTER TABLE p ADD COLUMN e INT DEFAULT 42",
			"INSERT INTO p(a,b) VALUES(5,6)",
			"ALTER TABLE p RENAME COLUMN b TO bb",
			"ALTER TABLE p RENAME TO p2",
			"INSERT INTO p2(a,bb) VALUES(7,8); UPDATE p2 SET e=1 WHERE a=1",
			"ALTER TABLE p2 DROP COLUMN c",
			"DROP VIEW pv; DROP TRIGGER pt",
			"CREATE VIEW pv AS SELECT 1; CREATE TRIGGER pt INSTEAD OF INSERT ON pv BEGIN SELECT 1; END",
			"BEGIN; CREATE TABLE p3(id INTEGER PRIMARY KEY, a, bb UNIQUE, e); INSERT INTO p3 SELECT id,a,bb,e FROM p2; DROP TABLE p2; ALTER TABLE p3 RENAME TO p2; COMMIT",
		}},
		{"a name that is another kind's", "CREATE TABLE x(a); CREATE VIEW v AS SELECT * FROM x; INSERT INTO x VALUES(1)", []string{
			"BEGIN; DROP VIEW v; CREATE TABLE v(a); INSERT INTO v VALUES(9); COMMIT",
			"BEGIN; DROP TABLE v; CREATE VIEW v AS SELECT 1; COMMIT",
			"BEGIN; DROP VIEW v; CREATE VIRTUAL TABLE v USING fts5(a); INSERT INTO v VALUES('hello'); COMMIT",
			"BEGIN; DROP TABLE v; CREATE INDEX v ON x(a); COMMIT",
			"BEGIN; DROP INDEX v; CREATE VIEW v AS SELECT 2; COMMIT",
			"BEGIN; DROP VIEW v; CREATE INDEX v ON x(a); COMMIT",
		}},
		{"names swapped", "CREATE TABLE a(x UNIQUE); CREATE TABLE b(y, z UNIQUE); INSERT INTO a VALUES(1); INSERT INTO b VALUES(2,2)", []string{
			"BEGIN; ALTER TABLE a RENAME TO tmp; ALTER TABLE b RENAME TO a; ALTER TABLE tmp RENAME TO b; COMMIT",
		}},
		{"statistics outlive a rebuild", "CREATE TABLE t(a, b); CREATE INDEX ti ON t(a); INSERT INTO t VALUES(1,1),(2,2)", []string{
			"ANALYZE",
			"ALTER TABLE t DROP COLUMN b",
			"DROP INDEX ti; CREATE INDEX ti ON t(a); ANALYZE",
			"DROP TABLE t",
			"DROP TABLE sqlite_stat1",
		}},
		{"statistics outlive a table that was renamed", "CREATE TABLE t(a, b); CREATE INDEX ti ON t(a); CREATE INDEX tb ON t(b); INSERT INTO t VALUES(1,1),(2,2); ANALYZE", []string{
			"ALTER TABLE t RENAME TO u",
			"DROP INDEX tb",
			"DROP TABLE u",
		}},
		{"auto_vacuum", "PRAGMA auto_vacuum=FULL; CREATE TABLE a(x UNIQUE); CREATE TABLE b(x UNIQUE); CREATE TABLE c(k PRIMARY KEY) WITHOUT ROWID; CREATE TABLE d(x)", []string{
			"INSERT INTO d VALUES(zeroblob(9000)); INSERT INTO b VALUES(1); INSERT INTO c VALUES(1)",
			"DROP TABLE a; DROP TABLE c", "INSERT INTO d VALUES(1); INSERT INTO b VALUES(2)",
		}},
		{"virtual tables", "CREATE TABLE base(x)", []string{
			"CREATE VIRTUAL TABLE ft USING fts5(a,b)",
			"INSERT INTO ft VALUES('hello world','x'),('good bye world','y'),('abc','z')",
			"INSERT INTO ft(ft) VALUES('optimize'); DELETE FROM ft WHERE rowid=3",
			"CREATE VIRTUAL TABLE rt USING rtree(id,x0,x1); INSERT INTO rt VALUES(1,0,1),(2,5,6)",
			"ALTER TABLE ft RENAME TO ft2",
			"INSERT INTO ft2 VALUES('new world','x')",
			"DROP TABLE rt", "DROP TABLE ft2",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { applied(t, tt.setup, tt.steps...) })
	}
}

func TestApplySequence(t *testing.T) {
	applied(t, "CREATE TABLE base(x)",
		"CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
		"INSERT INTO b(v) VALUES(1); INSERT INTO a(v) VALUES(1),(2)", // made in the other order than applied
		"UPDATE b SET id=100",
		"INSERT INTO b(id,v) VALUES(50,1)",
		"INSERT INTO b(v) VALUES(2)",
		"DELETE FROM sqlite_sequence WHERE name='a'",
		"INSERT INTO a(v) VALUES(3)",
		"UPDATE sqlite_sequence SET seq=7 WHERE name='b'",
		"DELETE FROM b",
		"ALTER TABLE a RENAME TO a2",
		"INSERT INTO a2(v) VALUES(3)",
		"ALTER TABLE a2 DROP COLUMN v",
		"DROP TABLE b", "DROP TABLE a2")
}

func TestApplySequenceInGroups(t *testing.T) {
	g := newRig(t, "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE); CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT)")
	g.snaps.add(g.snapshot())
	for i := range 50 {
		g.step(fmt.Sprintf("INSERT INTO a(u) VALUES(%d); INSERT INTO b DEFAULT VALUES; DELETE FROM b WHERE id%%3=0", i))
		if i%10 == 9 {
			g.step("UPDATE a SET u=-u; UPDATE a SET u=(SELECT max(u)-a.u FROM a) WHERE 0; UPDATE a SET u=1000-u; UPDATE a SET u=-u; UPDATE a SET u=1000+u; UPDATE a SET u=u")
		}
	}
	g.start()
	g.equal()
}

// Several transactions in one record, of which some swap rows.
func TestGroupWithSwaps(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE, v); INSERT INTO t(u) VALUES(1),(2),(3)")
	g.snaps.add(g.snapshot())
	for i := range 20 {
		g.exec(fmt.Sprintf("INSERT INTO t(u) VALUES(%d)", 100+i))
		g.emit()
		g.exec("UPDATE t SET u=-u WHERE id<4; UPDATE t SET u=4+u WHERE id<4; CREATE TABLE IF NOT EXISTS later(x)")
		g.emit()
		if i%3 == 0 {
			must(t, g.enc.Flush())
		}
	}
	must(t, g.enc.Flush())
	g.start()
	g.equal()
	if s := g.r.Status(); s.Counters.Swaps == 0 || s.Counters.Divergences != 0 {
		t.Errorf("counters %+v", s.Counters)
	}
}

// A transaction of many records is spooled, beyond the memory limit in a file,
// and undone when a new term begins in the middle of it.
func TestTransactionOverManyRecords(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)")
	g.on("replica file open", func() { g.r.a.spool.limit = 1 << 20 })
	g.start()
	g.wait()
	g.step("INSERT INTO t SELECT value, value, randomblob(4000) FROM " + series(1, 1000)) // 4 MB
	g.equal()
	g.step("UPDATE t SET u=-u; UPDATE t SET u=1001+u, v=randomblob(3000)") // 7 MB, swaps everywhere
	g.equal()
	if s := g.r.Status(); s.Counters.Swaps == 0 || s.Counters.Reseeds != 0 {
		t.Errorf("counters %+v", s.Counters)
	}
}

func TestUnfinishedTransactionIsUndone(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v); INSERT INTO t VALUES(1,1,1),(2,2,2)")
	g.start()
	g.wait()
	for _, sql := range []string{
		"CREATE TABLE x(a UNIQUE); INSERT INTO t SELECT value, value, zeroblob(2000) FROM " + series(3, 2000),
		"UPDATE t SET u=-u; UPDATE t SET u=4+u; INSERT INTO t SELECT value, value, zeroblob(2000) FROM " + series(10, 2000),
	} {
		g.exec("BEGIN;" + sql)
		before := g.log.records
		for _, op := range g.ops() {
			must(t, g.enc.Op(op))
		}
		if len(g.log.records) < len(before)+3 {
			t.Fatal("the transaction does not span records")
		}
		g.enc.Abandon()
		g.exec("ROLLBACK")
		g.read()
		g.restart()
		g.equal()
		g.step("INSERT INTO t VALUES((SELECT max(id)+1 FROM t), (SELECT max(u)+1 FROM t), 'next')")
		g.equal()
	}
}

func TestPartsKeepOrder(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.snaps.add(g.snapshot())
	for i := range 5 { // small, large, small, ... all waiting at once
		g.step(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		g.step("INSERT INTO t SELECT zeroblob(1000)||value FROM " + series(1, 2000))
	}
	g.start()
	g.equal()
	if g.r.Status().Applied.Position != g.enc.Position() {
		t.Error("position differs")
	}
}

// The second way of applying begins in the middle of a record; what follows it
// still decodes.
func TestSwapFoundInTheMiddleOfARecord(t *testing.T) {
	g := newRig(t, "CREATE TABLE a(x); CREATE TABLE t(u UNIQUE); INSERT INTO t VALUES(1),(2)")
	g.snaps.add(g.snapshot())
	g.step("UPDATE t SET u=-u; UPDATE t SET u=3+u")
	g.step("INSERT INTO a VALUES(1); DELETE FROM t WHERE u=1; CREATE TABLE b(y); INSERT INTO b VALUES(1)")
	g.step("INSERT INTO b VALUES(2); INSERT INTO t VALUES(9)")
	g.start()
	g.equal()
	if c := g.r.Status().Counters; c.Changes != 2+3+2 || c.Divergences != 0 {
		t.Errorf("counters %+v", c)
	}
}

// All three names of the rowid are columns, so no SQL reaches the rowid.
func TestRowidWithoutAName(t *testing.T) {
	g := newRig(t, `CREATE TABLE "odd one"(rowid, OID UNIQUE, _rowid_, v); CREATE INDEX i ON "odd one"(oid, v); CREATE VIEW w AS SELECT oid FROM "odd one"; CREATE TABLE t(a)`)
	g.start()
	g.wait()
	table := &cdc.Table{Name: "odd one"}
	change := func(sql string, changes ...cdc.Change) {
		t.Helper()
		g.exec(sql)
		must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: table}, 0)))
		for _, c := range changes {
			c.Table = table
			must(t, g.enc.Op(cdc.AppendOp(nil, &c, 0)))
		}
		must(t, g.enc.End(g.boundary(), false))
		must(t, g.enc.Flush())
		g.equal()
	}
	change(`INSERT INTO "odd one" VALUES('a',1,'b','c'),('d',2,'e','f')`,
		cdc.Change{Op: cdc.OpInsert, Rowid: 1, New: encode("a", 1, "b", "c")},
		cdc.Change{Op: cdc.OpInsert, Rowid: 2, New: encode("d", 2, "e", "f")})
	change(`UPDATE "odd one" SET oid=-oid; UPDATE "odd one" SET oid=3+oid`, // swapped
		cdc.Change{Op: cdc.OpUpdate, Rowid: 1, Old: encode("a", 1, "b", "c"), New: encode("a", 2, "b", "c")},
		cdc.Change{Op: cdc.OpUpdate, Rowid: 2, Old: encode("d", 2, "e", "f"), New: encode("d", 1, "e", "f")})
	change(`DELETE FROM "odd one" WHERE v='f'`, cdc.Change{Op: cdc.OpDelete, Rowid: 2, Old: encode("d", 1, "e", "f")})
	g.step("CREATE TABLE u(a); INSERT INTO t VALUES(1)")
	g.equal()
	if c := g.r.Status().Counters; c.Reseeds != 0 || c.Swaps != 1 {
		t.Errorf("counters %+v", c)
	}
}

// A resync may drop sqlite_sequence and make it anew: the old rows go with it, no
// deletes say so, and the new ones may have their rowids.
func TestSequenceMadeAnew(t *testing.T) {
	g := newRig(t, "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT)")
	g.start()
	g.step("INSERT INTO a DEFAULT VALUES; INSERT INTO b DEFAULT VALUES")
	g.equal()
	object := cdc.SchemaObject{Type: "table", Name: sequenceTable, Table: sequenceTable, SQL: "CREATE TABLE sqlite_sequence(name,seq)"}
	changes := []cdc.Change{
		{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{Old: &object}},
		{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{New: &object}},
		{Op: cdc.OpTable, Table: &cdc.Table{Name: sequenceTable}},
	}
	for _, r := range g.rows[sequenceTable].rows {
		changes = append(changes, cdc.Change{Op: cdc.OpInsert, Table: &cdc.Table{Name: sequenceTable}, Rowid: r.rowid, New: r.record})
	}
	if len(changes) != 5 {
		t.Fatalf("%d changes, want those of two rows", len(changes))
	}
	for _, c := range changes {
		must(t, g.enc.Op(cdc.AppendOp(nil, &c, 0)))
	}
	must(t, g.enc.End(g.boundary(), true))
	must(t, g.enc.Flush())
	g.equal()
	g.step("INSERT INTO a DEFAULT VALUES")
	g.equal()
}
