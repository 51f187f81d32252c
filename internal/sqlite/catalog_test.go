package sqlite

import (
	"errors"
	"fmt"
	"testing"
)

// A table is found wherever its row in sqlite_schema has gone since the last time.
func TestTableIsFound(t *testing.T) {
	c, _ := openTest(t, Options{})
	step := 0
	expect := func(names ...string) {
		t.Helper()
		step++
		for _, name := range names {
			want, err := c.QueryText("SELECT sql FROM sqlite_schema WHERE type='table' AND name=? COLLATE NOCASE", name)
			must(t, err)
			if got, err := c.Table(name); err != nil || got.SQL != want {
				t.Errorf("step %d: table %q: %q, %v, want %q", step, name, got.SQL, err, want)
			}
		}
		if got, err := c.Table("none"); !errors.Is(err, ErrNoTable) {
			t.Errorf("step %d: a table that is not there: %+v, %v", step, got, err)
		}
	}
	mustExec(t, c, "CREATE TABLE a(x); CREATE TABLE b(x UNIQUE); CREATE TABLE c(x)")
	expect("a", "B", "c")
	mustExec(t, c, "CREATE TABLE d(x); DROP TABLE b; CREATE TABLE b(other)")
	expect("a", "b", "c", "D")
	mustExec(t, c, "DROP TABLE b; CREATE TABLE e(takes_its_row)")
	expect("a", "c", "d", "e")
	mustExec(t, c, "ALTER TABLE a RENAME TO b; ALTER TABLE c RENAME TO a; ALTER TABLE a ADD COLUMN more")
	expect("a", "b", "d", "e")
	mustExec(t, c, "DROP TABLE a; VACUUM")
	expect("b", "d", "e")
	mustExec(t, c, "BEGIN; CREATE TABLE undone(x)")
	expect("undone")
	mustExec(t, c, "ROLLBACK; CREATE TABLE after(x); CREATE VIEW undone AS SELECT 1")
	expect("after", "b")
	if _, err := c.Table("undone"); !errors.Is(err, ErrNoTable) {
		t.Errorf("a view in the place of a table: %v", err)
	}
}

// Tables that come and go leave nothing behind.
func TestCatalogIsBounded(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE stays(x); CREATE TABLE t0(x)")
	for i := range 3 * spareNames {
		if _, err := c.Table(fmt.Sprint("t", i)); err != nil {
			t.Fatal(err)
		}
		mustExec(t, c, fmt.Sprintf("CREATE TABLE t%d(x); DROP TABLE t%d", i+1, i))
	}
	if n := len(c.catalog.rowids); n > spareNames+10 {
		t.Errorf("the catalog has %d names of 2 tables", n)
	}
}
