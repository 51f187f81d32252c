package primary

import (
	"encoding/binary"
	"fmt"
	"log/slog"

	"github.com/zeebo/xxh3"
)

// A pageKind says what a page of the database is to the decoder.
type pageKind uint8

const (
	unmapped  pageKind = iota // free, pointer map, lock-byte, or of an index: never read
	treePage                  // of the b-tree of a table; its parent is the page above it, 0 for a root
	chainHead                 // first overflow page of a cell; its parent is the b-tree page of the cell
	chainNext                 // further overflow page; its parent is the one before it
)

func (k pageKind) String() string {
	return [...]string{"unmapped", "tree page", "chain head", "chain page"}[k]
}

// A pageMap leads from every page of a table to the table: five bytes a page, in
// blocks. A block without an entry takes no memory, and of the others no more than
// spill allows are in memory; the rest are in a file. The zero value is empty and
// has no file. Not safe for concurrent use.
type pageMap struct {
	count  uint32 // pages of the database; none above has an entry
	blocks []blockRef
	held   int       // blocks in memory
	hand   int       // the block that is looked at first for one to be written out
	spill  *mapSpill // nil: all blocks stay in memory
	lost   error     // a block could not be read back: nothing that the map says counts any more
}

// blockPages are the entries of a block.
const blockPages = 1 << 10

// A mapBlock has the kinds of its pages, and then their parents, little endian.
type mapBlock [blockPages * mapSize]byte

// A blockRef is where a block is.
type blockRef struct {
	block  *mapBlock // nil: in the file if that has it, otherwise without an entry
	sum    uint64    // of the content, if summed
	summed bool
	stored bool // the file has it as it is
	used   bool // since the hand came by
}

// emptySum is that of a block without an entry.
var emptySum = xxh3.Hash(make([]byte, len(mapBlock{})))

// newPageMap makes an empty map that keeps at most so many bytes in memory, or one
// block, and the rest in a file in dir.
func newPageMap(dir string, bytes int, log *slog.Logger) pageMap {
	return pageMap{spill: &mapSpill{open: inDir(dir), room: max(bytes/len(mapBlock{}), 1), log: log}}
}

// resize drops the entries above pageCount, which would otherwise come back to
// life when the database grows again, and makes room up to it.
func (m *pageMap) resize(pageCount uint32) {
	n := int(pageCount/blockPages) + 1
	for i := n; i < len(m.blocks); i++ {
		m.drop(i)
	}
	if rest := pageCount%blockPages + 1; pageCount < m.count && rest < blockPages {
		if b := m.block(n - 1); b != nil {
			m.touch(n - 1)
			clear(b[rest:blockPages])
			clear(b[blockPages+4*rest:])
		}
	}
	if n < len(m.blocks) {
		m.blocks = m.blocks[:n]
	} else {
		m.blocks = append(m.blocks, make([]blockRef, n-len(m.blocks))...)
	}
	m.count = pageCount
}

// reset forgets every entry.
func (m *pageMap) reset() {
	for i := range m.blocks {
		m.drop(i)
	}
	m.lost = nil
}

// drop forgets the entries of a block.
func (m *pageMap) drop(i int) {
	if m.blocks[i].block != nil {
		m.held--
	}
	m.blocks[i] = blockRef{}
}

func (m *pageMap) at(page uint32) (pageKind, uint32) {
	i := int(page / blockPages)
	if i >= len(m.blocks) {
		return unmapped, 0
	}
	b := m.block(i)
	if b == nil {
		return unmapped, 0
	}
	page %= blockPages
	return pageKind(b[page]), binary.LittleEndian.Uint32(b[blockPages+4*page:])
}

// set writes an entry. page must not be above the map's page count.
func (m *pageMap) set(page uint32, kind pageKind, parent uint32) {
	if page > m.count {
		panic(fmt.Sprintf("page %d of %d is to be mapped", page, m.count))
	}
	i := int(page / blockPages)
	b := m.block(i)
	if b == nil {
		if kind == unmapped || m.lost != nil {
			return
		}
		b = m.room()
		clear(b[:])
		m.blocks[i].block = b
	}
	m.touch(i)
	page %= blockPages
	b[page] = byte(kind)
	binary.LittleEndian.PutUint32(b[blockPages+4*page:], parent)
}

