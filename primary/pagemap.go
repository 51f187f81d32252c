package primary

import (
	"fmt"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
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

// A pageMap leads from every page of a table to the table: five bytes a page.
// It holds no entry above the page count it was last resized to.
type pageMap struct {
	kinds   []pageKind // by page number
	parents []uint32
}

// resize drops the entries above pageCount, which would otherwise come back to
// life when the database grows again, and makes room up to it.
func (m *pageMap) resize(pageCount uint32) {
	n := int(pageCount) + 1
	if n <= len(m.kinds) {
		clear(m.kinds[n:])
		clear(m.parents[n:])
		m.kinds, m.parents = m.kinds[:n], m.parents[:n]
		return
	}
	if n > cap(m.kinds) || n > cap(m.parents) {
		room := n + n/8
		m.kinds = append(make([]pageKind, 0, room), m.kinds...)
		m.parents = append(make([]uint32, 0, room), m.parents...)
	}
	m.kinds, m.parents = m.kinds[:n], m.parents[:n]
}

// reset forgets every entry.
func (m *pageMap) reset() {
	clear(m.kinds)
	clear(m.parents)
}

func (m *pageMap) at(page uint32) (pageKind, uint32) {
	if int(page) >= len(m.kinds) {
		return unmapped, 0
	}
	return m.kinds[page], m.parents[page]
}

// set writes an entry. page must not be above the map's page count.
func (m *pageMap) set(page uint32, kind pageKind, parent uint32) {
	m.kinds[page], m.parents[page] = kind, parent
}

// mapped is how many pages the tables have.
func (m *pageMap) mapped() (n int) {
	for _, k := range m.kinds {
		if k != unmapped {
			n++
		}
	}
	return n
}

// compare reports the first page that m and other disagree about.
func (m *pageMap) compare(other *pageMap) error {
	for p := range uint32(max(len(m.kinds), len(other.kinds))) {
		k, parent := m.at(p)
		if ok, oparent := other.at(p); k != ok || parent != oparent {
			return fmt.Errorf("%w: page %d is mapped as %v of page %d, and is %v of page %d", errInconsistent, p, k, parent, ok, oparent)
		}
	}
	return nil
}

// A mapBuilder fills an empty map from one state, tree by tree.
type mapBuilder struct {
	pages *pageMap
	walk  treeWalk
}

func newMapBuilder(m *pageMap, s *side) *mapBuilder {
	m.resize(s.count)
	m.reset()
	b := &mapBuilder{pages: m}
	b.walk = treeWalk{side: s, visit: b.visit, below: func(uint32, uint32) (bool, error) { return true, nil }}
	return b
}

// add maps the tree at root. No page may be part of two trees.
func (b *mapBuilder) add(root uint32) error { return b.walk.walk(root, sqlitefile.Page{}, 1) }

func (b *mapBuilder) visit(p sqlitefile.Page, parent uint32) error {
	b.pages.set(p.Number(), treePage, parent)
	if !holdsRows(p.Type()) {
		return nil
	}
	for i := range p.Cells() {
		c, err := p.Cell(i)
		if err != nil {
			return err
		}
		if c.Overflow == 0 {
			continue
		}
		if err := b.chain(c, p.Number()); err != nil {
			return err
		}
	}
	return nil
}

func (b *mapBuilder) chain(c sqlitefile.Cell, leaf uint32) error {
	ref := chainRef{head: c.Overflow, size: c.PayloadSize - int64(len(c.Local))}
	return b.walk.chain(ref, func(page, prev uint32) error {
		if err := b.walk.meet(page, prev); err != nil {
			return err
		}
		if prev == 0 {
			b.pages.set(page, chainHead, leaf)
		} else {
			b.pages.set(page, chainNext, prev)
		}
		return nil
	})
}

// A pageSet is a set of page numbers. Emptying it costs what was put in, not
// what the database has, because it happens once a transaction.
type pageSet struct {
	words []uint64
	used  []uint32 // words that are not zero, or were; some twice
}

func (s *pageSet) has(page uint32) bool {
	w := page / 64
	return int(w) < len(s.words) && s.words[w]&(1<<(page%64)) != 0
}

// add reports whether page was not in s before.
func (s *pageSet) add(page uint32) bool {
	w, bit := page/64, uint64(1)<<(page%64)
	if int(w) >= len(s.words) {
		s.words = append(s.words, make([]uint64, int(w)+1-len(s.words))...)
	}
	old := s.words[w]
	if old == 0 {
		s.used = append(s.used, w)
	}
	s.words[w] = old | bit
	return old&bit == 0
}

// remove reports whether page was in s.
func (s *pageSet) remove(page uint32) bool {
	if !s.has(page) {
		return false
	}
	s.words[page/64] &^= 1 << (page % 64)
	return true
}

func (s *pageSet) reset() {
	for _, w := range s.used {
		s.words[w] = 0
	}
	s.used = s.used[:0]
}

// A link is an entry to be written into the map.
type link struct {
	page, parent uint32
	kind         pageKind
}

// A chainRef names an overflow chain by its first page and the bytes it holds.
type chainRef struct {
	head uint32
	size int64
}

// mapUpdates collects what a transaction does to the map, over all of its
// trees, and is applied once at its end: a page may leave one tree and join
// another in one transaction, and then it does not matter which tree is compared
// first.
type mapUpdates struct {
	live    pageSet    // pages met in the new state: never cleared
	free    pageSet    // pages met in the old state, where something changed: they may belong elsewhere in the new one
	gone    []uint32   // of them, those to be cleared unless they are live
	chains  []chainRef // chains of the old state without a written page; gone if their head is not live
	dropped []uint32   // roots of trees that are gone whole
	links   []link

	least   int  // bytes that may be collected in any case
	limit   int  // bytes that may be collected
	size    int  // bytes collected
	rebuild bool // limit was passed: the map is to be built anew
}

// What an entry takes in memory, in bytes.
const (
	goneSize  = 4
	linkSize  = 12
	chainSize = 16
	mapSize   = 5 // an entry of the map itself
)

// minUpdates is what mapUpdates.least is.
const minUpdates = 4 << 20

// begin forgets the transaction before. To collect more than the map takes is
// worse than to build it anew.
func (u *mapUpdates) begin(pageCount uint32) {
	u.live.reset()
	u.free.reset()
	u.gone, u.chains, u.dropped, u.links = u.gone[:0], u.chains[:0], u.dropped[:0], u.links[:0]
	u.size, u.limit, u.rebuild = 0, max(u.least, mapSize*int(pageCount)), false
}

// joined notes that page is part of the new state.
func (u *mapUpdates) joined(m *pageMap, page uint32, kind pageKind, parent uint32) {
	u.live.add(page)
	if u.rebuild {
		return
	}
	if k, p := m.at(page); k != kind || p != parent {
		u.links = append(u.links, link{page: page, parent: parent, kind: kind})
		u.grow(linkSize)
	}
}

// left notes that page was part of the old state, and is to be cleared unless
// some tree turns out to have it in the new state.
func (u *mapUpdates) left(page uint32) {
	u.free.add(page)
	if u.rebuild || u.live.has(page) {
		return
	}
	u.gone = append(u.gone, page)
	u.grow(goneSize)
}

// leftChain notes that an overflow chain without a written page was part of the
// old state.
func (u *mapUpdates) leftChain(c chainRef) {
	u.free.add(c.head)
	if u.rebuild {
		return
	}
	u.chains = append(u.chains, c)
	u.grow(chainSize)
}

func (u *mapUpdates) grow(n int) {
	if u.size += n; u.size > u.limit {
		u.gone, u.chains, u.links, u.rebuild = nil, nil, nil, true
	}
}

// sweep notes the pages of dropped trees, which only the map names, as left. It
// comes after all trees: a chain of which nothing was written lives on whole if
// its head does. written has the heads of the others.
func (u *mapUpdates) sweep(m *pageMap, written *pageSet) {
	if len(u.dropped) == 0 || u.rebuild {
		return
	}
	var in, out pageSet
	for _, root := range u.dropped {
		in.add(root)
		u.left(root)
	}
	var path, heads []uint32
	for p := range uint32(len(m.kinds)) {
		at := p
		for path = path[:0]; !in.has(at) && !out.has(at); {
			kind, parent := m.at(at)
			lives := kind == chainHead && u.live.has(at) && !written.has(at)
			if lives {
				heads = append(heads, at)
			}
			if kind == unmapped || parent == 0 || lives || len(path) > len(m.kinds) {
				out.add(at)
				break
			}
			path = append(path, at)
			at = parent
		}
		if out.has(at) {
			for _, q := range path {
				out.add(q)
			}
			continue
		}
		for _, q := range path {
			in.add(q)
			u.left(q)
		}
	}
	for _, head := range heads {
		if _, leaf := m.at(head); in.has(leaf) {
			u.free.add(head) // its row is gone with the tree
		}
	}
}

// moved notes that page was met in the old state and is in the new one, too, below
// another page perhaps.
func (u *mapUpdates) moved(page uint32) { u.free.add(page) }

// check fails if a page is part of the new state in a new place and was not met in
// the old one where it was: two places lead to it. A program that writes through one
// of them changes what the other reads, and nothing would tell. It fails, too, if a
// page was cut off from the end of the database and no tree has let it go: SQLite
// does that where its own pointer map is damaged.
func (u *mapUpdates) check(m *pageMap, pageCount uint32) error {
	for p := pageCount + 1; !u.rebuild && int(p) < len(m.kinds); p++ { // rebuilt, the map shows it
		if kind, parent := m.at(p); kind != unmapped && !u.free.has(p) {
			return fmt.Errorf("%w: the database ends at page %d, and page %d was still %v of page %d", errInconsistent, pageCount, p, kind, parent)
		}
	}
	for _, l := range u.links {
		kind, parent := m.at(l.page)
		if kind != unmapped && !u.free.has(l.page) {
			return fmt.Errorf("%w: page %d is %v of page %d, and still %v of page %d", errInconsistent, l.page, l.kind, l.parent, kind, parent)
		}
	}
	return nil
}

// apply writes the updates into m: all clears, then all links.
func (u *mapUpdates) apply(m *pageMap, pageCount uint32) {
	m.resize(pageCount)
	for _, p := range u.gone {
		if p <= pageCount && !u.live.has(p) {
			m.set(p, unmapped, 0)
		}
	}
	for _, l := range u.links {
		m.set(l.page, l.kind, l.parent)
	}
}
