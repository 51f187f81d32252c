package sqlitefile

import (
	"encoding/binary"
	"fmt"
)

// A PageType is the first byte of a b-tree page (§1.6).
type PageType byte

// The four kinds of b-tree pages. WITHOUT ROWID tables are kept in index pages.
const (
	InteriorIndex PageType = 2
	InteriorTable PageType = 5
	LeafIndex     PageType = 10
	LeafTable     PageType = 13
)

// Interior reports whether pages of this type have children.
func (t PageType) Interior() bool { return t == InteriorIndex || t == InteriorTable }

// Table reports whether pages of this type belong to a rowid table.
func (t PageType) Table() bool { return t == InteriorTable || t == LeafTable }

// String names the type.
func (t PageType) String() string {
	switch t {
	case InteriorIndex:
		return "interior index"
	case InteriorTable:
		return "interior table"
	case LeafIndex:
		return "leaf index"
	case LeafTable:
		return "leaf table"
	}
	return fmt.Sprintf("PageType(%d)", byte(t))
}

// Layout of a b-tree page (§1.6), from its start or, on page 1, from byte 100:
//
//	0  1  type
//	1  2  first freeblock
//	3  2  number of cells
//	5  2  start of the cell content
//	7  1  fragmented bytes
//	8  4  right-most child, on interior pages only
//	.  2  offset of each cell, from the start of the page
const (
	leafHeader     = 8
	interiorHeader = 12
)

// A Page is a b-tree page whose header and cell pointer array are inside the
// page. Its cells are checked as they are asked for. It aliases the bytes it was
// parsed from.
type Page struct {
	data     []byte // the usable part of the page
	number   uint32
	right    uint32
	cells    int
	pointers int // offset of the cell pointer array
	kind     PageType
}

// ParsePage reads data, the content of page number, as a b-tree page. usable is
// [Header].Usable; what data has beyond it is ignored. It fails with [ErrCorrupt]
// if data is shorter, is no b-tree page, or claims more cells than fit.
func ParsePage(data []byte, number uint32, usable int) (Page, error) {
	if usable < minUsable || usable > MaxPageSize || len(data) < usable || number == 0 {
		return Page{}, corruptf("page %d: %d bytes of which %d are usable", number, len(data), usable)
	}
	p := Page{data: data[:usable:usable], number: number}
	start := 0
	if number == 1 {
		start = HeaderSize
	}
	p.kind = PageType(data[start])
	switch p.kind {
	case InteriorIndex, InteriorTable:
		p.pointers = start + interiorHeader
		p.right = binary.BigEndian.Uint32(data[start+leafHeader:])
	case LeafIndex, LeafTable:
		p.pointers = start + leafHeader
	default:
		return Page{}, corruptf("page %d: type %d is not a b-tree page's", number, byte(p.kind))
	}
	p.cells = int(binary.BigEndian.Uint16(data[start+3:]))
	if p.pointers+2*p.cells > usable {
		return Page{}, corruptf("page %d: %d cells do not fit in %d bytes", number, p.cells, usable)
	}
	return p, nil
}

// Number returns the page's number; the first page of a database is 1.
func (p Page) Number() uint32 { return p.number }

// Type returns the page's kind.
func (p Page) Type() PageType { return p.kind }

// Cells returns the number of cells. An interior page has one child more.
func (p Page) Cells() int { return p.cells }

// Right returns the right-most child as it is stored, unchecked; 0 on a leaf.
func (p Page) Right() uint32 { return p.right }

// Bare fails with [ErrCorrupt] if the page has no cell although it needs one: only
// the root of an empty tree has none, and, with one child, page 1. SQLite refuses to
// read any other.
func (p Page) Bare(root bool) error {
	if p.cells > 0 || root && (!p.kind.Interior() || p.number == 1) {
		return nil
	}
	return corruptf("page %d: a %v page without cells", p.number, p.kind)
}

// Child returns the i-th child of an interior page, 0 <= i <= Cells(), the last
// one being Right(). It is never 0; whether it is inside the database is the
// caller's to check.
func (p Page) Child(i int) (uint32, error) {
	if !p.kind.Interior() || i < 0 || i > p.cells {
		return 0, fmt.Errorf("sqlitefile: page %d: no child %d on a %v page of %d cells", p.number, i, p.kind, p.cells)
	}
	child := p.right
	if i < p.cells {
		off, err := p.offset(i)
		if err != nil {
			return 0, err
		}
		if off+4 > len(p.data) {
			return 0, corruptf("page %d: cell %d at byte %d ends outside the page", p.number, i, off)
		}
		child = binary.BigEndian.Uint32(p.data[off:])
	}
	if child == 0 {
		return 0, corruptf("page %d: child %d is page 0", p.number, i)
	}
	return child, nil
}

// offset returns where cell i starts: behind the pointer array, inside the page.
// i must be in [0, p.cells).
func (p Page) offset(i int) (int, error) {
	off := int(binary.BigEndian.Uint16(p.data[p.pointers+2*i:]))
	if off < p.pointers+2*p.cells || off >= len(p.data) {
		return 0, corruptf("page %d: cell %d at byte %d, outside the cell content", p.number, i, off)
	}
	return off, nil
}
