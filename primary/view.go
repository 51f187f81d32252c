package primary

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A view is one state of the source: for each page the last frame that has it,
// else the database file. It is right only under the pin that it was made
// under. Every reader of the current state goes through one.
type view struct {
	db, log  *os.File
	pageSize int
	pages    uint32            // of the database in this state
	frames   frameIndex        // of this generation
	kept     map[uint32][]byte // pages of the database file that may be overwritten; see resume
	cache    *pageCache
}

func newView(s *source, pageSize int, pages uint32) *view {
	return &view{db: s.db, log: s.log, pageSize: pageSize, pages: pages, cache: newPageCache(pageSize, s.cacheBytes)}
}

// settle makes the database file alone the state. The caller has seen, under a
// pin, that every frame of the view is in the file (mxFrame = nBackfill =
// decoded). From then on a writer may start the SQLite WAL over and spill
// uncommitted pages onto frames that the view would still believe in.
func (v *view) settle() {
	v.frames.clear()
	v.kept = nil
	v.cache.clear()
}

// apply adds a committed transaction to the view.
func (v *view) apply(tx sqlitefile.WALTransaction) {
	for i, page := range tx.Pages {
		if page <= tx.DBSize { // beyond: spilled, then truncated or rolled back
			v.frames.put(page, tx.First+uint32(i))
		}
	}
	v.shrink(tx.DBSize)
}

// shrink forgets pages above the database's new size: a frame of such a page
// must not come back when the database grows again.
func (v *view) shrink(pages uint32) {
	if pages < v.pages {
		v.frames.shrink(pages)
		v.cache.clear()
	}
	v.pages = pages
}

// Page returns the image of a page; it stays valid and is never written again.
func (v *view) Page(n uint32) ([]byte, error) {
	if frame := v.frames.get(n); frame != 0 {
		return v.frame(frame)
	}
	if b, ok := v.kept[n]; ok {
		return b, nil
	}
	return v.cached(cacheKey{page: n}, func(b []byte) error {
		return readFull(v.db, b, int64(n-1)*int64(v.pageSize))
	})
}

func (v *view) frame(frame uint32) ([]byte, error) {
	return v.cached(cacheKey{frame: frame}, func(b []byte) error {
		return readFull(v.log, b, sqlitefile.FrameOffset(frame, v.pageSize)+sqlitefile.FrameHeaderSize)
	})
}

func (v *view) cached(k cacheKey, read func([]byte) error) ([]byte, error) {
	if b := v.cache.get(k); b != nil {
		return b, nil
	}
	b := make([]byte, v.pageSize)
	if err := read(b); err != nil {
		return nil, err
	}
	v.cache.put(k, b)
	return b, nil
}

// readFull reads exactly len(b) bytes; the end of the file is an error that
// names the place.
func readFull(f *os.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d of %s: %w", len(b), off, f.Name(), err)
}

// An overlay is the state after one more transaction than its view.
type overlay struct {
	base   *view
	frames frameIndex
}

func (o *overlay) Page(n uint32) ([]byte, error) {
	if frame := o.frames.get(n); frame != 0 {
		return o.base.frame(frame)
	}
	return o.base.Page(n)
}

// A cacheKey names a frame of the current generation or, with frame 0, a page
// of the database file.
type cacheKey struct{ page, frame uint32 }

// A pageCache holds page images, bounded in bytes, in two generations: what was
// not used for a whole generation falls out. It is cleared whenever an image
// may have become another.
type pageCache struct {
	young, old map[cacheKey][]byte
	bytes      int // of images, at most; but there is always room for a few
	limit      int // images in one generation
}

func newPageCache(pageSize, bytes int) *pageCache {
	c := &pageCache{bytes: bytes, limit: max(bytes/2/pageSize, 16)}
	c.clear()
	return c
}

func (c *pageCache) clear() {
	if len(c.young)+len(c.old) > 0 || c.young == nil {
		c.young, c.old = map[cacheKey][]byte{}, nil
	}
}

func (c *pageCache) get(k cacheKey) []byte {
	if b, ok := c.young[k]; ok {
		return b
	}
	b, ok := c.old[k]
	if ok {
		c.put(k, b)
	}
	return b
}

func (c *pageCache) put(k cacheKey, b []byte) {
	if len(c.young) >= c.limit {
		c.old, c.young = c.young, make(map[cacheKey][]byte, c.limit)
	}
	c.young[k] = b
}
