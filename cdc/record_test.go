package cdc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files; a difference there is a change of the format")

func boundaryForTest() Boundary {
	return Boundary{
		Lineage: ID{1}, Term: ID{2}, Prev: Hash{3},
		CapturedAt:   time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Transactions: 7, Bytes: 8, Changes: 9,
		Source: SourcePosition{
			Salt: [2]uint32{10, 11}, Frame: 12, Checksum: [2]uint32{13, 14}, BigEndian: true,
			PageSize: 4096, DBSize: 15, Device: 16, Inode: 17, Boot: ID{18},
		},
		Tables: []TableHash{{Table: "t", Sum: [16]byte{19}}, {Table: "", Sum: [16]byte{20}}},
	}
}

// packers are one of each codec.
func packers(tb testing.TB) map[Codec]*Packer {
	all := map[Codec]*Packer{}
	for _, c := range []Codec{S2, Zstd} {
		p, err := NewPacker(c)
		must(tb, err)
		all[c] = p
	}
	return all
}

func TestRecordRoundTrip(t *testing.T) {
	for codec, p := range packers(t) {
		t.Run(string(codec), func(t *testing.T) { roundTrips(t, p) })
	}
	if p, err := NewPacker("gzip"); err == nil {
		t.Errorf("a packer of an unknown codec: %v", p)
	}
}

func roundTrips(t *testing.T, p *Packer) {
	full := boundaryForTest()
	empty := Boundary{}
	for _, body := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("compresses "), 100), []byte(hex.EncodeToString(make([]byte, MaxBody/2)))} {
		for _, c := range []struct {
			kind     Kind
			boundary *Boundary
			flags    byte
		}{{Part, nil, 0}, {Part, nil, flagContinued}, {Commit, &full, flagContinued}, {EpochStart, &empty, 0}, {Break, &full, 0}} {
			rec := appendRecord([]byte("before"), Head{Kind: c.kind, LSN: 21, Epoch: 22, flags: c.flags}, c.boundary, body, p)[len("before"):]
			got, err := Decode(rec)
			if err != nil {
				t.Fatalf("%s with %d bytes: %v", c.kind, len(body), err)
			}
			if got.Kind != c.kind || got.LSN != 21 || got.Epoch != 22 || got.Length != len(rec) || got.Continued != (c.flags != 0) {
				t.Errorf("%s with %d bytes: head %+v", c.kind, len(body), got.Head)
			}
			if !bytes.Equal(got.Body, body) {
				t.Errorf("%s with %d bytes: another body", c.kind, len(body))
			}
			if d := cmp.Diff(c.boundary, got.Boundary); d != "" {
				t.Errorf("%s: %s", c.kind, d)
			}
			head, err := DecodeBoundary(rec)
			if err != nil || head.Body != nil || cmp.Diff(got.Boundary, head.Boundary) != "" {
				t.Errorf("DecodeBoundary differs: %v", err)
			}
		}
	}
}

