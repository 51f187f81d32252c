package sqlite

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoTable is wrapped when a table does not exist, or is a view or a virtual
// table, which hold no rows of their own.
var ErrNoTable = errors.New("sqlite: no such ordinary table")

// An Affinity is the storage class that a column prefers
// (https://www.sqlite.org/datatype3.html#determination_of_column_affinity).
type Affinity uint8

const (
	Blob Affinity = iota
	Text
	Numeric
	Integer
	Real
)

// Generation says how a column gets its value.
type Generation uint8

const (
	None    Generation = iota // by INSERT and UPDATE
	Virtual                   // computed when read, not in the record
	Stored                    // computed when written, part of the record
)

// A Column is one column of a table, in the order of CREATE TABLE.
type Column struct {
	Name, Type string
	Affinity   Affinity
	Collation  string // upper case
	NotNull    bool
	PK         int // position in the PRIMARY KEY from 1, or 0
	Generated  Generation
	Default    string // text of the DEFAULT expression
	HasDefault bool
}

// A Table is the shape of an ordinary table: what its records mean.
type Table struct {
	Name          string
	SQL           string // CREATE TABLE text as sqlite_schema holds it
	WithoutRowid  bool
	Strict        bool
	Columns       []Column
	Stored        []int    // field i of a record is Columns[Stored[i]]
	Key           int      // number of leading stored fields that form a WITHOUT ROWID table's key, else 0
	KeyCollations []string // of those fields, upper case
	RowidAlias    int      // stored field that is the INTEGER PRIMARY KEY, NULL in the record; -1 = none
	RowidName     string   // a name of the rowid; "" when columns have taken all of them, and for WithoutRowid
	Implicit      string   // columns, order and collation of the automatic indexes; equal strings = equal indexes

	// UnknownCollations are those of automatic indexes that the connection lacks:
	// SQLite cannot write the table.
	UnknownCollations []string
}

// Table describes the table name of the main database. It reads the schema only
// and never connects a virtual table.
func (c *Conn) Table(name string) (Table, error) {
	t := Table{RowidAlias: -1}
	var found bool
	var err error
	if t.Name, t.SQL, found, err = c.tableRow(name); err != nil {
		return Table{}, fmt.Errorf("sqlite: table %q: %w", name, err)
	}
	if !found || isVirtual(t.SQL) {
		return Table{}, fmt.Errorf("sqlite: table %q: %w", name, ErrNoTable)
	}
	t.Strict = isStrict(t.SQL)
	for _, read := range []func(*Conn) error{t.readColumns, t.readKey, t.readIndexes} {
		if err := read(c); err != nil {
			return Table{}, fmt.Errorf("sqlite: table %q: %w", name, err)
		}
	}
	return t, nil
}

func (t *Table) readColumns(c *Conn) error {
	err := c.once("PRAGMA main.table_xinfo("+quote(t.Name)+")", func(r Row) error {
		col := Column{
			Name: r.Text(1), Type: r.Text(2), NotNull: r.Int(3) != 0, PK: int(r.Int(5)),
			HasDefault: !r.Null(4), Default: r.Text(4), Affinity: affinity(r.Text(2), t.Strict),
		}
		switch r.Int(6) {
		case 2:
			col.Generated = Virtual
		case 3:
			col.Generated = Stored
		}
		t.Columns = append(t.Columns, col)
		return nil
	})
	if err != nil {
		return err
	}
	if len(t.Columns) == 0 {
		return errors.New("no columns: the schema cannot be read")
	}
	for i := range t.Columns {
		col := &t.Columns[i]
		if col.Collation, err = c.collation(t.Name, col.Name); err != nil {
			return err
		}
	}
	return nil
}

// readKey finds out whether t is a WITHOUT ROWID table and the order of its
// fields. PRAGMA index_xinfo answers for a table's name only when the table is its
// own primary key index.
func (t *Table) readKey(c *Conn) error {
	err := c.once("PRAGMA main.index_xinfo("+quote(t.Name)+")", func(r Row) error {
		t.WithoutRowid = true
		t.Stored = append(t.Stored, int(r.Int(1)))
		if r.Int(5) != 0 {
			t.Key++
			t.KeyCollations = append(t.KeyCollations, strings.ToUpper(r.Text(4)))
		}
		return nil
	})
	if err != nil || t.WithoutRowid {
		return err
	}
	for i, col := range t.Columns {
		if col.Generated != Virtual {
			t.Stored = append(t.Stored, i)
		}
	}
	return nil
}

