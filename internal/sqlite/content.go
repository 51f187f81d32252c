package sqlite

// #include "content.h"
import "C"

import (
	"context"
	"fmt"
)

// Reserved is the prefix of the names that belong to the project: never captured,
// hashed or copied.
const Reserved = "_replicator_"

// A TableSum stands for the rows of one table, in any order. Two sums of equal
// tables are equal; two tables that differ have equal sums with a probability of
// about 2^-128, if nobody contrived them.
type TableSum struct {
	Name string
	Rows uint64
	Sum  [2]uint64
}

// A SchemaRow is one object of a schema.
type SchemaRow struct{ Type, Name, Table, SQL string }

// How many rows are hashed between looks at the context, and between two rests.
const (
	sumRows  = 4096
	paceRows = 256
)

// Content hashes every ordinary table of the main database, shadow tables and
// SQLite's own included, sorted by name, and the schema's text. FORMAT.md of package
// cdc ("Row-set hash") says what of a row counts: its logical values, with text in
// the database's encoding, so that files of different encodings cannot be compared.
// Names with the prefix Reserved do not count, and virtual tables are never asked.
//
// The caller holds a transaction, so that all of it is one state. progress, unless
// nil, learns from time to time how much was read.
func (c *Conn) Content(ctx context.Context, progress func(Read)) (tables []TableSum, schema [2]uint64, err error) {
	names, err := c.ordinaryTables("main")
	if err != nil {
		return nil, schema, err
	}
	pageSize, err := c.QueryInt("PRAGMA page_size")
	if err != nil {
		return nil, schema, err
	}
	var done Read
	for _, name := range names {
		var table Read
		sum, err := c.sumTable(ctx, name, sumRows, func(s scan) {
			table = Read{s.rows, max(int64(s.pages)*pageSize, int64(s.bytes))}
			if progress != nil {
				progress(Read{done.Rows + table.Rows, done.Bytes + table.Bytes})
			}
		})
		if err != nil {
			return nil, schema, named(name, err)
		}
		done = Read{done.Rows + table.Rows, done.Bytes + table.Bytes}
		tables = append(tables, sum)
	}
	schema, err = c.sumSchema(ctx)
	return tables, schema, err
}

// Read is how much of a database was read. Bytes is about the size of the pages that
// hold the rows, and no less than that of their texts and blobs.
type Read struct {
	Rows  uint64
	Bytes int64
}

// A scan is how far the reading of a table has come.
type scan struct {
	rows  uint64
	pages uint32 // as rq_pages_read has it
	bytes uint64 // of text and blob
}

// named says of which table an error is.
func named(table string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sqlite: content of %q: %w", table, err)
}

// SumTable is the sum that Content computes for one table.
func (c *Conn) SumTable(ctx context.Context, name string) (TableSum, error) {
	sum, err := c.sumTable(ctx, name, sumRows, func(scan) {})
	return sum, named(name, err)
}

// SumTablePaced is SumTable for work in the background: it calls progress with the
// number of rows so far after every few hundred and at the end, and the caller may
// rest in it.
func (c *Conn) SumTablePaced(ctx context.Context, name string, progress func(rows uint64)) (TableSum, error) {
	sum, err := c.sumTable(ctx, name, paceRows, func(s scan) { progress(s.rows) })
	return sum, named(name, err)
}

func (c *Conn) sumTable(ctx context.Context, name string, step int, progress func(scan)) (TableSum, error) {
	table, err := c.Table(name)
	if err != nil {
		return TableSum{}, err
	}
	shape, err := c.shape(table)
	if err != nil {
		return TableSum{}, err
	}
	defer C.rq_shape_free(shape)
	rows, rowids := table.readRows("")
	sum, err := c.sum(ctx, rows, rowids, shape, step, progress)
	sum.Name = table.Name
	return sum, err
}

// readRows gives a query for what counts in the hashes of the rows of t, and one for
// their rowids where those count and there is no room for them in the first. where
// ends both.
func (t Table) readRows(where string) (rows, rowids string) {
	// Not from a covering index: it is the table that counts.
	from := " FROM main." + quote(t.Name) + " NOT INDEXED" + where
	columns := t.summed()
	switch rowid := quote(t.RowidName); {
	case !t.SumsRowid():
	case len(columns) < maxColumns:
		columns = append([]string{rowid}, columns...)
	default: // a SELECT may have as many columns as a table
		rowids = "SELECT " + rowid + from
	}
	return "SELECT " + selectList(columns) + from, rowids
}

