package sqlitefile

import "fmt"

// maxDepth is BTCURSOR_MAX_DEPTH of SQLite, which reads no deeper tree: with two
// children a page it already has a million pages.
const maxDepth = 20

// Walk visits every page of the b-tree at root, each before its children and
// those from left to right, with its parent, which is 0 for the root. It fails
// with [ErrCorrupt] on a page outside [1, pageCount], a page reached twice, a
// tree deeper than SQLite allows, or one that mixes table and index pages. An
// error of visit ends the walk and is returned as it is.
//
// Memory: a bit for each page up to the highest one visited.
func Walk(src Pages, root uint32, usable int, pageCount uint32, visit func(p Page, parent uint32) error) error {
	w := walker{src: src, usable: usable, pageCount: pageCount, visit: visit}
	return w.walk(root, Page{}, 1)
}

type walker struct {
	src       Pages
	usable    int
	pageCount uint32
	visit     func(Page, uint32) error
	seen      []uint64 // bit n: page n was visited
}

// walk visits the tree below number; parent is the zero Page for the root.
func (w *walker) walk(number uint32, parent Page, depth int) error {
	p, err := w.read(number, parent, depth)
	if err != nil {
		return err
	}
	if err := w.visit(p, parent.number); err != nil {
		return err
	}
	if !p.kind.Interior() {
		return nil
	}
	for i := 0; i <= p.cells; i++ {
		child, err := p.Child(i)
		if err != nil {
			return err
		}
		if err := w.walk(child, p, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) read(number uint32, parent Page, depth int) (Page, error) {
	switch {
	case number == 0 || number > w.pageCount:
		return Page{}, corruptf("page %d: child %d is outside the database of %d pages", parent.number, number, w.pageCount)
	case depth > maxDepth:
		return Page{}, corruptf("page %d: a b-tree of more than %d levels", number, maxDepth)
	}
	word, bit := int(number/64), uint64(1)<<(number%64)
	if word < len(w.seen) && w.seen[word]&bit != 0 {
		return Page{}, corruptf("page %d: reached twice, again from page %d", number, parent.number)
	}
	b, err := w.src.Page(number)
	if err != nil {
		return Page{}, fmt.Errorf("sqlitefile: page %d: %w", number, err)
	}
	p, err := ParsePage(b, number, w.usable)
	if err != nil {
		return Page{}, err
	}
	if parent.number != 0 && p.kind.Table() != parent.kind.Table() {
		return Page{}, corruptf("page %d: a %v page below %v page %d", number, p.kind, parent.kind, parent.number)
	}
	if err := p.Bare(parent.number == 0); err != nil {
		return Page{}, err
	}
	// Only now, so that the set grows with pages that exist, not with numbers.
	if word >= len(w.seen) {
		w.seen = append(w.seen, make([]uint64, word+1-len(w.seen))...)
	}
	w.seen[word] |= bit
	return p, nil
}
