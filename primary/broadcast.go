package primary

import (
	"context"
	"sync"
)

// A broadcast wakes everyone who waits for a condition.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// wait returns when done holds or ctx ends. done is called after each notify.
func (b *broadcast) wait(ctx context.Context, done func() bool) error {
	for {
		b.mu.Lock()
		if b.ch == nil {
			b.ch = make(chan struct{})
		}
		ch := b.ch
		b.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
