package replicator_test

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Values at which an encoding changes its width or its meaning.
var (
	edgeInts = []int64{
		0, 1, -1, 2, 127, 128, -128, -129, 32767, 32768, -32768, -32769, 1<<23 - 1, 1 << 23, -1 << 23, -1<<23 - 1,
		1<<31 - 1, 1 << 31, -1 << 31, -1<<31 - 1, 1<<47 - 1, 1 << 47, -1 << 47, -1<<47 - 1, 1<<53 + 1, math.MaxInt64, math.MinInt64,
	}
	edgeFloats = []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 2, 100, 1 << 47, 1 << 52, 1 << 53, 1e15, 1e300, 5e-324, -2.5,
		math.Inf(1), math.Inf(-1), math.MaxInt64, math.MinInt64,
	}
	edgeTexts = []string{
		"", " ", "0", "-0", "1", "01", "1.0", "1e3", " 12 ", "NULL", "nul\x00inside", "\x00", "a\x00", "\xff\xfe", "\xc3", "\xed\xa0\x80 lone surrogate",
		"é☃𝄞", "ÄÖÜ", "abc", "ABC", "abc ", "\ufeffbom", "\uffff",
	}
)

// value is any value that fits the column.
func (w *workload) value(c column) any {
	typ := strings.ToUpper(c.typ)
	if c.strict && typ != "ANY" {
		return w.strictValue(typ)
	}
	if w.r.IntN(12) == 0 && !c.notNull {
		return nil
	}
	switch w.r.IntN(10) {
	case 0:
		return int64(w.r.IntN(300))
	case 1:
		return pick(w.r, edgeInts...)
	case 2:
		return pick(w.r, edgeFloats...)
	case 3:
		return w.r.NormFloat64() * 1000
	case 4:
		return float64(w.r.IntN(100))
	case 5:
		return pick(w.r, edgeTexts...)
	case 6, 7:
		return w.text()
	case 8:
		return w.noise(w.size())
	}
	return strconv.Itoa(w.r.IntN(1000))
}

func (w *workload) strictValue(typ string) any {
	switch typ {
	case "INT", "INTEGER":
		return pick(w.r, edgeInts...)
	case "REAL":
		return pick(w.r, edgeFloats...)
	case "TEXT":
		return w.text()
	}
	return w.noise(w.size())
}

// key is a value for a key that other operations will meet again.
func (w *workload) key() any {
	switch w.r.IntN(30) {
	case 0:
		return strings.Repeat("key ", w.r.IntN(700)) + strconv.Itoa(w.r.IntN(100))
	case 1:
		return pick(w.r, edgeTexts...)
	case 2:
		return w.noise(w.r.IntN(20))
	case 3:
		return pick(w.r, edgeFloats...)
	}
	return pick(w.r, "k", "K") + strconv.Itoa(w.r.IntN(3000))
}

// size is that of a text or blob in bytes: mostly small, sometimes with many
// overflow pages.
func (w *workload) size() int {
	n := 0
	switch x := w.r.IntN(1000); {
	case x < 600:
		n = w.r.IntN(40)
	case x < 850:
		n = w.r.IntN(600)
	case x < 980:
		n = w.r.IntN(9000)
	case x < 996:
		n = w.r.IntN(70_000)
	default:
		n = w.r.IntN(1 << 20)
	}
	return min(n, 200*w.shape.pageSize)
}

func (w *workload) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.r.Uint32())
	}
	return b
}

func (w *workload) text() string {
	b := w.noise(w.size())
	for i := range b {
		b[i] = "abcdefghijklmnopqrst ,.-XYZ012345"[b[i]%33]
	}
	switch w.r.IntN(8) {
	case 0:
		return "é☃𝄞" + string(b)
	case 1:
		return string(b) + pick(w.r, edgeTexts...)
	}
	return string(b)
}

// quote makes an identifier of any name.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ",")
}

// marks are n parameters.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

// literally is a statement with its arguments in it, for the trace. Parameters
// are the only question marks that workloads write.
func literally(sql string, args []any) string {
	var b strings.Builder
	for _, arg := range args {
		before, after, _ := strings.Cut(sql, "?")
		b.WriteString(before)
		b.WriteString(literal(arg))
		sql = after
	}
	return b.String() + sql
}

func literal(arg any) string {
	switch v := arg.(type) {
	case nil:
		return "NULL"
	case string:
		return "CAST(x'" + hex.EncodeToString([]byte(v)) + "' AS TEXT)" // in a UTF-8 database
	case []byte:
		return "x'" + hex.EncodeToString(v) + "'"
	case float64:
		switch {
		case math.IsInf(v, 1):
			return "9e999"
		case math.IsInf(v, -1):
			return "-9e999"
		}
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	return fmt.Sprint(arg)
}
