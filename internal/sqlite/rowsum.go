package sqlite

// #include <stdlib.h>
// #include "rowsum.h"
import "C"

import (
	"cmp"
	"errors"
	"strings"
)

// summed are the columns that a SELECT reads to hash the rows of t, quoted.
func (t Table) summed() (list []string) {
	for _, i := range t.Summed() {
		list = append(list, quote(t.Columns[i].Name))
	}
	return list
}

// selectList is a list for a SELECT, which needs a column.
func selectList(list []string) string { return cmp.Or(strings.Join(list, ","), "NULL") }

// shape makes what rq_row_hash needs for the rows of t.
func (c *Conn) shape(t Table) (*C.rq_shape, error) {
	missing, err := c.Missing(t)
	if err != nil {
		return nil, err
	}
	return newShape(t, missing)
}

// newShape is shape where it is known what Missing gives.
func newShape(t Table, missing []Value) (*C.rq_shape, error) {
	columns := t.Summed()
	rowid := 0
	if t.SumsRowid() {
		rowid = 1
	}
	s := C.rq_shape_new(C.int(rowid), C.int(len(columns)))
	if s == nil {
		return nil, errNoMemory
	}
	for i, column := range columns {
		if !setMissing(s, i, missing[column]) {
			C.rq_shape_free(s)
			return nil, errNoMemory
		}
	}
	return s, nil
}

var errNoMemory = errors.New("sqlite: out of memory")

func setMissing(s *C.rq_shape, i int, v Value) bool {
	p := C.CBytes([]byte(v.Bytes))
	defer C.free(p)
	return C.rq_shape_set(s, C.int(i), C.int(v.Class), C.int64_t(v.Int), C.double(v.Float), p, C.uint64_t(len(v.Bytes))) != 0
}

// TakeSum returns by how much the table's row-set hash has changed, new rows less
// old ones, through Apply since the last call, and starts over. It is zero unless
// the connection has Options.RowSums. Both are read from the file: the old row
// before each change, the new row after it, before Apply returns. What a rollback
// undoes is counted all the same: take it and drop it. ResetTargets drops it, too.
func (t *Target) TakeSum() (sum [2]uint64) {
	if t.h == nil {
		return sum
	}
	sum = [2]uint64{uint64(t.h.sum[0]), uint64(t.h.sum[1])}
	t.h.sum[0], t.h.sum[1] = 0, 0
	return sum
}

// selectSQL reads the row that a change is about.
func (t *Target) selectSQL() string { return t.selectAll() + t.where(1) }

// selectRunSQL reads the rows from one rowid to another.
func (t *Target) selectRunSQL() string {
	rowid := quote(t.table.RowidName)
	return t.selectAll() + " WHERE " + rowid + " BETWEEN ?1 AND ?2 ORDER BY " + rowid
}

func (t *Target) selectAll() string {
	return "SELECT " + selectList(t.table.summed()) + " FROM " + t.name() + " NOT INDEXED"
}
