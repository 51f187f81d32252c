package sqlite

// #include <stdlib.h>
// #include "apply.h"
import "C"

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unsafe"
)

// ErrNoRowidName is wrapped by Conn.Target when columns of a rowid table have
// taken the names rowid, _rowid_ and oid, so that no SQL reaches the rowid. Apply
// to it under a schema text in which one of them is renamed.
var ErrNoRowidName = errors.New("sqlite: the rowid has no name left")

// A Target is a table of one connection, prepared for Apply. It keeps at most 64
// statements. After a change of the table's columns it must be made again.
type Target struct {
	table Table
	conn  *Conn        // nil once closed
	h     *C.rq_target // C memory
}

// Table is the shape that the target was made for.
func (t *Target) Table() Table { return t.table }

// Target prepares table, which must describe a table of c as it is now. It lives
// until ResetTargets or Close.
func (c *Conn) Target(table Table) (*Target, error) {
	if c.db == nil {
		return nil, ErrClosed
	}
	if !table.WithoutRowid && table.RowidName == "" {
		return nil, fmt.Errorf("sqlite: target %q: %w", table.Name, ErrNoRowidName)
	}
	encoding, err := c.encoding()
	if err != nil {
		return nil, err
	}
	h := C.rq_target_new(encoding, C.int(len(table.Stored)), C.int(table.Key))
	if h == nil {
		return nil, fmt.Errorf("sqlite: target %q: out of memory", table.Name)
	}
	for field, i := range table.Stored {
		if table.Columns[i].Generated == None && field != table.RowidAlias {
			C.rq_target_bind(h, C.int(field), makes(table.Columns[i].Affinity))
		}
	}
	t := &Target{table: table, conn: c, h: h}
	if err := t.learn(); err != nil {
		C.rq_target_free(h)
		return nil, err
	}
	c.targets[t] = struct{}{}
	return t, nil
}

// learn tells what fields read as that a record lacks, and what Apply needs to sum the
// rows that it changes.
func (t *Target) learn() error {
	missing, err := t.conn.Missing(t.table)
	if err != nil {
		return fmt.Errorf("sqlite: target %q: %w", t.table.Name, err)
	}
	for field, i := range t.table.Stored {
		if typ, b := missing[i].serial(); !t.absent(field, typ, b) {
			return fmt.Errorf("sqlite: target %q: %w", t.table.Name, errNoMemory)
		}
	}
	if t.conn.rowSums {
		if t.h.shape, err = newShape(t.table, missing); err != nil {
			return fmt.Errorf("sqlite: target %q: %w", t.table.Name, err)
		}
	}
	return nil
}

func (t *Target) absent(field int, typ uint64, b []byte) bool {
	p := C.CBytes(b)
	defer C.free(p)
	return C.rq_target_absent(t.h, C.int(field), C.uint64_t(typ), p, C.uint64_t(len(b))) != 0
}

// makes says what a column of an affinity makes of values of other classes.
func makes(a Affinity) C.int {
	switch a {
	case Text:
		return C.RQ_TEXT
	case Numeric, Integer:
		return C.RQ_NUMERIC
	case Real:
		return C.RQ_REAL
	}
	return C.RQ_KEEPS
}

// ResetTargets closes every target of c. Call it when the schema changes.
func (c *Conn) ResetTargets() {
	for t := range c.targets {
		C.rq_target_free(t.h)
		t.h, t.conn = nil, nil
	}
	clear(c.targets)
}

// encoding is the code of the database's text encoding.
func (c *Conn) encoding() (C.int, error) {
	name, err := c.QueryText("PRAGMA encoding")
	if err != nil {
		return 0, err
	}
	switch name {
	case "UTF-8":
		return C.SQLITE_UTF8, nil
	case "UTF-16le":
		return C.SQLITE_UTF16LE, nil
	case "UTF-16be":
		return C.SQLITE_UTF16BE, nil
	}
	return 0, fmt.Errorf("sqlite: unknown text encoding %q", name)
}

// prepare adds the statement for the shape that the batch loop stopped at.
func (t *Target) prepare() error {
	var sql string
	switch fields := t.wanted(); t.h.kind {
	case C.RQ_DELETE:
		sql = "DELETE FROM " + t.name() + t.where(1)
	case C.RQ_UPDATE:
		sql = t.updateSQL(fields)
	case C.RQ_SELECT:
		sql = t.selectSQL()
	case C.RQ_SELECT_RUN:
		sql = t.selectRunSQL()
	default:
		sql = t.insertSQL(fields)
	}
	stmt, err := t.conn.compile(sql)
	if err != nil {
		return err
	}
	if C.rq_target_add(t.h, stmt) == 0 {
		C.sqlite3_finalize(stmt)
		return fmt.Errorf("sqlite: target %q: statement does not fit its shape", t.table.Name)
	}
	return nil
}

// wanted is the set of fields in the shape that the batch loop stopped at.
func (t *Target) wanted() []int {
	var fields []int
	for w, set := range unsafe.Slice((*uint64)(unsafe.Pointer(t.h.bits)), int(t.h.words)) {
		for ; set != 0; set &= set - 1 {
			fields = append(fields, w*64+bits.TrailingZeros64(set))
		}
	}
	return fields
}

func (t *Target) name() string { return "main." + quote(t.table.Name) }

func (t *Target) column(field int) string { return quote(t.table.Columns[t.table.Stored[field]].Name) }

// where selects the row by parameters from n on. Columns of a WITHOUT ROWID key
// are never NULL; their collation may differ from the column's.
func (t *Target) where(n int) string {
	if !t.table.WithoutRowid {
		return " WHERE " + quote(t.table.RowidName) + "=?" + strconv.Itoa(n)
	}
	var terms []string
	for k, collation := range t.table.KeyCollations {
		terms = append(terms, fmt.Sprintf("%s=?%d COLLATE %s", t.column(k), n+k, quote(collation)))
	}
	return " WHERE " + strings.Join(terms, " AND ")
}

// OR ABORT overrides an ON CONFLICT clause of the table, which would replace or
// ignore rows silently.
func (t *Target) updateSQL(fields []int) string {
	var set []string
	for i, field := range fields {
		set = append(set, fmt.Sprintf("%s=?%d", t.column(field), i+1))
	}
	if len(set) == 0 { // only the row's existence is to be proved
		key := quote(t.table.RowidName)
		if t.table.WithoutRowid {
			key = t.column(0)
		}
		set = append(set, key+"="+key)
	}
	return "UPDATE OR ABORT " + t.name() + " SET " + strings.Join(set, ",") + t.where(len(fields)+1)
}

func (t *Target) insertSQL(fields []int) string {
	var names, params []string
	if !t.table.WithoutRowid {
		names = append(names, quote(t.table.RowidName))
	}
	for _, field := range fields {
		names = append(names, t.column(field))
	}
	for i := range names {
		params = append(params, "?"+strconv.Itoa(i+1))
	}
	return "INSERT OR ABORT INTO " + t.name() + "(" + strings.Join(names, ",") + ") VALUES(" + strings.Join(params, ",") + ")"
}