// SumSchema is the sum that Content computes for the schema: of its objects and their
// text, in any order, without names that begin with Reserved.
func (c *Conn) SumSchema(ctx context.Context) ([2]uint64, error) {
	sum, err := c.sumSchema(ctx)
	if err != nil {
		return sum, fmt.Errorf("sqlite: content of the schema: %w", err)
	}
	return sum, nil
}

func (c *Conn) sumSchema(ctx context.Context) ([2]uint64, error) {
	const columns = 4
	shape := C.rq_shape_new(0, columns)
	if shape == nil {
		return [2]uint64{}, errNoMemory
	}
	defer C.rq_shape_free(shape)
	for i := range columns {
		C.rq_shape_set(shape, C.int(i), 0, 0, 0, nil, 0) // no class: it always counts
	}
	sum, err := c.sum(ctx, "SELECT type, name, tbl_name, sql FROM main.sqlite_schema"+unreserved, "", shape, sumRows, func(scan) {})
	return sum.Sum, err
}

// maxColumns is SQLite's limit of the columns of a table, and of a SELECT.
const maxColumns = 2000

// sum hashes the rows of a query, step rows between two calls of progress. rowids,
// unless empty, is a query for their rowids.
func (c *Conn) sum(ctx context.Context, sql, rowids string, shape *C.rq_shape, step int, progress func(scan)) (TableSum, error) {
	if c.db == nil {
		return TableSum{}, ErrClosed
	}
	stmt, err := c.compile(sql)
	if err != nil {
		return TableSum{}, err
	}
	defer C.sqlite3_finalize(stmt)
	var ids *C.sqlite3_stmt
	if rowids != "" {
		if ids, err = c.compile(rowids); err != nil {
			return TableSum{}, err
		}
		defer C.sqlite3_finalize(ids)
	}
	defer c.interruptOn(ctx)() // rows may be huge
	var s C.rq_sum
	before := C.rq_pages_read(c.db)
	for {
		if err := ctx.Err(); err != nil {
			return TableSum{}, err
		}
		rc := C.rq_sum_rows(stmt, ids, shape, &s, C.int(step))
		if rc == C.SQLITE_INTERRUPT && ctx.Err() != nil {
			return TableSum{}, ctx.Err()
		}
		if rc != C.SQLITE_ROW && rc != C.SQLITE_DONE {
			return TableSum{}, c.fail("sum", rc)
		}
		progress(scan{uint64(s.rows), uint32(C.rq_pages_read(c.db) - before), uint64(s.bytes)})
		if rc == C.SQLITE_DONE {
			return TableSum{Rows: uint64(s.rows), Sum: [2]uint64{uint64(s.sum[0]), uint64(s.sum[1])}}, nil
		}
	}
}

// unreserved is a WHERE clause for sqlite_schema. SQLite compares names without
// regard to ASCII case.
const unreserved = ` WHERE substr(name,1,12) <> '_replicator_' COLLATE NOCASE AND substr(tbl_name,1,12) <> '_replicator_' COLLATE NOCASE`

// ordinaryTables are the names of the tables of db, which is quoted, that hold rows of
// their own, sorted.
func (c *Conn) ordinaryTables(db string) (names []string, err error) {
	err = c.once("SELECT name FROM "+db+".sqlite_schema"+unreserved+" AND type='table' AND rootpage>0 ORDER BY name",
		func(r Row) error {
			names = append(names, r.Text(0))
			return nil
		})
	return names, err
}

// SchemaText is the schema of the main database without names that begin with
// Reserved, sorted by type and name.
func (c *Conn) SchemaText() ([]SchemaRow, error) {
	var out []SchemaRow
	err := c.Query("SELECT type, name, tbl_name, sql FROM main.sqlite_schema"+unreserved+" ORDER BY type, name", nil,
		func(r Row) error {
			out = append(out, SchemaRow{r.Text(0), r.Text(1), r.Text(2), r.Text(3)})
			return nil
		})
	return out, err
}
