package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sqlite-replicator/replicator/cdc"
)

// What a feed holds ahead of the applier.
const (
	feedRecords = 1024
	feedBytes   = 8 << 20
)

// An item is one record on its way to the applier.
type item struct {
	raw     []byte
	pending uint64 // records known to follow it
}

// A feed consumes the stream ahead of the applier, within bounds, and goes on
// by itself after an interruption.
type feed struct {
	items  chan item
	failed chan error // one error: the stream does not lead on from here
	room   *semaphore.Weighted
	cancel context.CancelFunc
	done   chan struct{}
}

func startFeed(ctx context.Context, r *Replica, from cdc.LSN) *feed {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{
		items: make(chan item, feedRecords), failed: make(chan error, 1),
		room: semaphore.NewWeighted(feedBytes), cancel: cancel, done: make(chan struct{}),
	}
	go func() {
		defer close(f.done)
		f.failed <- f.run(ctx, r, from)
	}()
	return f
}

// stop ends the feed and drops what it holds.
func (f *feed) stop() {
	f.cancel()
	<-f.done
}

// rest gives a record that came before the failure err, if there is one left; the
// failure is then still to be read.
func (f *feed) rest(err error) (item, bool) {
	select {
	case it := <-f.items:
		f.failed <- err
		return it, true
	default:
		return item{}, false
	}
}

// taken gives back the room of an item.
func (f *feed) taken(it item) { f.room.Release(int64(len(it.raw))) }

// run consumes until the stream leads no further or ctx ends.
func (f *feed) run(ctx context.Context, r *Replica, next cdc.LSN) error {
	var pause backoff
	for {
		r.board.attempting()
		// An idle stream gives no error, and no record that does not fit.
		attempt, stop := context.WithCancel(ctx)
		go r.board.untilForeign(attempt, stop)
		err := r.o.Stream.Consume(attempt, next, func(rec []byte, lsn cdc.LSN, pending uint64) error {
			r.board.reached()
			pause.reset()
			next = lsn + 1
			return f.put(ctx, item{raw: bytes.Clone(rec), pending: pending})
		})
		stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			err = errors.New("replica: the stream ended without an error")
		}
		if errors.Is(err, cdc.ErrGap) || errors.Is(err, cdc.ErrFork) || errors.Is(err, cdc.ErrVersion) {
			return err
		}
		r.board.lost(err)
		if r.board.foreign() {
			return fmt.Errorf("replica: the primary has another history: %w: %w", cdc.ErrFork, err)
		}
		if err := r.o.Clock.Sleep(ctx, pause.next()); err != nil {
			return context.Cause(ctx)
		}
	}
}

func (f *feed) put(ctx context.Context, it item) error {
	if err := f.room.Acquire(ctx, int64(len(it.raw))); err != nil {
		return err
	}
	select {
	case f.items <- it:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A backoff doubles pauses.
type backoff struct{ last time.Duration }

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstPause), maxPause)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }
