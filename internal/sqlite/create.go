package sqlite

// #include <stdlib.h>
// #include "conn.h"
import "C"

import (
	"errors"
	"slices"
	"strings"
	"unsafe"
)

// Create makes a table or an index from its row in another schema. Of the text, which came
// from a file, it executes what SQLite reads there: the first statement, which must be a
// CREATE, whatever follows it. Where text does follow, PRAGMA writable_schema must be on:
// then the row takes the whole text, as the other has it.
//
// A table may call functions that this program does not have: its rows can be written
// where that is in a CHECK constraint, which is ignored here, and in no generated column.
func (c *Conn) Create(o SchemaRow) error {
	if c.db == nil {
		return ErrClosed
	}
	if len(o.SQL) < 6 || !strings.EqualFold(o.SQL[:6], "CREATE") {
		return errors.New("its schema text is no CREATE statement")
	}
	err := c.create(o.SQL)
	var lent []string
	for name := missingFunction(err); name != "" && o.Type == "table" && !slices.Contains(lent, name); name = missingFunction(err) {
		lent = append(lent, name)
		if c.lend(name, true) != nil {
			break
		}
		err = c.create(o.SQL)
	}
	for _, name := range lent {
		err = errors.Join(err, c.lend(name, false))
	}
	if err != nil || !GoesOn(o.SQL) {
		return err
	}
	return c.Exec("UPDATE main.sqlite_schema SET sql=?1 WHERE type=?2 AND name=?3", o.SQL, o.Type, o.Name)
}

func (c *Conn) create(sql string) error {
	stmt, _, err := c.compileFirst(sql)
	if err != nil {
		return err
	}
	defer C.sqlite3_finalize(stmt)
	return c.steps(stmt, nil)
}

// missingFunction is the name of a function for want of which SQLite refused to compile a
// statement; "": that is not why. SQLite asks for one only where a CREATE TABLE is
// executed, and not where it is read in a schema.
func missingFunction(err error) string {
	var e *Error
	if !errors.As(err, &e) || e.Code != codeError {
		return ""
	}
	name, _ := strings.CutPrefix(e.Message, "no such function: ")
	if name == e.Message {
		return ""
	}
	return name
}

// lend gives the connection a function of that name, which is never to be called, or takes
// it away.
func (c *Conn) lend(name string, on bool) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	n := C.int(0)
	if on {
		n = 1
	}
	return c.fail("function", C.rq_lend(c.db, text, n))
}

// GoesOn reports whether the text of a table or an index has more than one statement, or a
// semicolon at its end, either of which only an edit of the schema can have put there.
func GoesOn(sql string) bool {
	if !strings.Contains(sql, ";") {
		return false
	}
	return slices.ContainsFunc(tokens(sql), func(t token) bool { return !t.ident && t.text == ";" })
}
