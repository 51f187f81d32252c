package primary

import (
	"fmt"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// errSpace means that the SQLite WAL has passed its bound while the capture was
// behind: the pin is given up so that the application can go on.
var errSpace = fmt.Errorf("%w: the SQLite WAL has passed max_sqlite_wal", errLost)

const (
	lookAfter    = time.Second // between looks at files and sizes
	idleTurnover = time.Second // without a write until a long SQLite WAL is made free to start over
	leaveLock0   = 32          // frames of a new generation after which the pin leaves lock 0
	maxBackOff   = 2 * time.Second
	longStall    = time.Second // of writers, which is reported
	overdue      = 4           // times TurnoverBytes, from which a turnover loses no time
)

// An upkeep decides when the pin moves and when the SQLite WAL is turned over.
type upkeep struct {
	looked    time.Time     // when files and sizes were last looked at
	wrote     time.Time     // when a transaction was last seen
	backOff   time.Duration // after a turnover that did not finish
	notBefore time.Time     // for the next one
	idleTried bool          // since the last write
	found     int64         // bytes of the SQLite WAL when the term began; less, once it has started over
	held      bool          // a snapshot is being read, whose pin makes a turnover impossible
	reader    *HeldWAL      // keeps the SQLite WAL from starting over; nil: none does
	alarmed   bool          // that it has passed its bound was reported
	yielding  bool          // another program's checkpoint waits, and the pin may be why
	yielded   yield         // what the pin did about it
	stuck     bool          // a checkpoint failed, which was reported
	unnoted   string        // why a doubt could not be noted, which was reported
	free      int64         // bytes of the SQLite WAL when it was last seen before a snapshot was read; less, once it has started over
	pressed   bool          // the SQLite WAL has passed half of its bound, and grows while a snapshot is read
}

// maintain keeps the SQLite WAL short. held says that a snapshot is being read,
// whose pin makes a turnover impossible anyway. n transactions were just
// captured.
func (c *capture) maintain(n int, held bool) error {
	u, now := &c.upkeep, c.clock()
	u.held = held
	if n > 0 {
		u.wrote, u.idleTried = now, false
	}
	if err := c.follower.stuck; (err != nil) != u.stuck {
		if u.stuck = err != nil; u.stuck {
			c.logger.Error("the SQLite WAL cannot be checkpointed and grows; nothing is lost, and it is tried again", "path", c.src.path, "err", err)
		} else {
			c.logger.Info("the SQLite WAL is checkpointed again", "path", c.src.path)
		}
	}
	if err := c.lookIfDue(now); err != nil {
		return err
	}
	f := c.follower
	if u.yielding = false; n == 0 {
		if err := c.yield(); err != nil || u.yielding {
			return err
		}
	}
	frame := f.position().Frame
	behind := frame - min(f.pinFrame, frame)
	size := int64(frame) * int64(f.view.pageSize)
	switch full, half := size >= c.options.TurnoverBytes, size >= c.options.TurnoverBytes/2; {
	case f.settled:
		return nil
	case full && !held && !now.Before(u.notBefore):
		return c.turnover(true)
	// Not when it is short: as long as the frames are there, a restart can prove
	// that it missed nothing.
	case half && n == 0 && !u.idleTried && !held && now.Sub(u.wrote) >= idleTurnover:
		u.idleTried = true
		return c.turnover(false)
	case behind >= c.options.RepinFrames, f.pinFrame == 0 && frame >= leaveLock0:
		_, _ = c.sight() // see turnover
		return f.repin()
	}
	return nil
}

// yield moves the pin out of the way of an application's own FULL, RESTART or
// TRUNCATE checkpoint, which otherwise waits for its whole busy timeout and makes
// every writer wait. Nothing can be written meanwhile, and everything was
// captured: at the present mark the pin no longer stops the checkpoint from
// copying, and once everything is copied it moves to lock 0, which RESTART and
// TRUNCATE do not wait for.
func (c *capture) yield() error {
	u := &c.upkeep
	waits, err := c.src.checkpointWaits()
	if err != nil || !waits {
		return err
	}
	m, err := c.src.marks()
	if err != nil {
		return err
	}
	// One step for the mark and one for lock 0. What then still stops that
	// checkpoint is another reader.
	if m != u.yielded.marks {
		u.yielded = yield{marks: m}
	}
	if u.yielding = u.yielded.steps < 2; !u.yielding {
		return nil
	}
	u.yielded.steps++
	c.follower.stats.Yields++
	return c.follower.repin()
}

// A yield counts the steps out of the way of a checkpoint that has come to the
// given marks.
type yield struct {
	marks sqlite.Checkpoint
	steps int
}

// turnover tries one and, when another reader is in the way, tries later and
// later: each try costs the writers a stall.
func (c *capture) turnover(force bool) error {
	u, stats := &c.upkeep, &c.follower.stats
	before, waited := stats.Unfinished, stats.Stalls.Sum
	_, _ = c.sight() // afterwards it would be the checkpoint. The next look tells of an error
	if err := c.follower.turnover(force, uint32(overdue*c.options.TurnoverBytes/int64(c.follower.view.pageSize))); err != nil {
		return err
	}
	if waited = stats.Stalls.Sum - waited; waited >= longStall {
		c.logger.Warn("the disk kept writers waiting for a checkpoint", "path", c.src.path, "for", waited)
	}
	if stats.Unfinished == before {
		u.backOff, u.notBefore = 0, time.Time{}
		return nil
	}
	u.backOff = min(max(2*u.backOff, 50*time.Millisecond), maxBackOff)
	u.notBefore = c.clock().Add(u.backOff)
	return nil
}

// A sync of the change log takes the disk from a writer that syncs, and each
// wake-up takes a core from one that does not. Where the next transaction is there
// as soon as the last one is captured, syncs come to fill a sixteenth of the time
// only, and transactions share them.
const (
	syncShare     = 16
	leastBreather = 100 * time.Microsecond
	mostBreather  = 5 * time.Millisecond
)

// breather is the pause after something was captured, however much is written
// meanwhile. last is the one before, 0 if nothing was written during it.
func (c *capture) breather(last time.Duration) time.Duration {
	return max(leastBreather, min(2*last, (syncShare-1)*c.syncTook, mostBreather))
}

func (c *capture) lookIfDue(now time.Time) error {
	first := c.upkeep.looked.IsZero()
	if !first && now.Sub(c.upkeep.looked) < lookAfter {
		return nil
	}
	c.upkeep.looked = now
	return c.look(first)
}

// look checks that the files are still the ones that are open and that the
// SQLite WAL keeps within bounds. first says that the term has just begun.
func (c *capture) look(first bool) error {
	if err := c.src.unmoved(); err != nil {
		return err
	}
	if err := c.lookPastSQLite(); err != nil {
		return err
	}
	m, err := c.src.marks()
	if err != nil {
		return err
	}
	// The file keeps its size when SQLite starts over; what counts is what it holds.
	u, pageSize, most := &c.upkeep, int64(c.follower.view.pageSize), c.options.MaxSQLiteWAL
	size := int64(m.Frames) * pageSize
	if u.free = min(u.free, size); first || !u.held {
		u.free = size
	}
	u.pressed = u.held && size > max(most/2, u.free)
	if u.found = min(u.found, size); first {
		u.found = size
	}
	if err := c.noteReader(size); err != nil {
		return err
	}
	if size <= most {
		u.alarmed = false
		return nil
	}
	// What the term has found was not started over while no pin was held, and would
	// not be if this one were given up for it: it is captured.
	behind := int64(m.Frames-min(m.Frames, c.follower.position().Frame)) * pageSize
	if behind > most/2 && size > u.found+most/2 {
		return fmt.Errorf("%s: %d bytes, %d of them not captured: %w", c.src.path, size, behind, errSpace)
	}
	return nil
}
