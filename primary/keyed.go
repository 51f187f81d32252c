package primary

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// Rows of WITHOUT ROWID tables are ordered by collations that the decoder does
// not know, so their pages are compared as multisets of rows. Rows are held as
// 128-bit hashes, and only those that have no equal yet on the other side: both
// sides come in the same order, so that there are about as many of them as there
// are changes, even when VACUUM has rewritten every page.

// A place is where the rows of one hash are that have no equal on the other side.
type place struct {
	count int32  // how many more the old side has; negative: the new side
	page  uint32 // index in the list of pages of that side
	cell  uint16
}

// keyedRows is the memory of one comparison.
type keyedRows struct {
	pending map[xxh3.Uint128]place
	removed []place
	added   []place
	keys    map[xxh3.Uint128]int // hash of a key -> index in removed
	keyBuf  []byte

	// Bounds of a comparison, in rows without an equal.
	maxPending int    // past it the rows are split by their hashes
	parts      uint64 // into how many, as the pass that found so estimates
	maxPairs   int    // past it, updates are reported as delete and insert
}

const (
	maxPending = 1 << 19 // takes about 32 MiB
	maxPairs   = 1 << 16
	sampled    = 64      // one of so many hashes tells how many rows are pending past maxPending
	keepPlaces = 1 << 12 // rows whose memory is kept for the next comparison
)

func (k *keyedRows) release() {
	if cap(k.removed)+cap(k.added) > keepPlaces {
		*k = keyedRows{maxPending: k.maxPending, maxPairs: k.maxPairs}
	}
}

// match compares the pages of a WITHOUT ROWID table.
func (r *rowDiffer) match(oldPages, newPages []uint32) error {
	return r.matchPart(oldPages, newPages, part{0, 1})
}

// A part is the rows whose hash leaves index when divided by of.
type part struct{ index, of uint64 }

func (p part) has(h xxh3.Uint128) bool { return h.Hi%p.of == p.index }

// errTooMany: more rows are pending than a pass may hold.
var errTooMany = errors.New("too many rows pending")

