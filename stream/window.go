package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	windowBytes   = 8 << 20   // in flight, at most
	windowLeast   = 256 << 10 // the same on the slowest link, and until it is known
	windowRecords = 1024      // records in flight; small ones would fill the bytes only with very many
)

// A window bounds the bytes in flight, of a publication or of all objects that are put, or
// of all that are read, by what the link takes within linger. With more on a slow one
// acknowledgements would come too late, and so would what shares the link: heartbeats, answers
// and pings. It may be used concurrently.
type window struct {
	linger time.Duration
	places *semaphore.Weighted // windowBytes of them, of which a byte takes as many as make the limit
	flying atomic.Int64        // bytes

	mu       sync.Mutex
	limit    int64         // bytes
	quickest time.Duration // of the answers, as over a link with nothing on it
}

func newWindow(linger time.Duration) *window {
	return &window{linger: linger, places: semaphore.NewWeighted(windowBytes), limit: windowLeast, quickest: linger}
}

// A flight is a message's part of a window.
type flight struct {
	size, places int64
	with         int64 // bytes in flight when it left, its own included
	left         time.Time
}

// enter waits until there is room for size bytes; a message larger than all of it goes alone.
func (w *window) enter(ctx context.Context, size int64) (flight, error) {
	w.mu.Lock()
	f := flight{size: size, places: min(size*windowBytes/w.limit, windowBytes)}
	w.mu.Unlock()
	if err := w.places.Acquire(ctx, f.places); err != nil {
		return f, err
	}
	f.with, f.left = w.flying.Add(size), time.Now()
	return f, nil
}

// leave gives back the room of f.
func (w *window) leave(f flight) {
	w.flying.Add(-f.size)
	w.places.Release(f.places)
}

// arrived learns from an answer that took so long. What it took longer than the
// quickest it has waited behind the rest.
func (w *window) arrived(f flight, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quickest = min(w.quickest, took)
	switch waited := took - w.quickest; {
	case waited > w.linger:
		w.limit = max(int64(float64(f.with)*float64(w.linger)/float64(waited)), windowLeast)
	case waited < w.linger/2 && f.with > w.limit/2:
		w.limit = min(2*w.limit, windowBytes)
	}
}
