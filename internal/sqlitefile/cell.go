package sqlitefile

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A Cell is one entry of a b-tree page (§1.6). Its slices alias the page.
//
//	                payload size  rowid  local payload  overflow page
//	leaf table           x          x          x             if any
//	interior table                  x
//	leaf, interior index x                     x             if any
//
// An interior cell has the number of its child before that.
type Cell struct {
	Child       uint32 // left child; 0 on a leaf
	Rowid       int64  // 0 in index pages
	PayloadSize int64  // bytes, those in overflow pages included; 0 in interior table pages
	Local       []byte // the payload's bytes that are on the page itself
	Overflow    uint32 // first page of the rest of the payload; 0: Local is the payload
	Raw         []byte // the cell without Child: two cells with equal Raw are equal but for their overflow pages' content
}

// Cell returns the i-th cell, 0 <= i < Cells(), with all of it inside the page,
// a payload of at most 2^31-1 bytes, and an overflow page number if and only if
// the payload does not fit.
func (p Page) Cell(i int) (Cell, error) {
	if i < 0 || i >= p.cells {
		return Cell{}, fmt.Errorf("sqlitefile: page %d: no cell %d on a page of %d cells", p.number, i, p.cells)
	}
	off, err := p.offset(i)
	if err != nil {
		return Cell{}, err
	}
	var c Cell
	b := p.data[off:]
	if p.kind.Interior() {
		if len(b) < 4 {
			return Cell{}, p.truncated(i, off)
		}
		c.Child = binary.BigEndian.Uint32(b)
		if c.Child == 0 {
			return Cell{}, corruptf("page %d: child %d is page 0", p.number, i)
		}
		b = b[4:]
	}
	n := 0
	if p.kind != InteriorTable {
		var size uint64
		if size, n = Varint(b); n == 0 {
			return Cell{}, p.truncated(i, off)
		}
		if size > math.MaxInt32 {
			return Cell{}, corruptf("page %d: cell %d has a payload of %d bytes", p.number, i, size)
		}
		c.PayloadSize = int64(size)
	}
	if p.kind.Table() {
		rowid, m := Varint(b[n:])
		if m == 0 {
			return Cell{}, p.truncated(i, off)
		}
		c.Rowid = int64(rowid)
		n += m
	}
	if p.kind == InteriorTable {
		c.Raw = b[:n:n]
		return c, nil
	}
	return p.withPayload(c, b, n, i)
}

// withPayload completes c, whose payload starts at byte n of b.
func (p Page) withPayload(c Cell, b []byte, n, i int) (Cell, error) {
	local := localSize(p.kind, len(p.data), int(c.PayloadSize))
	end := n + local
	overflows := local < int(c.PayloadSize)
	if overflows {
		end += 4
	}
	if end > len(b) {
		return Cell{}, p.truncated(i, len(p.data)-len(b))
	}
	c.Local = b[n : n+local : n+local]
	c.Raw = b[:end:end]
	if overflows {
		if c.Overflow = binary.BigEndian.Uint32(b[n+local:]); c.Overflow < 2 {
			return Cell{}, corruptf("page %d: cell %d overflows into page %d", p.number, i, c.Overflow)
		}
	}
	return c, nil
}

func (p Page) truncated(i, off int) error {
	return corruptf("page %d: cell %d at byte %d ends outside the page", p.number, i, off)
}

// localSize returns how many of a payload's bytes are on the b-tree page itself.
// The names X, M and K are those of §1.6.
func localSize(t PageType, usable, payload int) int {
	x := usable - 35
	if t != LeafTable {
		x = (usable-12)*64/255 - 23
	}
	if payload <= x {
		return payload
	}
	m := (usable-12)*32/255 - 23
	if k := m + (payload-m)%(usable-4); k <= x {
		return k
	}
	return m
}
