package primary

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// What a term knew when it ended in order is kept for the next one, which would have
// to read the whole database to know it again: the page map, and the row-set hashes.
// It counts only if that term goes on from exactly the same boundary, by the proof
// that it missed nothing, and if the database file was not written to meanwhile. In
// any doubt the database is read. The file, integers little endian:
//
//	8   "RPLMAP", 0, version
//	4   size of the header
//	    header, JSON
//	    each block of the map that has an entry, by number:
//	        4     number
//	        5120  a byte of kind for each page, then four of its parent
//	8   xxh3 of everything before
const (
	savedFile    = "pages.map"
	savedMagic   = "RPLMAP\x00\x02" // another version at each change of the format, of what the map says, or of the hash of a row
	savedPatient = 3 * time.Second  // a term that ends does not write for longer
)

// A savedState is the header of the file.
type savedState struct {
	At       cdc.Position        `json:"at"`   // the boundary whose state this is
	File     fileStamp           `json:"file"` // of the database
	Pages    uint32              `json:"pages"`
	PageSize int                 `json:"page_size"`
	Usable   int                 `json:"usable"` // bytes of a page
	Encoding sqlitefile.Encoding `json:"encoding"`
	Blocks   int                 `json:"blocks"` // in the file
	Sums     []savedSum          `json:"sums"`
}

// A savedSum is the row-set hash of a table.
type savedSum struct {
	Table []byte     `json:"table"` // a name need not be valid UTF-8
	Sum   cdc.RowSum `json:"sum"`
}

// errNotSaved: what a term before has left is not of the state at hand, or damaged.
var errNotSaved = errors.New("of no use")

// matches reports, as an error, that what was saved is not of the state that want
// describes.
func (s *savedState) matches(want *savedState) error {
	switch {
	case s.At != want.At:
		return fmt.Errorf("%w: it is of LSN %s, and the change log ends at %s", errNotSaved, s.At, want.At)
	case s.File != want.File:
		return fmt.Errorf("%w: the database file was written to since", errNotSaved)
	case s.Pages != want.Pages || s.PageSize != want.PageSize || s.Usable != want.Usable || s.Encoding != want.Encoding:
		return fmt.Errorf("%w: it is of a database of other pages", errNotSaved)
	}
	return nil
}

// writeSaved replaces the file name by one with state and m. goOn is asked before
// each block.
func writeSaved(to durable.FS, name string, state savedState, m *pageMap, goOn func() error) error {
	state.Blocks = m.filled()
	head, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return durable.Replace(to, name, func(w io.Writer) error {
		sum := xxh3.New()
		w = io.MultiWriter(w, sum)
		start := binary.LittleEndian.AppendUint32([]byte(savedMagic), uint32(len(head)))
		if _, err := w.Write(append(start, head...)); err != nil {
			return err
		}
		err := m.each(func(i int, b *mapBlock) error {
			if err := goOn(); err != nil {
				return err
			}
			_, err := w.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(i)), b[:]...))
			return err
		})
		if err != nil {
			return err
		}
		_, err = w.Write(binary.LittleEndian.AppendUint64(nil, sum.Sum64()))
		return err
	})
}

// readSaved fills m from the file name, if that is of the state that want describes.
// After an error m is empty.
func readSaved(from durable.FS, name string, want savedState, m *pageMap) (state savedState, err error) {
	f, err := from.Open(name, os.O_RDONLY)
	if err != nil {
		return state, err
	}
	defer f.Close() // nothing was written
	size, err := f.Size()
	if err != nil {
		return state, err
	}
	m.reset()
	m.resize(want.Pages)
	r := &savedReader{name: name, sum: xxh3.New()}
	r.from = bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<20)
	if err = r.read(size, want, &state, m); err != nil {
		m.reset()
	}
	return state, err
}

// A savedReader reads the file from its beginning.
type savedReader struct {
	name string
	from io.Reader
	sum  *xxh3.Hasher // of what was read
}

func (r *savedReader) read(size int64, want savedState, state *savedState, m *pageMap) error {
	start := make([]byte, len(savedMagic)+4)
	if err := r.next(start); err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(start[len(savedMagic):]))
	if string(start[:len(savedMagic)]) != savedMagic || n > size {
		return fmt.Errorf("%s: %w: it is no page map of this version", r.name, errNotSaved)
	}
	head := make([]byte, n)
	if err := r.next(head); err != nil {
		return err
	}
	if err := json.Unmarshal(head, state); err != nil {
		return fmt.Errorf("%s: %w: damaged: %w", r.name, errNotSaved, err)
	}
	if err := state.matches(&want); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	if err := r.blocks(state.Blocks, m); err != nil {
		return err
	}
	sum := r.sum.Sum64()
	end := make([]byte, 8)
	if err := r.next(end); err != nil {
		return err
	}
	whole := int64(len(start)) + n + int64(state.Blocks)*int64(4+len(mapBlock{})) + 8
	if binary.LittleEndian.Uint64(end) != sum || whole != size {
		return fmt.Errorf("%s: %w: damaged", r.name, errNotSaved)
	}
	return nil
}

