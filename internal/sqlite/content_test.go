package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	tables, schema, err := c.Content(context.Background(), func(r Read) { rows = r.Rows })
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
	for _, values := range []string{"NULL,NULL", "0,NULL", "NULL,0", "0.0,NULL", "-0.0,NULL", "'',NULL", "x'',NULL", "'0',NULL", "x'30',NULL",
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
	mustExec(t, c, `CREATE TABLE a(x REAL, y); CREATE INDEX i ON a(y,x); INSERT INTO a(rowid,x,y) VALUES(1,5,NULL),(2,'t',2),(3,-0.0,0.0);
		CREATE TABLE b(x REAL, y, g AS (y) STORED); INSERT INTO b(rowid,x,y) VALUES(2,'t',2),(3,0.0,0.0),(1,5.0,NULL)`)
	if sumOf(t, c, "a") != sumOf(t, c, "b") {
		t.Error("order, what SQLite makes of -0.0 or a generated column changed the sum")
	}
	before := sumOf(t, c, "a")
	mustExec(t, c, "VACUUM; REINDEX")
	if sumOf(t, c, "a") == [2]uint64{} || sumOf(t, c, "a") != before {
		t.Error("VACUUM changed the sum")
	}
}

// Two tables with the same rows are equal whether their records are short or not, and
// so whatever came of the columns: that, and not the bytes, is what a sum stands for.
func TestContentOfAddedColumns(t *testing.T) {
	for _, tt := range []struct{ name, create, add, key string }{
		{"rowid", "CREATE TABLE t(k INT, v REAL)", "c", ""},
		{"alias", "CREATE TABLE t(k INTEGER PRIMARY KEY, v REAL)", "c", ""},
		{"WITHOUT ROWID", "CREATE TABLE t(v REAL, k INT PRIMARY KEY) WITHOUT ROWID", "c", ""},
		{"text", "CREATE TABLE t(k INT, v REAL)", "c TEXT DEFAULT 5", ""},
		{"real", "CREATE TABLE t(k INT, v REAL)", "c REAL DEFAULT 5", ""},
		{"blob", "CREATE TABLE t(k INT, v REAL)", "c DEFAULT x'0102'", ""},
		{"word", "CREATE TABLE t(k INT, v REAL)", "c DEFAULT word", ""},
		{"negative", "CREATE TABLE t(k INT, v REAL)", "c NOT NULL DEFAULT -5", ""},
		{"generated", "CREATE TABLE t(k INT, v REAL, g AS (k+1) STORED)", "c DEFAULT 'é'", ""},
		{"virtual", "CREATE TABLE t(k INT, v REAL)", "c AS (k||'x')", ""},
	} {
		for _, encoding := range []string{"UTF-8", "UTF-16le", "UTF-16be"} {
			c := memoryIn(t, encoding)
			mustExec(t, c, tt.create+"; INSERT INTO t(k,v) VALUES(1,2.0),(2,'t'),(3,NULL)")
			before := sumOf(t, c, "t")
			mustExec(t, c, "ALTER TABLE t ADD COLUMN "+tt.add)
			if sumOf(t, c, "t") != before {
				t.Errorf("%s, %s: ADD COLUMN changed the sum", tt.name, encoding)
			}
			mustExec(t, c, "ALTER TABLE t RENAME TO u; UPDATE u SET v=v; VACUUM")
			if sumOf(t, c, "u") != before {
				t.Errorf("%s, %s: longer records changed the sum", tt.name, encoding)
			}
			if !strings.Contains(tt.add, " AS ") {
				mustExec(t, c, "UPDATE u SET c='other' WHERE k=2")
				if sumOf(t, c, "u") == before {
					t.Errorf("%s, %s: a value of the added column does not count", tt.name, encoding)
				}
			}
		}
	}
}

func memoryIn(t *testing.T, encoding string) *Conn {
	t.Helper()
	c, err := open(memory, Options{})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	mustExec(t, c, "PRAGMA encoding='"+encoding+"'")
	return c
}

// What SQLite reads past the end of a record is the judge of Missing.
func TestMissing(t *testing.T) {
	defaults := []string{"", "DEFAULT NULL", "DEFAULT 5", "DEFAULT (5)", "DEFAULT -5", "DEFAULT +5", "DEFAULT - 9223372036854775808",
		"DEFAULT 0x10", "DEFAULT 1.5e-3", "DEFAULT -0.0", "DEFAULT 'a''b'", "DEFAULT \"quoted\"", "DEFAULT bare", "DEFAULT [br]", "DEFAULT TRUE",
		"DEFAULT x'00ff'", "DEFAULT ''", "DEFAULT x''", "DEFAULT (-(-5))", "DEFAULT (CAST('7x' AS INTEGER))", "DEFAULT (5 /* why */ )",
		"DEFAULT (5 -- why\n)", "DEFAULT '5'", "DEFAULT 'é😀'", "DEFAULT 5.0", "DEFAULT '1e2'"}
	for _, encoding := range []string{"UTF-8", "UTF-16le", "UTF-16be"} {
		for _, typ := range []string{"", "INT", "TEXT", "REAL", "NUMERIC", "BLOB"} {
			c := memoryIn(t, encoding)
			mustExec(t, c, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
			for i, def := range defaults {
				mustExec(t, c, fmt.Sprintf("ALTER TABLE t ADD COLUMN c%d %s %s", i, typ, def))
			}
			table, err := c.Table("t")
			must(t, err)
			got, err := c.Missing(table)
			must(t, err)
			must(t, c.Query("SELECT * FROM t", nil, func(r Row) error {
				for i, def := range defaults {
					if diff := cmp.Diff(r.value(i+1), got[i+1]); diff != "" {
						t.Errorf("%s %s %s: (-SQL +Missing)\n%s", encoding, typ, def, diff)
					}
				}
				return nil
			}))
		}
	}
}

// SQLite adds such a column to an empty table only, and then no record lacks it.
func TestMissingWithoutConstant(t *testing.T) {
	c := memoryIn(t, "UTF-8")
	mustExec(t, c, "CREATE TABLE t(a, b DEFAULT (1+2), c DEFAULT CURRENT_TIMESTAMP, d DEFAULT (random()))")
	table, err := c.Table("t")
	must(t, err)
	got, err := c.Missing(table)
	must(t, err)
	null := Value{Class: ClassNull}
	if diff := cmp.Diff([]Value{null, null, null, null}, got); diff != "" {
		t.Error(diff)
	}
}

func TestMissingOfManyColumns(t *testing.T) {
	var list []string
	for i := range 1999 {
		list = append(list, fmt.Sprintf("c%d DEFAULT %d", i, i))
	}
	s, err := NewScratch()
	must(t, err)
	defer s.Close()
	table, err := s.Describe("t", "CREATE TABLE t(a,"+strings.Join(list, ",")+")")
	must(t, err)
	got, err := s.Missing(table, "UTF-16le")
	must(t, err)
	for i, v := range got[1:] {
		if v != (Value{Class: ClassInteger, Int: int64(i)}) {
			t.Fatalf("column %d reads as %v", i, v)
		}
	}
}

func BenchmarkContent(b *testing.B) {
	c, _ := benchTable(b, benchRows, false)
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
	if got, want := sumOf(t, c, "t"), ([2]uint64{0x704e81ccdf1b5c83, 0x53fdc6953f6f66b9}); got != want {
		t.Errorf("sum is %#x, want %#x", got, want)
	}
}
