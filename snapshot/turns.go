package snapshot

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Turns bounds the buffers of all snapshots that a process makes, restores or reads
// back at a time: with many databases that is at once after a start. Who asks first
// comes first. Its methods may be called concurrently; a nil *Turns lets all work begin
// at once.
type Turns struct {
	room  *semaphore.Weighted
	bytes int64
}

// NewTurns gives out turns for buffers of that many bytes in all. One snapshot is
// worked on at a time however little that is.
func NewTurns(bytes int64) *Turns {
	bytes = max(bytes, leastTurn)
	return &Turns{room: semaphore.NewWeighted(bytes), bytes: bytes}
}

// Bytes is what all turns together may take.
func (t *Turns) Bytes() int64 { return t.bytes }

// leastTurn is what work on the smallest snapshot takes, in bytes: the embedded server
// keeps a block of as many for each bucket that was just written.
const leastTurn = 512 << 10

// Take waits for a turn to work on the snapshot of a database of size bytes. If there
// is none at once it calls waits, which may be nil, with what it waits for. The turn
// ends with done, which may be called again. An error is that of ctx.
func (t *Turns) Take(ctx context.Context, size int64, waits func(what string)) (done func(), err error) {
	if t == nil {
		return func() {}, nil
	}
	// A chunk is there twice, as it is in the database and as it is stored.
	n := min(max(2*min(size, bufferBudget), leastTurn), bufferBudget, t.bytes)
	if !t.room.TryAcquire(n) {
		if waits != nil {
			waits(fmt.Sprintf("for its turn: the snapshots being worked on take the %d MiB of snapshot.max_memory", t.bytes>>20))
		}
		if err := t.room.Acquire(ctx, n); err != nil {
			return nil, err
		}
	}
	return sync.OnceFunc(func() { t.room.Release(n) }), nil
}
