package sqlite

// #include "sqlite.h"
import "C"

import (
	"errors"
	"slices"
	"strings"
)

// Create makes a table or an index from its row in another schema. Of the text, which came
// from a file, it executes what SQLite reads there: the first statement, which must be a
// CREATE, whatever follows it. Where text does follow, PRAGMA writable_schema must be on:
// then the row takes the whole text, as the other has it.
func (c *Conn) Create(o SchemaRow) error {
	if c.db == nil {
		return ErrClosed
	}
	if len(o.SQL) < 6 || !strings.EqualFold(o.SQL[:6], "CREATE") {
		return errors.New("its schema text is no CREATE statement")
	}
	stmt, _, err := c.compileFirst(o.SQL)
	if err != nil {
		return err
	}
	err = c.steps(stmt, nil)
	C.sqlite3_finalize(stmt)
	if err != nil || !GoesOn(o.SQL) {
		return err
	}
	return c.Exec("UPDATE main.sqlite_schema SET sql=?1 WHERE type=?2 AND name=?3", o.SQL, o.Type, o.Name)
}

// GoesOn reports whether the text of a table or an index has more than one statement, or a
// semicolon at its end, either of which only an edit of the schema can have put there.
func GoesOn(sql string) bool {
	if !strings.Contains(sql, ";") {
		return false
	}
	return slices.ContainsFunc(tokens(sql), func(t token) bool { return !t.ident && t.text == ";" })
}
