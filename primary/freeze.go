package primary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A Frozen is the source exactly as of one boundary record, kept so by a pin of
// its own until Close. Pages may be read by several goroutines, the connection
// by one at a time.
type Frozen struct {
	At       cdc.Position
	Boundary cdc.Boundary
	Header   sqlitefile.Header

	sums  []knownSum      // of its tables, as far as they are known; sorted by name
	alive context.Context // ends before the source is closed
	view  *view
	pin   *sqlite.Conn
	once  sync.Once
	done  func()
}

// errFreeze is wrapped when a freeze failed and left the capture as it was.
var errFreeze = errors.New("cannot freeze the source")

// freezeTries is how often a freeze tries to find a moment without writes
// before it takes the write lock for one.
const freezeTries = 8

// freeze opens a pin at a state that is, exactly, that of a record. Writers are
// not blocked; where they never pause, for as long as the last transactions
// take to decode.
func (c *capture) freeze() (_ *Frozen, err error) {
	pin, err := sqlite.Open(c.src.path, sqlite.Options{BusyTimeout: lockPatience})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFreeze, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, pin.Close())
		}
	}()
	exact := false
	for try := 0; try < freezeTries && !exact; try++ {
		if exact, err = c.pinExactly(pin); err != nil {
			return nil, err
		}
	}
	if !exact {
		if err := c.pinLocked(pin); err != nil {
			return nil, err
		}
	}
	if err := c.src.unmoved(); err != nil { // or pin is one of another file
		return nil, err
	}
	if err := c.durable(); err != nil {
		return nil, err
	}
	if err := c.follower.settle(); err != nil {
		return nil, err
	}
	c.frozen.Add(1)
	return &Frozen{
		At: c.encoder.Position(), Boundary: c.encoder.Last(), Header: c.decoder.header(),
		sums: c.sums.list(), alive: c.alive, view: c.follower.view.frozen(), pin: pin, done: c.frozen.Done,
	}, nil
}

// pinExactly opens pin and reports whether nothing was committed between the
// last decoded transaction and the pin.
func (c *capture) pinExactly(pin *sqlite.Conn) (bool, error) {
	if _, err := c.follower.poll(); err != nil {
		return false, err
	}
	if err := pin.OpenRead(); err != nil {
		return false, fmt.Errorf("%w: open a pin: %w", errFreeze, err)
	}
	limit, err := c.follower.align()
	if err != nil {
		return false, err
	}
	// A limit of 0 says that a writer has started over and committed nothing.
	if limit == 0 || limit == c.follower.position().Frame {
		return true, nil
	}
	return false, pin.Rollback()
}

func (c *capture) pinLocked(pin *sqlite.Conn) (err error) {
	ok, err := c.follower.lock(lockPatience)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %w", errFreeze, errLocked)
	}
	defer func() { err = errors.Join(err, c.src.helper.Rollback()) }()
	if _, err := c.follower.poll(); err != nil {
		return err
	}
	if err := pin.OpenRead(); err != nil {
		return fmt.Errorf("%w: open a pin: %w", errFreeze, err)
	}
	return nil
}

// tableSums are the known row-set hashes as a snapshot states them.
func (f *Frozen) tableSums() []snapshot.TableSum {
	list := make([]snapshot.TableSum, 0, len(f.sums))
	for _, k := range f.sums {
		list = append(list, snapshot.TableSum{Name: k.name, Sum: k.sum})
	}
	return list
}

// PageSize is in bytes.
func (f *Frozen) PageSize() int { return f.view.pageSize }

// Pages is the size of the database in pages.
func (f *Frozen) Pages() uint32 { return f.view.pages }

// ReadPages fills dst with whole pages from page first on and returns their
// number.
func (f *Frozen) ReadPages(ctx context.Context, first uint32, dst []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return f.view.readPages(first, dst)
}

// Conn is a connection that sees the frozen state.
func (f *Frozen) Conn() *sqlite.Conn { return f.pin }

// Close releases the pin. It may be called more than once.
func (f *Frozen) Close() (err error) {
	f.once.Do(func() {
		err = f.pin.Close()
		f.done()
	})
	return err
}

// frozen returns a copy of the view that later transactions do not change.
func (v *view) frozen() *view {
	return &view{
		db: v.db, log: v.log, pageSize: v.pageSize, pages: v.pages,
		frames: v.frames.clone(), kept: maps.Clone(v.kept), cache: newPageCache(v.pageSize, v.cache.bytes),
	}
}

// readPages reads runs of pages that lie in the database file at once.
func (v *view) readPages(first uint32, dst []byte) (int, error) {
	count := min(len(dst)/v.pageSize, int(v.pages-min(v.pages, first-1)))
	dst = dst[:count*v.pageSize]
	n, err := v.db.ReadAt(dst, int64(first-1)*int64(v.pageSize))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read page %d of %s: %w", first, v.db.Name(), err)
	}
	for i := range count {
		page, end := first+uint32(i), (i+1)*v.pageSize
		image := dst[end-v.pageSize : end]
		frame := v.frames.get(page)
		err := error(nil) // the file may end inside the run: what lies beyond is in frames
		switch {
		case frame != 0:
			err = readFull(v.log, image, sqlitefile.FrameOffset(frame, v.pageSize)+sqlitefile.FrameHeaderSize)
		case v.kept[page] != nil:
			copy(image, v.kept[page])
		case page == sqlitefile.LockBytePage(v.pageSize): // has no frame, also where the file ends before it
			clear(image)
		case end > n:
			err = fmt.Errorf("page %d of %s: %w", page, v.db.Name(), io.ErrUnexpectedEOF)
		}
		if err != nil {
			return 0, err
		}
	}
	return count, nil
}
