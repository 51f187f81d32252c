package primary

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A changeSink takes the changes of a transaction. The images of c are valid
// during the call only; c.Table is the same pointer for the same table throughout
// a transaction.
type changeSink interface {
	change(c *cdc.Change) error
}

// A largeSink also takes rows that are too large to be put together in memory: old and
// new stand at them, and are nil where the change has no such image.
type largeSink interface {
	changeSink
	large(c *cdc.Change, old, new *cursor) error
}

// A cursor steps through the cells of a list of pages.
type cursor struct {
	*side
	pages []uint32
	at    int // index in pages of the next page
	page  sqlitefile.Page
	index int // of the next cell
	end   int // of the cells of page
	cell  sqlitefile.Cell
	ok    bool // cell is one
	keyed bool // the pages are those of a WITHOUT ROWID table
}

// start sets c before the first of pages and steps to the first cell.
func (c *cursor) start(s *side, pages []uint32, keyed bool) error {
	*c = cursor{side: s, pages: pages, keyed: keyed}
	return c.next()
}

func (c *cursor) next() error {
	for c.index >= c.end {
		if c.at == len(c.pages) {
			c.ok = false
			return nil
		}
		p, err := c.side.page(c.pages[c.at])
		if err != nil {
			return err
		}
		if p.Type().Table() == c.keyed {
			return fmt.Errorf("%w: page %d is a %v page", errInconsistent, p.Number(), p.Type())
		}
		c.page, c.index, c.end = p, 0, p.Cells()
		c.at++
	}
	last, ok := c.cell.Rowid, c.ok
	cell, err := c.page.Cell(c.index)
	if err != nil {
		return err
	}
	if ok && !c.keyed && cell.Rowid <= last {
		return fmt.Errorf("%w: page %d: rows are not in the order of their rowids", errInconsistent, c.page.Number())
	}
	c.cell, c.ok = cell, true
	c.index++
	return nil
}

// A rowDiffer compares the rows on the pages of a plan and keeps the overflow
// chains in the map right.
type rowDiffer struct {
	*planner
	sink     changeSink
	from, to *cdc.Table // before and after

	a, b           cursor // through the old and the new rows
	oldBuf, newBuf []byte // payloads with overflow pages
	out            cdc.Change
	keyed          keyedRows
}

