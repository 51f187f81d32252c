package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// hasherOf makes the hasher of a table from its text alone.
func hasherOf(t fataler, table, sql string, e sqlitefile.Encoding) *rowHasher {
	t.Helper()
	s, err := sqlite.NewScratch()
	noError(t, err)
	defer s.Close()
	shape, err := s.Describe(table, sql)
	noError(t, err)
	missing, err := s.Missing(shape, e.String())
	noError(t, err)
	return newRowHasher(shape, missing)
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

func noError(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The golden row of package sqlite, whose C code is the other implementation.
func TestRowHashIsFrozen(t *testing.T) {
	h := hasherOf(t, "t", "CREATE TABLE t(a,b,c,d,e)", sqlitefile.UTF8)
	text := func(s string) sqlitefile.Value { return sqlitefile.Value{Type: sqlitefile.TypeText, Bytes: []byte(s)} }
	blob := func(s string) sqlitefile.Value { return sqlitefile.Value{Type: sqlitefile.TypeBlob, Bytes: []byte(s)} }
	number := func(i int64) sqlitefile.Value { return sqlitefile.Value{Type: sqlitefile.TypeInt, Int: i} }
	float := sqlitefile.Value{Type: sqlitefile.TypeFloat, Float: -2.5}
	a, err := h.hash(1, sqlitefile.EncodeRecord(nil, []sqlitefile.Value{number(1), float, text("twenty-five bytes of text"), blob("\x00\x01\x02")}))
	noError(t, err)
	b, err := h.hash(2, sqlitefile.EncodeRecord(nil, []sqlitefile.Value{number(2), number(3), text(""), text("a"), blob("")}))
	noError(t, err)
	if got, want := a.Add(b), (cdc.RowSum{0x704e81ccdf1b5c83, 0x53fdc6953f6f66b9}); got != want {
		t.Errorf("sum is %v, want %v", got, want)
	}
}

func TestTail64(t *testing.T) {
	for n := range 9 {
		var b [8]byte
		want := uint64(0)
		for i := range n {
			b[i] = byte(0x81 + i)
			want |= uint64(b[i]) << (8 * i)
		}
		if got := tail64(b[:n:n]); got != want {
			t.Errorf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
}

func FuzzRowHash(f *testing.F) {
	h := hasherOf(f, "t", "CREATE TABLE t(a PRIMARY KEY, b REAL, c DEFAULT 'x', d AS (a) STORED) WITHOUT ROWID", sqlitefile.UTF8)
	plain := hasherOf(f, "t", "CREATE TABLE t(a, b REAL DEFAULT 7, c DEFAULT 'some text that is longer than a window', d DEFAULT x'00')", sqlitefile.UTF8)
	turned := hasherOf(f, "t", "CREATE TABLE t(a, b DEFAULT 7, k PRIMARY KEY) WITHOUT ROWID", sqlitefile.UTF8)
	if turned.inOrder || !plain.inOrder {
		f.Fatal("the tables are not what they are here for")
	}
	long := strings.Repeat("0123456789abcdef", 5) + "tail"
	for _, text := range []string{"some text that is longer than a window", "some text that is longer than a widow?", long} {
		values := []sqlitefile.Value{
			{Type: sqlitefile.TypeText, Bytes: []byte(long)}, {Type: sqlitefile.TypeInt, Int: 7},
			{Type: sqlitefile.TypeText, Bytes: []byte(text)}, {Type: sqlitefile.TypeBlob, Bytes: []byte{0}},
		}
		for n := range values {
			f.Add(sqlitefile.EncodeRecord(nil, values[:n+1]))
		}
	}
	f.Add([]byte{2, 8})
	f.Add([]byte{4, 7, 1, 9, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := h.hash(1, b)
		if err != nil && !errors.Is(err, sqlitefile.ErrCorrupt) {
			t.Fatal(err)
		}
		if _, strict := sqlitefile.Record(nil, b); strict == nil && err != nil {
			t.Fatalf("a record that is one: %v", err)
		}
		for _, h := range []*rowHasher{h, plain, turned} {
			want, err := h.hash(1, b)
			got, piecewise := h.hashFrom(1, cdc.Image{Size: len(b), From: bytes.NewReader(b)}, 16)
			if got != want || (err == nil) != (piecewise == nil) || piecewise != nil && !errors.Is(piecewise, sqlitefile.ErrCorrupt) {
				t.Fatalf("read in pieces: %v, %v; as a whole: %v, %v", got, piecewise, want, err)
			}
		}
	})
}

// A plainFile is a database file that nobody writes.
type plainFile []byte

func (f plainFile) Page(n uint32) ([]byte, error) {
	size := 4096
	if n == 0 || int(n)*size > len(f) {
		return nil, fmt.Errorf("%w: page %d", sqlitefile.ErrCorrupt, n)
	}
	return f[(int(n)-1)*size : int(n)*size], nil
}

// sumFile sums a table from the bytes of the file.
func sumFile(t fataler, path, table string) cdc.RowSum {
	t.Helper()
	raw, err := os.ReadFile(path)
	noError(t, err)
	head, err := sqlitefile.ParseHeader(raw)
	noError(t, err)
	l, err := newLayouts()
	noError(t, err)
	defer l.Close()
	s := newSide(plainFile(raw), head, uint32(len(raw)/head.PageSize))
	schema, err := readSchema(&s, head.Encoding, l)
	noError(t, err)
	for _, o := range schema.objects {
		if o.row.Name == table && o.tree != nil {
			walk := tableSummer{hasher: hasherOf(t, table, o.row.SQL, head.Encoding), side: s}
			sum, err := walk.sum(context.Background(), o.tree.root)
			noError(t, err)
			equalPiecewise(t, &walk, o.tree.root)
			return sum
		}
	}
	t.Fatal("no table " + table)
	return cdc.RowSum{}
}

// equalPiecewise compares the hash of each row with that of the row read in pieces.
func equalPiecewise(t fataler, s *tableSummer, root uint32) {
	t.Helper()
	noError(t, sqlitefile.Walk(s.src, root, s.usable, s.count, func(p sqlitefile.Page, _ uint32) error {
		if !holdsRows(p.Type()) {
			return nil
		}
		for i := range p.Cells() {
			cell, err := p.Cell(i)
			noError(t, err)
			record, err := sqlitefile.Payload(nil, s.src, cell, s.usable)
			noError(t, err)
			want, err := s.hasher.hash(cell.Rowid, record)
			noError(t, err)
			for _, window := range []int{16, 1 << 10} {
				image := cdc.Image{Size: len(record), From: sqlitefile.NewPayloadReader(s.src, cell, s.usable)}
				if got, err := s.hasher.hashFrom(cell.Rowid, image, window); err != nil || got != want {
					t.Fatal(fmt.Sprintf("row %d read %d bytes at a time: %v, %v; want %v", cell.Rowid, window, got, err, want))
				}
			}
		}
		return nil
	}))
}

// A hashedTable writes a table through SQL, with a history of columns.
type hashedTable struct {
	rt    *rapid.T
	c     *sqlite.Conn
	cols  []string // that SQL may write
	added int
}

var hashedValues = rapid.OneOf(
	rapid.SampledFrom([]any{nil, int64(7), int64(0), int64(1), int64(-1), int64(1) << 53, int64(1)<<53 + 1, int64(-1) << 47, 5.0, 0.0, math.Copysign(0, -1), -0.5, 1e300,
		"", "7", "a", "abcdefgh", "abcdefghi", "é", "\uFEFFx", "1e3", []byte{}, []byte("a"), []byte("7"), strings.Repeat("long", 3000)}),
	rapid.Map(rapid.Int64(), func(i int64) any { return i }),
	rapid.Map(rapid.Float64(), func(f float64) any { return f }),
	rapid.Map(rapid.String(), func(s string) any { return s }),
	rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return append([]byte{}, b...) }),
)

func (h *hashedTable) create() {
	typ := rapid.SampledFrom([]string{"", "INT", "TEXT", "REAL", "BLOB", "NUMERIC", "REAL DEFAULT 7", "TEXT DEFAULT 7", "DEFAULT x'61'"})
	cols := []string{"a " + typ.Draw(h.rt, "a"), "b " + typ.Draw(h.rt, "b"), "c " + typ.Draw(h.rt, "c")}
	h.cols = []string{"a", "b", "c"}
	switch rapid.IntRange(0, 3).Draw(h.rt, "generated") {
	case 1:
		cols = append(cols, "g AS (a || b)")
	case 2:
		cols = append([]string{"g AS (typeof(a))"}, append(cols, "s AS (a || 'x') STORED")...)
	case 3:
		cols = append([]string{"s AS (typeof(b)) STORED"}, cols...)
	}
	options := ""
	switch rapid.IntRange(0, 5).Draw(h.rt, "key") {
	case 1:
		cols = append(cols, "id INTEGER PRIMARY KEY")
	case 2:
		cols = append([]string{"id INTEGER PRIMARY KEY"}, cols...)
	case 3:
		cols, options = append(cols, "PRIMARY KEY(c, a)"), " WITHOUT ROWID"
	case 4:
		cols, options = append(cols, "PRIMARY KEY(b COLLATE NOCASE DESC)"), " WITHOUT ROWID"
	case 5:
		cols = append(cols, "rowid", "oid", "_rowid_")
		h.cols = append(h.cols, "oid")
	}
	noError(h.rt, h.c.Exec("CREATE TABLE t("+strings.Join(cols, ", ")+")"+options))
}

func (h *hashedTable) insert() {
	var names, marks []string
	var args []any
	for _, name := range h.cols {
		if rapid.IntRange(0, 3).Draw(h.rt, "omit") > 0 {
			names, marks, args = append(names, name), append(marks, "?"), append(args, hashedValues.Draw(h.rt, "value"))
		}
	}
	if len(names) == 0 {
		_ = h.c.Exec("INSERT INTO t DEFAULT VALUES") // a constraint may refuse it: no change
		return
	}
	_ = h.c.Exec("INSERT INTO t("+strings.Join(names, ",")+") VALUES("+strings.Join(marks, ",")+")", args...)
}

func (h *hashedTable) update() {
	name := rapid.SampledFrom(h.cols).Draw(h.rt, "column")
	_ = h.c.Exec("UPDATE OR IGNORE t SET "+name+"=? WHERE length(hex(b))%2", hashedValues.Draw(h.rt, "value"))
}

func (h *hashedTable) addColumn() {
	h.added++
	name := fmt.Sprintf("n%d", h.added)
	def := rapid.SampledFrom([]string{"", "INT", "REAL DEFAULT 7", "TEXT DEFAULT 7", "DEFAULT x'61'", "DEFAULT abcdefghijkl", "DEFAULT -0.0", "AS (a)"}).Draw(h.rt, "added")
	noError(h.rt, h.c.Exec("ALTER TABLE t ADD COLUMN "+name+" "+def))
	if !strings.HasPrefix(def, "AS") {
		h.cols = append(h.cols, name)
	}
}

func (h *hashedTable) vacuum() { noError(h.rt, h.c.Exec("VACUUM")) }

func sqlSum(t fataler, c *sqlite.Conn, table string) cdc.RowSum {
	t.Helper()
	sum, err := c.SumTable(context.Background(), table)
	noError(t, err)
	return sum.Sum
}

// TestRowHashesAgree: the sum over the records of a file, in Go, is the sum through
// SQL, in C; and ADD COLUMN does not change it. The sum of what Apply changes is
// compared with SumTable in package sqlite.
func TestRowHashesAgree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	rapid.Check(t, func(rt *rapid.T) {
		for _, suffix := range []string{"", "-journal"} {
			_ = os.Remove(path + suffix)
		}
		c, err := sqlite.Open(path, sqlite.Options{Create: true})
		noError(rt, err)
		defer c.Close()
		encoding := rapid.SampledFrom([]string{"UTF-8", "UTF-16le", "UTF-16be"}).Draw(rt, "encoding")
		noError(rt, c.Exec("PRAGMA synchronous=OFF; PRAGMA page_size=4096; PRAGMA encoding='"+encoding+"'"))
		h := &hashedTable{rt: rt, c: c}
		h.create()
		steps := []func(){h.insert, h.insert, h.insert, h.update, h.addColumn, h.vacuum}
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			step := rapid.IntRange(0, len(steps)-1).Draw(rt, "step")
			before := sqlSum(rt, c, "t")
			steps[step]()
			sql := sqlSum(rt, c, "t")
			if step == 4 && sql != before {
				rt.Fatal("ADD COLUMN changed the sum")
			}
			if raw := sumFile(rt, path, "t"); raw != sql {
				text, _ := c.QueryText("SELECT sql FROM sqlite_schema WHERE name='t'")
				rt.Fatalf("%s: records %v, SQL %v", text, raw, sql)
			}
		}
	})
}

