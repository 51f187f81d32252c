package primary

import (
	"errors"
	"fmt"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A side is one state of the database: before or after a transaction.
type side struct {
	src    sqlitefile.Pages
	usable int    // bytes of a page
	count  uint32 // pages of the database
	lock   uint32 // the lock-byte page, which nothing refers to
}

func newSide(src sqlitefile.Pages, h sqlitefile.Header, count uint32) side {
	return side{src: src, usable: h.Usable, count: count, lock: sqlitefile.LockBytePage(h.PageSize)}
}

// valid checks a page number that was read from page from.
func (s *side) valid(page, from uint32) error {
	if page == 0 || page > s.count || page == s.lock {
		return fmt.Errorf("%w: page %d refers to page %d of %d", errInconsistent, from, page, s.count)
	}
	return nil
}

// page reads a b-tree page. SQLite may free a leaf and use it for something else
// in the same transaction, so its type says nothing before it was parsed.
func (s *side) page(number uint32) (sqlitefile.Page, error) {
	b, err := s.src.Page(number)
	if err != nil {
		return sqlitefile.Page{}, fmt.Errorf("page %d: %w", number, err)
	}
	return sqlitefile.ParsePage(b, number, s.usable)
}

// chain visits the pages of an overflow chain; the page before the first is 0.
func (s *side) chain(c chainRef, visit func(page, prev uint32) error) error {
	if c.size > int64(s.count)*int64(s.usable) {
		return fmt.Errorf("%w: page %d starts a chain of %d bytes in a database of %d pages", errInconsistent, c.head, c.size, s.count)
	}
	return sqlitefile.Overflow(s.src, sqlitefile.Cell{Overflow: c.head, PayloadSize: c.size}, s.usable, func(page, prev uint32) error {
		if err := s.valid(page, prev); err != nil {
			return err
		}
		return visit(page, prev)
	})
}

// A treeWalk is a walk over the changed part of one table's b-tree in one state.
type treeWalk struct {
	*side
	seen  pageSet
	visit func(p sqlitefile.Page, parent uint32) error // called for each page before its children
	below func(page, parent uint32) (bool, error)      // whether to descend to a child
}

// walk visits page and what below lets through. parent is the zero Page for the
// root. Depth, range and repetition are bounded: on damaged bytes a b-tree can
// lead anywhere, itself included.
func (w *treeWalk) walk(number uint32, parent sqlitefile.Page, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: page %d is more than %d levels below its root", errInconsistent, number, maxDepth)
	}
	if err := w.meet(number, parent.Number()); err != nil {
		return err
	}
	p, err := w.page(number)
	if err != nil {
		return err
	}
	if depth > 1 && p.Type().Table() != parent.Type().Table() {
		return fmt.Errorf("%w: page %d is a %v page below page %d, a %v page", errInconsistent, number, p.Type(), parent.Number(), parent.Type())
	}
	if err := p.Bare(depth == 1); err != nil {
		return err
	}
	if err := w.visit(p, parent.Number()); err != nil {
		return err
	}
	if !p.Type().Interior() {
		return nil
	}
	for i := range p.Cells() + 1 {
		child, err := p.Child(i)
		if err != nil {
			return err
		}
		descend, err := w.below(child, number)
		if err != nil {
			return err
		}
		if descend {
			err = w.walk(child, p, depth+1)
		} else {
			err = w.meet(child, number)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// meet checks a page of the tree, which is met once only.
func (w *treeWalk) meet(page, parent uint32) error {
	if err := w.valid(page, parent); err != nil {
		return err
	}
	if !w.seen.add(page) {
		return fmt.Errorf("%w: page %d is reached twice, again from page %d", errInconsistent, page, parent)
	}
	return nil
}

// holdsRows reports whether pages of type t carry rows: interior pages of
// WITHOUT ROWID tables do.
func holdsRows(t sqlitefile.PageType) bool { return t != sqlitefile.InteriorTable }

// A plan lists the pages of one table whose rows must be compared.
type plan struct {
	old, new []uint32
	inPlace  bool // old and new are the same leaves: compare them one by one
}

// A planner finds the pages of a table that a transaction changed. Its plans are
// valid until the next one.
type planner struct {
	old, new side
	dirt     *dirt
	pages    *pageMap // as of old
	updates  *mapUpdates

	oldWalk, newWalk treeWalk
	oldRows, newRows []uint32 // pages that hold rows, leaves in key order
	pruned           pageSet  // children in the new tree that were not looked into
	prunedLeft       int      // of them, those not met in the old tree yet
	full             bool     // look into everything
	budget           int      // pages of the old tree that may still be read; -1: any number
}

func newPlanner(d *dirt, m *pageMap, u *mapUpdates) *planner {
	p := &planner{dirt: d, pages: m, updates: u}
	p.newWalk.side, p.oldWalk.side = &p.new, &p.old
	p.newWalk.visit, p.newWalk.below = p.visitNew, p.belowNew
	p.oldWalk.visit, p.oldWalk.below = p.visitOld, p.belowOld
	return p
}

// inPlace returns the plan for a table of which no interior page was written.
//
// The invariant it stands on: which leaves a tree has is written in its interior
// pages. With the same root, and no interior page written, both states have the
// same leaves. It needs nothing from SQLite but that the written set is complete.
func (p *planner) inPlace(t *dirtyTree) (plan, bool, error) {
	p.full = false
	for i, list := range [...][]uint32{t.pages, t.touched} {
		for _, number := range list {
			before, err := p.old.page(number)
			if err != nil {
				return plan{}, false, err
			}
			if before.Type().Interior() {
				return plan{}, false, nil
			}
			if i == 1 {
				continue // not written: the same in both
			}
			// The page may be no b-tree page at all any more.
			after, err := p.new.src.Page(number)
			if err != nil {
				return plan{}, false, err
			}
			start := 0
			if number == 1 {
				start = sqlitefile.HeaderSize
			}
			if len(after) <= start || sqlitefile.PageType(after[start]) != before.Type() {
				return plan{}, false, nil
			}
			if page, err := p.new.page(number); err != nil || page.Bare(number == t.root) != nil {
				return plan{}, false, nil // the walk tells what is wrong
			}
		}
	}
	pages := t.pages
	if len(t.touched) > 0 {
		p.newRows = append(append(p.newRows[:0], t.pages...), t.touched...)
		pages = p.newRows
	}
	return plan{old: pages, new: pages, inPlace: true}, true, nil
}

// walk returns the plan for a table by walking its tree in both states, from
// oldRoot and newRoot; 0 is no tree. Unless full is set, it looks only into what
// was written and what leads there; what is left out must be in both trees.
func (p *planner) walk(oldRoot, newRoot uint32, full bool) (plan, error) {
	p.full, p.budget = full || oldRoot == 0 || newRoot == 0, -1
	p.pruned.reset()
	p.prunedLeft = 0
	p.newWalk.seen.reset()
	p.oldWalk.seen.reset()
	p.oldRows, p.newRows = p.oldRows[:0], p.newRows[:0]
	if newRoot != 0 {
		if err := p.newWalk.walk(newRoot, sqlitefile.Page{}, 1); err != nil {
			return plan{}, fmt.Errorf("new tree: %w", err)
		}
	}
	if oldRoot != 0 {
		if err := p.oldWalk.walk(oldRoot, sqlitefile.Page{}, 1); err != nil {
			return plan{}, fmt.Errorf("old tree: %w", err)
		}
	}
	if p.prunedLeft != 0 {
		return plan{}, fmt.Errorf("%w: %d pages joined the tree at page %d without being written", errInconsistent, p.prunedLeft, newRoot)
	}
	return plan{old: p.oldRows, new: p.newRows}, nil
}

// errBudget: a walk was given up because the tree is too big for it.
var errBudget = errors.New("decode: tree exceeds the budget of its walk")

// walkDropped returns the plan for a tree that is dropped, or errBudget if it has
// more than budget pages.
func (p *planner) walkDropped(root uint32, budget int) (plan, error) {
	p.full, p.budget = true, budget
	p.oldWalk.seen.reset()
	p.oldRows = p.oldRows[:0]
	err := p.oldWalk.walk(root, sqlitefile.Page{}, 1)
	return plan{old: p.oldRows}, err
}

func (p *planner) visitNew(page sqlitefile.Page, parent uint32) error {
	if holdsRows(page.Type()) {
		p.newRows = append(p.newRows, page.Number())
	}
	p.updates.joined(p.pages, page.Number(), treePage, parent)
	return nil
}

func (p *planner) belowNew(page, parent uint32) (bool, error) {
	if p.full || p.dirt.written.has(page) || p.dirt.active.has(page) {
		return true, nil
	}
	if err := p.new.valid(page, parent); err != nil {
		return false, err
	}
	p.pruned.add(page)
	p.prunedLeft++
	p.updates.joined(p.pages, page, treePage, parent)
	return false, nil
}

func (p *planner) visitOld(page sqlitefile.Page, parent uint32) error {
	if p.budget == 0 {
		return errBudget
	}
	p.budget--
	if holdsRows(page.Type()) {
		p.oldRows = append(p.oldRows, page.Number())
	}
	p.updates.left(page.Number())
	return p.trust(page.Number(), parent)
}

// belowOld descends also into what the new tree does not have: a page can be
// unlinked without being written, and an interior page can be merged away while
// its children live on elsewhere in the tree.
func (p *planner) belowOld(page, parent uint32) (bool, error) {
	if p.full || p.dirt.written.has(page) || p.dirt.active.has(page) {
		return true, nil
	}
	if !p.pruned.remove(page) {
		return true, nil
	}
	p.prunedLeft--
	p.updates.moved(page)
	return false, p.trust(page, parent)
}

// trust checks that the map knows a page of the old tree. Where it does not, what
// it says about the table is worth nothing; a full walk does not ask it.
func (p *planner) trust(page, parent uint32) error {
	if p.full {
		return nil
	}
	if kind, mapped := p.pages.at(page); kind != treePage || mapped != parent {
		return fmt.Errorf("%w: page %d is below page %d, mapped as %v of page %d", errInconsistent, page, parent, kind, mapped)
	}
	return nil
}