// matchPart compares the rows of a part. Only the pass over all rows takes note of
// overflow chains. Each part takes a pass over all pages, so there are as many as are
// needed and not more.
func (r *rowDiffer) matchPart(oldPages, newPages []uint32, p part) error {
	k := &r.keyed
	if k.pending == nil {
		k.pending, k.keys = make(map[xxh3.Uint128]place), make(map[xxh3.Uint128]int)
	}
	clear(k.pending)
	err := r.scan(oldPages, newPages, p)
	if errors.Is(err, errTooMany) && p.of <= math.MaxUint64/k.parts {
		k.pending = make(map[xxh3.Uint128]place)
		for i, n := uint64(0), k.parts; i < n; i++ {
			if err := r.matchPart(oldPages, newPages, part{p.index + i*p.of, n * p.of}); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	return r.reportKeyed(oldPages, newPages)
}

// scan steps through both sides at once and leaves in pending what has no equal.
func (r *rowDiffer) scan(oldPages, newPages []uint32, p part) error {
	a, b := &r.a, &r.b
	if err := a.start(&r.old, oldPages, true); err != nil {
		return err
	}
	if err := b.start(&r.new, newPages, true); err != nil {
		return err
	}
	if len(oldPages) == 1 && len(newPages) == 1 {
		if err := r.skipTail(a, b); err != nil {
			return err
		}
	}
	k, full, in := &r.keyed, false, p
	for a.ok || b.ok {
		if !a.ok || !b.ok || !r.sameCell(a, b) {
			if p.of == 1 {
				if err := r.noteChains(a, b); err != nil {
					return err
				}
			}
			if len(k.pending) <= 2*k.maxPending {
				if err := errors.Join(r.pend(a, &r.oldBuf, 1, in), r.pend(b, &r.newBuf, -1, in)); err != nil {
					return err
				}
			}
			if !full && len(k.pending) > k.maxPending {
				full, in = true, part{p.index, p.of * sampled} // from here on a sample
			}
		}
		for _, c := range [...]*cursor{a, b} {
			if !c.ok {
				continue
			}
			if err := c.next(); err != nil {
				return err
			}
		}
	}
	if full {
		k.estimate(in)
		return errTooMany
	}
	return nil
}

// estimate says into how many parts the rows must be split, from those that are pending of
// a sample. A part that still has too many is split again.
func (k *keyedRows) estimate(sample part) {
	n := 0
	for h := range k.pending {
		if sample.has(h) {
			n++
		}
	}
	most := max(k.maxPending/sampled, 1)
	k.parts = uint64(max(n+n/8, 1)/most + 2)
}

// skipTail leaves out the rows at the end of two pages that are equal at first
// sight: after a row was inserted, all behind it stand one further on.
func (r *rowDiffer) skipTail(a, b *cursor) error {
	var x, y cursor
	x, y = *a, *b
	for a.end > a.index && b.end > b.index {
		var err error
		if x.cell, err = a.page.Cell(a.end - 1); err != nil {
			return err
		}
		if y.cell, err = b.page.Cell(b.end - 1); err != nil {
			return err
		}
		if !r.sameCell(&x, &y) {
			return nil
		}
		a.end--
		b.end--
	}
	return nil
}

func (r *rowDiffer) noteChains(a, b *cursor) error {
	if a.ok {
		if err := r.oldChain(a); err != nil {
			return err
		}
	}
	if b.ok {
		return r.newChain(b)
	}
	return nil
}

// pend pairs the row that c stands at with an equal one of the other side, or
// keeps it until one comes.
func (r *rowDiffer) pend(c *cursor, buf *[]byte, sign int32, in part) error {
	if !c.ok {
		return nil
	}
	row, err := payload(buf, c)
	if err != nil {
		return err
	}
	h := xxh3.Hash128(row)
	if !in.has(h) {
		return nil
	}
	p := r.keyed.pending[h]
	if p.count == 0 || p.count > 0 == (sign > 0) {
		p.page, p.cell = uint32(c.at-1), uint16(c.index-1)
	}
	if p.count += sign; p.count == 0 {
		delete(r.keyed.pending, h)
	} else {
		r.keyed.pending[h] = p
	}
	return nil
}

// reportKeyed reports what is pending, in the order of the pages. A row that went
// and one that came with the same key are one update.
func (r *rowDiffer) reportKeyed(oldPages, newPages []uint32) error {
	k := &r.keyed
	k.removed, k.added = k.removed[:0], k.added[:0]
	for _, p := range k.pending {
		if p.count > 0 {
			k.removed = append(k.removed, p)
		} else {
			k.added = append(k.added, p)
		}
	}
	byPlace := func(x, y place) int { return cmp.Or(cmp.Compare(x.page, y.page), cmp.Compare(x.cell, y.cell)) }
	slices.SortFunc(k.removed, byPlace)
	slices.SortFunc(k.added, byPlace)
	if err := r.indexKeys(oldPages); err != nil {
		return err
	}
	for i := range k.added {
		if err := r.reportAdded(oldPages, newPages, &k.added[i]); err != nil {
			return err
		}
	}
	for i := range k.removed {
		p := &k.removed[i]
		for ; p.count > 0; p.count-- {
			if err := r.a.seek(oldPages, p); err != nil {
				return err
			}
			if err := r.report(cdc.OpDelete, r.from, &r.a, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// indexKeys fills keys with the keys of removed, if added rows can be paired.
func (r *rowDiffer) indexKeys(oldPages []uint32) error {
	k := &r.keyed
	clear(k.keys)
	if len(k.added) == 0 || len(k.removed) > k.maxPairs || len(k.added) > k.maxPairs {
		return nil
	}
	for i := range k.removed {
		key, ok, err := r.keyAt(&r.a, &r.oldBuf, oldPages, &k.removed[i], r.from.Key)
		if err != nil {
			return err
		}
		if ok {
			k.keys[key] = i
		}
	}
	return nil
}

func (r *rowDiffer) reportAdded(oldPages, newPages []uint32, p *place) error {
	k := &r.keyed
	if len(k.keys) > 0 {
		key, ok, err := r.keyAt(&r.b, &r.newBuf, newPages, p, r.to.Key)
		if err != nil {
			return err
		}
		if i, found := k.keys[key]; ok && found {
			delete(k.keys, key)
			if err := r.a.seek(oldPages, &k.removed[i]); err != nil {
				return err
			}
			k.removed[i].count--
			p.count++
			if err := r.report(cdc.OpUpdate, r.to, &r.a, &r.b); err != nil {
				return err
			}
		}
	}
	for ; p.count < 0; p.count++ {
		if err := r.b.seek(newPages, p); err != nil {
			return err
		}
		if err := r.report(cdc.OpInsert, r.to, nil, &r.b); err != nil {
			return err
		}
	}
	return nil
}

// seek sets c to the row at p, one of pages.
func (c *cursor) seek(pages []uint32, p *place) error {
	number := pages[p.page]
	if c.page.Number() != number {
		var err error
		if c.page, err = c.side.page(number); err != nil {
			return err
		}
	}
	var err error
	c.cell, err = c.page.Cell(int(p.cell))
	return err
}

// keyAt returns a hash of the first n fields of the row at p; !ok if it has fewer.
func (r *rowDiffer) keyAt(c *cursor, buf *[]byte, pages []uint32, p *place, n int) (key xxh3.Uint128, ok bool, err error) {
	if err := c.seek(pages, p); err != nil {
		return key, false, err
	}
	row, err := payload(buf, c)
	if err != nil {
		return key, false, err
	}
	if r.keyed.keyBuf, err = appendKey(r.keyed.keyBuf[:0], row, n); err != nil {
		return key, false, onPage(c.page, err)
	}
	if len(r.keyed.keyBuf) == 0 {
		return key, false, nil
	}
	return xxh3.Hash128(r.keyed.keyBuf), true, nil
}

// appendKey appends the types and values of the first n fields of a record to
// dst, or nothing if it has fewer.
func appendKey(dst, record []byte, n int) ([]byte, error) {
	size, start := sqlitefile.Varint(record)
	if start == 0 || size < uint64(start) || size > uint64(len(record)) {
		return dst, fmt.Errorf("%w: record with a header of %d bytes in %d", errInconsistent, size, len(record))
	}
	end, body := start, 0
	for range n {
		if end == int(size) {
			return dst, nil
		}
		t, m := sqlitefile.Varint(record[end:size])
		if m == 0 {
			return dst, fmt.Errorf("%w: record header ends inside a field", errInconsistent)
		}
		width, err := sqlitefile.SerialType(t).Size()
		if err != nil {
			return dst, err
		}
		end += m
		body += width
	}
	if body > len(record)-int(size) {
		return dst, fmt.Errorf("%w: record with a key of %d bytes in %d", errInconsistent, body, len(record))
	}
	dst = append(dst, record[start:end]...)
	return append(dst, record[size:int(size)+body]...), nil
}
