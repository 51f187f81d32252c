package sqlite

// #include "content.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
)

// ErrNoRowid is returned where rows are to be named by their rowids and SQL reads
// none: the table is WITHOUT ROWID, or columns have taken every name of the rowid.
var ErrNoRowid = errors.New("sqlite: the table has no rowid that can be read")

// A RowRun is a number of rows that follow each other by rowid: all of them above the
// run before and up to Upto.
type RowRun struct {
	Upto int64
	Rows uint64
	Sum  [2]uint64
}

// A RunReader hashes the rows of one table by rowid. It belongs to its connection, as
// whose caller holds a transaction, and must be closed before that.
type RunReader struct {
	c     *Conn
	name  string
	shape *C.rq_shape
	stmts []*C.sqlite3_stmt // for what counts, and for the rowids if that has none
}

// Runs prepares to hash the rows of a table.
func (c *Conn) Runs(table string) (_ *RunReader, err error) {
	t, err := c.Table(table)
	if err != nil {
		return nil, err
	}
	if !t.SumsRowid() {
		return nil, fmt.Errorf("table %q: %w", table, ErrNoRowid)
	}
	r := &RunReader{c: c, name: t.Name}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.shape, err = c.shape(t); err != nil {
		return nil, err
	}
	rowid := quote(t.RowidName)
	rows, rowids := t.readRows(" WHERE " + rowid + " BETWEEN ?1 AND ?2 ORDER BY " + rowid)
	for _, sql := range []string{rows, rowids} {
		if sql == "" {
			continue
		}
		stmt, err := c.compile(sql)
		if err != nil {
			return nil, err
		}
		r.stmts = append(r.stmts, stmt)
	}
	return r, nil
}

// Close frees the reader. It may be called more than once.
func (r *RunReader) Close() {
	for _, s := range r.stmts {
		C.sqlite3_finalize(s)
	}
	C.rq_shape_free(r.shape)
	r.stmts, r.shape = nil, nil
}

// Read hashes the rows from the rowid first up to last in runs of at most size rows,
// and of fewer where they are long. It gives one run at least and up to most, each above
// the one before; if those are all, the last one ends at last, and may be empty.
func (r *RunReader) Read(ctx context.Context, first, last int64, size, most int) (runs []RowRun, err error) {
	for _, stmt := range r.stmts {
		C.sqlite3_reset(stmt)
		if err := r.c.bind(stmt, []any{first, last}); err != nil {
			return nil, err
		}
	}
	defer func() {
		for _, stmt := range r.stmts {
			C.sqlite3_reset(stmt)
		}
	}()
	var rowids *C.sqlite3_stmt
	if len(r.stmts) > 1 {
		rowids = r.stmts[1]
	}
	defer r.c.interruptOn(ctx)()
	for len(runs) < max(most, 1) {
		var s C.rq_sum
		rc := C.rq_sum_rows(r.stmts[0], rowids, r.shape, &s, C.int(max(size, 1)))
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		run := RowRun{Upto: int64(s.rowid), Rows: uint64(s.rows), Sum: [2]uint64{uint64(s.sum[0]), uint64(s.sum[1])}}
		switch rc {
		case C.SQLITE_ROW:
			runs = append(runs, run)
		case C.SQLITE_DONE:
			if run.Rows > 0 || len(runs) == 0 || runs[len(runs)-1].Upto < last {
				run.Upto = last
				runs = append(runs, run)
			}
			return runs, nil
		default:
			return nil, fmt.Errorf("table %q: %w", r.name, r.c.fail("sum", rc))
		}
	}
	return runs, nil
}