func (r *savedReader) blocks(count int, m *pageMap) error {
	b := make([]byte, 4+len(mapBlock{}))
	for before := -1; count > 0; count-- {
		if err := r.next(b); err != nil {
			return err
		}
		i := int(binary.LittleEndian.Uint32(b))
		if i <= before || i >= len(m.blocks) {
			return fmt.Errorf("%s: %w: damaged: block %d of %d after block %d", r.name, errNotSaved, i, len(m.blocks), before)
		}
		m.put(i, (*mapBlock)(b[4:]))
		before = i
	}
	return nil
}

func (r *savedReader) next(b []byte) error {
	if _, err := io.ReadFull(r.from, b); err != nil {
		return fmt.Errorf("%s: %w: %w", r.name, errNotSaved, err)
	}
	_, _ = r.sum.Write(b) // never fails
	return nil
}

// save keeps what the term knows, as it ends at a state that is exactly that of its
// last boundary. Without it the next term reads the database.
func (c *capture) save(stamp fileStamp) error {
	last := c.encoder.Last().Source
	if last.Frame == 0 || last != c.sourcePosition(c.follower.position()) || !c.decoder.loaded {
		return nil // nothing could go on from there
	}
	state := c.state(c.encoder.Position(), c.decoder.head, stamp)
	if c.sums.durable && c.sums.at == state.At {
		for _, k := range c.sums.list() {
			state.Sums = append(state.Sums, savedSum{[]byte(k.name), k.sum})
		}
	}
	if err := roomFor(c.dir, leastRoom+offsetOf(len(c.decoder.pages.blocks))); err != nil {
		return err
	}
	began := c.clock()
	err := writeSaved(durable.OS{}, c.saved(), state, &c.decoder.pages, func() error {
		if c.clock().Sub(began) > savedPatient {
			return fmt.Errorf("it takes longer than %v", savedPatient)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, c.unsave())
	}
	return nil
}

// state describes the state that the decoder has come to, or is to begin with.
func (c *capture) state(at cdc.Position, head sqlitefile.Header, stamp fileStamp) savedState {
	return savedState{
		At: at, File: stamp, Pages: head.PageCount,
		PageSize: head.PageSize, Usable: head.Usable, Encoding: head.Encoding,
	}
}

// recall takes up what the term before has saved. The view is proved to be the state
// at the position at.
func (c *capture) recall(at cdc.Position, state *scan) (savedState, error) {
	head, err := headerOf(state, c.follower.view.pages)
	if err != nil {
		return savedState{}, err
	}
	stamp, err := stampOf(c.src.db)
	if err != nil {
		return savedState{}, err
	}
	saved, err := readSaved(durable.OS{}, c.saved(), c.state(at, head, stamp), &c.decoder.pages)
	if err != nil {
		return saved, err
	}
	return saved, c.decoder.recall(state, head)
}

// know gives the decoder the state of the view, and the sums its tables. proved says
// that the view is the state at the position at.
func (c *capture) know(at cdc.Position, proved bool) error {
	state := newScan(c.follower.view)
	var saved savedState
	err := fs.ErrNotExist
	if proved {
		saved, err = c.recall(at, state)
	}
	if c.start.recalled = err == nil; !c.start.recalled {
		if !errors.Is(err, fs.ErrNotExist) {
			c.logger.Warn("the saved map of the database's pages is not used; the database is read", "err", err)
		}
		saved = savedState{}
		if err := c.decoder.load(state, c.follower.view.pages); err != nil {
			return fmt.Errorf("%s: %w", c.src.path, err)
		}
	}
	c.start.read = state.reads
	c.sums.load(c.decoder.schema, c.decoder.head.Encoding)
	c.sums.recall(saved.Sums)
	return nil
}

func (c *capture) saved() string { return filepath.Join(c.dir, savedFile) }

// unsave removes what a term has saved, or left behind as it tried.
func (c *capture) unsave() error {
	var errs []error
	for _, name := range []string{c.saved(), c.saved() + ".tmp"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
