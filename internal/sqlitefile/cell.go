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
func (p Page) Cell(i int) (c Cell, err error) {
	if i < 0 || i >= p.cells {
		return Cell{}, fmt.Errorf("sqlitefile: page %d: no cell %d on a page of %d cells", p.number, i, p.cells)
	}
	off, err := p.offset(i)
	if err != nil {
		return Cell{}, err
	}
	if err := p.decode(&c, p.data[off:], i); err != nil {
		return Cell{}, err
	}
	return c, nil
}

// decode fills c, which is zero, from b, the page's bytes from cell i on.
func (p *Page) decode(c *Cell, b []byte, i int) error {
	if p.kind.Interior() {
		if len(b) < 4 {
			return p.truncated(i)
		}
		if c.Child = binary.BigEndian.Uint32(b); c.Child == 0 {
			return corruptf("page %d: child %d is page 0", p.number, i)
		}
		b = b[4:]
	}
	n := 0
	if p.kind != InteriorTable {
		size, m := Varint(b)
		if m == 0 {
			return p.truncated(i)
		}
		if size > math.MaxInt32 {
			return corruptf("page %d: cell %d has a payload of %d bytes", p.number, i, size)
		}
		c.PayloadSize, n = int64(size), m
	}
	if p.kind.Table() {
		rowid, m := Varint(b[n:])
		if m == 0 {
			return p.truncated(i)
		}
		c.Rowid = int64(rowid)
		n += m
	}
	if p.kind == InteriorTable {
		c.Raw = b[:n:n]
		return nil
	}
	return p.decodePayload(c, b, n, i)
}

// decodePayload completes c, whose payload starts at byte n of b.
func (p *Page) decodePayload(c *Cell, b []byte, n, i int) error {
	local := localSize(p.kind, len(p.data), int(c.PayloadSize))
	end := n + local
	if end > len(b) {
		return p.truncated(i)
	}
	c.Local = b[n:end:end]
	if local < int(c.PayloadSize) {
		if len(b) < end+4 {
			return p.truncated(i)
		}
		if c.Overflow = binary.BigEndian.Uint32(b[end:]); c.Overflow < 2 {
			return corruptf("page %d: cell %d overflows into page %d", p.number, i, c.Overflow)
		}
		end += 4
	}
	c.Raw = b[:end:end]
	return nil
}

func (p *Page) truncated(i int) error {
	return corruptf("page %d: cell %d ends outside the page", p.number, i)
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
