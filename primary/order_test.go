package primary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

// An opFunc takes each operation as a whole.
type opFunc func(op []byte) error

func (f opFunc) Op(op []byte) error { return f(op) }

func (f opFunc) OpFrom(r io.Reader, size int) error {
	op := make([]byte, size)
	if _, err := io.ReadFull(r, op); err != nil {
		return err
	}
	return f(op)
}

func drained(t testing.TB, s *sorter) [][]byte {
	t.Helper()
	var ops [][]byte
	if err := s.drain(opFunc(func(op []byte) error { ops = append(ops, bytes.Clone(op)); return nil })); err != nil {
		t.Fatal(err)
	}
	return ops
}

// changesOfAll returns one change for each place in the order, in that order.
func changesOfAll() []*cdc.Change {
	object := func(typ string) *cdc.SchemaObject { return &cdc.SchemaObject{Type: typ, Name: "o", Table: "o"} }
	virtual := &cdc.SchemaObject{Type: typeTable, Name: "v", Virtual: true}
	drop := func(o *cdc.SchemaObject) *cdc.Change {
		return &cdc.Change{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{Old: o}}
	}
	create := func(o *cdc.SchemaObject) *cdc.Change {
		return &cdc.Change{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{New: o}}
	}
	table, sequence := &cdc.Table{Name: "t"}, &cdc.Table{Name: sequenceTable}
	row := func(op cdc.Op, t *cdc.Table) *cdc.Change { return &cdc.Change{Op: op, Table: t, Rowid: int64(op)} }
	edit := &cdc.Change{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{Old: object(typeTable), New: object(typeTable)}}
	return []*cdc.Change{
		row(cdc.OpDelete, table),
		drop(object(typeTrigger)), drop(object(typeView)), drop(object(typeIndex)), drop(virtual), drop(object(typeTable)),
		edit,
		create(object(typeTable)), create(virtual), create(object(typeView)), create(object(typeTrigger)),
		{Op: cdc.OpUserVersion, Value: 3},
		row(cdc.OpUpdate, table), row(cdc.OpInsert, table),
		create(object(typeIndex)),
		row(cdc.OpDelete, sequence), row(cdc.OpUpdate, sequence), row(cdc.OpInsert, sequence),
	}
}

func TestSorterOrder(t *testing.T) {
	for seed := range uint64(20) {
		want := changesOfAll()
		var first []*cdc.Table
		shuffled := slices.Clone(want)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		s := newSorter(t.TempDir(), 40) // some of it is spilled
		for _, c := range shuffled {
			if err := s.change(c); err != nil {
				t.Fatal(err)
			}
			if c.Table != nil && !slices.Contains(first, c.Table) {
				first = append(first, c.Table)
			}
		}
		var ops [][]byte
		for _, table := range first {
			ops = append(ops, cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: table}, 0))
		}
		for _, c := range want {
			ops = append(ops, cdc.AppendOp(nil, c, slices.Index(first, c.Table)))
		}
		if diff := cmp.Diff(ops, drained(t, s)); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSorterSpills(t *testing.T) {
	dir := t.TempDir()
	const limit = 1000
	s := newSorter(dir, limit)
	table := &cdc.Table{Name: "t"}
	for round := range 3 {
		s.reset()
		var want [][]byte
		for i := range 500 {
			c := &cdc.Change{Op: cdc.OpInsert, Table: table, Rowid: int64(i), New: bytes.Repeat([]byte{byte(i)}, i%300)}
			want = append(want, cdc.AppendOp(nil, c, 0))
			if err := s.change(c); err != nil {
				t.Fatal(err)
			}
			if s.held > limit {
				t.Fatalf("%d bytes in memory", s.held)
			}
		}
		if got := drained(t, s); cmp.Diff(want, got[1:]) != "" {
			t.Fatalf("round %d: %d operations, want %d, or others", round, len(got)-1, len(want))
		}
		total := int64(0)
		for _, op := range drained(t, s) {
			total += int64(len(binary.AppendUvarint(nil, uint64(len(op)))) + len(op))
		}
		if s.spilled()+s.held != total || s.spilled() < total-limit {
			t.Errorf("%d bytes spilled, %d held, of %d", s.spilled(), s.held, total)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("files with names: %v, %v", left, err)
		}
	}
	s.reset()
	if s.spilled() != 0 || !s.empty() || len(drained(t, s)) != 0 {
		t.Error("reset left something")
	}
}

