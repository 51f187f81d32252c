package primary

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// errLost means that frames which were not decoded are gone, or may be. Only a
// break record and a new snapshot lead on.
var errLost = errors.New("changes of the source may have been missed")

// A transactionSink takes one committed transaction: the states before and
// after it, and the pages it wrote, in order, each once. Both states are valid
// only during the call.
type transactionSink func(before, after sqlitefile.Pages, tx sqlitefile.WALTransaction, written []uint32) error

// A follower keeps the pin and finds the committed transactions of one source.
// It is used by one goroutine.
//
// The pin protocol. A read transaction ("pin") at mark M forbids SQLite to
// overwrite frames and to checkpoint frames beyond M. So that the SQLite WAL
// does not grow for ever, the pin moves on: the other connection opens a pin
// first, everything up to its mark is decoded and made durable, then the old
// pin is released. A pin that opens when everything is checkpointed stands at
// lock 0: a writer may start the SQLite WAL over, but nothing can be
// checkpointed, so the next generation cannot be lost either.
type follower struct {
	src    *source
	reader *sqlitefile.WALReader
	view   *view
	sink   transactionSink
	// durable makes everything that sink was given survive a crash.
	durable func() error

	end        sqlitefile.WALPosition // of the generation that was complete when the pin was opened
	pinned     int                    // index of the pin that is held, -1 for none
	pinFrame   uint32                 // frame decoded when the pin was opened
	resumeEnd  uint32                 // up to here frames may be checkpointed before they are decoded: see resume
	started    bool                   // reader stands in a generation
	settled    bool                   // everything is in the database file and the pin stands at lock 0
	seen       glance                 // up to here everything is decoded
	written    []uint32
	overlay    overlay
	stats      followerStats
	stuck      error         // why the last checkpoint failed, which the next one may not
	heldSince  time.Time     // when a reader first kept this generation from ending; zero: none does
	stallLimit time.Duration // how long a turnover may hold the write lock
	clock      func() time.Time
}

// followerStats counts what the follower did.
type followerStats struct {
	Generations uint64 // times the SQLite WAL was started over
	Repins      uint64
	Turnovers   uint64 // times the SQLite WAL became free to start over
	Unfinished  uint64 // turnovers that gave up: another reader or checkpoint was in the way
	Yields      uint64 // times the pin made room for another program's checkpoint
	Stalls      StallHistogram
}

func newFollower(src *source, sink transactionSink, durable func() error, stallLimit time.Duration, clock func() time.Time) *follower {
	return &follower{src: src, sink: sink, durable: durable, pinned: -1, stallLimit: stallLimit, clock: clock}
}

// position is how far the follower has decoded.
func (f *follower) position() sqlitefile.WALPosition {
	if !f.started {
		return sqlitefile.WALPosition{PageSize: f.view.pageSize, DBSize: f.view.pages}
	}
	p := f.reader.Position()
	if p.DBSize == 0 {
		p.DBSize = f.view.pages
	}
	return p
}

// poll decodes every transaction committed until now and returns how many.
func (f *follower) poll() (int, error) {
	now := f.src.glance()
	if now == f.seen {
		return 0, nil
	}
	n, err := f.catchUp()
	if err == nil && now.whole() {
		f.seen = now
	}
	return n, err
}

