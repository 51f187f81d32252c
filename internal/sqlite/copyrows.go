package sqlite

// #include <stdlib.h>
// #include "conn.h"
import "C"

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unsafe"
)

// copyRows makes the rows of every ordinary table equal. sqlite_sequence is last:
// inserts into AUTOINCREMENT tables change it.
func (p *copier) copyRows() error {
	names, err := p.c.ordinaryTables(p.from)
	if err != nil {
		return err
	}
	slices.SortStableFunc(names, func(a, b string) int { return sequenceLast(a) - sequenceLast(b) })
	for _, name := range names {
		if p.kept[name] && p.skip(name) {
			continue
		}
		if err := p.copyTable(name); err != nil {
			return fmt.Errorf("table %q: %w", name, err)
		}
	}
	return nil
}

func sequenceLast(name string) int {
	if strings.EqualFold(name, "sqlite_sequence") {
		return 1
	}
	return 0
}

func (p *copier) copyTable(name string) error {
	t, err := p.c.Table(name)
	if err != nil {
		return err
	}
	if !t.WithoutRowid && t.RowidName == "" {
		return ErrNoRowidName
	}
	d := rowDiff{t, "main." + quote(t.Name), p.from + "." + quote(t.Name)}
	full, err := p.c.QueryInt("SELECT EXISTS(SELECT 1 FROM " + d.main + ")")
	if err != nil {
		return err
	}
	late, err := d.late()
	if err != nil {
		return err
	}
	insert := func() error { return p.count(d.insertAll(late)) }
	if full != 0 {
		if err := p.inRuns(t, d.main, "m", d.deleteOther()); err != nil {
			return err
		}
		insert = func() error { return p.inRuns(t, d.source, "s", d.insertAll(late)+d.missing()) }
	}
	before := p.did.Rows
	if err := insert(); err != nil || p.did.Rows == before {
		return err
	}
	if late != "" {
		if err := p.exec(d.fill(late)); err != nil {
			return err
		}
	}
	altered, err := p.c.QueryInt("SELECT EXISTS(" + d.altered() + ")")
	if err == nil && altered != 0 {
		err = ErrAltered
	}
	return err
}

// runRows is how many rows of a table one statement looks at.
const runRows = 1000

// inRuns counts what sql, which ends in a condition on the rows of a table, does run by
// run of rowids. Whatever SQLite gathers before it changes a table, and keeps to take a
// statement back, is then as much as for a run. Those of a WITHOUT ROWID table are done
// at once: SQLite gathers them in a temporary file. The rows are those of from, which sql
// calls as.
func (p *copier) inRuns(t Table, from, as, sql string) error {
	if t.WithoutRowid {
		return p.count(sql)
	}
	rowid := quote(t.RowidName)
	end := fmt.Sprintf("SELECT coalesce(max(r), %[1]d) FROM (SELECT %[2]s AS r FROM %[3]s WHERE %[2]s>=?1 ORDER BY %[2]s LIMIT %[4]d)",
		math.MaxInt64, rowid, from, runRows)
	sql += " AND " + as + "." + rowid + " BETWEEN ?1 AND ?2"
	for first := int64(math.MinInt64); ; {
		last, err := p.c.QueryInt(end, first)
		if err == nil {
			err = p.count(sql, first, last)
		}
		if err != nil || last == math.MaxInt64 {
			return err
		}
		first = last + 1
	}
}

// count runs a statement and counts the rows that it changed.
func (p *copier) count(sql string, args ...any) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	stmt, err := p.c.compile(sql)
	if err != nil {
		return err
	}
	n, err := p.c.change(stmt, args)
	p.did.Rows += n
	return err
}

// A rowDiff writes the SQL that makes the table main equal to source.
type rowDiff struct {
	t            Table
	main, source string
}

