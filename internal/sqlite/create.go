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
// CREATE, whatever follows it. Where the text is Edited, PRAGMA writable_schema must be on:
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
	if err != nil || !Edited(o) {
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

// Edited reports whether the text of a table or an index is not the one that SQLite writes
// when it executes it: other words or letters are before the name, or more than one
// statement, or a semicolon, after it, or a comment or space behind the columns of a table.
// Only an edit of the schema can have put that there. It may report an index, or a table
// with options, that was made with a comment at its end.
func Edited(o SchemaRow) bool {
	begins := []string{"CREATE TABLE "}
	if o.Type == "index" {
		begins = []string{"CREATE INDEX ", "CREATE UNIQUE INDEX "}
	}
	for _, begin := range begins {
		rest, ok := strings.CutPrefix(o.SQL, begin)
		if !ok || rest == "" || strings.IndexByte(" \t\n\f\r-/", rest[0]) >= 0 {
			continue
		}
		toks := tokens(rest + ";") // which is lost in a comment that only the end of the text ends
		end := slices.IndexFunc(toks, func(t token) bool { return !t.ident && t.text == ";" })
		if end != len(toks)-1 || !toks[0].is(o.Name) {
			return true
		}
		return o.Type == "table" && toks[end-1].text == ")" && !strings.HasSuffix(rest, ")")
	}
	return true
}
