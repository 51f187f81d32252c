package primary

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// turnover lets the next writer start the SQLite WAL over, so that the file
// stays small. It takes the write lock only when force is set and writers never
// leave a gap; other readers can make it fail, which is counted and harmless. From
// frame long on it takes the lock as soon as it can: what it does before, so that writers
// wait for less, takes time in which a writer as fast as the disk goes on.
func (f *follower) turnover(force bool, long uint32) error {
	if f.settled {
		return nil
	}
	if err := f.converge(long); err != nil {
		return err
	}
	done, err := f.turnoverInGap()
	if err != nil || done || !force {
		return err
	}
	// The last checkpoint fsyncs both files while writers wait: do most of it now.
	if f.stuck == nil && f.position().Frame < long {
		if err := errors.Join(f.src.log.Sync(), f.src.db.Sync()); err != nil {
			f.stuck = fmt.Errorf("%s: sync before a turnover: %w", f.src.path, err)
		}
	}
	if f.stuck != nil { // and no reason to make writers wait
		f.stats.Unfinished++
		return nil
	}
	return f.turnoverLocked()
}

// convergeRounds bounds how often a turnover moves the pin before it takes the
// write lock.
const convergeRounds = 4

// converge moves the pin until little is left to checkpoint: each round takes what
// was written during the one before, which a writer has not waited for. Behind a
// writer that is as fast as a checkpoint it ends at once: more rounds would leave as
// much, and a longer SQLite WAL.
func (f *follower) converge(long uint32) error {
	before := uint32(math.MaxUint32)
	for range convergeRounds {
		if err := f.repin(); err != nil {
			return err
		}
		m, err := f.src.marks()
		if err != nil {
			return err
		}
		left := m.Frames - min(m.Backfilled, m.Frames)
		if left <= lockedFrames || left > before/2 || f.position().Frame >= long {
			return nil
		}
		before = left
	}
	return nil
}

// turnoverInGap succeeds when nobody wrote since the last checkpoint: a pin
// opened now stands at lock 0.
func (f *follower) turnoverInGap() (bool, error) {
	m, err := f.src.marks()
	if err != nil || m.Frames != m.Backfilled || m.Frames != f.position().Frame {
		return false, err
	}
	next := 1 - f.pinned
	if err := f.src.pins[next].OpenRead(); err != nil {
		return false, fmt.Errorf("open a pin: %w", err)
	}
	if err := f.advance(next); err != nil {
		return false, err
	}
	if f.settled {
		f.stats.Turnovers++
	}
	return f.settled, nil
}

// turnoverPatience bounds how long a turnover tries to get the write lock,
// decoding in between: SQLite's own busy handler sleeps too long to win against
// busy writers.
const turnoverPatience = 500 * time.Millisecond

// turnoverLocked holds the write lock while the remainder is decoded, fsynced
// and checkpointed.
func (f *follower) turnoverLocked() (err error) {
	ok, err := f.lock(turnoverPatience)
	if err != nil {
		return err
	}
	if !ok {
		f.stats.Unfinished++
		return nil
	}
	began := f.clock()
	defer func() {
		err = errors.Join(err, f.src.helper.Rollback())
		f.stats.Stalls.observe(f.clock().Sub(began))
	}()
	if _, err := f.poll(); err != nil {
		return err
	}
	if err := f.durable(); err != nil {
		return err
	}
	// Nobody can write, so nothing can be lost between these two pins.
	if err := f.src.pins[f.pinned].Rollback(); err != nil {
		return fmt.Errorf("release a pin: %w", err)
	}
	complete, err := f.checkpointAll(began)
	if err != nil {
		return errors.Join(err, f.src.pins[f.pinned].OpenRead())
	}
	if err := f.src.pins[f.pinned].OpenRead(); err != nil {
		f.pinned = -1
		return fmt.Errorf("%w: the pin cannot be opened again: %w", errLost, err)
	}
	f.pinFrame = f.position().Frame
	// Also where we gave up: another checkpoint may have ended since, and then the pin
	// stands at lock 0.
	if err := f.settle(); err != nil {
		return err
	}
	if !complete {
		f.stats.Unfinished++
		if !f.settled && f.stuck == nil && f.heldSince.IsZero() {
			f.heldSince = began
		}
		return nil
	}
	f.stats.Turnovers++
	return nil
}

// lockedFrames is how many frames may be left to decode under the write lock.
const lockedFrames = 1000

// lock takes the write lock, decoding while it waits. A large transaction that
// was committed meanwhile is decoded without the lock: writers would wait for it.
func (f *follower) lock(patience time.Duration) (bool, error) {
	for deadline := f.clock().Add(patience); ; {
		ready, err := f.tryLock()
		if err != nil || ready {
			return ready, err
		}
		if f.clock().After(deadline) {
			return false, nil
		}
		left, _, err := f.undecoded()
		if err != nil {
			return false, err
		}
		// A busy writer leaves its gap right after a commit: to decode then is to miss it.
		n := 0
		if left > lockedFrames/2 {
			if n, err = f.poll(); err != nil {
				return false, err
			}
		}
		if n == 0 {
			nap(20 * time.Microsecond)
		}
	}
}

// undecoded is how many frames are committed and not decoded, or more, and whether all that
// is committed is in the database file.
func (f *follower) undecoded() (left uint32, copied bool, err error) {
	m, err := f.src.marks()
	left = m.Frames
	if pos := f.position().Frame; !f.settled && pos <= left { // settled: maybe a new generation
		left -= pos
	}
	return left, m.Frames == m.Backfilled, err
}

// tryLock takes the write lock if it is free and little is left to decode.
func (f *follower) tryLock() (bool, error) {
	err := f.src.helper.BeginImmediate()
	if sqlite.IsBusy(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take the write lock: %w", err)
	}
	left, copied, err := f.undecoded()
	if err == nil && (left <= lockedFrames || f.settled && copied) {
		return true, nil
	}
	return false, errors.Join(err, f.src.helper.Rollback())
}

// checkpointAll checkpoints until everything is in the database file or the
// stall limit has passed; an application's own checkpoint may hold the lock.
func (f *follower) checkpointAll(began time.Time) (complete bool, err error) {
	for {
		if err := f.checkpoint(); err != nil || f.stuck != nil {
			return false, err
		}
		m, err := f.src.marks()
		if err != nil {
			return false, err
		}
		if m.Frames == m.Backfilled {
			return true, nil
		}
		if f.clock().Sub(began) > f.stallLimit {
			return false, nil
		}
		nap(50 * time.Microsecond)
	}
}
