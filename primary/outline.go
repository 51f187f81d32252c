package primary

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// Bounds of what is told of pages.
const (
	pagesTold = 24  // of one state
	cellsTold = 100 // of one page
)

// An outliner tells the structure of pages of one state, and nothing of their rows: no
// byte of a page is copied. What it tells are numbers that were read as such and can be
// what they are said to be, so that it holds on damaged pages, too: a row that is taken
// for a pointer gives a page number of the database or the words that it is none.
//
// A tag stands for bytes that are not told. Equal tags mean equal bytes, within one
// report: the key is thrown away with it, so that a value cannot be guessed.
type outliner struct {
	side
	key []byte
}

// A pageOutline is the structure of one page.
type pageOutline struct {
	Page   uint32   `json:"page"`
	Frame  uint32   `json:"frame,omitempty"` // of the SQLite WAL; 0: it is in the database file
	Type   string   `json:"type"`
	Header string   `json:"header,omitempty"`
	Next   string   `json:"as_overflow_page_followed_by,omitempty"`
	Cells  []string `json:"cells,omitempty"`
	More   int      `json:"cells_left_out,omitempty"`
	Tag    string   `json:"tag,omitempty"` // of the whole page
}

func (o *outliner) tag(b []byte) string {
	h := hmac.New(sha256.New, o.key)
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// pageNumber is a number that was read from a page as that of another.
func (o *outliner) pageNumber(n uint32) string {
	if n > o.count {
		return "beyond the database"
	}
	return fmt.Sprint(n)
}

// bytes is a size or place that was read from a page, which cannot be above most.
func (o *outliner) bytes(n, most int64) string {
	if n > most {
		return "more than there can be"
	}
	return fmt.Sprint(n)
}

func (o *outliner) outline(n uint32) pageOutline {
	out := pageOutline{Page: n, Frame: frameOf(o.src, n)}
	if n == 0 || n > o.count {
		out.Type = "beyond the database"
		return out
	}
	b, err := o.src.Page(n)
	if err != nil || len(b) < o.usable {
		out.Type = "unreadable"
		return out
	}
	b = b[:o.usable]
	out.Tag = o.tag(b)
	p, err := sqlitefile.ParsePage(b, n, o.usable)
	if err != nil {
		out.Type, out.Next = "not of a b-tree", o.pageNumber(binary.BigEndian.Uint32(b))
		return out
	}
	o.tree(&out, p, b)
	return out
}

// tree tells of a b-tree page, whose header and cell pointers are inside b.
func (o *outliner) tree(out *pageOutline, p sqlitefile.Page, b []byte) {
	head := b
	if p.Number() == 1 {
		head = b[sqlitefile.HeaderSize:]
	}
	field := func(at int) string { return o.bytes(int64(binary.BigEndian.Uint16(head[at:])), int64(o.usable)) }
	out.Type = p.Type().String()
	out.Header = fmt.Sprintf("%d cells from byte %s, first freeblock %s, %d fragmented bytes", p.Cells(), field(5), field(1), head[7])
	pointers := head[8:]
	if p.Type().Interior() {
		pointers = head[12:]
		out.Header += ", right-most child " + o.pageNumber(p.Right())
	}
	last := sqlitefile.Cell{}
	for i := range min(p.Cells(), cellsTold) {
		text := "at " + o.bytes(int64(binary.BigEndian.Uint16(pointers[2*i:])), int64(o.usable)) + ": "
		c, err := p.Cell(i)
		if err != nil {
			out.Cells = append(out.Cells, text+"no cell")
			continue
		}
		out.Cells = append(out.Cells, text+o.cell(p, c, i > 0 && c.Rowid <= last.Rowid))
		last = c
	}
	out.More = p.Cells() - len(out.Cells)
}

func (o *outliner) cell(p sqlitefile.Page, c sqlitefile.Cell, disorder bool) string {
	text := ""
	if p.Type().Interior() {
		text += "child " + o.pageNumber(c.Child) + ", "
	}
	if p.Type() != sqlitefile.InteriorTable {
		text += fmt.Sprintf("payload of %s bytes, %d here, ", o.bytes(c.PayloadSize, int64(o.count)*int64(o.usable)), len(c.Local))
	}
	if c.Overflow != 0 {
		text += "overflow page " + o.pageNumber(c.Overflow) + ", "
	}
	if disorder && p.Type().Table() {
		text += "rowid not above the one before, "
	}
	return text + "tag " + o.tag(c.Raw)
}

// frameOf is the frame of the SQLite WAL that holds a page in a state, 0 if none does.
func frameOf(state sqlitefile.Pages, page uint32) uint32 {
	switch s := state.(type) {
	case *view:
		return s.frames.get(page)
	case *overlay:
		return cmp.Or(s.frames.get(page), s.base.frames.get(page))
	}
	return 0
}
