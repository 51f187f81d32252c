package sqlite

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"strings"
	"testing"
)

// A value is one SQLite value: nil, int64, float64, text or []byte. Text is in the
// database's encoding.
type value any

type text []byte

// encodeRecord is the record format's writer (§2.1), for tests only.
func encodeRecord(values ...value) []byte {
	var types, body []byte
	for _, v := range values {
		typ := uint64(0)
		switch v := v.(type) {
		case nil:
		case int64:
			typ, body = encodeInt(v, body)
		case int:
			typ, body = encodeInt(int64(v), body)
		case float64:
			typ, body = 7, binary.BigEndian.AppendUint64(body, math.Float64bits(v))
		case text:
			typ, body = 13+2*uint64(len(v)), append(body, v...)
		case []byte:
			typ, body = 12+2*uint64(len(v)), append(body, v...)
		default:
			panic(fmt.Sprintf("%T", v))
		}
		types = appendVarint(types, typ)
	}
	size := len(types) + 1
	for len(appendVarint(nil, uint64(size)))+len(types) != size {
		size = len(appendVarint(nil, uint64(size))) + len(types)
	}
	return append(append(appendVarint(nil, uint64(size)), types...), body...)
}

func encodeInt(v int64, body []byte) (uint64, []byte) {
	if v == 0 || v == 1 {
		return 8 + uint64(v), body
	}
	for i, n := range []int{1, 2, 3, 4, 6} {
		if v >= -1<<(8*n-1) && v < 1<<(8*n-1) {
			b := binary.BigEndian.AppendUint64(nil, uint64(v))
			return uint64(i + 1), append(body, b[8-n:]...)
		}
	}
	return 6, binary.BigEndian.AppendUint64(body, uint64(v))
}

func appendVarint(b []byte, v uint64) []byte {
	if v >= 1<<56 {
		for shift := 57; shift >= 8; shift -= 7 {
			b = append(b, byte(v>>shift)|0x80)
		}
		return append(b, byte(v))
	}
	started := false
	for shift := 49; shift > 0; shift -= 7 {
		if started = started || v>>shift != 0; started {
			b = append(b, byte(v>>shift)|0x80)
		}
	}
	return append(b, byte(v&0x7f))
}

// cell reads column i, of a storage class named in column i+1.
func cell(r Row, i int) value {
	switch r.Text(i + 1) {
	case "integer":
		return r.Int(i)
	case "real":
		return r.Float(i)
	case "text":
		return text(r.Blob(i))
	case "blob":
		return append([]byte{}, r.Blob(i)...)
	}
	return nil
}

// stored is the SELECT list of t's stored fields, each with its typeof.
func stored(t Table) string {
	var list []string
	for _, i := range t.Stored {
		name := quote(t.Columns[i].Name)
		list = append(list, name, "typeof("+name+")")
	}
	return strings.Join(list, ",")
}

// rows reads all rows of t as printed values, sorted.
func rows(t testing.TB, c *Conn, table Table) []string {
	t.Helper()
	var out []string
	list := stored(table)
	for _, col := range table.Columns {
		if col.Generated == Virtual {
			list += "," + quote(col.Name) + ",typeof(" + quote(col.Name) + ")"
		}
	}
	if table.RowidName != "" {
		list += "," + quote(table.RowidName) + ",'integer'"
	}
	err := c.Query("SELECT "+list+" FROM "+quote(table.Name), nil, func(r Row) error {
		var line []string
		for i := 0; i < r.Len(); i += 2 {
			line = append(line, fmt.Sprintf("%s:%x", r.Text(i+1), cell(r, i)))
		}
		out = append(out, strings.Join(line, " "))
		return nil
	})
	must(t, err)
	sort.Strings(out)
	return out
}

func TestRecordEncoder(t *testing.T) {
	// The encoder is checked against SQLite itself: what it writes, Apply stores.
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a)")
	target := targetOf(t, c, "t")
	long := text(strings.Repeat("x", 20000))
	values := []value{nil, 0, 1, -1, 127, 128, -129, 1 << 15, -1 << 23, 1 << 23, 1 << 31, 1 << 40, 1 << 47, int64(math.MinInt64),
		0.5, math.Inf(1), text(""), text("a\x00b\xff"), []byte{}, []byte{0}, long, []byte(long)}
	for i, v := range values {
		if _, err := c.Apply([]Change{{Op: Insert, Table: target, Rowid: int64(i), New: encodeRecord(v)}}); err != nil {
			t.Fatal(err)
		}
		var got value
		must(t, c.Query("SELECT a, typeof(a) FROM t WHERE rowid=?", []any{i}, func(r Row) error { got = cell(r, 0); return nil }))
		if n, ok := v.(int); ok {
			v = int64(n)
		}
		if fmt.Sprintf("%T%v", got, got) != fmt.Sprintf("%T%v", v, v) {
			t.Errorf("%T %.20v came back as %T %.20v", v, v, got, got)
		}
	}
}
