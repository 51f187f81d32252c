package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// attachPatience bounds how long an attach waits for the write lock.
const attachPatience = 10 * time.Second

// errUnproved means that a saved position cannot be shown to be one from which
// nothing was missed.
var errUnproved = errors.New("cannot prove that nothing was missed since the saved position")

// attach pins the present: afterwards the view is the state of everything
// committed at some moment during the call, and poll gives what came later.
// The write lock is held only to read the marks, never while anything is built.
// After an error no pin is held.
func (f *follower) attach(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.release())
		}
	}()
	m, err := f.pinPresent(ctx)
	if err != nil {
		return err
	}
	return f.build(m)
}

// build makes the view of what was pinned.
func (f *follower) build(m sqlite.Checkpoint) error {
	head, err := f.readHeader()
	if err != nil {
		return err
	}
	f.view = newView(f.src, head.PageSize, head.PageCount)
	f.resumeEnd = 0
	if f.started = m.Frames > 0; !f.started {
		return nil
	}
	if err := f.index(m.Frames); err != nil {
		return err
	}
	if f.settled {
		f.view.settle()
	}
	return nil
}

// pinPresent opens a pin at a moment when nobody writes and returns the marks.
func (f *follower) pinPresent(ctx context.Context) (m sqlite.Checkpoint, err error) {
	if err := f.release(); err != nil {
		return m, err
	}
	for deadline := f.clock().Add(attachPatience); ; nap(200 * time.Microsecond) {
		if err = f.src.helper.BeginImmediate(); err == nil {
			break
		}
		if !sqlite.IsBusy(err) || f.clock().After(deadline) || ctx.Err() != nil {
			return m, explainOpen(f.src.path, err)
		}
	}
	defer func() { err = errors.Join(err, f.src.helper.Rollback()) }()
	if err := f.src.pins[0].OpenRead(); err != nil {
		return m, fmt.Errorf("open a pin: %w", err)
	}
	f.pinned = 0
	if m, err = f.src.marks(); err != nil {
		return m, err
	}
	f.settled, f.pinFrame = m.Frames == m.Backfilled, m.Frames
	f.reader = sqlitefile.NewWALReader(f.src.log)
	if !f.settled || m.Frames == 0 {
		return m, nil
	}
	// Everything is in the database file, so that a writer may start over as soon
	// as it gets the lock: go now to where this generation ends.
	f.end, err = f.endOfGeneration(m.Frames)
	if err != nil {
		return m, err
	}
	return m, f.reader.Resume(f.end)
}

// readHeader reads the database header as the pin sees it, through SQLite where
// the file itself may lag behind the SQLite WAL.
func (f *follower) readHeader() (sqlitefile.Header, error) {
	b := make([]byte, 100)
	if err := readFull(f.src.db, b, 0); err != nil {
		return sqlitefile.Header{}, fmt.Errorf("%w: %w", errAbsent, err)
	}
	h, err := sqlitefile.ParseHeader(b)
	if err != nil {
		return h, fmt.Errorf("%s: %w", f.src.path, err)
	}
	pages, err := f.src.pins[f.pinned].QueryInt("PRAGMA page_count")
	if err != nil {
		return h, err
	}
	h.PageCount = uint32(pages)
	return h, nil
}

// index reads frames 1 to last into the view.
func (f *follower) index(last uint32) error {
	if f.settled {
		f.view.pages = f.end.DBSize
		return nil
	}
	if err := f.reader.Start(); err != nil {
		return err
	}
	if h := f.reader.Position(); h.PageSize != f.view.pageSize {
		return fmt.Errorf("%s: page size is %d in the file and %d in the SQLite WAL", f.src.path, f.view.pageSize, h.PageSize)
	}
	for f.reader.Position().Frame < last {
		tx, ok, err := f.reader.Next(last)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%s: frames up to %d of the SQLite WAL end no transaction", f.src.path, last)
		}
		f.view.apply(tx)
	}
	return nil
}

// endOfGeneration reads the position at the commit frame last from its header:
// the wal-index vouches for the frame, the frame for the checksum.
func (f *follower) endOfGeneration(last uint32) (sqlitefile.WALPosition, error) {
	return sqlitefile.NewWALReader(f.src.log).At(last)
}

// A resumption is what the change log remembers of the source.
type resumption struct {
	at   sqlitefile.WALPosition
	id   fileID
	boot cdc.ID
}

func resumptionOf(p cdc.SourcePosition) resumption {
	return resumption{
		at: sqlitefile.WALPosition{
			Salt: p.Salt, Frame: p.Frame, Checksum: sqlitefile.Checksum(p.Checksum), BigEndian: p.BigEndian,
			PageSize: int(p.PageSize), DBSize: p.DBSize,
		},
		id:   fileID{p.Device, p.Inode},
		boot: p.Boot,
	}
}

// keepLimit bounds the page images that a resumption keeps, in bytes.
const keepLimit = 64 << 20

