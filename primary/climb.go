package primary

import (
	"fmt"
	"slices"
)

// A dirtyTree is what a transaction wrote of one table, seen from the state
// before it.
type dirtyTree struct {
	root    uint32
	pages   []uint32 // b-tree pages that were written
	touched []uint32 // b-tree pages that were not, but a page of an overflow chain of theirs was
}

// A dirt is what a transaction wrote of all tables.
type dirt struct {
	written pageSet
	active  pageSet // pages of the old trees that must be looked into: all of pages and touched, and what is above them
	touched pageSet // b-tree pages with an overflow chain in chains
	chains  pageSet // heads of the overflow chains of which a page was written
	climbed pageSet // overflow pages that led to a head in chains already

	byRoot map[uint32]*dirtyTree
	order  []*dirtyTree // sorted by root
	spare  []*dirtyTree // of earlier transactions
}

func newDirt() *dirt { return &dirt{byRoot: make(map[uint32]*dirtyTree)} }

func (d *dirt) reset() {
	d.written.reset()
	d.active.reset()
	d.touched.reset()
	d.chains.reset()
	d.climbed.reset()
	clear(d.byRoot)
	d.spare = append(d.spare, d.order...)
	d.order = d.order[:0]
	if len(d.spare) > maxSpare {
		d.spare = nil
	}
}

// maxSpare bounds the dirtyTrees that are kept for the next transaction.
const maxSpare = 1 << 10

// maxDepth is the deepest b-tree that SQLite reads (BTCURSOR_MAX_DEPTH).
const maxDepth = 20

// collect sorts the written pages by table. Pages above pageCount are ignored:
// they were spilled before the transaction became smaller, and are in no tree.
func (d *dirt) collect(m *pageMap, written []uint32, pageCount uint32) error {
	d.reset()
	for _, p := range written {
		if p > 0 && p <= pageCount {
			d.written.add(p)
		}
	}
	for _, p := range written {
		if p == 0 || p > pageCount {
			continue
		}
		if err := d.climb(m, p); err != nil {
			return err
		}
	}
	for _, t := range d.order {
		slices.Sort(t.pages)
		slices.Sort(t.touched)
	}
	slices.SortFunc(d.order, func(a, b *dirtyTree) int { return int(int64(a.root) - int64(b.root)) })
	return nil
}

// climb finds what the written page p is a part of.
func (d *dirt) climb(m *pageMap, p uint32) error {
	kind, _ := m.at(p)
	page := p // the b-tree page that p is or belongs to
	switch kind {
	case unmapped:
		return nil
	case chainHead, chainNext:
		head, err := d.head(m, p)
		if err != nil || head == 0 || !d.chains.add(head) {
			return err
		}
		_, page = m.at(head)
		// An overflow page may be overwritten in place, with its leaf untouched:
		// the leaf must be looked at all the same.
		if !d.touched.add(page) || d.written.has(page) {
			return nil // came already, or comes by itself
		}
	}
	root, err := d.activate(m, page)
	if err != nil {
		return err
	}
	t := d.tree(root)
	if kind == treePage {
		t.pages = append(t.pages, page)
	} else {
		t.touched = append(t.touched, page)
	}
	return nil
}

// activate marks page and all above it, and returns the root.
func (d *dirt) activate(m *pageMap, page uint32) (uint32, error) {
	at := page
	for range maxDepth {
		kind, parent := m.at(at)
		if kind != treePage {
			return 0, fmt.Errorf("%w: page %d leads to page %d, mapped as %v", errInconsistent, page, at, kind)
		}
		d.active.add(at)
		if parent == 0 {
			return at, nil
		}
		at = parent
	}
	return 0, fmt.Errorf("%w: page %d is more than %d levels below its root", errInconsistent, page, maxDepth)
}

// head returns the first page of the chain that p is in, or 0 if another page of
// it came before: climbing to the top from each page of a big blob that was
// overwritten would be quadratic (7.5 s for 40 MB).
func (d *dirt) head(m *pageMap, p uint32) (uint32, error) {
	at := p
	for {
		kind, parent := m.at(at)
		switch kind {
		case chainHead:
			return at, nil
		case chainNext:
			if !d.climbed.add(at) {
				return 0, nil
			}
			at = parent
		default:
			return 0, fmt.Errorf("%w: overflow page %d leads to page %d, mapped as %v", errInconsistent, p, at, kind)
		}
	}
}

func (d *dirt) tree(root uint32) *dirtyTree {
	if t := d.byRoot[root]; t != nil {
		return t
	}
	var t *dirtyTree
	if n := len(d.spare); n > 0 {
		t, d.spare = d.spare[n-1], d.spare[:n-1]
		t.pages, t.touched = t.pages[:0], t.touched[:0]
	} else {
		t = new(dirtyTree)
	}
	t.root = root
	d.byRoot[root] = t
	d.order = append(d.order, t)
	return t
}
