package web

import (
	"context"
	"errors"
)

// A Source is the node that the server speaks for. Methods are called
// concurrently. Errors wrap ErrUnknown, ErrConflict or ErrUnavailable where one
// fits; when ctx ended, they wrap its cause.
type Source interface {
	Databases() []Database
	// Sync returns a position that covers every commit before the call, once it
	// is published and applied by as many replicas.
	Sync(ctx context.Context, db string, replicas int) (Position, error)
	// Wait returns when at is applied here. It returns how far this node has
	// come in any case.
	Wait(ctx context.Context, db string, at Position) (Position, error)
	// Verify compares a replica with its primary. It ends with ctx, on both nodes.
	Verify(ctx context.Context, db string) (Verification, error)
	// Repair returns, with the position, when nothing is known to be wrong with a
	// replica any more: a difference that was found is mended first.
	Repair(ctx context.Context, db string) (Position, error)
	Snapshot(ctx context.Context, db string) (Snapshot, error)
}

// Errors of a Source that have a status of their own.
var (
	// ErrUnknown: no such database; 404.
	ErrUnknown = errors.New("unknown database")
	// ErrConflict: this node cannot do it as things are, and trying again does
	// not help: the other role has to be asked, or the history has moved on; 409.
	ErrConflict = errors.New("not on this node")
	// ErrUnavailable: not now; 503.
	ErrUnavailable = errors.New("not available now")
)