// identity compares the rowid or key of m and s, as SQLite's own b-tree does.
func (d rowDiff) identity() string {
	if !d.t.WithoutRowid {
		name := quote(d.t.RowidName)
		return "s." + name + "=m." + name
	}
	var terms []string
	for k, collation := range d.t.KeyCollations {
		name := quote(d.t.Columns[d.t.Stored[k]].Name)
		terms = append(terms, "s."+name+"=m."+name+" COLLATE "+quote(collation))
	}
	return strings.Join(terms, " AND ")
}

// columns are those that have values of their own.
func (d rowDiff) columns() (names []string) {
	for _, col := range d.t.Columns {
		if col.Generated == None {
			names = append(names, quote(col.Name))
		}
	}
	return names
}

// deleteOther deletes the rows that have no equal in the source, so that the rows
// that remain are a part of the source's and no insert conflicts with them.
func (d rowDiff) deleteOther() string {
	return fmt.Sprintf("DELETE FROM %s AS m WHERE NOT EXISTS(SELECT 1 FROM %s AS s WHERE %s%s)", d.main, d.source, d.identity(), d.equal())
}

// alike is the SQL function of C.rq_alike.
const alike = Reserved + "alike"

// makeAlike gives the connection that function. No schema can call it.
func (c *Conn) makeAlike() error {
	name := C.CString(alike)
	defer C.free(unsafe.Pointer(name))
	return c.fail("function", C.rq_alike(c.db, name))
}

// equal narrows identity to rows that read the same in every column.
func (d rowDiff) equal() string {
	var b strings.Builder
	// In groups, since an expression may be a thousand levels deep.
	for group := range slices.Chunk(d.columns(), 50) {
		b.WriteString(" AND (1")
		for _, name := range group {
			fmt.Fprintf(&b, " AND s.%[1]s IS m.%[1]s COLLATE BINARY AND %[2]s(s.%[1]s,m.%[1]s)", name, alike)
		}
		b.WriteString(")")
	}
	return b.String()
}

// altered finds a row that was copied and does not read as it does in the source.
func (d rowDiff) altered() string {
	return fmt.Sprintf("SELECT 1 FROM %s AS s WHERE NOT EXISTS(SELECT 1 FROM %s AS m WHERE %s%s)", d.source, d.main, d.identity(), d.equal())
}

// inserted are the columns of an INSERT, the rowid included.
func (d rowDiff) inserted() []string {
	names := d.columns()
	// A rowid alias is among the columns already.
	if !d.t.WithoutRowid && d.t.RowidAlias < 0 {
		names = append([]string{quote(d.t.RowidName)}, names...)
	}
	return names
}

// late is the column that insertAll leaves NULL for fill, since with the rowid there
// is one more than a SELECT may have; "" otherwise.
func (d rowDiff) late() (string, error) {
	if len(d.inserted()) <= maxColumns {
		return "", nil
	}
	for _, col := range d.t.Columns {
		if col.Generated == None && !col.NotNull && !col.HasDefault && col.PK == 0 {
			return quote(col.Name), nil
		}
	}
	return "", fmt.Errorf("it has %d columns, of which none may be NULL and has no default: it cannot be compared row by row", len(d.t.Columns))
}

func (d rowDiff) fill(late string) string {
	return fmt.Sprintf("UPDATE OR ABORT %s AS m SET %[2]s=s.%[2]s FROM %s AS s WHERE %s AND m.%[2]s IS NULL AND s.%[2]s IS NOT NULL",
		d.main, late, d.source, d.identity())
}

func (d rowDiff) insertAll(late string) string {
	list := strings.Join(slices.DeleteFunc(d.inserted(), func(name string) bool { return name == late }), ",")
	return fmt.Sprintf("INSERT OR ABORT INTO %s(%s) SELECT %s FROM %s AS s", d.main, list, list, d.source)
}

// missing narrows insertAll. SQLite first gathers what it selects, because the
// subquery reads the table that it writes; so it is left out for an empty table.
func (d rowDiff) missing() string {
	return fmt.Sprintf(" WHERE NOT EXISTS(SELECT 1 FROM %s AS m WHERE %s)", d.main, d.identity())
}
