package primary

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// errLog wraps a failure of the change log. What was captured since its last
// sync must be captured again.
var errLog = errors.New("change log")

// errUndecodable means that a transaction cannot be decoded, now or later. Only
// the state after it leads on.
var errUndecodable = errors.New("transaction cannot be decoded")

// A changeLog is where records become durable. *wal.Log is one.
type changeLog interface {
	Append(rec []byte, h cdc.Head, b *cdc.Boundary) error
	Sync() error
	Tail() cdc.Tail
}

// CaptureOptions bound what the capture may cost the application.
type CaptureOptions struct {
	MaxSQLiteWAL  int64         // bytes; beyond it the pin is released, the application lives
	TurnoverBytes int64         // bytes of SQLite WAL from which it is made free to start over
	RepinFrames   uint32        // frames after which the pin moves on
	MaxStall      time.Duration // that a turnover may make writers wait
	SpillBytes    int64         // bytes of one transaction that stay in memory
	SyncSource    bool          // fsync the SQLite WAL before anything of it is published
	PollInterval  time.Duration // the longest pause between two looks at the SQLite WAL when no notice of a change came; 0: half a second
}

// A capture is one term: from an epoch record to the first error. It is used by
// one goroutine.
type capture struct {
	captureSetup
	src      *source
	follower *follower
	decoder  *decoder
	sorter   *sorter
	summing  summingSink // adds up what goes to the sorter
	encoder  *cdc.Encoder
	log      changeLog
	boot     cdc.ID
	broken   cdc.LSN       // the break record that this term began with, if it did
	unsynced bool          // something was taken that may not be durable
	syncTook time.Duration // by the last sync of the change log

	start   start
	began   cdc.LSN   // of the term's first record
	seen    *sighting // of the database file, the last one; nil: none
	orderly bool      // the term was asked to end

	upkeep upkeep
	alive  context.Context // the term's
	frozen sync.WaitGroup  // what was frozen and is not closed yet; it reads through src
}

// A start tells how the term came to know the state that it began with.
type start struct {
	recalled bool // from what the term before saved
	read     int  // pages of the source
}

// A captureSetup is what a capture needs besides the source and the log.
type captureSetup struct {
	dir     string // for temporary files
	options CaptureOptions
	clock   func() time.Time
	logger  *slog.Logger
	// rebuild makes a file of the source as of a boundary; nil: cannot.
	rebuild func(context.Context, cdc.Position) (path string, err error)
	waits   func(error)              // told why the term cannot begin yet
	doubts  *doubts                  // in the last position, and in the source; nil: in memory alone
	newest  func() snapshot.Manifest // the newest snapshot that is complete, as far as is known; nil: not known
	sums    *rowSums                 // of the source; they outlive the term
	terms   *terms                   // where the term is noted; nil: nowhere
	packer  *cdc.Packer              // of records
	reports *reports                 // of self-checks that fail; nil: nowhere
}

