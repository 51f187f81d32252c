package sqlite

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func content(t fataler, c *Conn) ([]TableSum, [2]uint64) {
	t.Helper()
	tables, schema, err := c.Content(context.Background(), nil)
	must(t, err)
	return tables, schema
}

func sumOf(t testing.TB, c *Conn, name string) [2]uint64 {
	t.Helper()
	s, err := c.SumTable(context.Background(), name)
	must(t, err)
	return s.Sum
}

func TestContentTables(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, b); INSERT INTO t(b) VALUES(1),(2);
		CREATE TABLE _Replicator_position(lsn); CREATE INDEX _replicator_i ON t(b); CREATE VIEW v AS SELECT 1;
		CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('hello'); CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID`)
	rows := uint64(0)
	tables, schema, err := c.Content(context.Background(), func(n uint64) { rows = n })
	must(t, err)
	var names []string
	total := uint64(0)
	for _, s := range tables {
		names = append(names, s.Name)
		total += s.Rows
	}
	if diff := cmp.Diff([]string{"f_config", "f_content", "f_data", "f_docsize", "f_idx", "sqlite_sequence", "t", "w"}, names); diff != "" {
		t.Error(diff)
	}
	if rows != total || schema == [2]uint64{} {
		t.Errorf("progress ended at %d, want %d; schema %x", rows, total, schema)
	}
	text, err := c.SchemaText()
	must(t, err)
	if len(text) != 10 { // 8 tables, the view, the virtual table; w's key has no row of its own
		t.Errorf("schema has %d rows: %v", len(text), text)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := c.Content(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Every one of these single rows must have a sum of its own.
func TestContentTellsRowsApart(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a, b)")
	seen := map[[2]uint64]string{}
	for _, values := range []string{"NULL,NULL", "0,NULL", "NULL,0", "0.0,NULL", "'',NULL", "x'',NULL", "'0',NULL", "x'30',NULL",
		"'ab','c'", "'a','bc'", "'abc',''", "'12345678',NULL", "'12345678' || x'00',NULL", "'1234567890123456789012345',1",
		"'1234567890123456789012346',1", "'123456789012345678901234',1", "1,2", "2,1", "-1,0", "9007199254740993,0", "9007199254740992.0,0"} {
		mustExec(t, c, "DELETE FROM t; INSERT INTO t(rowid,a,b) VALUES(1,"+values+")")
		s := sumOf(t, c, "t")
		if other, ok := seen[s]; ok {
			t.Errorf("%s and %s have one sum", values, other)
		}
		seen[s] = values
	}
	mustExec(t, c, "UPDATE t SET rowid=2")
	if values, ok := seen[sumOf(t, c, "t")]; ok {
		t.Errorf("another rowid leaves the sum of %s", values)
	}
}

func TestContentIgnores(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE a(x REAL, y); CREATE INDEX i ON a(y,x); INSERT INTO a(rowid,x,y) VALUES(1,5,-0.0),(2,'t',2);
		CREATE TABLE b(x REAL, y, g AS (y) STORED); INSERT INTO b(rowid,x,y) VALUES(2,'t',2),(1,5.0,0.0)`)
	if sumOf(t, c, "a") != sumOf(t, c, "b") {
		t.Error("order, -0.0 or a generated column changed the sum")
	}
	before := sumOf(t, c, "a")
	mustExec(t, c, "VACUUM; REINDEX")
	if sumOf(t, c, "a") == [2]uint64{} || sumOf(t, c, "a") != before {
		t.Error("VACUUM changed the sum")
	}
}

func BenchmarkContent(b *testing.B) {
	c, _ := benchTable(b, benchRows)
	b.ReportAllocs()
	for b.Loop() {
		content(b, c)
	}
	b.ReportMetric(float64(b.N*benchRows)/b.Elapsed().Seconds(), "rows/s")
}

// Two machines compare sums, perhaps with two versions of this program: a sum must
// never change its meaning.
func TestContentIsFrozen(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a,b,c,d,e); INSERT INTO t VALUES(1,-2.5,'twenty-five bytes of text',x'000102',NULL),(2,3,'','a',x'')")
	if got, want := sumOf(t, c, "t"), ([2]uint64{0x4011d08810cadc67, 0x91ffa60a11fcc0eb}); got != want {
		t.Errorf("sum is %#x, want %#x", got, want)
	}
}
