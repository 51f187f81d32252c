package sqlitefile

import (
	"errors"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		in   string
		e    Encoding
		want string
	}{
		{"aé", UTF8, "aé"},
		{"a\xff", UTF8, "a\xff"},
		{"a\x00\xe9\x00\x3d\xd8\x00\xde", UTF16LE, "aé😀"},
		{"\x00a\x00\xe9\xd8\x3d\xde\x00", UTF16BE, "aé😀"},
		{"\x3d\xd8a\x00", UTF16LE, "\uFFFDa"},
		{"\x00\xdea\x00", UTF16LE, "\uFFFDa"},
		{"\x3d\xd8", UTF16LE, "\uFFFD"},
		{"\x3d\xd8\x3d\xd8\x00\xde", UTF16LE, "\uFFFD😀"},
		{"a\x00b", UTF16LE, "a"},
		{"", UTF16BE, ""},
	} {
		if got := Text([]byte(c.in), c.e); got != c.want {
			t.Errorf("%q in %v is %q, want %q", c.in, c.e, got, c.want)
		}
	}
}

func TestParseSchemaRow(t *testing.T) {
	text := func(s string) Value { return Value{Type: TypeText, Bytes: []byte(s)} }
	number := func(n int64) Value { return Value{Type: TypeInt, Int: n} }
	good := SchemaRow{Rowid: 3, Type: "table", Name: "t", Table: "t", Root: 5, SQL: "CREATE TABLE t(a)", HasSQL: true}
	auto := SchemaRow{Rowid: 3, Type: "index", Name: "i", Table: "t", Root: 1<<32 - 1}
	for name, c := range map[string]struct {
		vals []Value
		want SchemaRow // zero: ErrCorrupt
	}{
		"table":         {[]Value{text("table"), text("t"), text("t"), number(5), text("CREATE TABLE t(a)")}, good},
		"more columns":  {[]Value{text("table"), text("t"), text("t"), number(5), text("CREATE TABLE t(a)"), {}}, good},
		"no sql":        {[]Value{text("index"), text("i"), text("t"), number(1<<32 - 1), {}}, auto},
		"null root":     {[]Value{text("view"), text("v"), text("v"), {}, {}}, SchemaRow{Rowid: 3, Type: "view", Name: "v", Table: "v"}},
		"four columns":  {[]Value{text("table"), text("t"), text("t"), number(5)}, SchemaRow{}},
		"no name":       {[]Value{text("table"), {}, text("t"), number(5), {}}, SchemaRow{}},
		"negative root": {[]Value{text("table"), text("t"), text("t"), number(-1), {}}, SchemaRow{}},
		"huge root":     {[]Value{text("table"), text("t"), text("t"), number(1 << 32), {}}, SchemaRow{}},
		"root as text":  {[]Value{text("table"), text("t"), text("t"), text("5"), {}}, SchemaRow{}},
		"sql as number": {[]Value{text("table"), text("t"), text("t"), number(5), number(1)}, SchemaRow{}},
	} {
		got, err := ParseSchemaRow(3, EncodeRecord(nil, c.vals), UTF8)
		if got != c.want || (c.want == SchemaRow{}) != errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}

func FuzzSchemaRow(f *testing.F) {
	text := func(s string) Value { return Value{Type: TypeText, Bytes: []byte(s)} }
	row := []Value{text("table"), text("t"), text("t"), {Type: TypeInt, Int: 2}, text("CREATE TABLE t(a)")}
	f.Add(EncodeRecord(nil, row), uint8(1))
	f.Add(EncodeRecord(nil, row), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, e uint8) {
		row, err := ParseSchemaRow(1, b, Encoding(e))
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v does not wrap ErrCorrupt", err)
		}
		if enc := Encoding(e); (enc == UTF16LE || enc == UTF16BE) && !utf8.ValidString(row.Type+row.Name+row.Table+row.SQL) {
			t.Errorf("UTF-16 became invalid UTF-8: %+q", row.Type+row.Name+row.Table+row.SQL)
		}
	})
}
