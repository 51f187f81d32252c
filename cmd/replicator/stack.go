package main

import "context"

// A stack is what a node consists of, each part standing on those before it.
// They end in the opposite order: a part never loses what it stands on. The front,
// which shows how the rest is, starts first and ends first.
type stack struct {
	front  *part
	parts  []part
	failed chan error // the first part that ended by itself
}

type part struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func newStack() *stack { return &stack{failed: make(chan error, 1)} }

// start runs the next part. It does not end with ctx but when the stack is
// stopped.
func (s *stack) start(ctx context.Context, run func(context.Context) error) {
	s.parts = append(s.parts, s.run(ctx, run))
}

// startFront runs the front.
func (s *stack) startFront(ctx context.Context, run func(context.Context) error) {
	p := s.run(ctx, run)
	s.front = &p
}

func (s *stack) run(ctx context.Context, run func(context.Context) error) part {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := part{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if err := run(ctx); ctx.Err() == nil {
			select {
			case s.failed <- err:
			default:
			}
		}
	}()
	return p
}

// wait waits for the end of ctx, which is the orderly one, or of a part.
func (s *stack) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// stop ends every part.
func (s *stack) stop() {
	if s.front != nil {
		s.front.end()
	}
	for i := len(s.parts) - 1; i >= 0; i-- {
		s.parts[i].end()
	}
}

func (p part) end() {
	p.cancel()
	<-p.done
}
