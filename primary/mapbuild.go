package primary

import "github.com/sqlite-replicator/replicator/internal/sqlitefile"

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
