package sqlite

// #include "sqlite.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Class is the storage class of a value.
type Class uint8

// The storage classes, by SQLite's own numbers.
const (
	ClassInteger Class = C.SQLITE_INTEGER
	ClassFloat   Class = C.SQLITE_FLOAT
	ClassText    Class = C.SQLITE_TEXT
	ClassBlob    Class = C.SQLITE_BLOB
	ClassNull    Class = C.SQLITE_NULL
)

// A Value is one value of SQL; only the field of its class is set.
type Value struct {
	Class Class
	Int   int64
	Float float64
	Bytes string // of a text, in the encoding of a database, or of a blob
}

// Summed are the columns that count in the hash of a row, in order, besides the
// rowid: those that are neither generated nor the INTEGER PRIMARY KEY.
func (t Table) Summed() (columns []int) {
	alias := -1
	if t.RowidAlias >= 0 {
		alias = t.Stored[t.RowidAlias]
	}
	for i, col := range t.Columns {
		if col.Generated == None && i != alias {
			columns = append(columns, i)
		}
	}
	return columns
}

// SumsRowid reports whether the rowid counts in the hash of a row. It does not
// where no SQL can read it, nor where it can only because a column was renamed to
// a Reserved name for the time being.
func (t Table) SumsRowid() bool {
	for _, col := range t.Columns {
		if isReserved(col.Name) {
			return false
		}
	}
	return t.RowidName != ""
}

func isReserved(name string) bool {
	return len(name) >= len(Reserved) && strings.EqualFold(name[:len(Reserved)], Reserved)
}

// A constants evaluates DEFAULT clauses as SQLite does where a record ends before
// the column: by reading a record that does, in an in-memory database.
type constants struct{ c *Conn }

func newConstants(encoding string) (*constants, error) {
	c, err := open(memory, Options{})
	if err != nil {
		return nil, err
	}
	if err := c.Exec("PRAGMA encoding=" + quote(encoding) + "; CREATE TABLE short(a); INSERT INTO short VALUES(NULL)"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &constants{c}, nil
}

// constantColumns bounds the columns of one evaluation: a table has 2000 at most.
const constantColumns = 1000

// missing returns what each column of t reads as when a record ends before it:
// NULL without a default, and where SQLite does not take the default for a
// constant, as ALTER TABLE then adds no such column to a table with rows.
func (k *constants) missing(t Table) ([]Value, error) {
	out := make([]Value, len(t.Columns))
	var at []int
	for i, col := range t.Columns {
		out[i].Class = ClassNull
		if col.HasDefault && col.Generated == None {
			at = append(at, i)
		}
	}
	for len(at) > 0 {
		n := min(len(at), constantColumns)
		if err := k.evaluate(t, at[:n], out); err != nil {
			return nil, fmt.Errorf("sqlite: defaults of table %q: %w", t.Name, err)
		}
		at = at[n:]
	}
	return out, nil
}

func (k *constants) evaluate(t Table, at []int, out []Value) error {
	var def, list strings.Builder
	def.WriteString("CREATE TABLE short(a")
	for i, column := range at {
		col := t.Columns[column]
		name := "c" + strconv.Itoa(i)
		def.WriteString(",\n" + name + " " + col.Affinity.typeName() + " DEFAULT " + defaultTerm(col.Default))
		list.WriteString("," + name)
	}
	def.WriteString("\n)")
	if err := k.c.Exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	err := k.c.Exec("UPDATE sqlite_schema SET sql=?1", def.String())
	if err := errors.Join(err, k.c.ResetSchema()); err != nil {
		return err
	}
	return k.c.once("SELECT "+list.String()[1:]+" FROM short", func(r Row) error {
		for i, column := range at {
			out[column] = r.value(i)
		}
		return nil
	})
}

// defaultTerm writes the text of a DEFAULT, as PRAGMA table_xinfo gives it, for
// another CREATE TABLE. A single word stands alone, because as a DEFAULT an
// identifier is a text, but in parentheses it is not; all else may need them. The
// text may end in a comment.
func defaultTerm(text string) string {
	if len(tokens(text)) == 1 {
		return text + "\n"
	}
	return "(" + text + "\n)"
}

// typeName is a type that gives a column the affinity.
func (a Affinity) typeName() string {
	switch a {
	case Text:
		return "TEXT"
	case Numeric:
		return "NUMERIC"
	case Integer:
		return "INTEGER"
	case Real:
		return "REAL"
	}
	return "BLOB"
}

// value is column i as it is.
func (r Row) value(i int) Value {
	v := Value{Class: Class(C.sqlite3_column_type(r.stmt, C.int(i)))}
	switch v.Class {
	case ClassInteger:
		v.Int = r.Int(i)
	case ClassFloat:
		v.Float = r.Float(i)
	case ClassText, ClassBlob:
		v.Bytes = string(r.Blob(i)) // of a text, too, the bytes as they are
	}
	return v
}

// serial is v as the field of a record: its serial type and its bytes (file format §2.1).
func (v Value) serial() (typ uint64, b []byte) {
	n := uint64(len(v.Bytes))
	switch v.Class {
	case ClassInteger:
		return 6, binary.BigEndian.AppendUint64(nil, uint64(v.Int))
	case ClassFloat:
		return 7, binary.BigEndian.AppendUint64(nil, math.Float64bits(v.Float))
	case ClassText:
		return 13 + 2*n, []byte(v.Bytes)
	case ClassBlob:
		return 12 + 2*n, []byte(v.Bytes)
	}
	return 0, nil
}

// Missing returns what each column of t, a table of c, reads as when a record ends
// before it, text in the database's encoding. A default that SQLite does not take
// for a constant, such as CURRENT_TIMESTAMP or (1+2), reads as NULL.
func (c *Conn) Missing(t Table) ([]Value, error) {
	if c.constants == nil {
		encoding, err := c.QueryText("PRAGMA encoding")
		if err != nil {
			return nil, err
		}
		if c.constants, err = newConstants(encoding); err != nil {
			return nil, err
		}
	}
	return c.constants.missing(t)
}

// Missing is Conn.Missing for a table of a database in encoding, as PRAGMA encoding
// names it.
func (s *Scratch) Missing(t Table, encoding string) ([]Value, error) {
	k := s.constants[encoding]
	if k == nil {
		var err error
		if k, err = newConstants(encoding); err != nil {
			return nil, err
		}
		s.constants[encoding] = k
	}
	return k.missing(t)
}
