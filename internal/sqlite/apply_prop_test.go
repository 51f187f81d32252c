package sqlite

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A source is a database that SQL writes, and the changes that this made.
type source struct {
	rt      *rapid.T
	c       *Conn
	table   Table
	added   int // columns that ALTER TABLE added, with defaults
	changes []Change
}

// drawTable writes CREATE TABLE for t: some values, a key of any kind and perhaps
// generated columns.
func drawTable(rt *rapid.T) string {
	typ := rapid.SampledFrom([]string{"", "INT", "TEXT", "REAL", "BLOB", "NUMERIC", "TEXT COLLATE NOCASE"})
	cols := []string{"k1 " + typ.Draw(rt, "k1"), "k2 " + typ.Draw(rt, "k2"), "v " + typ.Draw(rt, "v")}
	switch rapid.IntRange(0, 3).Draw(rt, "generated") {
	case 1:
		cols = append(cols, "g AS (v || k1)")
	case 2:
		cols = append([]string{"g AS (typeof(v))"}, append(cols, "h TEXT AS (v || 'x') STORED")...)
	case 3:
		cols = append([]string{"h AS (typeof(v)) STORED"}, cols...)
	}
	options := ""
	switch rapid.IntRange(0, 5).Draw(rt, "key") {
	case 1:
		cols = append(cols, "id INTEGER PRIMARY KEY")
	case 2:
		cols = append([]string{"id INTEGER PRIMARY KEY"}, append(cols, "UNIQUE(v, k2)")...)
	case 3:
		cols = append(cols, "PRIMARY KEY(k2 COLLATE NOCASE DESC)")
		options = " WITHOUT ROWID"
	case 4:
		cols = append(cols, "PRIMARY KEY(v DESC, k1 COLLATE RTRIM)")
		options = " WITHOUT ROWID"
	case 5:
		cols = append(cols, "UNIQUE(k1 COLLATE NOCASE)")
	}
	return "CREATE TABLE t(" + strings.Join(cols, ", ") + ")" + options
}

var drawValue = rapid.OneOf(
	rapid.SampledFrom([]any{nil, int64(7), int64(7), int64(0), int64(1), 5.0, -0.5, 1e300, "", "a", "A", "a ", "é", "\uFEFFx", "\uFFFEx", "12", "1e3", []byte{}, []byte{0xfe, 0xff}, "a\x00b", int64(1) << 52}),
	rapid.Map(rapid.Int64(), func(i int64) any { return i }),
	rapid.Map(rapid.Float64(), func(f float64) any { return f }),
	rapid.Map(rapid.String(), func(s string) any { return s }),
	rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return append([]byte{}, b...) }),
)

// where selects one row by its identity, and its arguments.
func (s *source) where(row []value, rowid int64) (string, []any) {
	if !s.table.WithoutRowid {
		return quote(s.table.RowidName) + "=?", []any{rowid}
	}
	var terms []string
	var args []any
	for k := range s.table.Key {
		// The hex of the value in its storage class is exact in every encoding.
		name := quote(s.table.Columns[s.table.Stored[k]].Name)
		terms = append(terms, "hex(CAST("+name+" AS BLOB))=?", "typeof("+name+")=?")
		b, typ := bytesOf(s, row[k])
		args = append(args, b, typ)
	}
	return strings.Join(terms, " AND "), args
}

// bytesOf asks SQLite for the bytes of v as a BLOB, in hex, and its storage class.
func bytesOf(s *source, v value) (string, string) {
	switch v := v.(type) {
	case text:
		return fmt.Sprintf("%X", []byte(v)), "text"
	case []byte:
		return fmt.Sprintf("%X", v), "blob"
	}
	hex, err := s.c.QueryText("SELECT hex(CAST(?1 AS BLOB))", any(v))
	must(s.rt, err)
	typ := "real"
	if _, ok := v.(int64); ok {
		typ = "integer"
	}
	return hex, typ
}

type sourceRow struct {
	rowid  int64
	values []value
}

