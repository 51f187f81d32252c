package primary

import "fmt"

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

// Bounds of what mapUpdates may collect, in bytes.
const (
	minUpdates  = 4 << 20  // what mapUpdates.least is
	mostUpdates = 64 << 20 // however large the map is
)

// begin forgets the transaction before. To collect more than the map takes, or than
// there is memory for, is worse than to build it anew.
func (u *mapUpdates) begin(pageCount uint32) {
	u.live.reset()
	u.free.reset()
	u.gone, u.chains, u.dropped, u.links = u.gone[:0], u.chains[:0], u.dropped[:0], u.links[:0]
	u.size, u.limit, u.rebuild = 0, max(u.least, min(mapSize*int(pageCount), mostUpdates)), false
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
	for p := range m.count + 1 {
		at := p
		for path = path[:0]; !in.has(at) && !out.has(at); {
			kind, parent := m.at(at)
			lives := kind == chainHead && u.live.has(at) && !written.has(at)
			if lives {
				heads = append(heads, at)
			}
			if kind == unmapped || parent == 0 || lives || len(path) > int(m.count) {
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
	for p := pageCount + 1; !u.rebuild && p <= m.count; p++ { // rebuilt, the map shows it
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