func TestSorterBigOperation(t *testing.T) {
	s := newSorter(t.TempDir(), 100)
	c := &cdc.Change{Op: cdc.OpInsert, Table: &cdc.Table{Name: "t"}, New: make([]byte, 3<<20)}
	if err := s.change(c); err != nil {
		t.Fatal(err)
	}
	if got := drained(t, s); len(got) != 2 || !bytes.Equal(got[1], cdc.AppendOp(nil, c, 0)) {
		t.Errorf("%d operations", len(got))
	}
	s.reset()
	if cap(s.op) > keepBuffer {
		t.Errorf("a buffer of %d bytes is kept", cap(s.op))
	}
}

func TestSorterErrors(t *testing.T) {
	s := newSorter(filepath.Join(t.TempDir(), "absent"), 10)
	row := &cdc.Change{Op: cdc.OpInsert, Table: &cdc.Table{Name: "t"}, New: make([]byte, 100)}
	if err := s.change(row); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no room to spill: %v", err)
	}
	s = newSorter(t.TempDir(), 1<<10)
	for _, c := range []*cdc.Change{
		{Op: cdc.OpEnd},
		{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{}},
		{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{New: &cdc.SchemaObject{Type: "odd"}}},
	} {
		if err := s.change(c); err == nil {
			t.Errorf("%v was taken", c.Op)
		}
	}
	if !s.empty() {
		t.Error("something was taken")
	}
	stop := fmt.Errorf("stop")
	if err := s.change(row); err != nil {
		t.Fatal(err)
	}
	if err := s.drain(opFunc(func([]byte) error { return stop })); !errors.Is(err, stop) {
		t.Errorf("drain: %v", err)
	}
}

// TestSorterLargeRows: a large row goes to disk by itself, and in its turn.
func TestSorterLargeRows(t *testing.T) {
	const limit = 4 << 10
	s, all := newSorter(t.TempDir(), limit), newSorter(t.TempDir(), 1<<30)
	table := &cdc.Table{Name: "t"}
	for i, size := range []int{10, limit, 10, 2 << 20, limit / 5, limit / 5, limit / 5, limit / 5, limit, 3 << 20, 1} {
		image := bytes.Repeat([]byte{byte(i)}, size)
		for _, c := range []cdc.Change{
			{Op: cdc.OpInsert, Table: table, Rowid: int64(i), New: image},
			{Op: cdc.OpUpdate, Table: table, Rowid: int64(i), Old: image, New: image[:1]},
			{Op: cdc.OpDelete, Table: table, Rowid: int64(i), Old: image},
		} {
			for _, to := range []*sorter{s, all} {
				if err := to.change(&c); err != nil {
					t.Fatal(err)
				}
			}
			if s.held > limit {
				t.Fatalf("%d bytes are held in memory", s.held)
			}
		}
	}
	if got, want := drained(t, s), drained(t, all); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%d operations differ from %d", len(got), len(want))
	}
	s.reset()
	if got := drained(t, s); len(got) != 0 || s.spilled() != 0 {
		t.Errorf("%d operations and %d bytes on disk are left", len(got), s.spilled())
	}
}

// A full disk is an error, and what was taken before stays readable.
func TestSpillToFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	b := bucket{buf: cdc.AppendFramed(nil, []byte{7}), file: full}
	if _, err := b.spill(t.TempDir()); err == nil {
		t.Fatal("no error")
	}
	n := 0
	if _, err := b.each(nil, opFunc(func(op []byte) error { n += len(op); return nil })); err != nil || n != 1 {
		t.Errorf("%d bytes, %v", n, err)
	}
	b.reset(0)
}

func TestSorterReuseAllocatesNothing(t *testing.T) {
	s := newSorter(t.TempDir(), 1<<20)
	c := &cdc.Change{Op: cdc.OpUpdate, Table: &cdc.Table{Name: "t"}, Rowid: 5, Old: make([]byte, 50), New: make([]byte, 50)}
	once := func() {
		s.reset()
		for range 10 {
			if err := s.change(c); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.drain(opFunc(func([]byte) error { return nil })); err != nil {
			t.Fatal(err)
		}
	}
	once()
	if n := testing.AllocsPerRun(100, once); n > 1 { // the declaration
		t.Errorf("%v allocations a transaction", n)
	}
}

func BenchmarkSorter(b *testing.B) {
	s := newSorter(b.TempDir(), 16<<20)
	c := &cdc.Change{Op: cdc.OpUpdate, Table: &cdc.Table{Name: "t"}, Rowid: 5, Old: make([]byte, 100), New: make([]byte, 100)}
	b.ReportAllocs()
	for i := range b.N {
		if i%100 == 0 {
			s.reset()
		}
		if err := s.change(c); err != nil {
			b.Fatal(err)
		}
	}
}