// newCapture attaches to src and continues the history in log: from the last
// captured position where it can be proved that nothing was missed, otherwise
// after a break record. It appends the epoch record of the term.
func newCapture(ctx context.Context, src *source, log changeLog, o captureSetup) (*capture, error) {
	c := &capture{captureSetup: o, src: src, log: log, alive: ctx, boot: bootID()}
	c.follower = newFollower(src, c.take, c.durable, o.options.MaxStall, o.clock)
	c.sorter = newSorter(o.dir, o.options.SpillBytes)
	if c.sums == nil {
		c.sums = newRowSums(o.logger)
	}
	if c.doubts == nil {
		c.doubts = &doubts{}
	}
	c.summing = summingSink{c.sums, c.sorter}
	l, err := newLayouts()
	if err != nil {
		return nil, err
	}
	c.decoder = newDecoder(l, o.logger)
	c.sums.where, c.decoder.doubts = c.decoder.rows.where, c.reportFallback
	c.decoder.pages = newPageMap(o.dir, src.mapBytes, o.logger)
	if err := c.begin(ctx); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// begin takes up the history and appends the epoch record. Where it cannot be
// proved that nothing was missed, what was missed follows as one transaction or,
// in the last resort, a break record.
func (c *capture) begin(ctx context.Context) error {
	tail := c.log.Tail()
	c.began = tail.Next
	_, err := c.sight()
	if err := errors.Join(err, c.doubts.note()); err != nil { // what the term before could not note
		return err
	}
	if err := c.sums.open(tail.Position); err != nil {
		return err
	}
	standing, err := c.attach(ctx, tail)
	if err != nil {
		return err
	}
	var doubt error // that a resync cannot deal with
	missed := false // the sorter holds what was missed
	if standing != nil && tail.Position.LSN != 0 {
		c.logger.Warn("changes may have been missed", "lsn", tail.Position.LSN, "err", standing)
		err := c.resync(ctx, tail)
		if err != nil && (!errors.Is(err, errNoResync) || c.follower.pinned < 0) {
			return err
		}
		if missed = err == nil; !missed {
			doubt = fmt.Errorf("%w; %w", standing, err)
		}
	}
	if !missed {
		if err := c.know(tail.Position, doubt == nil && tail.Position.LSN != 0); err != nil {
			return err
		}
	}
	if c.encoder, err = c.newTerm(tail); err != nil {
		return err
	}
	c.unsynced = true
	if err := c.open(tail, missed, doubt); err != nil {
		return err
	}
	c.doubts.settle(standing)
	if err := c.unsave(); err != nil { // of another boundary now
		c.logger.Warn("the page map that was saved stays", "err", err)
	}
	return nil
}

// newTerm gives the encoder of a new term.
func (c *capture) newTerm(tail cdc.Tail) (*cdc.Encoder, error) {
	term, err := cdc.NewID(nil)
	if err != nil {
		return nil, err
	}
	epoch := tail.Position.Epoch + 1
	if c.terms != nil {
		if err := c.terms.begin(term, epoch); err != nil {
			return nil, err
		}
	}
	if tail.Boundary.Lineage == (cdc.ID{}) {
		if tail.Boundary.Lineage, err = cdc.NewID(nil); err != nil {
			return nil, err
		}
	}
	e := cdc.NewEncoder(tail, epoch, term, c.emit)
	e.PackWith(c.packer)
	return e, nil
}

// open appends the first records of the term. Until what was missed is
// recorded, they name the position that was captured before: a crash in between
// starts over from there.
func (c *capture) open(tail cdc.Tail, missed bool, doubt error) error {
	before := cdc.Boundary{CapturedAt: c.clock(), Source: tail.Boundary.Source}
	here := before
	here.Source = c.sourcePosition(c.follower.position())
	switch {
	case doubt != nil:
		c.logger.Warn("history broken: a new snapshot is needed, replicas take it up by themselves", "err", doubt)
		if err := c.encoder.Epoch(before); err != nil {
			return err
		}
		if err := c.encoder.Break(here, doubt.Error()); err != nil {
			return err
		}
		c.broken = c.encoder.Position().LSN
		c.sums.forget()
	case missed && !c.sorter.empty():
		if err := c.encoder.Epoch(before); err != nil {
			return err
		}
		if err := c.sorter.drain(c.encoder); err != nil {
			return err
		}
		here.Tables = c.sums.end()
		if err := c.encoder.End(here, true); err != nil {
			return err
		}
		c.logger.Info("what was missed is captured", "lsn", c.encoder.Position().LSN)
	default:
		if err := c.encoder.Epoch(here); err != nil {
			return err
		}
	}
	return c.durable()
}

// attach pins the source where the history goes on, or at the present where it cannot
// simply be continued: then there is a doubt.
func (c *capture) attach(ctx context.Context, tail cdc.Tail) (standing *doubt, err error) {
	standing = c.doubts.standing()
	if tail.Position.LSN == 0 || standing != nil {
		return standing, c.follower.attach(ctx)
	}
	err = c.follower.resume(ctx, resumptionOf(tail.Boundary.Source))
	if err == nil {
		err = c.untouched(tail.Position)
	}
	if errors.Is(err, errUnproved) && c.follower.pinned >= 0 {
		err = c.doubts.raise(err, nil)
		return c.doubts.standing(), err
	}
	return nil, err
}

// emit is where the encoder's records go.
func (c *capture) emit(rec []byte, h cdc.Head, b *cdc.Boundary) error {
	if err := c.log.Append(rec, h, b); err != nil {
		return fmt.Errorf("%w: %w", errLog, err)
	}
	return nil
}

// take decodes one committed transaction into the encoder.
func (c *capture) take(before, after sqlitefile.Pages, tx sqlitefile.WALTransaction, written []uint32) error {
	c.unsynced = true
	if err := c.lookIfDue(c.clock()); err != nil { // the application does not wait for a backlog
		return err
	}
	c.sorter.reset()
	c.sums.rollback()
	if err := c.decoder.transaction(before, after, written, tx.DBSize, &c.summing); err != nil {
		if errors.Is(err, errInconsistent) {
			c.reportUndecodable(before, after, tx, written, err)
		}
		if errors.Is(err, errInconsistent) || errors.Is(err, errReservedName) {
			err = fmt.Errorf("%w: %w", errUndecodable, err)
		}
		return fmt.Errorf("%s: transaction that ends at frame %d: %w", c.src.path, tx.Last, err)
	}
	if c.sums.moved() {
		if err := c.encoder.Flush(); err != nil {
			return err
		}
	}
	if err := c.sorter.drain(c.encoder); err != nil {
		return err
	}
	b := cdc.Boundary{CapturedAt: c.clock(), Source: c.sourcePosition(c.follower.reader.Position()), Tables: c.sums.end()}
	return c.encoder.End(b, false)
}

// durable makes every transaction taken so far survive a crash.
func (c *capture) durable() error {
	if err := c.encoder.Flush(); err != nil {
		return err
	}
	if c.options.SyncSource {
		if err := c.src.log.Sync(); err != nil {
			return fmt.Errorf("%s: sync the SQLite WAL: %w", c.src.path, err)
		}
	}
	began := c.clock()
	if err := c.log.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errLog, err)
	}
	c.syncTook = c.clock().Sub(began)
	c.unsynced = false
	c.sums.reached(c.encoder.Position())
	return nil
}

// poll captures everything committed until now and makes it durable.
func (c *capture) poll() (int, error) {
	n, err := c.follower.poll()
	if err != nil {
		return n, err
	}
	if c.unsynced { // also by a turnover or a freeze that waited for the write lock in vain
		return n, c.durable()
	}
	return n, nil
}

func (c *capture) sourcePosition(p sqlitefile.WALPosition) cdc.SourcePosition {
	return cdc.SourcePosition{
		Salt: p.Salt, Frame: p.Frame, Checksum: p.Checksum, BigEndian: p.BigEndian,
		PageSize: uint32(p.PageSize), DBSize: p.DBSize,
		Device: c.src.id.device, Inode: c.src.id.inode, Boot: c.boot,
	}
}

// close releases what the capture holds but the source, whose owner closes it.
func (c *capture) close() error {
	c.leave()
	return errors.Join(c.follower.release(), c.sorter.close(), c.decoder.close(), c.sums.close())
}