func TestExtends(t *testing.T) {
	of := func(columns string) *rowHasher {
		return hasherOf(t, "t", "CREATE TABLE t("+columns+")", sqlitefile.UTF8)
	}
	base := of("a, b REAL DEFAULT 5")
	for columns, want := range map[string]bool{
		"x, y REAL DEFAULT 5":                         true,
		"a, b REAL DEFAULT 5.0, c DEFAULT 1":          true,
		"a, b REAL DEFAULT 5, c AS (a)":               true,
		"a, b REAL DEFAULT 6":                         false,
		"a, b NUMERIC DEFAULT 5":                      false,
		"a":                                           false,
		"id INTEGER PRIMARY KEY, a, b REAL DEFAULT 5": false,
	} {
		if got := of(columns).extends(base); got != want {
			t.Errorf("%s: %t, want %t", columns, got, want)
		}
	}
}

// 100-byte rows of eight columns.
func BenchmarkRowHash(b *testing.B) {
	h := hasherOf(b, "t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c REAL, d, e, f, g)", sqlitefile.UTF8)
	text := []byte(strings.Repeat("some text ", 7))
	record := sqlitefile.EncodeRecord(nil, []sqlitefile.Value{{}, {Type: sqlitefile.TypeInt, Int: 1 << 40}, {Type: sqlitefile.TypeText, Bytes: text[:12]},
		{Type: sqlitefile.TypeFloat, Float: 1.5}, {Type: sqlitefile.TypeText, Bytes: text[:50]}, {Type: sqlitefile.TypeInt, Int: 5}, {}, {}})
	record = slices.Clip(record)
	b.SetBytes(int64(len(record)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.hash(7, record); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