// Every bit of a record but those of its length is under the checksum, and the
// length must be that of the bytes at hand.
func TestRecordFlips(t *testing.T) {
	b := boundaryForTest()
	rec := appendRecord(nil, Head{Kind: Commit, LSN: 1, Epoch: 1}, &b, []byte("body"), nil)
	for i := range len(rec) * 8 {
		bad := bytes.Clone(rec)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := Decode(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("flip of bit %d of byte %d: %v", i%8, i/8, err)
		}
	}
	for n := range rec {
		if _, err := Decode(rec[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", n, len(rec), err)
		}
	}
	if _, err := Decode(append(rec, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a byte more: %v", err)
	}
}

// What only a newer version can have written calls for an upgrade.
func TestRecordVersions(t *testing.T) {
	boundary := boundaryForTest()
	rec := appendRecord(nil, Head{Kind: Commit, LSN: 1, Epoch: 1}, &boundary, []byte("body"), nil)
	for name, edit := range map[string]func(b []byte){
		"version":  func(b []byte) { b[8] = Version + 1 },
		"kind":     func(b []byte) { b[9] = 9 },
		"no kind":  func(b []byte) { b[9] = 0 },
		"flags":    func(b []byte) { b[10] |= 0x80 },
		"boundary": func(b []byte) { b[HeaderSize+144] |= 0x80 },
	} {
		b := bytes.Clone(rec)
		edit(b)
		seal(b)
		if _, err := Decode(b); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// So does an operation with a flag that is not known yet.
func TestOperationVersions(t *testing.T) {
	table := &Table{Name: "t"}
	object := &SchemaObject{Type: "table", Name: "t", Table: "t"}
	for c, at := range map[*Change]int{
		{Op: OpTable, Table: table}: 1,
		{Op: OpEnd}:                 1,
		{Op: OpSchema, Schema: &SchemaChange{Old: object}}: 1,
		{Op: OpSchema, Schema: &SchemaChange{New: object}}: 2, // the object's
	} {
		op := AppendOp(nil, c, 0)
		var got Change
		must(t, parseOp(op, nil, &got))
		op[at] |= 0x80
		if err := parseOp(op, nil, &got); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s, flags at %d: %v", c.Op, at, err)
		}
	}
}

// Each codec makes small what repeats, and Zstandard, too, what has only few letters.
func TestPackers(t *testing.T) {
	repeats := bytes.Repeat([]byte("compresses "), 1000)
	letters := make([]byte, 10_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range letters {
		letters[i] = byte('a' + rng.IntN(16))
	}
	for codec, p := range packers(t) {
		for _, c := range []struct {
			body []byte
			most int
		}{{repeats, len(repeats) / 20}, {letters, map[Codec]int{S2: len(letters), Zstd: len(letters) * 6 / 10}[codec]}} {
			if packed, _ := p.append(nil, c.body); len(packed) > c.most {
				t.Errorf("%s: %d bytes are packed into %d", codec, len(c.body), len(packed))
			}
		}
	}
}

// Bytes whose checksum is right and which still cannot be: never a panic, never
// a large allocation.
func TestRecordRefuses(t *testing.T) {
	boundary := boundaryForTest()
	commit := appendRecord(nil, Head{Kind: Commit, LSN: 1, Epoch: 1}, &boundary, []byte("body"), nil)
	packed := appendRecord(nil, Head{Kind: Part, LSN: 1, Epoch: 1}, nil, bytes.Repeat([]byte("x"), 1000), nil)
	framed := appendRecord(nil, Head{Kind: Part, LSN: 1, Epoch: 1}, nil, bytes.Repeat([]byte("x"), 1000), packers(t)[Zstd])
	for name, c := range map[string]struct {
		rec  []byte
		edit func(b []byte)
	}{
		"LSN 0":              {commit, func(b []byte) { clear(b[16:24]) }},
		"body over MaxBody":  {packed, func(b []byte) { b[15] = 1 }},
		"body of other size": {packed, func(b []byte) { b[12]++ }},
		"raw of other size":  {commit, func(b []byte) { b[12]++ }},
		"block too long":     {commit, func(b []byte) { b[HeaderSize+2] = 0xff }},
		"block negative":     {commit, func(b []byte) { b[HeaderSize+3] = 0xff }},
		"block too short":    {commit, func(b []byte) { b[HeaderSize]-- }},
		"too many tables":    {commit, func(b []byte) { b[HeaderSize+4+142]++ }},
		"bad packing":        {packed, func(b []byte) { clear(b[HeaderSize+3:]) }},
		"frame of less":      {framed, func(b []byte) { b[12]++ }},
		"frame of more":      {framed, func(b []byte) { b[12]-- }},
		"bad frame":          {framed, func(b []byte) { clear(b[HeaderSize+3:]) }},
		"packed both ways":   {framed, func(b []byte) { b[10] |= flagS2 }},
	} {
		b := bytes.Clone(c.rec)
		c.edit(b)
		seal(b)
		if _, err := Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The bytes of version 1 never change.
func TestGolden(t *testing.T) {
	var out strings.Builder
	e := NewEncoder(Tail{Next: 1, Boundary: Boundary{Lineage: ID{1}}}, 3, ID{2}, func(rec []byte, h Head, _ *Boundary) error {
		out.WriteString(h.Kind.String() + "\n" + hex.Dump(rec))
		return nil
	})
	b := boundaryForTest()
	b.Tables = nil
	rowid, keyed := &Table{Name: "t"}, &Table{Name: "without", WithoutRowid: true, Key: 2}
	object := &SchemaObject{Type: "table", Name: "v", Table: "v", SQL: "CREATE VIRTUAL TABLE v USING fts5(x)", Virtual: true}
	must(t, e.Epoch(b))
	for _, c := range []struct {
		change Change
		table  int
	}{
		{Change{Op: OpTable, Table: rowid}, 0},
		{Change{Op: OpTable, Table: keyed}, 0},
		{Change{Op: OpDelete, Table: rowid, Rowid: -1, Old: []byte("old")}, 0},
		{Change{Op: OpSchema, Schema: &SchemaChange{Old: object, New: &SchemaObject{Type: "index", Name: "i", Table: "t"}}}, 0},
		{Change{Op: OpUpdate, Table: keyed, Old: []byte("old"), New: []byte("new")}, 1},
		{Change{Op: OpInsert, Table: rowid, Rowid: 1 << 40, New: []byte{}}, 0},
		{Change{Op: OpUserVersion, Value: -5}, 0},
		{Change{Op: OpApplicationID, Value: 1 << 30}, 0},
	} {
		must(t, e.Op(AppendOp(nil, &c.change, c.table)))
	}
	must(t, e.End(b, true))
	must(t, e.Flush())
	must(t, e.Break(b, "a reason"))

	name := filepath.Join("testdata", "records.v1.txt")
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(name, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(name)
	must(t, err)
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("the format has changed: %s", d)
	}
}

func TestTailRoundTrip(t *testing.T) {
	b := boundaryForTest()
	b.Tables = nil
	for _, want := range []Tail{
		{Next: 1},
		{Position: Position{Lineage: ID{1}, Epoch: 2, LSN: 3, Hash: Hash{4}}, Boundary: b, Next: 4, Chain: ChainAt(Hash{4})},
	} {
		enc, err := AppendTail(nil, want)
		must(t, err)
		got, err := ParseTail(enc)
		must(t, err)
		if d := cmp.Diff(want, got, cmp.AllowUnexported(Chain{})); d != "" {
			t.Error(d)
		}
		for n := range enc {
			if _, err := ParseTail(enc[:n]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d of %d bytes: %v", n, len(enc), err)
			}
		}
	}
	inside := Tail{Next: 2}
	inside.Chain.Add([]byte("part"), Part)
	if _, err := AppendTail(nil, inside); !errors.Is(err, ErrInside) || !inside.Inside() {
		t.Errorf("a tail inside a transaction: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A transaction of one row must cost next to nothing beside the row: a replica that
// catches up reads hundreds of them in each record.
func TestDecodeAllocations(t *testing.T) {
	const transactions = 200
	var rec Record
	e := NewEncoder(Tail{Next: 1}, 1, ID{}, func(b []byte, _ Head, _ *Boundary) (err error) {
		rec, err = Decode(bytes.Clone(b))
		return err
	})
	table := &Table{Name: "t"}
	for i := range int64(transactions) {
		must(t, e.Op(AppendOp(nil, &Change{Op: OpTable, Table: table}, 0)))
		must(t, e.Op(AppendOp(nil, &Change{Op: OpInsert, Table: table, Rowid: i, New: []byte("row")}, 0)))
		must(t, e.End(Boundary{}, false))
	}
	must(t, e.Flush())
	var d Decoder
	rows := 0
	allocated := testing.AllocsPerRun(10, func() {
		rows = 0
		must(t, d.Decode(rec, func(c *Change) error {
			if c.Op == OpInsert && *c.Table == *table && c.Rowid == int64(rows) {
				rows++
			}
			return nil
		}))
	})
	if rows != transactions || allocated > 5 {
		t.Errorf("%d transactions of %d, %.0f allocations, want at most 5", rows, transactions, allocated)
	}
}