// readIndexes fills what depends on the automatic indexes.
func (t *Table) readIndexes(c *Conn) error {
	var names, origins []string
	if err := c.once("PRAGMA main.index_list("+quote(t.Name)+")", func(r Row) error {
		if origin := r.Text(3); origin != "c" {
			names, origins = append(names, r.Text(1)), append(origins, origin)
		}
		return nil
	}); err != nil {
		return err
	}
	var sig strings.Builder
	hasKeyIndex := false
	for i, name := range names {
		hasKeyIndex = hasKeyIndex || origins[i] == "pk"
		sig.WriteString(origins[i])
		if err := c.once("PRAGMA main.index_xinfo("+quote(name)+")", func(r Row) error {
			coll := strings.ToUpper(r.Text(4))
			if r.Int(1) < 0 || r.Int(5) == 0 {
				return nil
			}
			if !c.knowsCollation(coll) && !slices.Contains(t.UnknownCollations, coll) {
				t.UnknownCollations = append(t.UnknownCollations, coll)
			}
			fmt.Fprintf(&sig, " %d/%d/%q", r.Int(1), r.Int(3), coll)
			return nil
		}); err != nil {
			return err
		}
		sig.WriteByte(';')
	}
	t.Implicit = sig.String()
	if !t.WithoutRowid {
		t.nameRowid(hasKeyIndex)
	}
	return nil
}

// knowsCollation asks by use, because PRAGMA collation_list shows names that a schema
// merely mentions.
func (c *Conn) knowsCollation(name string) bool {
	switch name {
	case "BINARY", "NOCASE", "RTRIM":
		return true
	}
	return c.once("SELECT '' = '' COLLATE "+quote(name), nil) == nil
}

// nameRowid finds the rowid's alias: the only column of a PRIMARY KEY that has no
// index of its own (INTEGER PRIMARY KEY DESC, for one, has).
func (t *Table) nameRowid(hasKeyIndex bool) {
	taken := map[string]bool{}
	for field, i := range t.Stored {
		col := t.Columns[i]
		if col.PK == 1 && !hasKeyIndex {
			t.RowidAlias, t.RowidName = field, col.Name
		}
	}
	for _, col := range t.Columns {
		taken[strings.ToLower(col.Name)] = true
	}
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if !taken[name] {
			t.RowidName = name
			return
		}
	}
}

// affinity follows §3.1 of the page named at Affinity; a STRICT table has ANY.
func affinity(declared string, strict bool) Affinity {
	typ := strings.ToUpper(declared)
	has := func(s string) bool { return strings.Contains(typ, s) }
	switch {
	case strict && typ == "ANY":
		return Blob
	case has("INT"):
		return Integer
	case has("CHAR"), has("CLOB"), has("TEXT"):
		return Text
	case has("BLOB"), typ == "":
		return Blob
	case has("REAL"), has("FLOA"), has("DOUB"):
		return Real
	}
	return Numeric
}

// SameLayout reports whether rows stored under t mean the same under o, so that
// only the schema text has to change: ALTER TABLE RENAME, RENAME COLUMN and ADD
// COLUMN pass. o may have further columns at the end that are virtual or have a
// constant default. When in doubt the answer is no: a default, affinity, collation
// or NOT NULL that differs in an existing column, and any other change of text in
// a table that has generated columns, because no pragma shows their expressions.
func (t Table) SameLayout(o Table) bool {
	if t.WithoutRowid != o.WithoutRowid || t.Strict != o.Strict || t.RowidAlias != o.RowidAlias ||
		t.Implicit != o.Implicit || len(t.Columns) > len(o.Columns) || len(t.Stored) > len(o.Stored) || t.Key != o.Key {
		return false
	}
	generated := false
	for i, a := range t.Columns {
		b := o.Columns[i]
		generated = generated || a.Generated != None
		a.Name, a.Type, b.Name, b.Type = "", "", "", ""
		if a != b {
			return false
		}
	}
	for _, col := range o.Columns[len(t.Columns):] {
		if !col.mayBeMissing() {
			return false
		}
	}
	for i, at := range t.Stored {
		if o.Stored[i] != at {
			return false
		}
	}
	return !generated || t.sameText(o)
}

// mayBeMissing reports whether a record without the column reads well.
func (col Column) mayBeMissing() bool {
	switch {
	case col.Generated == Virtual:
		return true
	case col.Generated == Stored, col.PK > 0:
		return false
	case !col.HasDefault:
		return !col.NotNull
	}
	return isConstant(col.Default)
}

// sameText reports whether the column definitions of t, with columns named by
// position, are where those of o begin.
func (t Table) sameText(o Table) bool {
	a, b := t.normalText(), o.normalText()
	if len(a) > len(b) || len(a) < len(b) && b[len(a)].text != "," {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (t Table) normalText() []token {
	byName := map[string]int{}
	for i, col := range t.Columns {
		byName[strings.ToLower(col.Name)] = i
	}
	toks := tokens(t.SQL)
	from, to := columnList(toks)
	list := toks[from:to]
	for i := range list {
		if !list[i].ident {
			continue
		}
		word := strings.ToLower(list[i].text)
		if at, ok := byName[word]; ok {
			word = fmt.Sprintf("column %d", at)
		}
		list[i].text = word
	}
	return list
}