// diff reports the changes of the rows on the pages of pl. Without from, all rows
// are new; without to, the table is dropped, which takes its rows along.
func (r *rowDiffer) diff(pl plan, from, to *cdc.Table, sink changeSink) error {
	r.from, r.to, r.sink = from, to, sink
	switch {
	case to == nil:
		return r.each(&r.a, &r.old, pl.old, from.WithoutRowid, r.oldChain)
	case from == nil:
		return r.each(&r.b, &r.new, pl.new, to.WithoutRowid, r.added)
	}
	compare := r.merge
	if to.WithoutRowid {
		compare = r.match
	}
	if !pl.inPlace {
		return compare(pl.old, pl.new)
	}
	for i, number := range pl.new {
		if !r.dirt.touched.has(number) {
			same, err := r.samePage(number)
			if err != nil {
				return err
			}
			if same {
				continue
			}
		}
		if err := compare(pl.old[i:i+1], pl.new[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *rowDiffer) each(c *cursor, s *side, pages []uint32, keyed bool, visit func(*cursor) error) error {
	if err := c.start(s, pages, keyed); err != nil {
		return err
	}
	for c.ok {
		if err := visit(c); err != nil {
			return err
		}
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

func (r *rowDiffer) samePage(number uint32) (bool, error) {
	before, err := r.old.src.Page(number)
	if err != nil {
		return false, err
	}
	after, err := r.new.src.Page(number)
	if err != nil {
		return false, err
	}
	start := 0
	if number == 1 {
		start = sqlitefile.HeaderSize // which changes without the rows of sqlite_schema
	}
	if min(len(before), len(after)) < r.new.usable {
		return false, fmt.Errorf("%w: page %d is short", errInconsistent, number)
	}
	return bytes.Equal(before[start:r.new.usable], after[start:r.new.usable]), nil
}

// merge compares rowid tables: both lists of pages are in the order of rowids.
func (r *rowDiffer) merge(oldPages, newPages []uint32) error {
	a, b := &r.a, &r.b
	if err := a.start(&r.old, oldPages, false); err != nil {
		return err
	}
	if err := b.start(&r.new, newPages, false); err != nil {
		return err
	}
	for a.ok || b.ok {
		var err error
		stepA, stepB := true, true
		switch {
		case !b.ok || a.ok && a.cell.Rowid < b.cell.Rowid:
			stepB = false
			err = r.removed(a)
		case !a.ok || b.cell.Rowid < a.cell.Rowid:
			stepA = false
			err = r.added(b)
		case !r.sameCell(a, b):
			err = r.changed(a, b)
		}
		if err == nil && stepA {
			err = a.next()
		}
		if err == nil && stepB {
			err = b.next()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sameCell reports whether two rows are equal without a look at overflow pages:
// the same bytes, with the same chain, of which nothing was written.
func (r *rowDiffer) sameCell(a, b *cursor) bool {
	if !bytes.Equal(a.cell.Raw, b.cell.Raw) {
		return false
	}
	head := a.cell.Overflow
	if head == 0 {
		return true
	}
	if kind, parent := r.pages.at(head); r.full || kind != chainHead || parent != a.page.Number() ||
		r.dirt.chains.has(head) || head > r.new.count {
		return false
	}
	if a.page.Number() != b.page.Number() {
		// A row moved off its leaf, its chain stayed where it is.
		r.updates.moved(head)
		r.updates.joined(r.pages, head, chainHead, b.page.Number())
	}
	return true
}

func (r *rowDiffer) removed(a *cursor) error {
	if err := r.oldChain(a); err != nil {
		return err
	}
	return r.report(cdc.OpDelete, r.from, a, nil)
}

func (r *rowDiffer) added(b *cursor) error {
	if err := r.newChain(b); err != nil {
		return err
	}
	return r.report(cdc.OpInsert, r.to, nil, b)
}

// changed handles two rows of one rowid that are not equal at first sight.
func (r *rowDiffer) changed(a, b *cursor) error {
	if err := r.oldChain(a); err != nil {
		return err
	}
	if err := r.newChain(b); err != nil {
		return err
	}
	same, err := r.samePayload(&a.cell, &b.cell)
	if err != nil || same {
		return err
	}
	return r.report(cdc.OpUpdate, r.to, a, b)
}

// report passes a change on. a and b stand at the old and the new row.
func (r *rowDiffer) report(op cdc.Op, table *cdc.Table, a, b *cursor) error {
	r.out = cdc.Change{Op: op, Table: table}
	if sink, ok := r.sink.(largeSink); ok && !table.WithoutRowid && (a.isLarge() || b.isLarge()) {
		r.out.Rowid = cmp.Or(b, a).cell.Rowid
		return sink.large(&r.out, a, b)
	}
	var err error
	if a != nil {
		r.out.Rowid = a.cell.Rowid
		if r.out.Old, err = payload(&r.oldBuf, a); err != nil {
			return err
		}
	}
	if b != nil {
		r.out.Rowid = b.cell.Rowid
		if r.out.New, err = payload(&r.newBuf, b); err != nil {
			return err
		}
	}
	if err := r.sink.change(&r.out); err != nil {
		return onPage(cmp.Or(b, a).page, err)
	}
	return nil
}

// where is the page of the row that is being reported.
func (r *rowDiffer) where() uint32 {
	if r.out.Op == cdc.OpDelete {
		return r.a.page.Number()
	}
	return r.b.page.Number()
}

// onPage says on which page the bytes are that an error is about, if it is about any.
func onPage(p sqlitefile.Page, err error) error {
	if errors.Is(inconsistent(err), errInconsistent) {
		return fmt.Errorf("page %d: %w", p.Number(), err)
	}
	return err
}

// isLarge reports whether c stands at a row that is not put together in memory. Of rows
// in tables WITHOUT ROWID the keys are compared, for which they are.
func (c *cursor) isLarge() bool { return c != nil && c.cell.PayloadSize > keepBuffer }

// image is the row that c stands at; c may be nil.
func (c *cursor) image() cdc.Image {
	if c == nil {
		return cdc.Image{From: strings.NewReader("")}
	}
	return cdc.Image{Size: int(c.cell.PayloadSize), From: sqlitefile.NewPayloadReader(c.src, c.cell, c.usable)}
}

// payload returns the row that c stands at, put together in buf if it overflows.
func payload(buf *[]byte, c *cursor) ([]byte, error) {
	if c.cell.Overflow == 0 {
		return c.cell.Local, nil
	}
	if n := c.cell.PayloadSize; n > keepBuffer && n <= int64(c.count)*int64(c.usable) && int64(cap(*buf)) < n {
		*buf = make([]byte, n) // a buffer that grows is there twice
	}
	b, err := sqlitefile.Payload(*buf, c.src, c.cell, c.usable)
	if err != nil {
		return nil, onPage(c.page, err)
	}
	*buf = b
	return b, nil
}

// keepBuffer is the size in bytes up to which buffers for big rows are kept.
const keepBuffer = 1 << 20

// release lets go of pages, and of memory that only big rows need.
func (r *rowDiffer) release() {
	r.a, r.b, r.out, r.sink = cursor{}, cursor{}, cdc.Change{}, nil
	r.from, r.to = nil, nil
	r.old.src, r.new.src = nil, nil
	for _, buf := range []*[]byte{&r.oldBuf, &r.newBuf} {
		if cap(*buf) > keepBuffer {
			*buf = nil
		}
	}
	r.keyed.release()
}

// samePayload compares two rows page by page, without putting them together.
func (r *rowDiffer) samePayload(a, b *sqlitefile.Cell) (bool, error) {
	if a.PayloadSize != b.PayloadSize || !bytes.Equal(a.Local, b.Local) {
		return false, nil
	}
	left := a.PayloadSize - int64(len(a.Local))
	if left > int64(r.new.count)*int64(r.new.usable) { // which also bounds a chain that bites its tail
		return false, fmt.Errorf("%w: chains at pages %d and %d are longer than the database", errInconsistent, a.Overflow, b.Overflow)
	}
	pa, pb := a.Overflow, b.Overflow
	for room := int64(r.new.usable - 4); left > 0; left -= room {
		before, err := r.chainPage(&r.old, pa)
		if err != nil {
			return false, err
		}
		after := before
		if pa != pb || r.dirt.written.has(pb) {
			if after, err = r.chainPage(&r.new, pb); err != nil {
				return false, err
			}
			n := 4 + min(left, room)
			if !bytes.Equal(before[4:n], after[4:n]) {
				return false, nil
			}
		}
		pa, pb = binary.BigEndian.Uint32(before), binary.BigEndian.Uint32(after)
	}
	return true, nil
}

func (r *rowDiffer) chainPage(s *side, number uint32) ([]byte, error) {
	if err := s.valid(number, 0); err != nil {
		return nil, err
	}
	b, err := s.src.Page(number)
	if err != nil {
		return nil, fmt.Errorf("overflow page %d: %w", number, err)
	}
	if len(b) < s.usable {
		return nil, fmt.Errorf("%w: overflow page %d is short", errInconsistent, number)
	}
	return b, nil
}

// oldChain notes the overflow chain of an old row that is gone or changed. A
// chain of which nothing was written may live on in a row elsewhere, in another
// table even: that is known only after all trees.
func (r *rowDiffer) oldChain(a *cursor) error {
	c := &a.cell
	if c.Overflow == 0 || r.updates.rebuild {
		return nil
	}
	ref := chainRef{head: c.Overflow, size: c.PayloadSize - int64(len(c.Local))}
	if !r.dirt.chains.has(c.Overflow) {
		r.updates.leftChain(ref)
		return nil
	}
	return r.clearChain(ref)
}

func (r *rowDiffer) clearChain(ref chainRef) error {
	return r.old.chain(ref, func(page, _ uint32) error {
		r.updates.left(page)
		return nil
	})
}

// clearChains clears the chains that turned out to live nowhere any more. Freed
// pages are not written, so nothing else tells.
func (r *rowDiffer) clearChains() error {
	chains := r.updates.chains
	r.updates.chains = nil
	for _, ref := range chains {
		if r.updates.live.has(ref.head) {
			continue
		}
		if err := r.clearChain(ref); err != nil {
			return err
		}
	}
	r.updates.chains = chains[:0]
	return nil
}

// newChain notes the overflow chain of a row that is new, changed or moved. Of a
// chain without a written page only the head has another parent.
func (r *rowDiffer) newChain(b *cursor) error {
	c := &b.cell
	if c.Overflow == 0 || r.updates.rebuild {
		return nil
	}
	leaf := b.page.Number()
	kind, _ := r.pages.at(c.Overflow)
	if kind == chainHead && !r.full && !r.dirt.chains.has(c.Overflow) && c.Overflow <= r.new.count {
		r.updates.joined(r.pages, c.Overflow, chainHead, leaf)
		return nil
	}
	ref := chainRef{head: c.Overflow, size: c.PayloadSize - int64(len(c.Local))}
	return r.new.chain(ref, func(page, prev uint32) error {
		if prev == 0 {
			r.updates.joined(r.pages, page, chainHead, leaf)
		} else {
			r.updates.joined(r.pages, page, chainNext, prev)
		}
		return nil
	})
}
