package replica

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// suffer turns what ended a step into a state and waits until it is time to try
// again. It returns an error only when ctx has ended.
func (r *Replica) suffer(ctx context.Context, err error) error {
	again := r.board.trouble(err) && r.pause.last > 0 // since the last commit
	var final bool
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		r.board.set(Failed)
	case errors.Is(err, ErrNoSnapshot):
		r.board.set(Waiting)
	case isFull(err):
		r.board.set(DiskFull)
	case errors.Is(err, cdc.ErrVersion), errors.Is(err, errUnwritable):
		r.board.set(Failed)
		final = true
	case errors.Is(err, errStore):
		r.board.set(Offline)
	default:
		final = r.doubt(ctx, err)
		switch {
		case r.repair != nil:
		case sqlite.IsCorrupt(err):
			err = fmt.Errorf("replica: %s is damaged: stop the replica, remove the file with its -wal and -shm, and start it again: %w", r.o.Path, err)
			r.board.trouble(err)
			r.board.set(Failed)
			final = true
		case again && r.a != nil: // another program, the disk, or the record: what was applied is all there is
			r.board.set(Offline)
		}
	}
	switch {
	case again: // a trouble that lasts is one line
	case errors.Is(err, ErrNoSnapshot) && r.a == nil: // as at every first start
		r.o.Logger.Info("nothing to start from yet", "err", err)
	case r.a == nil:
		r.o.Logger.Warn("replica cannot start yet", "err", err, "final", final)
	default:
		r.o.Logger.Warn("replica stopped applying", "err", err, "final", final)
	}
	if r.a != nil { // keep other writers out meanwhile
		lerr := r.a.guard.rest(ctx, false)
		switch {
		case errors.Is(lerr, errStray):
			final = r.doubt(ctx, lerr) || final
		case lerr != nil && ctx.Err() == nil:
			r.o.Logger.Warn("replica file not locked", "err", lerr)
		}
	}
	if final {
		if r.repair != nil {
			err = r.repair.reason
		}
		return r.stay(ctx, err)
	}
	pause := r.pause.next()
	if errors.Is(err, ErrNoSnapshot) { // the first one is made as soon as there is a database
		pause = min(pause, snapshotPause)
	}
	return r.o.Clock.Sleep(ctx, pause)
}

// snapshotPause is the longest pause between two looks for a snapshot.
const snapshotPause = 500 * time.Millisecond

func isFull(err error) bool {
	return sqlite.IsFull(err) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// doubt decides whether the file must be made equal to a snapshot before it can
// go on, and reports whether the configuration says to stop instead.
func (r *Replica) doubt(ctx context.Context, err error) (final bool) {
	if r.a == nil {
		return false
	}
	next := r.a.mark.LSN + 1
	var d *Divergence
	var was *brokenSeal
	var trimmed interface{ FirstLSN() cdc.LSN }
	switch {
	case errors.As(err, &d):
		return r.diverge(ctx, r.differs(d, err))
	case errors.As(err, &was) && was.min > 0:
		r.o.Logger.Error("replica differs from the source", "path", r.o.Path, "at_least", was.min, "err", err)
		return r.diverge(ctx, repair{reason: err, min: was.min, ahead: true})
	case errors.Is(err, errStray), errors.Is(err, errMoved):
		r.board.count(func(c *Counters) { c.StrayWrites++ })
		r.o.Logger.Error("stray write to the replica's file", "path", r.o.Path, "err", err)
		return r.diverge(ctx, repair{reason: err})
	case errors.Is(err, cdc.ErrBreak):
		r.repair = &repair{reason: err, min: next, ahead: true}
	case errors.As(err, &trimmed):
		r.repair = &repair{reason: err, min: max(next, trimmed.FirstLSN()-1), ahead: true}
	case errors.Is(err, cdc.ErrCorrupt) && r.past.damaged != next:
		r.past.damaged = next // on the way here, perhaps: ask again once
		return false
	case errors.Is(err, cdc.ErrGap), errors.Is(err, cdc.ErrCorrupt):
		r.repair = &repair{reason: err, min: next, ahead: true}
	case errors.Is(err, cdc.ErrFork):
		r.repair = &repair{reason: err, ahead: true}
	default:
		return false
	}
	r.o.Logger.Error("the stream does not lead on from here; seeding the file again from a snapshot",
		"lsn", r.a.mark.LSN, "at_least", r.repair.min, "err", err)
	return false
}

// differs decides what mends a divergence. Where the same one comes again, the
// history itself is in doubt, since a snapshot below did not help.
func (r *Replica) differs(d *Divergence, err error) repair {
	unequal := errors.Is(err, ErrRowSum)
	r.board.count(func(c *Counters) {
		c.Divergences++
		if unequal {
			c.Mismatches++
		}
	})
	r.o.Logger.Error("replica differs from the source", "lsn", d.LSN, "table", d.Table, "err", err)
	if d.again {
		return repair{reason: err, min: max(d.LSN, r.a.mark.LSN)}
	}
	if d.here {
		return repair{reason: err}
	}
	again := d.LSN == r.past.diverged || unequal && d.Table == r.past.unequal && !r.sums.proved(d.Table)
	r.past.diverged = d.LSN
	if unequal {
		r.past.unequal = d.Table
	}
	if again {
		return repair{reason: err, min: max(d.LSN, r.a.mark.LSN), ahead: true}
	}
	return repair{reason: err}
}

func (r *Replica) diverge(ctx context.Context, need repair) (final bool) {
	r.board.set(Diverged)
	r.board.differs(true)
	r.repair = &need
	r.seal(ctx) // a crash must not forget it
	return r.o.Apply.OnDivergence == Stop
}
