package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// copyDB runs CopyFrom in a transaction of its own.
func copyDB(t fataler, c *Conn, path string) Copied {
	t.Helper()
	must(t, c.Attach(path, "src"))
	must(t, c.BeginImmediate())
	did, err := c.CopyFrom(context.Background(), "src", nil)
	must(t, err)
	must(t, c.Commit())
	must(t, c.Detach("src"))
	return did
}

// equal compares two databases by content and by the text of their schemas.
func equal(t fataler, a, b *Conn) string {
	t.Helper()
	at, as := content(t, a)
	bt, bs := content(t, b)
	ax, err := a.SchemaText()
	must(t, err)
	bx, err := b.SchemaText()
	must(t, err)
	diff := cmp.Diff(at, bt) + cmp.Diff(ax, bx)
	if as != bs && diff == "" {
		diff = "equal schemas have unequal sums"
	}
	return diff
}

// parts are the pieces of random schemas: name, then SQL that makes and fills it
// with %d as the seed.
var parts = []string{
	`CREATE TABLE plain(a, b); INSERT INTO plain SELECT value%%7, value*%d FROM generate(12)`,
	`CREATE TABLE plain(a, b TEXT); CREATE INDEX plain_b ON plain(b COLLATE NOCASE); INSERT INTO plain SELECT value, 'x'||(value*%d%%5) FROM generate(9)`,
	`CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE); INSERT INTO auto(v) SELECT value*%d FROM generate(20); DELETE FROM auto WHERE id%%3=0`,
	`CREATE TABLE wr(v, k TEXT, d, g AS (v||k) STORED, PRIMARY KEY(k COLLATE NOCASE, d DESC)) WITHOUT ROWID; INSERT INTO wr SELECT value*%d%%3, 'K'||value, value%%4 FROM generate(15)`,
	`CREATE TABLE wr(v, k TEXT, d, g AS (v||k) STORED, PRIMARY KEY(k COLLATE NOCASE, d DESC)) WITHOUT ROWID; INSERT INTO wr SELECT 1.0*value*%d, 'k'||value, value%%4 FROM generate(15)`,
	`CREATE TABLE alias(rowid, oid, _rowid_, id INTEGER PRIMARY KEY, g AS (oid)); CREATE UNIQUE INDEX alias_u ON alias(oid) WHERE oid>0; INSERT INTO alias(oid) SELECT value+%d FROM generate(8)`,
	`CREATE VIRTUAL TABLE fts USING fts5(body); INSERT INTO fts SELECT 'word'||(value*%d) FROM generate(6)`,
	`CREATE VIRTUAL TABLE rt USING rtree(id, x0, x1); INSERT INTO rt SELECT value, value, value+%d FROM generate(5)`,
	`CREATE TABLE base(x); CREATE VIEW vw AS SELECT x+%d AS y FROM base; CREATE TRIGGER vt INSTEAD OF INSERT ON vw BEGIN INSERT INTO base VALUES(new.y); END; INSERT INTO base VALUES(1)`,
	`CREATE TABLE base(x); CREATE TRIGGER bt AFTER DELETE ON base BEGIN INSERT INTO base VALUES(old.x); END; INSERT INTO base VALUES(2),(%d)`,
	`CREATE TABLE "odd "" name"("a b" DEFAULT %d, c); INSERT INTO "odd "" name"(c) VALUES('é'); ALTER TABLE "odd "" name" ADD COLUMN d DEFAULT 'later'`,
	`CREATE VIEW plain2 AS SELECT %d AS a`,
	`CREATE TABLE PLAIN2(a); INSERT INTO plain2 VALUES(%d)`,
	`ANALYZE; PRAGMA user_version=%d`,
}

