package sqlitefile

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func mustPage(t testing.TB, data []byte, number uint32) Page {
	t.Helper()
	p, err := ParsePage(data, number, len(data))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCells(t *testing.T) {
	p := mustPage(t, buildPage(LeafTable, 1, 512, 0, tableCell(-7, 3, []byte("abc"), 0), tableCell(1<<40, 0, nil, 0)), 1)
	if p.Number() != 1 || p.Type() != LeafTable || p.Cells() != 2 || p.Right() != 0 {
		t.Errorf("page %+v", p)
	}
	c, err := p.Cell(0)
	if err != nil || c.Rowid != -7 || string(c.Local) != "abc" || c.PayloadSize != 3 || c.Overflow != 0 || c.Child != 0 {
		t.Errorf("cell 0: %+v, %v", c, err)
	}
	if want := tableCell(-7, 3, []byte("abc"), 0); !bytes.Equal(c.Raw, want) {
		t.Errorf("raw %x, want %x", c.Raw, want)
	}
	if c, err = p.Cell(1); err != nil || c.Rowid != 1<<40 || len(c.Local) != 0 {
		t.Errorf("cell 1: %+v, %v", c, err)
	}

	p = mustPage(t, buildPage(InteriorTable, 2, 512, 9, childCell(5, 100), childCell(6, 200)), 2)
	for i, want := range []uint32{5, 6, 9} {
		if got, err := p.Child(i); err != nil || got != want {
			t.Errorf("child %d is %d, %v, want %d", i, got, err, want)
		}
	}
	c, err = p.Cell(1)
	if err != nil || c.Child != 6 || c.Rowid != 200 || c.PayloadSize != 0 || c.Local != nil || !bytes.Equal(c.Raw, []byte{0x81, 0x48}) {
		t.Errorf("interior cell: %+v, %v", c, err)
	}

	p = mustPage(t, buildPage(InteriorIndex, 2, 512, 9, append([]byte{0, 0, 0, 5, 2}, "hi"...)), 2)
	c, err = p.Cell(0)
	if err != nil || c.Child != 5 || string(c.Local) != "hi" || string(c.Raw) != "\x02hi" || c.Rowid != 0 {
		t.Errorf("index cell: %+v, %v", c, err)
	}
}

// Asking for what is not there is the caller's mistake, not the bytes'.
func TestOutOfRange(t *testing.T) {
	leaf := mustPage(t, buildPage(LeafTable, 2, 512, 0, tableCell(1, 0, nil, 0)), 2)
	interior := mustPage(t, buildPage(InteriorTable, 2, 512, 9, childCell(5, 1)), 2)
	for name, call := range map[string]func() error{
		"cell -1":         func() error { _, err := leaf.Cell(-1); return err },
		"cell 1":          func() error { _, err := leaf.Cell(1); return err },
		"child of a leaf": func() error { _, err := leaf.Child(0); return err },
		"child -1":        func() error { _, err := interior.Child(-1); return err },
		"child 2":         func() error { _, err := interior.Child(2); return err },
		"zero page":       func() error { _, err := Page{}.Cell(0); return err },
	} {
		if err := call(); err == nil || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want an error that is not ErrCorrupt", name, err)
		}
	}
}

