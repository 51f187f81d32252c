package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// typed gives a table the types that its rows were not written with, as a damaged
// page seems to do, and as PRAGMA writable_schema can.
func typed(t fataler, c *Conn, table, types string) {
	t.Helper()
	must(t, c.Exec("PRAGMA writable_schema=ON"))
	must(t, c.Exec("UPDATE sqlite_schema SET sql=?1 WHERE name=?2", "CREATE TABLE "+table+"("+types+")", table))
	must(t, c.ResetSchema())
}

// drawAny draws a value with a taste for what looks like a number and is none.
func drawAny(rt *rapid.T) value {
	switch rapid.IntRange(0, 3).Draw(rt, "class") {
	case 0:
		return rapid.SampledFrom([]int64{0, 1, -1, 7, 1 << 40, 1<<53 + 1, math.MaxInt64, math.MinInt64}).Draw(rt, "integer")
	case 1:
		return rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 0.5, -3, 1e300, 1 << 60, -1 << 63, 1 << 63, 9223372036854774784, math.Inf(1), 1e-320}).Draw(rt, "float")
	case 2:
		return []byte(rapid.StringMatching(`[0-9]{1,3}`).Draw(rt, "blob"))
	}
	return text(rapid.OneOf(
		rapid.StringMatching(`[ \t\n\v\f\r]{0,2}[+-]?[0-9]{0,3}[.]?[0-9]{0,2}([eE][+-]?[0-9]{0,2})?[ \t\x00]{0,2}`),
		rapid.StringMatching(`[0-9 .eEx+\-_\x00aé]{0,6}`),
		rapid.SampledFrom([]string{"0x10", "inf", "nan", "1e400", "99999999999999999999", "9223372036854775808", "-0", "2026-01-02", "1_000"}),
	).Draw(rt, "text"))
}

// same tells 0.0 from -0.0, which == does not.
func same(a, b Value) bool { return a == b && math.Signbit(a.Float) == math.Signbit(b.Float) }

const everyAffinity = "t TEXT, n NUMERIC, i INTEGER, r REAL, b BLOB"

// TestApplyKeepsOrRefuses: a value is written as the source has it, or not at all,
// and what SQL itself would write is never refused.
func TestApplyKeepsOrRefuses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		encoding := rapid.SampledFrom([]string{"UTF-8", "UTF-16le", "UTF-16be"}).Draw(rt, "encoding")
		c := memoryDB(rt, t, encoding, "CREATE TABLE raw(t, n, i, r, b); CREATE TABLE sql("+everyAffinity+"); CREATE TABLE replica("+everyAffinity+")")
		defer c.Close()
		v := drawAny(rt)
		arg := any(v)
		if s, ok := v.(text); ok {
			arg = string(s)
		}
		for _, name := range []string{"raw", "sql"} {
			must(rt, c.Exec("INSERT INTO "+name+" VALUES(?1,?1,?1,?1,?1)", arg))
		}
		var stored value
		must(rt, c.Query("SELECT b FROM sql", nil, func(r Row) error {
			if stored = v; r.value(0).Class == ClassText {
				stored = text(r.value(0).Bytes)
			}
			return nil
		}))
		typed(rt, c, "raw", everyAffinity)
		read := func(table, column string) (got Value) {
			must(rt, c.Query("SELECT "+column+" FROM "+table, nil, func(r Row) error { got = r.value(0); return nil }))
			return got
		}
		target := targetOf(t, c, "replica")
		for i, column := range strings.Split("tnirb", "") {
			row := make([]value, 5)
			row[i] = stored
			_, err := c.Apply([]Change{{Op: Insert, Table: target, Rowid: 1, New: encodeRecord(row...)}})
			want, bySQL := read("raw", column), read("sql", column)
			switch {
			case err != nil && (!errors.Is(err, ErrAltered) || same(want, bySQL)):
				rt.Fatalf("%s, column %s, %#v: %v, although SQL keeps it", encoding, column, v, err)
			case err == nil && !same(read("replica", column), want):
				rt.Fatalf("%s, column %s, %#v: the source reads %+v, the replica %+v", encoding, column, v, want, read("replica", column))
			}
			must(rt, c.Exec("DELETE FROM replica"))
		}
	})
}

// TestApplyRefusesAltered: an UPDATE writes the columns anew that it leaves alone,
// too, and half a character of UTF-16 would be lost.
func TestApplyRefusesAltered(t *testing.T) {
	c := memoryIn(t, "UTF-16le")
	mustExec(t, c, "CREATE TABLE t(a TEXT, b); INSERT INTO t VALUES('x', 1)")
	target := targetOf(t, c, "t")
	for _, ch := range []Change{
		{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(5, 1), New: encodeRecord(5, 2)},
		{Op: Insert, Table: target, Rowid: 2, New: encodeRecord(nil, text("odd"))},
	} {
		if n, err := c.Apply([]Change{ch}); n != 0 || !errors.Is(err, ErrAltered) {
			t.Errorf("%v: %d applied, %v", ch.Op, n, err)
		}
	}
}

// TestCopyFromRefusesAltered: a row that is there keeps its value, one that must be
// written cannot get it.
func TestCopyFromRefusesAltered(t *testing.T) {
	src, path := openTest(t, Options{})
	mustExec(t, src, "CREATE TABLE t(a); INSERT INTO t VALUES(5)")
	typed(t, src, "t", "a TEXT")
	for i, setup := range []string{"CREATE TABLE other(a)", "CREATE TABLE t(a TEXT)", "CREATE TABLE t(a TEXT); INSERT INTO t VALUES('5')"} {
		c, _ := openTest(t, Options{})
		mustExec(t, c, setup)
		must(t, c.Attach(path, "src"))
		must(t, c.BeginImmediate())
		if _, err := c.CopyFrom(context.Background(), "src", nil); !errors.Is(err, ErrAltered) || !strings.Contains(fmt.Sprint(err), `"t"`) {
			t.Errorf("%d: %v", i, err)
		}
		must(t, c.Rollback())
	}
}
