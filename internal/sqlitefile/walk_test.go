package sqlitefile

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// mapPages is a sparse database of 512-byte pages.
type mapPages map[uint32][]byte

func (m mapPages) Page(n uint32) ([]byte, error) {
	if b, ok := m[n]; ok {
		return b, nil
	}
	return nil, corruptf("no page %d", n)
}

func interior(number, right uint32, children ...uint32) []byte {
	var cells [][]byte
	for i, c := range children {
		cells = append(cells, childCell(c, int64(i)))
	}
	return buildPage(InteriorTable, number, 512, right, cells...)
}

func leaf(number uint32) []byte {
	return buildPage(LeafTable, number, 512, 0, tableCell(int64(number), 1, []byte{0}, 0))
}

func noVisit(Page, uint32) error { return nil }

func TestWalkOrder(t *testing.T) {
	src := mapPages{2: interior(2, 5, 3, 4), 3: interior(3, 7, 6), 4: leaf(4), 5: leaf(5), 6: leaf(6), 7: leaf(7)}
	var got [][2]uint32
	err := Walk(src, 2, 512, 7, func(p Page, parent uint32) error {
		got = append(got, [2]uint32{p.Number(), parent})
		return nil
	})
	want := [][2]uint32{{2, 0}, {3, 2}, {6, 3}, {7, 3}, {4, 2}, {5, 2}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("error %v, pages and parents (-want +got):\n%s", err, diff)
	}
	if err := Walk(src, 2, 512, 7, func(Page, uint32) error { return io.ErrClosedPipe }); err != io.ErrClosedPipe { //nolint:errorlint // as it is
		t.Errorf("error of visit came back as %v", err)
	}
}