func TestDamagedPages(t *testing.T) {
	edit := func(b []byte, at int, v ...byte) []byte { copy(b[at:], v); return b }
	leaf := func() []byte { return buildPage(LeafTable, 2, 512, 0, tableCell(1, 3, []byte("abc"), 0)) }
	cases := map[string][]byte{
		"type 0":                  edit(leaf(), 0, 0),
		"index leaf of all ones":  bytes.Repeat([]byte{10}, 100),
		"cell in the header":      edit(leaf(), 8, 0, 5),
		"cell in its own pointer": edit(leaf(), 8, 0, 9),
		"cell outside":            edit(leaf(), 8, 2, 0),
		"cell at the last byte":   edit(edit(leaf(), 8, 1, 255), 511, 3),
		"payload outside":         edit(leaf(), 507, 100),
		"endless varint":          edit(leaf(), 507, 0xff, 0xff, 0xff, 0xff, 0xff),
		"payload over 2^31-1":     buildPage(LeafTable, 2, 512, 0, tableCell(1, 1<<31, make([]byte, 300), 5)),
		"payload of 2^64-1":       buildPage(LeafTable, 2, 512, 0, tableCell(1, math.MaxUint64, make([]byte, 300), 5)),
		"overflow into page 0":    buildPage(LeafTable, 2, 512, 0, append(tableCell(1, 1000, make([]byte, 39), 0), 0, 0, 0, 0)),
		"overflow into page 1":    buildPage(LeafTable, 2, 512, 0, append(tableCell(1, 1000, make([]byte, 39), 0), 0, 0, 0, 1)),
		"child 0":                 buildPage(InteriorTable, 2, 512, 9, childCell(0, 1)),
		"right child 0":           buildPage(InteriorTable, 2, 512, 0),
		"child number cut off":    edit(buildPage(InteriorTable, 2, 512, 9, childCell(3, 1)), 12, 1, 254),
		"index child cut off":     edit(buildPage(InteriorIndex, 2, 512, 9, childCell(3, 1)), 12, 1, 254),
	}
	for name, data := range cases {
		if err := readAll(data, 2, len(data)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	if _, err := ParsePage(edit(leaf(), 3, 0, 252), 2, 512); err != nil {
		t.Errorf("as many cells as fit: %v", err)
	}
	for name, call := range map[string]func() (Page, error){
		"too many cells":    func() (Page, error) { return ParsePage(edit(leaf(), 3, 0xff, 0xff), 2, 512) },
		"one cell too many": func() (Page, error) { return ParsePage(edit(leaf(), 3, 0, 253), 2, 512) },
		"short":             func() (Page, error) { return ParsePage(leaf()[:500], 2, 512) },
		"page 0":            func() (Page, error) { return ParsePage(leaf(), 0, 512) },
		"too few usable":    func() (Page, error) { return ParsePage(leaf(), 2, 479) },
		"negative":          func() (Page, error) { return ParsePage(leaf(), 2, -1) },
		"beyond a page":     func() (Page, error) { return ParsePage(make([]byte, 1<<20), 2, 65537) },
		"page 1 elsewhere":  func() (Page, error) { return ParsePage(leaf(), 1, 512) },
		"no bytes":          func() (Page, error) { return ParsePage(nil, 2, 512) },
	} {
		if _, err := call(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

// readAll asks for everything a page has and returns the first error.
func readAll(data []byte, number uint32, usable int) error {
	p, err := ParsePage(data, number, usable)
	if err != nil {
		return err
	}
	for i := range p.Cells() {
		c, err := p.Cell(i)
		if err != nil {
			return err
		}
		if int64(len(c.Local)) > c.PayloadSize || (c.Overflow != 0) != (int64(len(c.Local)) < c.PayloadSize) {
			return errors.New("local payload and overflow disagree")
		}
	}
	for i := 0; p.Type().Interior() && i <= p.Cells(); i++ {
		if _, err := p.Child(i); err != nil {
			return err
		}
	}
	return nil
}

func FuzzPage(f *testing.F) {
	f.Add(buildPage(LeafTable, 2, 512, 0, tableCell(1, 3, []byte("abc"), 0), tableCell(2, 1000, make([]byte, 39+452), 3)), uint32(2), 512)
	f.Add(buildPage(InteriorTable, 1, 512, 4, childCell(2, 5), childCell(3, 9)), uint32(1), 500)
	f.Add(buildPage(LeafIndex, 2, 512, 0, append([]byte{3}, "abc"...)), uint32(2), 512)
	f.Add(buildPage(InteriorIndex, 2, 512, 5, []byte{0, 0, 0, 3, 2, 'h', 'i'}), uint32(2), 480)
	f.Fuzz(func(t *testing.T, data []byte, number uint32, usable int) {
		if err := readAll(data, number, usable); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v does not wrap ErrCorrupt", err)
		}
	})
}

// addGolden begins a fuzz target with the files of testdata that end in suffix.
func addGolden(f *testing.F, suffix string, more ...any) {
	paths, err := filepath.Glob("../../testdata/databases/*" + suffix)
	if err != nil || len(paths) == 0 {
		f.Fatalf("no %s in testdata: %v", suffix, err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]any{b}, more...)...)
	}
}

// FuzzDatabase walks a whole damaged file: it must end, and read no page twice.
func FuzzDatabase(f *testing.F) {
	page1 := buildPage(InteriorTable, 1, 512, 3, childCell(2, 5))
	copy(page1, buildHeader(512))
	local := bytes.Repeat([]byte{'x'}, 39)
	f.Add(slices.Concat(page1,
		buildPage(LeafTable, 2, 512, 0, tableCell(5, 1000, local, 4)),
		buildPage(LeafTable, 3, 512, 0, tableCell(6, 2, []byte{2, 8}, 0)),
		append([]byte{0, 0, 0, 5}, make([]byte, 508)...), make([]byte, 512)))
	addGolden(f, ".db")
	f.Fuzz(func(t *testing.T, file []byte) {
		h, err := ParseHeader(file)
		if err != nil {
			return
		}
		src := memPages{file: file, pageSize: h.PageSize}
		pages := len(file) / h.PageSize
		walked := 0
		var vals []Value
		err = Walk(src, SchemaRoot, h.Usable, uint32(pages), func(p Page, _ uint32) error {
			walked++
			for i := range p.Cells() {
				c, err := p.Cell(i)
				if err != nil {
					return err
				}
				payload, err := Payload(nil, src, c, h.Usable)
				if err != nil {
					return err
				}
				if int64(len(payload)) != c.PayloadSize {
					t.Errorf("payload of %d bytes, want %d", len(payload), c.PayloadSize)
				}
				if read, err := io.ReadAll(NewPayloadReader(src, c, h.Usable)); err != nil || !bytes.Equal(read, payload) {
					t.Errorf("%d bytes are read, %v, of a payload of %d", len(read), err, len(payload))
				}
				if vals, err = Record(vals, payload); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v does not wrap ErrCorrupt", err)
		}
		if walked > pages {
			t.Errorf("walked %d pages of %d", walked, pages)
		}
	})
}

func BenchmarkPageCells(b *testing.B) {
	var cells [][]byte
	for i := range 100 {
		cells = append(cells, tableCell(int64(1000+i), 30, make([]byte, 30), 0))
	}
	data := buildPage(LeafTable, 2, 4096, 0, cells...)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		p, err := ParsePage(data, 2, len(data))
		if err != nil {
			b.Fatal(err)
		}
		for i := range p.Cells() {
			if _, err := p.Cell(i); err != nil {
				b.Fatal(err)
			}
		}
	}
}
