package sqlitefile

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Pages is one state of a database.
type Pages interface {
	// Page returns the content of a page, at least the usable bytes of it. The
	// bytes never change as long as the caller holds them. A number that is 0
	// or beyond the database is an error that wraps ErrCorrupt, since only
	// damaged bytes lead there.
	Page(number uint32) ([]byte, error)
}

// A chain steps through the overflow pages of one cell (§1.6): each starts with
// the number of the next, or 0.
type chain struct {
	src    Pages
	usable int
	page   uint32
	left   int64 // bytes of the payload from page on

	// Brent's cycle detection: page must never come back to mark, which moves
	// on after 1, 2, 4, ... steps. Without it a chain of one page could feed a
	// claimed payload of 2 GiB.
	mark        uint32
	steps, step int
}

func newChain(src Pages, c Cell, usable int) (chain, error) {
	if c.Overflow == 0 {
		return chain{}, nil
	}
	if usable < minUsable || usable > MaxPageSize {
		return chain{}, corruptf("%d usable bytes in a page", usable)
	}
	return chain{src: src, usable: usable, page: c.Overflow, left: c.PayloadSize - int64(len(c.Local)), step: 1}, nil
}

// last reports whether the payload ends in the current page.
func (ch *chain) last() bool { return ch.left <= int64(ch.usable-4) }

// read returns the content of the current page.
func (ch *chain) read() ([]byte, error) {
	b, err := ch.src.Page(ch.page)
	if err != nil {
		return nil, fmt.Errorf("sqlitefile: overflow page %d: %w", ch.page, err)
	}
	if len(b) < ch.usable {
		return nil, corruptf("overflow page %d: %d bytes, want %d", ch.page, len(b), ch.usable)
	}
	return b[:ch.usable], nil
}

// next steps to the page that b, the content of the current page, names.
func (ch *chain) next(b []byte) error {
	next := binary.BigEndian.Uint32(b)
	ch.left -= int64(ch.usable - 4)
	if next < 2 {
		return corruptf("overflow page %d: followed by page %d with %d bytes of the payload missing", ch.page, next, ch.left)
	}
	if ch.steps++; ch.steps == ch.step {
		ch.mark, ch.steps, ch.step = ch.page, 0, 2*ch.step
	}
	if next == ch.mark {
		return corruptf("overflow page %d: the chain comes back to page %d", ch.page, next)
	}
	ch.page = next
	return nil
}

// Overflow calls visit for every overflow page of c, in order, with the page
// before it, which is 0 for the first. The length of the chain is that of the
// payload; a chain that ends early or comes back to itself is [ErrCorrupt].
//
// The last page of a chain is visited but never read, since its content does not
// matter here: the caller must check that its number is inside the database
// before using it as an index. An error of visit ends the walk and is returned
// as it is.
func Overflow(src Pages, c Cell, usable int, visit func(page, prev uint32) error) error {
	ch, err := newChain(src, c, usable)
	if err != nil {
		return err
	}
	for prev := uint32(0); ch.left > 0; {
		if err := visit(ch.page, prev); err != nil || ch.last() {
			return err
		}
		b, err := ch.read()
		if err != nil {
			return err
		}
		prev = ch.page
		if err := ch.next(b); err != nil {
			return err
		}
	}
	return nil
}

// Payload returns the whole payload of c. Without overflow pages that is c.Local,
// which aliases the page; else it is put together in dst, from its start on,
// grown as needed. To reuse a buffer, keep the result only where c.Overflow != 0.
//
// A claimed size allocates nothing: memory grows with the pages that are there.
// On an error the result is nil.
func Payload(dst []byte, src Pages, c Cell, usable int) ([]byte, error) {
	if c.Overflow == 0 {
		return c.Local, nil
	}
	ch, err := newChain(src, c, usable)
	if err != nil {
		return nil, err
	}
	dst = append(dst[:0], c.Local...)
	for ch.left > 0 {
		b, err := ch.read()
		if err != nil {
			return nil, err
		}
		n := min(ch.left, int64(usable-4))
		if need := len(dst) + int(n); need > cap(dst) {
			// Double, but not past the end, for which the last step is exact.
			dst = slices.Grow(dst, min(2*need, int(c.PayloadSize))-len(dst))
		}
		dst = append(dst, b[4:4+n]...)
		if ch.last() {
			break
		}
		if err := ch.next(b); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// A PayloadReader reads the payload of a cell from its start. It holds one overflow page
// at a time, and reads it when it comes to it. Not safe for concurrent use.
type PayloadReader struct {
	ch   chain
	rest []byte // of the current page
	page []byte // the current overflow page; nil before the first
	err  error
}

// NewPayloadReader returns a reader of the payload of c.
func NewPayloadReader(src Pages, c Cell, usable int) *PayloadReader {
	r := &PayloadReader{rest: c.Local}
	r.ch, r.err = newChain(src, c, usable)
	return r
}

// Read implements io.Reader. A chain that ends early or comes back to itself is
// [ErrCorrupt].
func (r *PayloadReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			if r.advance(); r.err != nil {
				break
			}
		}
		k := copy(p[n:], r.rest)
		n, r.rest = n+k, r.rest[k:]
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, r.err
}

// advance steps to the next overflow page, or sets err.
func (r *PayloadReader) advance() {
	switch {
	case r.err != nil:
		return
	case r.ch.left <= 0, r.page != nil && r.ch.last():
		r.err = io.EOF
		return
	case r.page != nil:
		if r.err = r.ch.next(r.page); r.err != nil {
			return
		}
	}
	if r.page, r.err = r.ch.read(); r.err == nil {
		r.rest = r.page[4 : 4+min(r.ch.left, int64(r.ch.usable-4))]
	}
}
