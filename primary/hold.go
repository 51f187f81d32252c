package primary

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
)

// errAwaited is wrapped by what a term says while it waits for a store that does
// not answer: without the snapshot it cannot tell what was missed.
var errAwaited = errors.New("what was missed is found out as soon as the snapshot can be read")

// lookAtHold is the time between two looks at what a held pin costs.
const lookAtHold = 10 * time.Millisecond

// A hold keeps the pin of a capture that does not decode yet, so that what is
// written meanwhile is seen transaction by transaction later. The pin makes way
// for another program's checkpoint and, for good, when the SQLite WAL passes its
// bound; what is written without it becomes part of the difference.
type hold struct {
	c     *capture
	spent bool // the bound was passed
}

// while runs f and looks after the pin until f has returned. The second error is
// the source's.
func (h *hold) while(ctx context.Context, f func(context.Context) error) (err, source error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if source := h.look(ctx); source != nil {
		return nil, source
	}
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	tick := time.NewTicker(lookAtHold)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err, source
		case <-tick.C:
			if source == nil {
				source = h.look(ctx)
			}
			if source != nil {
				cancel()
			}
		}
	}
}

func (h *hold) look(ctx context.Context) error {
	f := h.c.follower
	waits, err := h.c.src.checkpointWaits()
	if err != nil {
		return err
	}
	if waits {
		return f.release()
	}
	m, err := h.c.src.marks()
	if err != nil {
		return err
	}
	if size := int64(m.Frames) * int64(f.view.pageSize); size > h.c.options.MaxSQLiteWAL && !h.spent {
		h.spent = true
		h.c.logger.Warn("the SQLite WAL has passed max_sqlite_wal before it is known what was missed; it may start over", "bytes", size)
	}
	switch {
	case h.spent:
		return f.release()
	case f.pinned < 0:
		if err := f.attach(ctx); !errors.Is(err, errLocked) {
			return err
		}
	}
	return nil
}

// reattach takes the pin where a hold has let it go. It waits for a program that keeps the
// write lock: to end the term would be to rebuild the base once more.
func (c *capture) reattach(ctx context.Context) error {
	for c.follower.pinned < 0 {
		why, err := errMissed, c.follower.attach(ctx)
		switch {
		case err == nil:
		case !errors.Is(err, errLocked) || ctx.Err() != nil:
			return err
		default:
			why = fmt.Errorf("%w: %w", errMissed, err)
		}
		if err := c.src.unmoved(); err != nil {
			return err
		}
		c.waits(why)
	}
	return nil
}

// awaitBase rebuilds the state at the last boundary and waits, within the bound
// of the SQLite WAL, for a store that fails for the moment: a NATS that is
// started after us must not cost every replica a whole snapshot.
func (c *capture) awaitBase(ctx context.Context, tail cdc.Tail) (b *base, err error) {
	h := hold{c: c}
	for said := ""; ; {
		err, source := h.while(ctx, func(ctx context.Context) (err error) {
			b, err = c.openBase(ctx, tail)
			return err
		})
		switch {
		case source != nil && b != nil:
			return nil, errors.Join(source, b.close())
		case source != nil:
			return nil, source
		case err == nil:
			return b, nil
		case ctx.Err() != nil || h.spent || !passes(err):
			return nil, asNoResync(ctx, err)
		}
		c.waits(fmt.Errorf("%w: %w", errAwaited, err))
		if text := err.Error(); text != said {
			said = text
			c.logger.Warn("waiting for the snapshot and the store that has it, to find out what was missed", "err", err)
		}
		if _, err := h.while(ctx, func(ctx context.Context) error { return sleep(ctx, retryAfter) }); err != nil {
			return nil, err
		}
	}
}

// passes reports whether err may be gone at the next try: NATS does not answer, or has
// not been asked yet, or a disk, a mount or this machine is in trouble. What the change log
// has lost does not come back.
func passes(err error) bool {
	if errors.Is(err, errNoResync) {
		return false
	}
	if condition(err) == "unavailable" || errors.Is(err, errUncompared) {
		return true
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EIO, unix.ENOMEM, unix.EACCES, unix.ESTALE, unix.ENOTCONN, unix.ENODEV,
		unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENETDOWN, unix.ENETUNREACH:
		return true
	}
	return errno.Temporary()
}
