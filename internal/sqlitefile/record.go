package sqlitefile

import (
	"encoding/binary"
	"fmt"
	"math"
)

// maxRecordHeader is the longest record header that SQLite reads: 32,767 columns
// of three bytes each and its own length.
const maxRecordHeader = 98307

// A SerialType says how a value of a record is stored (§2.1).
type SerialType uint64

// Size returns the bytes that a value of the type takes. It fails with
// [ErrCorrupt] on the reserved types 10 and 11 and on sizes over 2^31-1.
func (t SerialType) Size() (int, error) {
	switch {
	case t < 10:
		return int(fixedSizes[t]), nil
	case t < 12:
		return 0, corruptf("record: serial type %d is reserved", uint64(t))
	case t > 2*math.MaxInt32+13:
		return 0, corruptf("record: serial type %d is longer than any record", uint64(t))
	}
	return int((t - 12) / 2), nil
}

var fixedSizes = [10]uint8{0, 1, 2, 3, 4, 6, 8, 8, 0, 0}

// A ValueType is one of the five storage classes.
type ValueType uint8

// The storage classes, in the order in which SQLite sorts their values.
const (
	TypeNull ValueType = iota
	TypeInt
	TypeFloat
	TypeText
	TypeBlob
)

// String returns what SQL's typeof gives.
func (t ValueType) String() string {
	switch t {
	case TypeNull:
		return "null"
	case TypeInt:
		return "integer"
	case TypeFloat:
		return "real"
	case TypeText:
		return "text"
	case TypeBlob:
		return "blob"
	}
	return fmt.Sprintf("ValueType(%d)", uint8(t))
}

// A Value is one column of a record, as it is stored: an integral value of a REAL
// column is a TypeInt here, and the key of a rowid table (INTEGER PRIMARY KEY) is
// a TypeNull. Only the field of its type is set.
type Value struct {
	Type  ValueType
	Int   int64
	Float float64 // never NaN: as in SQLite, a stored NaN is a TypeNull
	Bytes []byte  // text in the database's encoding, or a blob; aliases the record
}

// Record decodes all values of a record (§2.1) into dst, from its start on, grown
// as needed. The values alias b. A record may have fewer values than its table
// has columns (ALTER TABLE ADD COLUMN).
//
// It fails with [ErrCorrupt] unless header and body fill b exactly.
func Record(dst []Value, b []byte) ([]Value, error) {
	dst, end, err := decodeRecord(dst[:0], b, math.MaxInt)
	if err == nil && end != len(b) {
		err = corruptf("record: %d bytes after the last value", len(b)-end)
	}
	if err != nil {
		return nil, err
	}
	return dst, nil
}

// RecordPrefix is [Record] for the first n values only, or for all if there are
// fewer. b may be the start of a record, as Cell.Local is, as long as it has the
// whole header and these values; if it does not, that is [ErrCorrupt] too.
func RecordPrefix(dst []Value, b []byte, n int) ([]Value, error) {
	dst, _, err := decodeRecord(dst[:0], b, n)
	if err != nil {
		return nil, err
	}
	return dst, nil
}

// decodeRecord appends at most n values to dst and returns where the last ends.
func decodeRecord(dst []Value, b []byte, n int) (_ []Value, end int, err error) {
	size, pos := Varint(b)
	if pos == 0 || size < uint64(pos) || size > uint64(len(b)) || size > maxRecordHeader {
		return nil, 0, corruptf("record: header of %d bytes in a record of %d", size, len(b))
	}
	header, body := b[:size], b[size:]
	for ; pos < len(header) && n > 0; n-- {
		t, m := Varint(header[pos:])
		if m == 0 {
			return nil, 0, corruptf("record: header ends inside a serial type")
		}
		pos += m
		width, err := SerialType(t).Size()
		if err != nil {
			return nil, 0, err
		}
		if width > len(body) {
			return nil, 0, corruptf("record: value of %d bytes with %d left", width, len(body))
		}
		dst = append(dst, decodeValue(SerialType(t), body[:width:width]))
		body = body[width:]
	}
	return dst, len(b) - len(body), nil
}

// decodeValue decodes a value of type t, which is not reserved; b has its size.
func decodeValue(t SerialType, b []byte) Value {
	switch t {
	case 0:
		return Value{}
	case 7:
		f := math.Float64frombits(binary.BigEndian.Uint64(b))
		if math.IsNaN(f) {
			return Value{}
		}
		return Value{Type: TypeFloat, Float: f}
	case 8, 9:
		return Value{Type: TypeInt, Int: int64(t - 8)}
	}
	if t < 7 {
		return Value{Type: TypeInt, Int: decodeInt(b)}
	}
	if t&1 != 0 {
		return Value{Type: TypeText, Bytes: b}
	}
	return Value{Type: TypeBlob, Bytes: b}
}

// decodeInt decodes a big-endian two's complement integer of the sizes of §2.1.
func decodeInt(b []byte) int64 {
	be := binary.BigEndian
	switch len(b) {
	case 1:
		return int64(int8(b[0]))
	case 2:
		return int64(int16(be.Uint16(b)))
	case 3:
		return int64(int8(b[0]))<<16 | int64(be.Uint16(b[1:]))
	case 4:
		return int64(int32(be.Uint32(b)))
	case 6:
		return int64(int16(be.Uint16(b)))<<32 | int64(be.Uint32(b[2:]))
	case 8:
		return int64(be.Uint64(b))
	}
	return 0
}
