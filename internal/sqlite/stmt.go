package sqlite

// #include <stdlib.h>
// #include "conn.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unsafe"
)

// A Row is the current row of a query, valid until its callback returns. Columns
// count from 0; values convert as SQLite's sqlite3_column functions do.
type Row struct{ stmt *C.sqlite3_stmt }

// Len is the number of columns.
func (r Row) Len() int { return int(C.sqlite3_column_count(r.stmt)) }

// Null reports whether column i is NULL.
func (r Row) Null(i int) bool { return C.sqlite3_column_type(r.stmt, C.int(i)) == C.SQLITE_NULL }

// Int is column i as an integer, 0 for NULL.
func (r Row) Int(i int) int64 { return int64(C.sqlite3_column_int64(r.stmt, C.int(i))) }

// Float is column i as a floating point number, 0 for NULL.
func (r Row) Float(i int) float64 { return float64(C.sqlite3_column_double(r.stmt, C.int(i))) }

// Text is a copy of column i as UTF-8, "" for NULL. It may hold invalid UTF-8.
func (r Row) Text(i int) string {
	p := C.sqlite3_column_text(r.stmt, C.int(i))
	if p == nil {
		return ""
	}
	return C.GoStringN((*C.char)(unsafe.Pointer(p)), C.sqlite3_column_bytes(r.stmt, C.int(i)))
}

// Blob is a copy of the bytes of column i, nil for NULL and for no bytes.
func (r Row) Blob(i int) []byte {
	p := C.sqlite3_column_blob(r.stmt, C.int(i))
	n := C.sqlite3_column_bytes(r.stmt, C.int(i))
	if p == nil || n == 0 {
		return nil
	}
	return C.GoBytes(p, n)
}

// Exec runs sql and drops any rows. Without args it may hold many statements; with
// args (nil, bool, integers, float64, string, []byte) exactly one.
func (c *Conn) Exec(sql string, args ...any) error {
	if len(args) > 0 {
		return c.Query(sql, args, nil)
	}
	if c.db == nil {
		return ErrClosed
	}
	text := C.CString(sql)
	defer C.free(unsafe.Pointer(text))
	return c.fail("exec", C.sqlite3_exec(c.db, text, nil, nil, nil))
}

// run executes one fixed statement through the cache.
func (c *Conn) run(sql string) error { return c.Query(sql, nil, nil) }

// Query runs the single statement sql and calls row, unless it is nil, for each
// row. An error of row ends the query and is returned as it is.
func (c *Conn) Query(sql string, args []any, row func(Row) error) error {
	stmt, err := c.prepare(sql)
	if err != nil {
		return err
	}
	defer c.stmts.put(sql, stmt)
	if err := c.bind(stmt, args); err != nil {
		return err
	}
	return c.steps(stmt, row)
}

// once is Query for a text that will not come again, such as one with a name in
// it: it leaves the statements that Query keeps alone.
func (c *Conn) once(sql string, row func(Row) error) error {
	if c.db == nil {
		return ErrClosed
	}
	stmt, err := c.compile(sql)
	if err != nil {
		return err
	}
	defer C.sqlite3_finalize(stmt)
	return c.steps(stmt, row)
}

// change runs stmt, finalizes it and returns how many rows it changed.
func (c *Conn) change(stmt *C.sqlite3_stmt, args []any) (int64, error) {
	defer C.sqlite3_finalize(stmt)
	err := c.bind(stmt, args)
	if err == nil {
		err = c.steps(stmt, nil)
	}
	if err != nil {
		return 0, err
	}
	return int64(C.sqlite3_changes64(c.db)), nil
}

func (c *Conn) steps(stmt *C.sqlite3_stmt, row func(Row) error) error {
	for {
		switch rc := C.sqlite3_step(stmt); rc {
		case C.SQLITE_ROW:
			if row == nil {
				continue
			}
			if err := row(Row{stmt}); err != nil {
				return err
			}
		case C.SQLITE_DONE:
			return nil
		default:
			return c.fail("query", rc)
		}
	}
}

// errNoRow is returned where one row was expected.
var errNoRow = errors.New("sqlite: query: no row")

// QueryInt is the first column of the first row of sql.
func (c *Conn) QueryInt(sql string, args ...any) (n int64, err error) {
	err = c.first(sql, args, func(r Row) { n = r.Int(0) })
	return n, err
}

// QueryText is the first column of the first row of sql.
func (c *Conn) QueryText(sql string, args ...any) (s string, err error) {
	err = c.first(sql, args, func(r Row) { s = r.Text(0) })
	return s, err
}

func (c *Conn) first(sql string, args []any, row func(Row)) error {
	found := false
	err := c.Query(sql, args, func(r Row) error {
		if !found {
			row(r)
		}
		found = true
		return nil
	})
	if err == nil && !found {
		return errNoRow
	}
	return err
}

func (c *Conn) prepare(sql string) (*C.sqlite3_stmt, error) {
	if c.db == nil {
		return nil, ErrClosed
	}
	if stmt := c.stmts.take(sql); stmt != nil {
		return stmt, nil
	}
	return c.compile(sql)
}