// resume pins the present and then goes back to a saved position, if it can
// prove that nothing was missed since: the frames are still there, and the
// database file is still as the view at that position needs it. Otherwise the
// error wraps errUnproved, and the follower is attached to the present.
//
// Frames after the position may have been checkpointed, before we came or just
// now. Of the pages that matter (a frame after the position, none before) the
// file's images are kept, and each must differ from every later frame of its
// page: an equal one may have been written by a checkpoint. That SQLite says
// nothing was checkpointed proves nothing: recovery after a crash resets the
// mark.
func (f *follower) resume(ctx context.Context, r resumption) error {
	if err := f.attach(ctx); err != nil {
		return err
	}
	end := f.position()
	switch boot := bootID(); {
	case r.at.Frame == 0:
		return fmt.Errorf("%w: nothing was in the SQLite WAL then", errUnproved)
	case r.id != f.src.id:
		return fmt.Errorf("%w: the database is another file", errUnproved)
	case r.boot != boot || boot == cdc.ID{}:
		return fmt.Errorf("%w: the machine was started again", errUnproved)
	case r.at.PageSize != f.view.pageSize:
		return fmt.Errorf("%w: the page size was %d and is %d", errUnproved, r.at.PageSize, f.view.pageSize)
	case !f.started || end.Salt != r.at.Salt || end.Frame < r.at.Frame:
		return fmt.Errorf("%w: the SQLite WAL was started over", errUnproved)
	case end == r.at:
		return nil
	case f.settled:
		return fmt.Errorf("%w: later frames are all checkpointed", errUnproved)
	case end.PageSize > atomicPage:
		return fmt.Errorf("%w: pages of %d bytes may be torn", errUnproved, end.PageSize)
	}
	past, err := f.rewind(r.at, end.Frame)
	if err != nil {
		return errors.Join(err, f.attach(ctx))
	}
	if err := f.prove(past, r.at.Frame); err != nil {
		return errors.Join(err, f.attach(ctx))
	}
	f.resumeEnd = end.Frame
	return nil
}

// atomicPage is the largest page, in bytes, that a killed process cannot have
// written by half: the kernel copies within a page of its cache.
const atomicPage = 4096

// rewind rebuilds the view as of the position at. It returns the frames after
// it up to last, by page, of pages that have none before it.
func (f *follower) rewind(at sqlitefile.WALPosition, last uint32) (map[uint32][]uint32, error) {
	f.view = newView(f.src, at.PageSize, at.DBSize)
	r := sqlitefile.NewWALReader(f.src.log)
	if err := r.Start(); err != nil {
		return nil, err
	}
	past := map[uint32][]uint32{}
	for r.Position().Frame < last {
		tx, ok, err := r.Next(last)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnproved, err)
		}
		if !ok {
			break
		}
		if tx.Last <= at.Frame {
			f.view.apply(tx)
			continue
		}
		for i, page := range tx.Pages {
			if f.view.frames.get(page) == 0 && page <= at.DBSize {
				past[page] = append(past[page], tx.First+uint32(i))
			}
		}
	}
	f.view.pages = at.DBSize
	f.reader = sqlitefile.NewWALReader(f.src.log)
	if err := f.reader.Resume(at); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnproved, err)
	}
	f.settled = false
	return past, nil
}

// proofPatience is how long a proof waits for a checkpoint that is under way.
const proofPatience = time.Second

// prove keeps the database file's image of each page in past and shows that no
// later frame of the page was checkpointed into it. Checkpoints are kept out
// meanwhile: an image that one has written by half would differ from every frame.
func (f *follower) prove(past map[uint32][]uint32, frame uint32) (err error) {
	if len(past)*f.view.pageSize > keepLimit {
		return fmt.Errorf("%w: %d pages were written since", errUnproved, len(past))
	}
	release, ok, err := f.src.excludeCheckpoints(proofPatience, f.clock)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: another program is checkpointing", errUnproved)
	}
	defer func() { err = errors.Join(err, release()) }()
	f.view.kept = make(map[uint32][]byte, len(past))
	for page, frames := range past {
		image := make([]byte, f.view.pageSize)
		if err := readFull(f.src.db, image, int64(page-1)*int64(f.view.pageSize)); err != nil {
			return fmt.Errorf("%w: page %d: %w", errUnproved, page, err)
		}
		for _, n := range frames {
			later, err := f.view.frame(n)
			if err != nil {
				return err
			}
			if bytes.Equal(image, later) {
				return fmt.Errorf("%w: page %d may have been checkpointed from frame %d", errUnproved, page, n)
			}
		}
		f.view.kept[page] = image
	}
	m, err := f.src.marks()
	if err != nil {
		return err
	}
	if m.Backfilled > frame {
		return fmt.Errorf("%w: frame %d is checkpointed, %d was captured", errUnproved, m.Backfilled, frame)
	}
	info, err := f.src.db.Stat()
	if err != nil {
		return err
	}
	for page := uint32(info.Size()/int64(f.view.pageSize)) + 1; page <= f.view.pages; page++ {
		if f.view.frames.get(page) == 0 {
			return fmt.Errorf("%w: the database file ends before page %d", errUnproved, page)
		}
	}
	return nil
}