// fill makes a random database. A part whose names are taken is left out.
func fill(rt *rapid.T, c *Conn, label string) {
	for _, part := range rapid.SliceOfN(rapid.IntRange(0, len(parts)-1), 0, 9).Draw(rt, label) {
		sql := fmt.Sprintf(parts[part], rapid.IntRange(1, 3).Draw(rt, "seed"))
		for n := range 21 {
			sql = strings.ReplaceAll(sql, fmt.Sprintf("generate(%d)", n),
				fmt.Sprintf("(WITH RECURSIVE g(value) AS (SELECT 1 UNION ALL SELECT value+1 FROM g WHERE value<%d) SELECT value FROM g)", n))
		}
		must(rt, c.Exec("SAVEPOINT s"))
		if err := c.Exec(sql); err != nil {
			must(rt, c.Exec("ROLLBACK TO s"))
		}
		must(rt, c.Exec("RELEASE s"))
	}
}

func TestCopyFromMakesEqual(t *testing.T) {
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		encoding := rapid.SampledFrom([]string{"UTF-8", "UTF-16le"}).Draw(rt, "encoding")
		var conns [3]*Conn
		var paths [3]string
		for i, name := range []string{"src", "dst"} {
			paths[i] = filepath.Join(dir, fmt.Sprint(name, n))
			c, err := Open(paths[i], Options{Create: true, Plain: true})
			must(rt, err)
			defer c.Close()
			must(rt, c.Exec("PRAGMA encoding='"+encoding+"'; PRAGMA journal_mode=WAL"))
			fill(rt, c, name)
			must(rt, c.Exec(fmt.Sprintf("CREATE TABLE _replicator_position(lsn); INSERT INTO _replicator_position VALUES(%d)", i)))
			conns[i] = c
		}
		src, reader := conns[0], conns[1]
		dst, err := Open(paths[1], Options{})
		must(rt, err)
		defer dst.Close()

		must(rt, reader.OpenRead())
		before, schema := content(rt, reader)
		copyDB(rt, dst, paths[0])
		after, sameSchema := content(rt, reader)
		if diff := cmp.Diff(before, after); diff != "" || schema != sameSchema {
			rt.Fatalf("the open reader lost its snapshot:\n%s", diff)
		}
		must(rt, reader.Rollback())

		for name, c := range map[string]*Conn{"copying": dst, "reading": reader} {
			if diff := equal(rt, src, c); diff != "" {
				rt.Fatalf("%s connection (-source +copy)\n%s", name, diff)
			}
		}
		if ok, err := reader.QueryText("PRAGMA integrity_check"); err != nil || ok != "ok" {
			rt.Fatalf("integrity: %s %v", ok, err)
		}
		if n, err := reader.QueryInt("SELECT count(*) FROM _replicator_position"); err != nil || n != 1 {
			rt.Fatalf("reserved table: %d rows, %v", n, err)
		}
		if did := copyDB(rt, dst, paths[0]); did.Rows != 0 || did.Objects != 0 {
			rt.Fatalf("a second copy found %+v", did)
		}
	})
}

// TestCopyFromDropsSequenceLast: to drop an AUTOINCREMENT table SQLite deletes its
// row of sqlite_sequence, which comes after the first such table and before others.
func TestCopyFromManyColumns(t *testing.T) {
	for _, key := range []string{"", " INTEGER PRIMARY KEY", " PRIMARY KEY"} {
		var columns strings.Builder
		for i := range maxColumns - 1 {
			fmt.Fprintf(&columns, ", c%d", i)
		}
		create := "CREATE TABLE t(k" + key + columns.String() + ")"
		if key == " PRIMARY KEY" {
			create += " WITHOUT ROWID"
		}
		c, _ := openTest(t, Options{RowSums: true})
		mustExec(t, c, create)
		for _, rows := range []string{"", "INSERT INTO t(k, c0, c1998) VALUES(1, 'a', 'b'), (3, 'c', 'd'), (4, 'e', NULL), (5, 'g', 'x')"} {
			mustExec(t, c, rows)
			o, path := openTest(t, Options{})
			mustExec(t, o, create)
			mustExec(t, o, "INSERT INTO t(k, c0, c1998) VALUES(1, 'a', 'b'), (2, 'y', 'z'), (4, 'e', 'f'), (5, 'g', NULL)")
			copyDB(t, c, path)
			if diff := equal(t, c, o); diff != "" {
				t.Errorf("key%s: %s", key, diff)
			}
			mustExec(t, c, "DELETE FROM t")
		}
	}
}