// catchUp is poll, whatever was seen before.
func (f *follower) catchUp() (int, error) {
	limit, err := f.align()
	if err != nil {
		return 0, err
	}
	n := 0
	for f.started && f.reader.Position().Frame < limit {
		tx, ok, err := f.reader.Next(limit)
		if err != nil {
			if errors.Is(err, sqlitefile.ErrLost) {
				err = fmt.Errorf("%w: %w", errLost, err)
			}
			return n, err
		}
		if !ok {
			return n, fmt.Errorf("%w: frames up to %d are committed, but frame %d ends no transaction", errLost, limit, limit)
		}
		if err := f.decode(tx); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// decode hands one transaction to the sink and adds it to the view.
func (f *follower) decode(tx sqlitefile.WALTransaction) error {
	f.overlay.base = f.view
	f.overlay.frames.clear()
	f.written = f.written[:0]
	for i, page := range tx.Pages {
		if page <= tx.DBSize && f.overlay.frames.put(page, tx.First+uint32(i)) {
			f.written = append(f.written, page)
		}
	}
	slices.Sort(f.written)
	if err := f.sink(f.view, &f.overlay, tx, f.written); err != nil {
		return err
	}
	f.view.apply(tx)
	f.settled = false
	if f.resumeEnd > 0 && tx.Last >= f.resumeEnd {
		f.resumeEnd, f.view.kept = 0, nil
	}
	return nil
}

// maxAlignTries bounds the tries to see the header and the marks of one and the
// same generation.
const maxAlignTries = 10_000

// align makes the reader stand in the generation that the wal-index speaks of
// and returns its mxFrame; 0 when nothing is committed in it yet.
func (f *follower) align() (limit uint32, err error) {
	for range maxAlignTries {
		before, headErr := f.reader.Header()
		m, err := f.src.marks()
		if err != nil {
			return 0, err
		}
		if m.Frames == 0 {
			return 0, f.mayStartOver()
		}
		if headErr != nil { // being written
			nap(20 * time.Microsecond)
			continue
		}
		pos := f.reader.Position()
		if !f.started || before.Salt != pos.Salt {
			// mxFrame > 0 now, so this generation has a commit and its header stands,
			// if it is still the same one.
			if after, err := f.reader.Header(); err != nil || after != before {
				continue
			}
			if err := f.generation(before); err != nil {
				return 0, err
			}
			continue // its own mxFrame
		}
		if after, err := f.reader.Header(); err != nil || after != before {
			continue
		}
		if m.Frames < pos.Frame {
			return 0, fmt.Errorf("%w: the SQLite WAL ends at frame %d, frame %d was decoded", errLost, m.Frames, pos.Frame)
		}
		if m.Backfilled > max(pos.Frame, f.resumeEnd) {
			return 0, fmt.Errorf("%w: frame %d was checkpointed, only %d are decoded", errLost, m.Backfilled, pos.Frame)
		}
		return m.Frames, nil
	}
	return 0, fmt.Errorf("%s: the header of the SQLite WAL and the wal-index do not agree", f.src.path)
}

// mayStartOver is asked wherever the SQLite WAL has been started over, with a frame in the
// new generation or without. The pin has seen to it that everything of the one before was
// decoded and checkpointed: it stood at lock 0, and the view was settled. Where that is not
// so the pin was lost, as when other code in this process opens and closes the -shm file.
func (f *follower) mayStartOver() error {
	if f.view.frames.count > 0 { // nobody has seen them in the database file
		return fmt.Errorf("%w: the SQLite WAL was started over under the pin", errLost)
	}
	return nil
}

// generation begins with the first frame of a new generation.
func (f *follower) generation(h sqlitefile.WALHeader) error {
	if h.PageSize != f.view.pageSize {
		return fmt.Errorf("%w: page size %d, was %d", errHeaderChanged, h.PageSize, f.view.pageSize)
	}
	if err := f.mayStartOver(); err != nil {
		return err
	}
	if err := f.reader.Start(); err != nil {
		return fmt.Errorf("start of a generation: %w", err)
	}
	f.view.settle()
	f.started, f.settled, f.pinFrame, f.resumeEnd = true, false, 0, 0
	f.heldSince = time.Time{}
	f.stats.Generations++
	return nil
}

// settle drops the view's frames when the database file holds everything that
// was decoded. It must run after a pin was opened and before the previous one is
// released: from that moment a writer may start over and spill uncommitted pages
// onto the frames.
func (f *follower) settle() error {
	m, err := f.src.marks()
	if err != nil {
		return err
	}
	f.settled = m.Frames == m.Backfilled && (m.Frames == 0 || f.started && m.Frames == f.reader.Position().Frame)
	if f.settled {
		f.view.settle()
		f.heldSince = time.Time{}
	}
	return nil
}

// repin moves the pin to the present: it blocks nobody, lets the database file
// catch up, and bounds what a turnover has left to do.
func (f *follower) repin() error {
	next := 1 - f.pinned
	if err := f.src.pins[next].OpenRead(); err != nil {
		return fmt.Errorf("open a pin: %w", err)
	}
	if err := f.advance(next); err != nil {
		return err
	}
	return f.checkpoint()
}

// checkpoint copies into the database file what the pin allows. A disk that fails, or
// is full, costs no change: the frames stay where they are, and so does the pin. It is
// noted in f.stuck, and the next checkpoint is the next try.
func (f *follower) checkpoint() error {
	err := f.src.checkpoint()
	if err != nil && !sqlite.Passes(err) {
		return err
	}
	f.stuck = err
	return nil
}

// advance makes the freshly opened pin next the only one. Decode and fsync come
// before the release: with a checkpoint first, 521 of 20,464 changes were lost.
func (f *follower) advance(next int) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.src.pins[next].Rollback())
		}
	}()
	if _, err := f.poll(); err != nil {
		return err
	}
	if err := f.durable(); err != nil {
		return err
	}
	if err := f.settle(); err != nil {
		return err
	}
	if err := f.src.pins[f.pinned].Rollback(); err != nil {
		return fmt.Errorf("release a pin: %w", err)
	}
	f.pinned, f.pinFrame = next, f.position().Frame
	f.stats.Repins++
	return nil
}

// release gives up the pin.
func (f *follower) release() error {
	if f.pinned < 0 {
		return nil
	}
	err := f.src.pins[f.pinned].Rollback()
	f.pinned = -1
	return err
}
