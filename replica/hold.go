package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A hold asks Run's goroutine to stop applying exactly at an LSN.
type hold struct {
	ctx  context.Context // ends when the caller no longer waits
	lsn  cdc.LSN         // valid once chosen
	open chan error      // has room for one: whether Run's goroutine pauses for it
	pick chan cdc.LSN
	done chan held
}

// ErrDiverged is wrapped where a replica is known to differ from the source and has
// stopped, as its policy says.
var ErrDiverged = errors.New("replica: it differs from the source and has stopped")

type held struct {
	view *View
	err  error
}

// A View is the replica's file exactly as of one position. Applying goes on
// meanwhile; the open view keeps SQLite's log of the file from starting over, so
// it should not stay open for longer than a comparison takes. For one goroutine
// at a time.
type View struct {
	conn    *sqlite.Conn
	at      Mark
	reseeds uint64 // of the file before
}

// Position is what the view shows.
func (v *View) Position() cdc.Position { return v.at.Position }

// Content hashes every table and the schema, as sqlite.Conn.Content says.
func (v *View) Content(ctx context.Context, progress func(sqlite.Read)) ([]sqlite.TableSum, [2]uint64, error) {
	return v.conn.Content(ctx, progress)
}

// Runs reads rows of a table by rowid, as sqlite.Conn.Runs says.
func (v *View) Runs(table string) (*sqlite.RunReader, error) { return v.conn.Runs(table) }

// Close ends the view.
func (v *View) Close() error { return v.conn.Close() }

// HoldAt pauses applying, calls choose, applies up to exactly the LSN that it
// gives, and returns a view of the file there; applying then goes on. choose
// asks the primary for a boundary at or above the replica's position, at which
// it has a view of its own. While the replica is not following the stream HoldAt
// waits; where it will not without help that is an error, ErrDiverged if the file is
// known to differ. It may be called concurrently.
func (r *Replica) HoldAt(ctx context.Context, choose func(ctx context.Context) (cdc.LSN, error)) (*View, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &hold{ctx: ctx, open: make(chan error, 1), pick: make(chan cdc.LSN), done: make(chan held)}
	select {
	case r.holds <- h:
	case <-ctx.Done():
		return nil, fmt.Errorf("replica: hold: %w", context.Cause(ctx))
	}
	if err := <-h.open; err != nil {
		return nil, err
	}
	lsn, err := choose(ctx)
	if err != nil {
		return nil, fmt.Errorf("replica: hold: %w", err)
	}
	select {
	case h.pick <- lsn:
	case <-ctx.Done():
		return nil, fmt.Errorf("replica: hold at LSN %d: %w", lsn, context.Cause(ctx))
	}
	select {
	case got := <-h.done:
		return got.view, got.err
	case <-ctx.Done():
		return nil, fmt.Errorf("replica: hold at LSN %d: %w", lsn, context.Cause(ctx))
	}
}

// admit pauses until the LSN is chosen. It gives nil when nobody waits any more.
func (r *Replica) admit(ctx context.Context, h *hold) *hold {
	h.open <- nil
	select {
	case h.lsn = <-h.pick:
		return h
	case <-h.ctx.Done():
	case <-ctx.Done():
	}
	return nil
}

// deliver ends the hold if the file has reached its LSN.
func (r *Replica) deliver(ctx context.Context) {
	h := r.hold
	if h == nil || r.a.mark.LSN < h.lsn {
		return
	}
	r.hold = nil
	var got held
	if r.a.mark.LSN > h.lsn {
		got.err = fmt.Errorf("replica: hold at LSN %d: the replica is at %d, and %d is below it or no boundary", h.lsn, r.a.mark.LSN, h.lsn)
	} else {
		got.view, got.err = openView(r.o.Path, r.a.mark)
	}
	if got.view != nil {
		got.view.reseeds = r.board.status().Counters.Reseeds
	}
	select {
	case h.done <- got:
		return
	case <-h.ctx.Done():
	case <-ctx.Done():
	}
	if got.view != nil {
		_ = got.view.Close() // nobody waits for it
	}
}

func openView(path string, at Mark) (*View, error) {
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true, BusyTimeout: busyTimeout})
	if err != nil {
		return nil, fmt.Errorf("replica: view: %w", err)
	}
	err = c.OpenRead()
	var found Mark
	if err == nil {
		found, _, err = readPosition(c)
	}
	if err == nil && found.Position != at.Position {
		err = fmt.Errorf("%w: at %s, want %s", errMoved, found.Position, at.Position)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("replica: view: %w", err), c.Close())
	}
	return &View{conn: c, at: at}, nil
}
