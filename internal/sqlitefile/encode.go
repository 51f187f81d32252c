package sqlitefile

import (
	"encoding/binary"
	"math"
)

// EncodeRecord appends the record of vals to dst, in the bytes that SQLite itself
// writes to a database of schema format 4: each integer in the fewest bytes, 0
// and 1 in none. A float is stored as such, integral or not; NaN as NULL. Text
// must be in the database's encoding. A Value of an unknown type is stored as
// NULL.
func EncodeRecord(dst []byte, vals []Value) []byte {
	types := 0
	for i := range vals {
		types += varintLen(uint64(serialType(&vals[i])))
	}
	// The header's length counts itself, which may make it one byte longer.
	header := types + 1
	for header != types+varintLen(uint64(header)) {
		header = types + varintLen(uint64(header))
	}
	dst = AppendVarint(dst, uint64(header))
	for i := range vals {
		dst = AppendVarint(dst, uint64(serialType(&vals[i])))
	}
	for i := range vals {
		dst = appendBody(dst, &vals[i])
	}
	return dst
}

// serialType returns the type that SQLite would store v with.
func serialType(v *Value) SerialType {
	switch v.Type {
	case TypeInt:
		return intSerialType(v.Int)
	case TypeFloat:
		if math.IsNaN(v.Float) {
			return 0
		}
		return 7
	case TypeText:
		return SerialType(2*len(v.Bytes) + 13)
	case TypeBlob:
		return SerialType(2*len(v.Bytes) + 12)
	}
	return 0
}

func intSerialType(n int64) SerialType {
	if n == 0 || n == 1 {
		return SerialType(8 + n)
	}
	if n < 0 {
		n = ^n
	}
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<15:
		return 2
	case n < 1<<23:
		return 3
	case n < 1<<31:
		return 4
	case n < 1<<47:
		return 5
	}
	return 6
}

func appendBody(dst []byte, v *Value) []byte {
	switch v.Type {
	case TypeInt:
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(v.Int))
		return append(dst, b[8-fixedSizes[intSerialType(v.Int)]:]...)
	case TypeFloat:
		if math.IsNaN(v.Float) {
			return dst
		}
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(v.Float))
	case TypeText, TypeBlob:
		return append(dst, v.Bytes...)
	}
	return dst
}
