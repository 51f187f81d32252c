package sqlitefile

import (
	"encoding/binary"
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

// SchemaRoot is the root page of sqlite_schema, a rowid table (§2.6).
const SchemaRoot = 1

// A SchemaRow is a row of sqlite_schema: a table, index, view or trigger (§2.6).
type SchemaRow struct {
	Rowid  int64
	Type   string // table, index, view or trigger, unless somebody wrote the schema by hand
	Name   string
	Table  string // for an index or trigger the table it belongs to, else Name
	Root   uint32 // root page; 0 for views, triggers and virtual tables
	SQL    string // text of the CREATE statement
	HasSQL bool   // false for the indexes of PRIMARY KEY and UNIQUE, whose SQL is NULL
}

// ParseSchemaRow decodes a record of sqlite_schema of a database in encoding e.
func ParseSchemaRow(rowid int64, record []byte, e Encoding) (SchemaRow, error) {
	var buf [5]Value
	vals, err := Record(buf[:], record)
	if err != nil {
		return SchemaRow{}, err
	}
	if len(vals) < len(buf) {
		return SchemaRow{}, corruptf("sqlite_schema row %d: %d columns, want %d", rowid, len(vals), len(buf))
	}
	for _, v := range vals[:3] {
		if v.Type != TypeText {
			return SchemaRow{}, corruptf("sqlite_schema row %d: type, name or tbl_name is %v, want text", rowid, v.Type)
		}
	}
	row := SchemaRow{
		Rowid: rowid,
		Type:  Text(vals[0].Bytes, e),
		Name:  Text(vals[1].Bytes, e),
		Table: Text(vals[2].Bytes, e),
	}
	switch root := vals[3]; {
	case root.Type == TypeInt && root.Int >= 0 && root.Int <= math.MaxUint32:
		row.Root = uint32(root.Int)
	case root.Type != TypeNull:
		return SchemaRow{}, corruptf("sqlite_schema row %d: rootpage is no page number", rowid)
	}
	switch sql := vals[4]; sql.Type {
	case TypeText:
		row.SQL, row.HasSQL = Text(sql.Bytes, e), true
	case TypeNull:
	default:
		return SchemaRow{}, corruptf("sqlite_schema row %d: sql is %v, want text", rowid, sql.Type)
	}
	return row, nil
}

// Text returns a text of a database in encoding e as a Go string. UTF-16 becomes
// UTF-8, with U+FFFD for a surrogate that has no partner, and a last odd byte
// ignored. UTF-8 is taken as it is, valid or not, so that no two names become one.
func Text(b []byte, e Encoding) string {
	var order binary.ByteOrder = binary.LittleEndian
	switch e {
	case UTF16LE:
	case UTF16BE:
		order = binary.BigEndian
	default:
		return string(b)
	}
	dst := make([]byte, 0, len(b))
	for len(b) >= 2 {
		r := rune(order.Uint16(b))
		b = b[2:]
		if utf16.IsSurrogate(r) {
			pair := rune(utf8.RuneError)
			if len(b) >= 2 {
				pair = utf16.DecodeRune(r, rune(order.Uint16(b)))
			}
			if r = pair; r != utf8.RuneError {
				b = b[2:]
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return string(dst)
}