func (s *source) rows(where string, args []any) (out []sourceRow) {
	rowid := "0"
	if !s.table.WithoutRowid {
		rowid = quote(s.table.RowidName)
	}
	sql := "SELECT " + rowid + "," + stored(s.table) + " FROM t WHERE " + where
	must(s.rt, s.c.Query(sql, args, func(r Row) error {
		row := sourceRow{rowid: r.Int(0)}
		for i := 1; i < r.Len(); i += 2 {
			row.values = append(row.values, cell(r, i))
		}
		out = append(out, row)
		return nil
	}))
	return out
}

// record encodes row as the file might hold it: without fields at its end that
// equal the defaults of added columns, sometimes.
func (s *source) record(row sourceRow) []byte {
	values := append([]value{}, row.values...)
	if s.table.RowidAlias >= 0 {
		values[s.table.RowidAlias] = nil
	}
	for range s.added {
		last := values[len(values)-1]
		if n, ok := last.(int64); !ok || n != 7 || !rapid.Bool().Draw(s.rt, "short") {
			break
		}
		values = values[:len(values)-1]
	}
	return encodeRecord(values...)
}

// settable are the columns that SQL may write.
func (s *source) settable() (names []string) {
	for i, col := range s.table.Columns {
		if col.Generated == None && !(s.table.RowidAlias >= 0 && s.table.Stored[s.table.RowidAlias] == i) {
			names = append(names, quote(col.Name))
		}
	}
	return names
}

func (s *source) insert() {
	var names, params []string
	var args []any
	for _, name := range s.settable() {
		if rapid.IntRange(0, 4).Draw(s.rt, "omit") == 0 {
			continue // NULL or the default
		}
		names, params, args = append(names, name), append(params, "?"), append(args, drawValue.Draw(s.rt, "value"))
	}
	if len(names) == 0 {
		return
	}
	before := s.rows("1", nil)
	if err := s.c.Exec("INSERT INTO t("+strings.Join(names, ",")+") VALUES("+strings.Join(params, ",")+")", args...); err != nil {
		return // refused by the source: no change
	}
	for _, row := range s.rows("1", nil) {
		if !contains(before, row) {
			s.changes = append(s.changes, Change{Op: Insert, Rowid: row.rowid, New: s.record(row)})
		}
	}
}

func contains(list []sourceRow, row sourceRow) bool {
	for _, o := range list {
		if o.rowid == row.rowid && reflect.DeepEqual(o.values, row.values) {
			return true
		}
	}
	return false
}

func (s *source) pick() (sourceRow, bool) {
	all := s.rows("1", nil)
	if len(all) == 0 {
		return sourceRow{}, false
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(s.rt, "row")], true
}

func (s *source) update() {
	old, ok := s.pick()
	if !ok {
		return
	}
	name := rapid.SampledFrom(s.settable()).Draw(s.rt, "column")
	where, args := s.where(old.values, old.rowid)
	before := s.rows("1", nil)
	// Swapping case keeps a NOCASE key equal and its bytes not.
	set, arg := name+"=?", any(drawValue.Draw(s.rt, "value"))
	switch rapid.IntRange(0, 3).Draw(s.rt, "how") {
	case 0: // an added column back to its default, which a short record may express
		if s.added > 0 {
			set, arg = fmt.Sprintf("added%d=?", s.added), int64(7)
		}
	case 1:
		set, arg = name+"=CASE WHEN typeof("+name+")='text' THEN replace(replace("+name+",'A','a'),'a','A') ELSE ? END", int64(3)
	}
	if err := s.c.Exec("UPDATE t SET "+set+" WHERE "+where, append([]any{arg}, args...)...); err != nil {
		return
	}
	now := old
	for _, row := range s.rows("1", nil) {
		if !contains(before, row) {
			now = row
		}
	}
	switch {
	case s.sameKey(old, now):
		s.changes = append(s.changes, Change{Op: Update, Rowid: old.rowid, Old: s.record(old), New: s.record(now)})
	default:
		s.changes = append(s.changes, Change{Op: Delete, Rowid: old.rowid, Old: s.record(old)},
			Change{Op: Insert, Rowid: now.rowid, New: s.record(now)})
	}
}