// compile prepares sql, which must hold exactly one statement.
func (c *Conn) compile(sql string) (*C.sqlite3_stmt, error) {
	stmt, more, err := c.compileFirst(sql)
	if err == nil && more {
		C.sqlite3_finalize(stmt)
		return nil, errors.New("sqlite: prepare: more than one statement")
	}
	return stmt, err
}

// compileFirst prepares the first statement of sql; more reports whether text follows it.
func (c *Conn) compileFirst(sql string) (stmt *C.sqlite3_stmt, more bool, err error) {
	text := C.CString(sql)
	defer C.free(unsafe.Pointer(text))
	var tail *C.char
	rc := C.sqlite3_prepare_v3(c.db, text, C.int(len(sql))+1, C.SQLITE_PREPARE_PERSISTENT, &stmt, &tail)
	if err := c.fail("prepare", rc); err != nil {
		return nil, false, err
	}
	if stmt == nil {
		return nil, false, errors.New("sqlite: prepare: no statement")
	}
	return stmt, *tail != 0, nil
}

func (c *Conn) bind(stmt *C.sqlite3_stmt, args []any) error {
	if want := int(C.sqlite3_bind_parameter_count(stmt)); want != len(args) {
		return fmt.Errorf("sqlite: bind: statement has %d parameters, got %d arguments", want, len(args))
	}
	for i, a := range args {
		rc, err := bindOne(stmt, C.int(i+1), a)
		if err != nil {
			return err
		}
		if err := c.fail("bind", rc); err != nil {
			return err
		}
	}
	return nil
}

func bindOne(stmt *C.sqlite3_stmt, i C.int, arg any) (C.int, error) {
	switch v := arg.(type) {
	case nil:
		return C.sqlite3_bind_null(stmt, i), nil
	case bool:
		n := C.int64_t(0)
		if v {
			n = 1
		}
		return C.sqlite3_bind_int64(stmt, i, n), nil
	case int:
		return C.sqlite3_bind_int64(stmt, i, C.int64_t(v)), nil
	case int64:
		return C.sqlite3_bind_int64(stmt, i, C.int64_t(v)), nil
	case uint32:
		return C.sqlite3_bind_int64(stmt, i, C.int64_t(v)), nil
	case uint64:
		if v > math.MaxInt64 {
			return 0, fmt.Errorf("sqlite: bind: argument %d does not fit SQLite's 64 bit integer", i)
		}
		return C.sqlite3_bind_int64(stmt, i, C.int64_t(v)), nil
	case float64:
		return C.sqlite3_bind_double(stmt, i, C.double(v)), nil
	case string:
		return C.rq_bind_text(stmt, i, unsafe.Pointer(unsafe.StringData(v)), C.uint64_t(len(v))), nil
	case []byte:
		if v == nil {
			return C.sqlite3_bind_null(stmt, i), nil
		}
		return C.rq_bind_blob(stmt, i, unsafe.Pointer(unsafe.SliceData(v)), C.uint64_t(len(v))), nil
	}
	return 0, fmt.Errorf("sqlite: bind: argument %d has unsupported type %T", i, arg)
}

// maxStmts bounds the statements that one connection keeps. Callers use a handful
// of fixed texts; everything else passes through.
const maxStmts = 32

// stmtCache keeps prepared statements that are not running, by their text.
type stmtCache struct{ idle map[string]*C.sqlite3_stmt }

func (s *stmtCache) take(sql string) *C.sqlite3_stmt {
	stmt := s.idle[sql]
	delete(s.idle, sql)
	return stmt
}

func (s *stmtCache) put(sql string, stmt *C.sqlite3_stmt) {
	C.sqlite3_reset(stmt)
	C.sqlite3_clear_bindings(stmt)
	if s.idle == nil {
		s.idle = make(map[string]*C.sqlite3_stmt)
	}
	if s.idle[sql] != nil { // a nested run of the same text came first
		C.sqlite3_finalize(stmt)
		return
	}
	if len(s.idle) >= maxStmts {
		for text, old := range s.idle {
			C.sqlite3_finalize(old)
			delete(s.idle, text)
			break
		}
	}
	s.idle[sql] = stmt
}

func (s *stmtCache) clear() {
	for _, stmt := range s.idle {
		C.sqlite3_finalize(stmt)
	}
	s.idle = nil
}

// collation is the name of a column's collation in upper case.
func (c *Conn) collation(table, column string) (string, error) {
	t, col := C.CString(table), C.CString(column)
	defer C.free(unsafe.Pointer(t))
	defer C.free(unsafe.Pointer(col))
	var name *C.char
	if rc := C.rq_collation(c.db, t, col, &name); rc != C.SQLITE_OK {
		return "", c.fail("collation", rc)
	}
	return strings.ToUpper(C.GoString(name)), nil
}

// HasTable reports whether the main database has a table of that name, without a look
// at the rest of the schema.
func (c *Conn) HasTable(name string) (bool, error) {
	if c.db == nil {
		return false, ErrClosed
	}
	t := C.CString(name)
	defer C.free(unsafe.Pointer(t))
	rc := C.rq_has_table(c.db, t)
	if rc == C.SQLITE_ERROR {
		return false, nil
	}
	return rc == C.SQLITE_OK, c.fail("table", rc)
}
