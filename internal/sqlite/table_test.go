package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func describe(t testing.TB, s *Scratch, name, sql string) Table {
	t.Helper()
	table, err := s.Describe(name, sql)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func scratch(t testing.TB) *Scratch {
	t.Helper()
	s, err := NewScratch()
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// shape is what the tests below compare of a table, on one line.
func shape(t Table) string {
	return fmt.Sprintf("wr=%v strict=%v stored=%v key=%v alias=%d rowid=%s implicit=%s unknown=%v",
		t.WithoutRowid, t.Strict, t.Stored, t.KeyCollations, t.RowidAlias, t.RowidName, t.Implicit, t.UnknownCollations)
}

func TestTableShapes(t *testing.T) {
	tests := []struct{ sql, want string }{
		{"CREATE TABLE t(a, b)", `wr=false strict=false stored=[0 1] key=[] alias=-1 rowid=rowid implicit= unknown=[]`},
		{"CREATE TABLE t(a, id INTEGER PRIMARY KEY)", `wr=false strict=false stored=[0 1] key=[] alias=1 rowid=rowid implicit= unknown=[]`},
		{"CREATE TABLE t(id INTEGER PRIMARY KEY DESC, b)", `wr=false strict=false stored=[0 1] key=[] alias=-1 rowid=rowid implicit=pk 0/1/"BINARY"; unknown=[]`},
		{"CREATE TABLE t(id INT PRIMARY KEY)", `wr=false strict=false stored=[0] key=[] alias=-1 rowid=rowid implicit=pk 0/0/"BINARY"; unknown=[]`},
		{"CREATE TABLE t(rowid, _ROWID_, b)", `wr=false strict=false stored=[0 1 2] key=[] alias=-1 rowid=oid implicit= unknown=[]`},
		{"CREATE TABLE t(rowid, oid, _rowid_)", `wr=false strict=false stored=[0 1 2] key=[] alias=-1 rowid= implicit= unknown=[]`},
		{"CREATE TABLE t(rowid, oid, _rowid_, id INTEGER PRIMARY KEY)", `wr=false strict=false stored=[0 1 2 3] key=[] alias=3 rowid=id implicit= unknown=[]`},
		{"CREATE TABLE t(a, b AS (a+1), c AS (a+2) STORED, d)", `wr=false strict=false stored=[0 2 3] key=[] alias=-1 rowid=rowid implicit= unknown=[]`},
		{"CREATE TABLE t(a, b, v AS (a), c, PRIMARY KEY(c DESC, a COLLATE NOCASE)) WITHOUT ROWID",
			`wr=true strict=false stored=[3 0 1] key=[BINARY NOCASE] alias=-1 rowid= implicit=pk 3/1/"BINARY" 0/0/"NOCASE"; unknown=[]`},
		{"CREATE TABLE t(a ANY, b INT PRIMARY KEY) STRICT, WITHOUT ROWID /* ) */", `wr=true strict=true stored=[1 0] key=[BINARY] alias=-1 rowid= implicit=pk 1/0/"BINARY"; unknown=[]`},
		{"CREATE TABLE t(strict TEXT DEFAULT ') strict', b)", `wr=false strict=false stored=[0 1] key=[] alias=-1 rowid=rowid implicit= unknown=[]`},
		{"CREATE TABLE t(a COLLATE wild UNIQUE, b AS (wild(a)) STORED, CHECK(nope(a)))",
			`wr=false strict=false stored=[0 1] key=[] alias=-1 rowid=rowid implicit=u 0/0/"WILD"; unknown=[WILD]`},
		{"CREATE TABLE t(a, b, UNIQUE(b, a), PRIMARY KEY(a))", `wr=false strict=false stored=[0 1] key=[] alias=-1 rowid=rowid implicit=pk 0/0/"BINARY";u 1/0/"BINARY" 0/0/"BINARY"; unknown=[]`},
	}
	s := scratch(t)
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, shape(describe(t, s, "t", tt.sql))); diff != "" {
			t.Errorf("%s\n%s", tt.sql, diff)
		}
	}
}

