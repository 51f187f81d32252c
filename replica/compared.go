package replica

import (
	"context"
	"fmt"
)

// Compared takes what a comparison of a view with the source has found: the tables
// that are not equal, sqlite_schema for the schema, or none. To differ is divergence,
// whoever finds it, and Options say what happens then. It may be called concurrently.
func (r *Replica) Compared(v *View, differ []string) {
	if d := r.board.compared(v, differ); d != nil {
		select {
		case r.found <- d:
		default: // another one has come first, and the file is made equal as a whole
		}
	}
}

// compared notes the outcome of a comparison, and gives the divergence that it means.
// A file that was seeded since is another one.
func (b *board) compared(v *View, differ []string) *Divergence {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case v.reseeds != b.s.Counters.Reseeds:
		return nil
	case len(differ) == 0:
		b.unequal = ""
		return nil
	}
	d := &Divergence{LSN: v.at.LSN, Table: differ[0], err: ErrRowSum, here: true, again: b.unequal == differ[0]}
	b.unequal, b.wrong = differ[0], true
	return d
}

// Repair makes the file equal to the source if it is known to differ, also where
// Options say to stop. It returns when nothing is known to be wrong. It may be called
// concurrently.
func (r *Replica) Repair(ctx context.Context) error {
	for {
		changed, wrong := r.board.differing()
		if !wrong {
			return nil
		}
		select {
		case r.mends <- struct{}{}:
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("replica: repair: %w", context.Cause(ctx))
		}
	}
}

// differs notes whether the file is known to differ.
func (b *board) differs(wrong bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = wrong
	b.wake()
}

// differing tells whether the file is known to differ, and gives a channel that is
// closed when that may have changed.
func (b *board) differing() (<-chan struct{}, bool) {
	changed, _ := b.change()
	b.mu.Lock()
	defer b.mu.Unlock()
	return changed, b.wrong
}

// stay waits until ctx ends, until a person has done something about the file, or
// until somebody wants it repaired.
func (r *Replica) stay(ctx context.Context, because error) error {
	watched, stop := ctx, func() {}
	if r.a != nil {
		watched, stop = r.watch(ctx)
	}
	defer stop()
	mends, refusal := r.mends, fmt.Errorf("%w: %w", ErrDiverged, because)
	if r.repair == nil {
		mends, refusal = nil, fmt.Errorf("replica: it has stopped: %w", because)
	}
	for {
		select {
		case <-mends:
			return nil
		case h := <-r.holds:
			h.open <- refusal
		case <-watched.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		}
	}
}