// touch notes that the content of a block in memory is another one.
func (m *pageMap) touch(i int) {
	m.blocks[i].summed, m.blocks[i].stored = false, false
}

// block returns a block, from the file if need be; nil is one without an entry.
func (m *pageMap) block(i int) *mapBlock {
	r := &m.blocks[i]
	r.used = true
	if r.block == nil && r.stored {
		m.fetch(i)
	}
	return r.block
}

// sum is that of the content of a block.
func (m *pageMap) sum(i int) uint64 {
	if i >= len(m.blocks) {
		return emptySum
	}
	r := &m.blocks[i]
	if r.block == nil && !r.stored {
		return emptySum
	}
	if !r.summed { // so it is in memory
		r.sum, r.summed = xxh3.Hash(r.block[:]), true
	}
	return r.sum
}

// sums are those of all blocks.
func (m *pageMap) sums() []uint64 {
	list := make([]uint64, len(m.blocks))
	for i := range list {
		list[i] = m.sum(i)
	}
	return list
}

// mapped is how many pages the tables have, those left out that cannot be read back.
func (m *pageMap) mapped() (n int) {
	_ = m.each(func(_ int, b *mapBlock) error { // whoever needs what cannot be read finds out
		for _, k := range b[:blockPages] {
			if pageKind(k) != unmapped {
				n++
			}
		}
		return nil
	})
	return n
}

// filled is how many blocks have an entry.
func (m *pageMap) filled() (n int) {
	for _, sum := range m.sums() {
		if sum != emptySum {
			n++
		}
	}
	return n
}

// each visits the blocks that have an entry, by number, and brings none into memory
// for good.
func (m *pageMap) each(visit func(i int, b *mapBlock) error) error {
	var buf mapBlock
	for i := range m.blocks {
		if m.sum(i) == emptySum {
			continue
		}
		b := m.blocks[i].block
		if b == nil {
			if err := m.read(i, &buf); err != nil {
				return err
			}
			b = &buf
		}
		if err := visit(i, b); err != nil {
			return err
		}
	}
	return nil
}

// put makes the content of a block that of b. The block has no entry yet.
func (m *pageMap) put(i int, b *mapBlock) {
	to := m.room()
	*to = *b
	m.blocks[i] = blockRef{block: to, used: true}
}

// fits fails if m cannot be the map of a database with the tables of s.
func (m *pageMap) fits(s *schema) error {
	roots := 0
	for p := range uint32(len(m.blocks)) * blockPages {
		kind, parent := m.at(p)
		if kind > chainNext || parent > m.count || p > m.count && kind != unmapped || kind == unmapped && parent != 0 {
			return fmt.Errorf("%w: page %d of %d is mapped as %d of page %d", errInconsistent, p, m.count, kind, parent)
		}
		if kind == unmapped || parent != 0 {
			continue
		}
		if roots++; kind != treePage || s.trees[p] == nil {
			return fmt.Errorf("%w: page %d is mapped as %v without a parent, and is the root of no table", errInconsistent, p, kind)
		}
	}
	if m.lost == nil && roots != len(s.trees) {
		return fmt.Errorf("%w: %d pages are mapped as roots of %d tables", errInconsistent, roots, len(s.trees))
	}
	return m.lost
}

// compare reports the first page that m and other disagree about.
func (m *pageMap) compare(other *pageMap) error {
	for i := range max(len(m.blocks), len(other.blocks)) {
		if m.sum(i) == other.sum(i) {
			continue
		}
		for p := uint32(i) * blockPages; p < uint32(i+1)*blockPages; p++ {
			k, parent := m.at(p)
			if ok, oparent := other.at(p); k != ok || parent != oparent {
				return fmt.Errorf("%w: page %d is mapped as %v of page %d, and is %v of page %d", errInconsistent, p, k, parent, ok, oparent)
			}
		}
	}
	return nil
}