// sameKey reports whether both rows have equal keys; case is all that a collation
// of these tests leaves out in what update swaps.
func (s *source) sameKey(a, b sourceRow) bool {
	for k := range s.table.Key {
		x, y := fmt.Sprintf("%T%v", a.values[k], a.values[k]), fmt.Sprintf("%T%v", b.values[k], b.values[k])
		if xt, ok := a.values[k].(text); ok && s.table.KeyCollations[k] == "NOCASE" {
			yt, ok := b.values[k].(text)
			if !ok {
				return false
			}
			x, y = asciiLower(xt), asciiLower(yt)
		}
		if x != y {
			return false
		}
	}
	return true
}

func asciiLower(b []byte) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 32
		}
		return r
	}, fmt.Sprintf("%q", latin1(b)))
}

func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i := range b {
		r[i] = rune(b[i])
	}
	return string(r)
}

func (s *source) delete() {
	old, ok := s.pick()
	if !ok {
		return
	}
	where, args := s.where(old.values, old.rowid)
	must(s.rt, s.c.Exec("DELETE FROM t WHERE "+where, args...))
	s.changes = append(s.changes, Change{Op: Delete, Rowid: old.rowid, Old: s.record(old)})
}

func memoryDB(rt *rapid.T, t *testing.T, encoding, schema string) *Conn {
	c, err := open(memory, Options{})
	must(t, err)
	must(rt, c.Exec("PRAGMA encoding='"+encoding+"'; "+schema))
	return c
}

// TestApplyEqualsSQL writes one database with SQL and another with the changes that
// this made; they must end equal.
func TestApplyEqualsSQL(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		encoding := rapid.SampledFrom([]string{"UTF-8", "UTF-16le", "UTF-16be"}).Draw(rt, "encoding")
		schema := drawTable(rt)
		s := &source{rt: rt, c: memoryDB(rt, t, encoding, schema)}
		defer s.c.Close()
		replica := memoryDB(rt, t, encoding, schema+"; CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; END")
		defer replica.Close()
		replica.rowSums = true
		var sum [2]uint64
		for range 3 {
			var err error
			s.table, err = s.c.Table("t")
			must(rt, err)
			for range rapid.IntRange(0, 12).Draw(rt, "steps") {
				rapid.SampledFrom([]func(){s.insert, s.insert, s.update, s.update, s.delete}).Draw(rt, "step")()
			}
			target := targetOf(t, replica, "t")
			for i := range s.changes {
				s.changes[i].Table = target
			}
			if n, err := replica.Apply(s.changes); err != nil {
				rt.Fatalf("%s: change %d of %d: %v", schema, n, len(s.changes), err)
			}
			s.changes = nil
			change := target.TakeSum()
			sum[0], sum[1] = sum[0]+change[0], sum[1]+change[1]
			if a, b := sumOf(t, s.c, "t"), sumOf(t, replica, "t"); a != b || sum != b {
				rt.Fatalf("%s: sums: source %x, replica %x, of its changes %x", schema, a, b, sum)
			}
			if diff := cmp.Diff(rows(t, s.c, s.table), rows(t, replica, target.Table())); diff != "" {
				rt.Fatalf("%s (-source +replica)\n%s", schema, diff)
			}
			if ok, err := replica.QueryText("PRAGMA integrity_check"); err != nil || ok != "ok" {
				rt.Fatalf("%s: %s %v", schema, ok, err)
			}
			replica.ResetTargets()
			s.added++
			alter := fmt.Sprintf("ALTER TABLE t ADD COLUMN added%d DEFAULT 7", s.added)
			must(rt, s.c.Exec(alter))
			must(rt, replica.Exec(alter))
		}
	})
}