func TestCopyFromDropsSequenceLast(t *testing.T) {
	src, path := openTest(t, Options{})
	dst, _ := openTest(t, Options{})
	must(t, src.Exec("CREATE TABLE a(v); INSERT INTO a VALUES(1)"))
	must(t, dst.Exec("CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a(v) VALUES(7)"))
	copyDB(t, dst, path)
	if diff := equal(t, src, dst); diff != "" {
		t.Error(diff)
	}
}

func TestCopyFromWritesOnlyTheDifference(t *testing.T) {
	src, path := openTest(t, Options{})
	dst, _ := openTest(t, Options{})
	for _, c := range []*Conn{src, dst} {
		mustExec(t, c, `CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(a);
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1000) INSERT INTO t SELECT i, i FROM n; INSERT INTO u VALUES(1)`)
	}
	mustExec(t, src, "UPDATE t SET a='x' WHERE id=5; DELETE FROM t WHERE id=6; INSERT INTO t VALUES(2000, 1); UPDATE t SET a=7.0 WHERE id=7; UPDATE t SET a=-0.0 WHERE id=8; UPDATE u SET a=2; PRAGMA application_id=77")
	mustExec(t, dst, "UPDATE t SET a=0.0 WHERE id=8")
	must(t, dst.Attach(path, "s r\"c"))
	must(t, dst.BeginImmediate())
	did, err := dst.CopyFrom(context.Background(), "s r\"c", func(name string) bool { return name == "u" })
	must(t, err)
	must(t, dst.Commit())
	if diff := cmp.Diff(Copied{Rows: 8}, did); diff != "" {
		t.Error(diff)
	}
	if n := mustInt(t, dst, "SELECT atan2(a, -1)<0 FROM t WHERE id=8"); n != 1 {
		t.Error("-0.0 has become 0.0")
	}
	if n := mustInt(t, dst, "SELECT a FROM u"); n != 1 {
		t.Errorf("a skipped table was copied: %d", n)
	}
	if n := mustInt(t, dst, "PRAGMA application_id"); n != 77 {
		t.Errorf("application_id is %d", n)
	}
	if sumOf(t, src, "t") != sumOf(t, dst, "t") {
		t.Error("tables differ")
	}
}

// Full text search and triggers must work for who opens the copy afterwards.
func TestCopyFromVirtualTables(t *testing.T) {
	src, path := openTest(t, Options{})
	mustExec(t, src, `CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('hello world'); CREATE TABLE t(a); CREATE TABLE log(a);
		CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.a); END`)
	dst, to := openTest(t, Options{})
	mustExec(t, dst, "CREATE VIRTUAL TABLE f USING fts5(y, z); INSERT INTO f VALUES('old', 'text')")
	copyDB(t, dst, path)
	app := reopen(t, to, Options{Plain: true})
	if n := mustInt(t, app, "SELECT count(*) FROM f WHERE f MATCH 'world'"); n != 1 {
		t.Errorf("%d hits", n)
	}
	mustExec(t, app, "INSERT INTO t VALUES(1); INSERT INTO f VALUES('new')")
	if n := mustInt(t, app, "SELECT count(*) FROM log"); n != 1 {
		t.Errorf("the trigger fired %d times", n)
	}
}

func TestCopyFromTakesEncoding(t *testing.T) {
	dir := t.TempDir()
	src := reopen(t, filepath.Join(dir, "src"), Options{Create: true})
	mustExec(t, src, "PRAGMA encoding='UTF-16be'; CREATE TABLE t(a); INSERT INTO t VALUES('é')")
	dst := reopen(t, filepath.Join(dir, "dst"), Options{Create: true})
	copyDB(t, dst, filepath.Join(dir, "src"))
	if diff := equal(t, src, dst); diff != "" {
		t.Error(diff)
	}
	other := reopen(t, filepath.Join(dir, "other"), Options{Create: true})
	mustExec(t, other, "CREATE TABLE t(a)")
	if err := other.Attach(filepath.Join(dir, "src"), "src"); err == nil {
		t.Error("databases of two encodings were attached")
	}
}

