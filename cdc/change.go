package cdc

import "fmt"

// An Op says what an operation of a transaction does.
type Op uint8

// The operations. Inside a transaction they come in this order over all
// tables: deletes, schema, updates, inserts, indexes, sqlite_sequence. A
// consumer may rely on it.
const (
	OpTable         Op = 1 // declares a table; later row operations name it by its ordinal
	OpDelete        Op = 2
	OpUpdate        Op = 3
	OpInsert        Op = 4
	OpSchema        Op = 5
	OpUserVersion   Op = 6 // PRAGMA user_version
	OpApplicationID Op = 7 // PRAGMA application_id
	OpEnd           Op = 8 // the transaction is complete
)

func (o Op) String() string {
	switch o {
	case OpTable:
		return "table"
	case OpDelete:
		return "delete"
	case OpUpdate:
		return "update"
	case OpInsert:
		return "insert"
	case OpSchema:
		return "schema"
	case OpUserVersion:
		return "user_version"
	case OpApplicationID:
		return "application_id"
	case OpEnd:
		return "end"
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// A Table identifies the table of a row change by the name that it has where
// the change stands: deletes carry the name before the transaction's schema
// changes, updates and inserts the name after them.
type Table struct {
	Name         string
	WithoutRowid bool
	Key          int // WITHOUT ROWID: number of leading fields of a row that form its key
}

// A Change is one operation of a transaction.
//
// Old and New are rows as SQLite records (file format §2.1) in the text
// encoding of the database. They may alias the record that they were decoded
// from and are valid only until the callback that received them returns.
type Change struct {
	Op     Op
	Table  *Table        // of OpTable, OpDelete, OpUpdate, OpInsert
	Rowid  int64         // key of a row of a rowid table
	Old    []byte        // row before, of OpDelete and OpUpdate
	New    []byte        // row after, of OpUpdate and OpInsert
	Schema *SchemaChange // of OpSchema
	Value  int32         // of OpUserVersion and OpApplicationID
	Resync bool          // of OpEnd: the transaction repairs a difference, it was not written by the application
}

// A SchemaObject is a row of sqlite_schema without its root page, which means
// nothing in another file.
type SchemaObject struct {
	Type  string `json:"type"` // table, index, view or trigger
	Name  string `json:"name"`
	Table string `json:"table"`         // tbl_name
	SQL   string `json:"sql,omitempty"` // empty for an automatic index
	// Virtual is true for a virtual table, which owns no b-tree.
	Virtual bool `json:"virtual,omitempty"`
}

// A SchemaChange turns one schema object into another. Without Old it creates,
// without New it drops: a dropped table takes its rows with it, no deletes
// precede the drop. With both, only the text and the names change and stored
// rows stay as they are; a table whose rows must be laid out anew is dropped,
// created and filled by inserts.
type SchemaChange struct {
	Old *SchemaObject `json:"old,omitempty"`
	New *SchemaObject `json:"new,omitempty"`
}