func TestTableColumns(t *testing.T) {
	got := describe(t, scratch(t), "t", `CREATE TABLE t(a VARCHAR(10) COLLATE nocase NOT NULL DEFAULT 'x', b REAL, c BOOLEAN, d, e BIGINT PRIMARY KEY, f AS (d))`).Columns
	want := []Column{
		{Name: "a", Type: "VARCHAR(10)", Affinity: Text, Collation: "NOCASE", NotNull: true, Default: "'x'", HasDefault: true},
		{Name: "b", Type: "REAL", Affinity: Real, Collation: "BINARY"},
		{Name: "c", Type: "BOOLEAN", Affinity: Numeric, Collation: "BINARY"},
		{Name: "d", Collation: "BINARY"},
		{Name: "e", Type: "BIGINT", Affinity: Integer, Collation: "BINARY", PK: 1},
		{Name: "f", Collation: "BINARY", Generated: Virtual},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTableOfConnection(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE "odd "" name"(id INTEGER PRIMARY KEY AUTOINCREMENT, b); CREATE INDEX i ON "odd "" name"(b);
		INSERT INTO "odd "" name"(b) VALUES(1); ANALYZE;
		CREATE VIRTUAL TABLE f USING fts5(x); CREATE VIEW v AS SELECT 1`)
	for name, columns := range map[string]int{`ODD " name`: 2, "sqlite_sequence": 2, "sqlite_stat1": 3, "sqlite_stat4": 6, "f_data": 2, "f_idx": 3} {
		table, err := c.Table(name)
		if err != nil || len(table.Columns) != columns {
			t.Errorf("%s: %d columns, %v", name, len(table.Columns), err)
		}
	}
	for _, name := range []string{"f", "v", "i", "none"} {
		if _, err := c.Table(name); !errors.Is(err, ErrNoTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDescribeRefuses(t *testing.T) {
	s := scratch(t)
	for _, sql := range []string{"", "garbage", "CREATE TABLE t(", "CREATE VIRTUAL TABLE t USING fts5(a)", "CREATE TABLE t(a, a)"} {
		if table, err := s.Describe("t", sql); err == nil {
			t.Errorf("%q became %s", sql, shape(table))
		}
	}
	describe(t, s, "t", "CREATE TABLE t(a)") // still usable
	describe(t, s, "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)")
}

func TestSameLayout(t *testing.T) {
	tests := []struct {
		name, from, to string
		want           bool
	}{
		{"same", "CREATE TABLE t(a,b)", "CREATE TABLE t(a,b)", true},
		{"renames", "CREATE TABLE t(a,b INT)", "CREATE TABLE u(x,y INTEGER)", true},
		{"add column", "CREATE TABLE t(a)", "CREATE TABLE t(a, b)", true},
		{"add default", "CREATE TABLE t(a)", "CREATE TABLE t(a, b NOT NULL DEFAULT -1.5e-3)", true},
		{"add text default", "CREATE TABLE t(a)", "CREATE TABLE t(a, b DEFAULT ('it''s'))", true},
		{"add blob default", "CREATE TABLE t(a)", "CREATE TABLE t(a, b DEFAULT x'00')", true},
		{"add virtual", "CREATE TABLE t(a)", "CREATE TABLE t(a, b AS (a))", true},
		{"add to without rowid", "CREATE TABLE t(a PRIMARY KEY) WITHOUT ROWID", "CREATE TABLE t(a PRIMARY KEY, b) WITHOUT ROWID", true},
		{"check changes", "CREATE TABLE t(a)", "CREATE TABLE t(a CHECK(a>0))", true},
		{"add stored", "CREATE TABLE t(a)", "CREATE TABLE t(a, b AS (a) STORED)", false},
		{"add time default", "CREATE TABLE t(a)", "CREATE TABLE t(a, b DEFAULT CURRENT_TIMESTAMP)", false},
		{"add expression default", "CREATE TABLE t(a)", "CREATE TABLE t(a, b DEFAULT (abs(1)))", false},
		{"add not null", "CREATE TABLE t(a)", "CREATE TABLE t(a, b NOT NULL)", false},
		{"drop column", "CREATE TABLE t(a,b)", "CREATE TABLE t(a)", false},
		{"affinity", "CREATE TABLE t(a INT)", "CREATE TABLE t(a TEXT)", false},
		{"collation", "CREATE TABLE t(a)", "CREATE TABLE t(a COLLATE NOCASE)", false},
		{"not null", "CREATE TABLE t(a)", "CREATE TABLE t(a NOT NULL)", false},
		{"default", "CREATE TABLE t(a DEFAULT 1)", "CREATE TABLE t(a DEFAULT 2)", false},
		{"alias", "CREATE TABLE t(a INT PRIMARY KEY)", "CREATE TABLE t(a INTEGER PRIMARY KEY)", false},
		{"unique", "CREATE TABLE t(a)", "CREATE TABLE t(a UNIQUE)", false},
		{"key order", "CREATE TABLE t(a,b,PRIMARY KEY(a,b)) WITHOUT ROWID", "CREATE TABLE t(a,b,PRIMARY KEY(b,a)) WITHOUT ROWID", false},
		{"key direction", "CREATE TABLE t(a PRIMARY KEY) WITHOUT ROWID", "CREATE TABLE t(a PRIMARY KEY DESC) WITHOUT ROWID", false},
		{"rowid", "CREATE TABLE t(a PRIMARY KEY)", "CREATE TABLE t(a PRIMARY KEY) WITHOUT ROWID", false},
		{"strict", "CREATE TABLE t(a INT)", "CREATE TABLE t(a INT) STRICT", false},
		{"generated expression", "CREATE TABLE t(a, b AS (a+1) STORED)", "CREATE TABLE t(a, b AS (a+2) STORED)", false},
		{"generated renamed", "CREATE TABLE t(a, b AS (a+1) STORED)", `CREATE TABLE u("x" , "b" AS ("x"+1) STORED)`, true},
		{"generated add column", "CREATE TABLE t(a, b AS (a+1) STORED)", "CREATE TABLE t(a, b AS (a+1) STORED, c)", true},
		{"stored to virtual", "CREATE TABLE t(a, b AS (a+1) STORED)", "CREATE TABLE t(a, b AS (a+1))", false},
	}
	s := scratch(t)
	for _, tt := range tests {
		name := strings.Fields(strings.ReplaceAll(tt.to, "(", " "))[2]
		if got := describe(t, s, "t", tt.from).SameLayout(describe(t, s, name, tt.to)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add("CREATE TABLE t(a, b AS (a) STORED, PRIMARY KEY(a COLLATE x)) STRICT, WITHOUT ROWID -- x")
	f.Add("CREATE TABLE [t](`a` /* ")
	f.Add("CREATE TABLE t AS SELECT 1")
	s := scratch(f)
	f.Fuzz(func(t *testing.T, sql string) {
		table, err := s.Describe("t", sql)
		if err != nil {
			return
		}
		if len(table.Columns) == 0 || len(table.Stored) > len(table.Columns) || !table.SameLayout(table) && !strings.Contains(sql, "\x00") {
			t.Errorf("%q became %s", sql, shape(table))
		}
	})
}