func TestCopyFromFails(t *testing.T) {
	src, path := openTest(t, Options{})
	mustExec(t, src, "CREATE TABLE t(a, b); CREATE VIEW v AS SELECT 1; CREATE TABLE rowids(rowid, oid, _rowid_)")
	dst, _ := openTest(t, Options{})
	mustExec(t, dst, "CREATE TABLE old(a); INSERT INTO old VALUES(1); CREATE VIEW v AS SELECT 2")
	mustExec(t, dst, "CREATE TABLE t(a, b)") // kept, so that skip is asked about it
	before, schema := content(t, dst)
	rollback := func(after string) {
		t.Helper()
		must(t, dst.Rollback())
		now, nowSchema := content(t, dst)
		if diff := cmp.Diff(before, now); diff != "" || schema != nowSchema {
			t.Errorf("%s, rollback left\n%s", after, diff)
		}
	}
	copyTo := func(ctx context.Context, skip func(string) bool) error {
		must(t, dst.BeginImmediate())
		_, err := dst.CopyFrom(ctx, "src", skip)
		return err
	}
	must(t, dst.Attach(path, "src"))
	if _, err := dst.CopyFrom(context.Background(), "src", nil); err == nil {
		t.Error("copied outside a transaction")
	}
	if err := copyTo(context.Background(), nil); !errors.Is(err, ErrNoRowidName) {
		t.Errorf("table without a rowid name: %v", err)
	}
	rollback("refused")
	mustExec(t, src, "DROP TABLE rowids")
	ctx, cancel := context.WithCancel(context.Background())
	if err := copyTo(ctx, func(string) bool { cancel(); return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled on the way: %v", err)
	}
	rollback("cancelled on the way")
	if err := copyTo(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	rollback("cancelled before")
	must(t, copyTo(context.Background(), nil))
	rollback("made and taken back")
	mustExec(t, dst, "INSERT INTO old VALUES(2)")
	if n := mustInt(t, dst, "PRAGMA writable_schema"); n != 0 {
		t.Error("writable_schema stayed on")
	}
}

// SQLite cannot build an index whose collation or function it does not know; the
// rest of the database must arrive.
func TestCopyFromLeavesOffIndexes(t *testing.T) {
	src, path := openTest(t, Options{})
	mustExec(t, src, `CREATE TABLE t(a, b); INSERT INTO t VALUES(1,2); CREATE INDEX bad ON t(a); CREATE INDEX good ON t(b);
		PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE INDEX bad ON t(a COLLATE wild)' WHERE name='bad'; PRAGMA writable_schema=RESET`)
	dst, _ := openTest(t, Options{})
	did := copyDB(t, dst, path)
	if diff := cmp.Diff([]string{"bad"}, did.LeftOff); diff != "" {
		t.Error(diff)
	}
	if n := mustInt(t, dst, "SELECT count(*) FROM sqlite_schema WHERE name='good'"); n != 1 || sumOf(t, src, "t") != sumOf(t, dst, "t") {
		t.Errorf("the rest did not arrive")
	}
}

// The text of a schema is data of a foreign file: it must create, and nothing else. Of more
// statements than one SQLite itself reads the first. The whole text is kept, and in the
// letters that it has.
func TestCopyFromRunsNoForeignSQL(t *testing.T) {
	const setup = "CREATE TABLE victim(a); INSERT INTO victim VALUES(1)"
	for text, name := range map[string]string{
		"CREATE TABLE t(a); DELETE FROM victim":     "t",
		"CREATE INDEX i ON t(a);DELETE FROM victim": "i",
		"create table t(a)":                         "t",
		"CREATE TABLE  t(a)":                        "t",
		"CREATE TABLE IF NOT EXISTS t(a)":           "t",
		"CREATE UNIQUE index i ON t(a)":             "i",
		"CREATE TABLE t(a) ":                        "t",
		"CREATE TABLE t(a) /* comment */":           "t",
		"CREATE TABLE t(a) -- (comment)":            "t",
		"CREATE TABLE t(a INT) STRICT -- comment":   "t",
		"CREATE INDEX i ON t(a) -- comment":         "i",
		"DELETE FROM victim":                        "",
	} {
		src, path := openTest(t, Options{})
		mustExec(t, src, setup+"; CREATE TABLE t(a); CREATE INDEX i ON t(a); PRAGMA writable_schema=ON")
		mustExec(t, src, "UPDATE sqlite_schema SET sql=?1 WHERE name=iif(?2='','t',?2)", text, name)
		dst, _ := openTest(t, Options{})
		mustExec(t, dst, setup)
		err := dst.Attach(path, "src")
		must(t, dst.BeginImmediate())
		if err == nil { // else SQLite itself has refused it
			_, err = dst.CopyFrom(context.Background(), "src", nil)
		}
		if (err == nil) != (name != "") {
			t.Errorf("copy of %q: %v", text, err)
		}
		if err == nil && mustInt(t, dst, "SELECT count(*) FROM sqlite_schema WHERE sql='"+text+"'") != 1 {
			t.Errorf("%q is not the text of what was made", text)
		}
		if err != nil {
			must(t, dst.Rollback())
		}
		if n := mustInt(t, dst, "SELECT count(*) FROM victim"); n != 1 {
			t.Errorf("%q ran", text)
		}
	}
}

// A source that nobody has open has no -wal and no -shm.
func TestCopyFromClosedFile(t *testing.T) {
	src, path := openTest(t, Options{Plain: true})
	mustExec(t, src, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	must(t, src.Close())
	before, err := os.ReadFile(path)
	must(t, err)
	dst, _ := openTest(t, Options{})
	copyDB(t, dst, path)
	if n := mustInt(t, dst, "SELECT a FROM t"); n != 1 {
		t.Errorf("copied %d", n)
	}
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the source changed")
	}
}

// Both directions look each row up by its key, whatever indexes there are.
func TestCopyFromSearchesByKey(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE t(a UNIQUE, b); CREATE INDEX i ON t(b); CREATE TABLE w(v, k TEXT, d UNIQUE, PRIMARY KEY(k COLLATE NOCASE, d DESC)) WITHOUT ROWID`)
	for name, search := range map[string]string{"t": "USING INTEGER PRIMARY KEY (rowid=?)", "w": "USING PRIMARY KEY (k=? AND d=?)"} {
		target := targetOf(t, c, name)
		must(t, c.makeAlike())
		d := rowDiff{target.Table(), "main." + name, "main." + name}
		for _, sql := range []string{d.deleteOther(), d.insertAll("") + d.missing(),
			"DELETE FROM " + target.name() + target.where(1), target.updateSQL([]int{1})} {
			plan := ""
			must(t, c.once("EXPLAIN QUERY PLAN "+sql, func(r Row) error { plan += r.Text(3) + "\n"; return nil }))
			if !strings.Contains(plan, search) {
				t.Errorf("%s\n%s", sql, plan)
			}
		}
	}
}

// TestMemoryOfCopyFrom: what SQLite notes of the rows that go is that of one run of them.
func TestMemoryOfCopyFrom(t *testing.T) {
	dir := t.TempDir()
	fill := func(name, sql string) *Conn {
		c, err := Open(filepath.Join(dir, name), Options{Create: true, Lean: true})
		must(t, err)
		must(t, c.Exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a);"+sql))
		return c
	}
	src, dst := fill("src", ""), fill("dst", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100000) INSERT INTO t SELECT i FROM n")
	defer func() { must(t, errors.Join(src.Close(), dst.Close())) }()
	before := MemoryUsed()
	MemoryPeak()
	if did := copyDB(t, dst, filepath.Join(dir, "src")); did.Rows != 100_000 {
		t.Errorf("%+v", did)
	}
	if most := MemoryPeak() - before; most > 1<<20 {
		t.Errorf("to delete 100,000 rows takes %d bytes", most)
	}
}
