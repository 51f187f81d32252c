package sqlitefile

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestVarint(t *testing.T) {
	for in, want := range map[string]struct {
		v uint64
		n int
	}{
		"":                     {0, 0},
		"00":                   {0, 1},
		"7f":                   {127, 1},
		"80":                   {0, 0},
		"8100":                 {128, 2},
		"8101ff":               {129, 2},
		"ffffffffffffffff":     {0, 0},
		"ffffffffffffffffff":   {math.MaxUint64, 9},
		"8080808080808080ff":   {255, 9},
		"ffffffffffffff7f":     {1<<56 - 1, 8},
		"ffffffffffffffff0001": {math.MaxUint64 - 255, 9},
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if v, n := Varint(b); v != want.v || n != want.n {
			t.Errorf("%s: %d, %d, want %d, %d", in, v, n, want.v, want.n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint64().Draw(t, "v") >> rapid.UintRange(0, 63).Draw(t, "shift")
		b := AppendVarint(nil, v)
		if got, n := Varint(b); got != v || n != len(b) || n != varintLen(v) {
			t.Errorf("%d became %x, read as %d in %d bytes", v, b, got, n)
		}
	})
}

// The bytes are those of SQLite 3.53 for a row of these values.
func TestRecordBytes(t *testing.T) {
	vals := []Value{
		{}, {Type: TypeInt}, {Type: TypeInt, Int: 1}, {Type: TypeInt, Int: -1}, {Type: TypeInt, Int: 128},
		{Type: TypeInt, Int: -8388608}, {Type: TypeInt, Int: 1 << 30}, {Type: TypeInt, Int: -1 << 47},
		{Type: TypeInt, Int: math.MinInt64}, {Type: TypeFloat, Float: 0.5},
		{Type: TypeText, Bytes: []byte("é")}, {Type: TypeBlob, Bytes: []byte{0}},
	}
	want := "0d 00 08 09 01 02 03 04 05 06 07 11 0e" +
		"ff 0080 800000 40000000 800000000000 8000000000000000 3fe0000000000000 c3a9 00"
	b := EncodeRecord(nil, vals)
	if got := hex.EncodeToString(b); got != strings.ReplaceAll(want, " ", "") {
		t.Errorf("encoded %s, want %s", got, want)
	}
	got, err := Record(nil, b)
	if diff := cmp.Diff(vals, got); err != nil || diff != "" {
		t.Errorf("error %v, decoded (-want +got):\n%s", err, diff)
	}
}

func TestRecordDamaged(t *testing.T) {
	long := append(AppendVarint(nil, maxRecordHeader+1), make([]byte, maxRecordHeader+1-3)...) // all NULL
	for name, b := range map[string][]byte{
		"empty":                        {},
		"header of 0 bytes":            {0},
		"header shorter than itself":   {0x80, 0x01},
		"header beyond the end":        {3, 0},
		"header length cut off":        {0x81},
		"serial type cut off":          {2, 0x81, 0},
		"serial type 10":               {2, 10},
		"serial type 11":               {2, 11},
		"value beyond the end":         {2, 1},
		"text beyond the end":          {2, 15},
		"text of 2^62 bytes":           append([]byte{10}, bytes.Repeat([]byte{0xff}, 9)...),
		"bytes after the last value":   {2, 8, 1},
		"header longer than SQLite's":  long,
		"header length of 2^64-1":      bytes.Repeat([]byte{0xff}, 9),
		"serial type over the maximum": append([]byte{7}, AppendVarint(nil, 2*math.MaxInt32+14)...),
	} {
		if vals, err := Record(nil, b); !errors.Is(err, ErrCorrupt) || vals != nil {
			t.Errorf("%s: %v, %v, want ErrCorrupt", name, vals, err)
		}
	}
}

func TestNaNIsNull(t *testing.T) {
	b := append([]byte{2, 7}, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0)
	if vals, err := Record(nil, b); err != nil || len(vals) != 1 || vals[0].Type != TypeNull {
		t.Errorf("%v, %v", vals, err)
	}
	if got := EncodeRecord(nil, []Value{{Type: TypeFloat, Float: math.NaN()}}); !bytes.Equal(got, []byte{2, 0}) {
		t.Errorf("NaN became %x", got)
	}
}

func TestRecordPrefix(t *testing.T) {
	vals := []Value{{Type: TypeInt, Int: 7}, {Type: TypeText, Bytes: []byte("ab")}, {Type: TypeBlob, Bytes: make([]byte, 1000)}}
	b := EncodeRecord(nil, vals)
	for n := range 5 {
		got, err := RecordPrefix(nil, b, n)
		if diff := cmp.Diff(vals[:min(n, 3)], got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%d values: error %v (-want +got):\n%s", n, err, diff)
		}
	}
	// The page's part of a payload is enough for what is in it.
	if got, err := RecordPrefix(nil, b[:20], 2); err != nil || len(got) != 2 {
		t.Errorf("prefix of a prefix: %v, %v", got, err)
	}
	if _, err := RecordPrefix(nil, b[:20], 3); !errors.Is(err, ErrCorrupt) {
		t.Errorf("value beyond the prefix: %v, want ErrCorrupt", err)
	}
	if got, err := RecordPrefix(nil, b, -1); err != nil || len(got) != 0 {
		t.Errorf("-1 values: %v, %v", got, err)
	}
}

func genValue(t *rapid.T) Value {
	switch typ := ValueType(rapid.IntRange(0, 4).Draw(t, "type")); typ {
	case TypeInt:
		return Value{Type: typ, Int: rapid.Int64().Draw(t, "int") >> rapid.UintRange(0, 63).Draw(t, "shift")}
	case TypeFloat:
		return Value{Type: typ, Float: rapid.Float64().Draw(t, "float")}
	case TypeText, TypeBlob:
		return Value{Type: typ, Bytes: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")}
	}
	return Value{}
}

func TestRecordRoundTrip(t *testing.T) {
	dst := make([]Value, 0, 8)
	rapid.Check(t, func(t *rapid.T) {
		vals := rapid.SliceOfN(rapid.Custom(genValue), 0, 200).Draw(t, "values") // past 127: a header length of two bytes
		prefix := []byte("kept")
		b := EncodeRecord(prefix, vals)
		if !bytes.HasPrefix(b, prefix) {
			t.Fatal("did not append")
		}
		got, err := Record(dst, b[len(prefix):])
		if diff := cmp.Diff(vals, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("error %v (-want +got):\n%s", err, diff)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(EncodeRecord(nil, []Value{{}, {Type: TypeInt, Int: 300}, {Type: TypeText, Bytes: []byte("text")}, {Type: TypeFloat, Float: 1.5}}))
	f.Add(bytes.Repeat([]byte{0xff}, 30))
	f.Fuzz(func(t *testing.T, b []byte) {
		vals, err := Record(nil, b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v does not wrap ErrCorrupt", err)
			}
			return
		}
		prefix, err := RecordPrefix(nil, b, len(vals))
		if diff := cmp.Diff(vals, prefix, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("as a prefix: error %v\n%s", err, diff)
		}
		again, err := Record(nil, EncodeRecord(nil, vals))
		if diff := cmp.Diff(vals, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("encoded again: error %v\n%s", err, diff)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	rec := EncodeRecord(nil, []Value{
		{}, {Type: TypeInt, Int: 123456}, {Type: TypeText, Bytes: []byte("a text of some length")}, {Type: TypeFloat, Float: 1.5},
		{Type: TypeInt, Int: 1}, {Type: TypeBlob, Bytes: make([]byte, 100)},
	})
	var vals []Value
	b.ReportAllocs()
	b.SetBytes(int64(len(rec)))
	for b.Loop() {
		var err error
		if vals, err = Record(vals, rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeRecord(b *testing.B) {
	vals := []Value{{}, {Type: TypeInt, Int: 123456}, {Type: TypeText, Bytes: []byte("a text of some length")}, {Type: TypeInt, Int: 1}}
	var rec []byte
	b.ReportAllocs()
	for b.Loop() {
		rec = EncodeRecord(rec[:0], vals)
	}
}
