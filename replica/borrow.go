package replica

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A loan is the text of one row of sqlite_schema before borrow changed it.
type loan struct {
	rowid int64
	sql   string
}

// borrow takes one name of the rowid back from a table whose columns have taken
// all three (rowid, oid, _rowid_), so that SQL reaches its rows: the column gets
// another name until giveBack, before the commit. Nobody else sees it.
func (t *tables) borrow(shape sqlite.Table) (sqlite.Table, error) {
	before, err := schemaTexts(t.conn)
	if err != nil {
		return shape, err
	}
	column := ""
	for _, c := range shape.Columns {
		if strings.EqualFold(c.Name, "oid") {
			column = c.Name
		}
	}
	if err := t.rename(shape.Name, column); err != nil {
		return shape, fmt.Errorf("%w: its columns have taken every name of the rowid: %w", errUnwritable, err)
	}
	after, err := schemaTexts(t.conn)
	if err != nil {
		return shape, err
	}
	for id, sql := range after {
		if before[id] != sql {
			t.loans = append(t.loans, loan{id, before[id]})
		}
	}
	return t.conn.Table(shape.Name)
}

// rename gives a column a name of our own. ALTER TABLE reads the whole schema and
// stops at a view or trigger that does not parse, as the source's may, or whose
// virtual table is not complete yet; an open schema makes it pass over those.
func (t *tables) rename(table, column string) error {
	if err := t.conn.Exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	err := t.conn.Exec("ALTER TABLE main." + quote(table) + " RENAME COLUMN " + quote(column) + " TO " + reserved + "oid")
	return errors.Join(err, t.conn.Exec("PRAGMA writable_schema=OFF"))
}

// giveBack restores the schema's own text.
func (t *tables) giveBack() error {
	if len(t.loans) == 0 {
		return nil
	}
	if err := t.conn.Exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	for i := range t.loans { // the last first: the oldest text of a row is the true one
		l := t.loans[len(t.loans)-1-i]
		if err := t.conn.Exec("UPDATE main.sqlite_schema SET sql=? WHERE rowid=?", l.sql, l.rowid); err != nil {
			return err
		}
	}
	t.loans = nil
	t.reset()
	if err := bump(t.conn); err != nil {
		return err
	}
	return t.conn.ResetSchema()
}

func schemaTexts(c *sqlite.Conn) (map[int64]string, error) {
	texts := make(map[int64]string)
	err := c.Query("SELECT rowid, sql FROM main.sqlite_schema WHERE sql IS NOT NULL", nil, func(r sqlite.Row) error {
		texts[r.Int(0)] = r.Text(1)
		return nil
	})
	return texts, err
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