func TestWalkDamaged(t *testing.T) {
	// levels is a tree of n levels, each page with a leaf and the next level.
	levels := func(n uint32) mapPages {
		m := mapPages{}
		for i := uint32(2); i < n+1; i++ {
			m[i], m[100+i] = interior(i, i+1, 100+i), leaf(100+i)
		}
		m[n+1] = leaf(n + 1)
		return m
	}
	if err := Walk(levels(maxDepth), 2, 512, 1000, noVisit); err != nil {
		t.Errorf("the deepest tree SQLite reads: %v", err)
	}
	bare := mapPages{1: buildPage(InteriorTable, 1, 512, 3), 2: buildPage(LeafTable, 2, 512, 0), 3: leaf(3)}
	for root := range uint32(2) {
		if err := Walk(bare, 1+root, 512, 9, noVisit); err != nil {
			t.Errorf("page %d as a root without cells: %v", 1+root, err)
		}
	}
	cases := map[string]struct {
		src   mapPages
		root  uint32
		count uint32
	}{
		"root 0":             {mapPages{0: leaf(0)}, 0, 9},
		"root outside":       {mapPages{10: leaf(10)}, 10, 9},
		"child outside":      {mapPages{2: interior(2, 10, 8), 8: leaf(8), 10: leaf(10)}, 2, 9},
		"child is not there": {mapPages{2: interior(2, 3, 8), 8: leaf(8)}, 2, math.MaxUint32},
		"own child":          {mapPages{2: interior(2, 2, 8), 8: leaf(8)}, 2, 9},
		"cycle":              {mapPages{2: interior(2, 3, 8), 3: interior(3, 2, 7), 7: leaf(7), 8: leaf(8)}, 2, 9},
		"shared leaf":        {mapPages{2: interior(2, 3, 3), 3: leaf(3)}, 2, 9},
		"index below table":  {mapPages{2: interior(2, 3, 8), 8: leaf(8), 3: buildPage(LeafIndex, 3, 512, 0, []byte{1, 0})}, 2, 9},
		"one child":          {mapPages{2: interior(2, 8), 8: leaf(8)}, 2, 9},
		"leaf without cells": {mapPages{2: interior(2, 3, 8), 8: leaf(8), 3: buildPage(LeafTable, 3, 512, 0)}, 2, 9},
		"too deep":           {levels(maxDepth + 1), 2, 1000},
		"short page":         {mapPages{2: leaf(2)[:500]}, 2, 9},
	}
	for name, c := range cases {
		if err := Walk(c.src, c.root, 512, c.count, noVisit); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

type failingPages struct{}

func (failingPages) Page(uint32) ([]byte, error) { return nil, io.ErrUnexpectedEOF }

// An error of the caller's pages is neither swallowed nor called damage.
func TestPagesErrorsPass(t *testing.T) {
	cell := Cell{PayloadSize: 2000, Overflow: 5}
	_, payloadErr := Payload(nil, failingPages{}, cell, 512)
	_, readErr := io.ReadAll(NewPayloadReader(failingPages{}, cell, 512))
	for name, err := range map[string]error{
		"Walk":     Walk(failingPages{}, 1, 512, 9, noVisit),
		"Payload":  payloadErr,
		"Read":     readErr,
		"Overflow": Overflow(failingPages{}, cell, 512, func(_, _ uint32) error { return nil }),
	} {
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func overflowPage(next uint32, fill byte) []byte {
	b := make([]byte, 512)
	for i := range b {
		b[i] = fill
	}
	binary.BigEndian.PutUint32(b, next)
	return b
}

func TestOverflow(t *testing.T) {
	src := mapPages{7: overflowPage(5, 'a'), 5: overflowPage(9, 'b'), 9: overflowPage(0, 'c')}
	cell := Cell{PayloadSize: 3 + 508 + 508 + 10, Local: []byte("xyz"), Overflow: 7}
	var got [][2]uint32
	err := Overflow(src, cell, 512, func(page, prev uint32) error {
		got = append(got, [2]uint32{page, prev})
		return nil
	})
	if diff := cmp.Diff([][2]uint32{{7, 0}, {5, 7}, {9, 5}}, got); err != nil || diff != "" {
		t.Errorf("error %v, pages (-want +got):\n%s", err, diff)
	}
	if err := Overflow(src, cell, 512, func(_, _ uint32) error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Errorf("error of visit came back as %v", err)
	}

	buf := make([]byte, 5000)
	payload, err := Payload(buf, src, cell, 512)
	if err != nil || len(payload) != int(cell.PayloadSize) || string(payload[:4]) != "xyza" || string(payload[1018:]) != "bccccccccccc"[:11] {
		t.Errorf("payload %q, %v", payload, err)
	}
	if &payload[0] != &buf[0] {
		t.Error("a buffer that is large enough was not used")
	}
	if err := iotest.TestReader(NewPayloadReader(src, cell, 512), payload); err != nil {
		t.Error(err)
	}
	if err := iotest.TestReader(NewPayloadReader(src, Cell{PayloadSize: 3, Local: []byte("xyz")}, 512), []byte("xyz")); err != nil {
		t.Error(err)
	}
}

func TestOverflowDamaged(t *testing.T) {
	cases := map[string]mapPages{
		"ends early":       {7: overflowPage(5, 0), 5: overflowPage(0, 0)},
		"goes to page 1":   {7: overflowPage(1, 0)},
		"its own next":     {7: overflowPage(7, 0)},
		"comes back later": {7: overflowPage(8, 0), 8: overflowPage(9, 0), 9: overflowPage(10, 0), 10: overflowPage(8, 0)},
		"is not there":     {7: overflowPage(5, 0)},
		"short page":       {7: overflowPage(5, 0), 5: make([]byte, 100)},
	}
	cell := Cell{PayloadSize: math.MaxInt32, Overflow: 7}
	for name, src := range cases {
		visits := 0
		err := Overflow(src, cell, 512, func(_, _ uint32) error { visits++; return nil })
		if !errors.Is(err, ErrCorrupt) || visits > 20 {
			t.Errorf("%s: Overflow: %v after %d pages, want ErrCorrupt soon", name, err, visits)
		}
		if _, err := Payload(nil, src, cell, 512); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: Payload: %v, want ErrCorrupt", name, err)
		}
		if n, err := io.Copy(io.Discard, NewPayloadReader(src, cell, 512)); !errors.Is(err, ErrCorrupt) || n > 20*512 {
			t.Errorf("%s: a reader gives %d bytes and %v, want ErrCorrupt soon", name, n, err)
		}
	}
}

// A claimed size of 2 GiB must cost what the pages that are there cost.
func TestPayloadGrowsWithThePages(t *testing.T) {
	src := mapPages{7: overflowPage(8, 0), 8: overflowPage(0, 0)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Payload(nil, src, Cell{PayloadSize: math.MaxInt32, Overflow: 7}, 512)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
	allocated := after.TotalAlloc - before.TotalAlloc
	if allocated > 16<<10 {
		t.Errorf("%d bytes allocated for two pages", allocated)
	}
}
