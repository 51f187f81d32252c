package primary

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// A queue is where the next snapshot of a pipeline waits for its turn among those of
// other databases. No pin is held meanwhile, and the snapshotter goes on trimming. It
// belongs to the goroutine of the snapshotter.
type queue struct {
	s       *snapshotter
	ctx     context.Context // of the snapshotter, and ends with the queue
	cancel  context.CancelFunc
	waiting sync.WaitGroup
	turn    chan func() // a turn that has come; the function ends it
	joined  bool        // a turn will come
	asked   []chan made
}

func newQueue(ctx context.Context, s *snapshotter) *queue {
	q := &queue{s: s, turn: make(chan func())}
	q.ctx, q.cancel = context.WithCancel(ctx)
	return q
}

// join asks for a turn, unless one will come already or no term runs: what waits for
// one must not make others wait for it.
func (q *queue) join() {
	if q.joined || !q.s.p.capturing.Load() {
		return
	}
	q.joined = true
	q.waiting.Go(func() {
		done, err := q.s.p.o.Sources.Turns.Take(q.ctx, q.s.p.sourceSize(), q.s.waits)
		if err != nil {
			return // of ctx
		}
		select {
		case q.turn <- done:
		case <-q.ctx.Done():
			done()
		}
	})
}

// serve makes the snapshot in the turn that has come, and tells those who asked. Where
// the term has ended meanwhile, the next one has another turn.
func (q *queue) serve(done func()) {
	defer done()
	s := q.s
	s.waits("")
	m, err := s.make(q.ctx)
	q.joined = false
	switch {
	case q.ctx.Err() != nil: // that is why it ended, and no failure
	case errors.Is(err, errNoTerm), len(q.asked) > 0 && endsTerm(err):
		return
	default:
		s.report(err)
		s.untrimmed = s.untrimmed || err == nil
		s.trim(q.ctx)
	}
	q.answer(made{m, err})
}

func (q *queue) answer(m made) {
	for _, asked := range q.asked {
		asked <- m
	}
	q.asked = nil
}

// end gives up the place in the queue.
func (q *queue) end() {
	q.cancel()
	q.waiting.Wait()
	q.s.waits("")
	q.answer(made{err: fmt.Errorf("no snapshot was made, the database is opened again or the node ends: %w", context.Cause(q.ctx))})
}

// waits notes what the next snapshot waits for; nothing: it does not.
func (s *snapshotter) waits(what string) {
	s.mu.Lock()
	s.percent = snapshot.Progress{Waits: what}
	s.mu.Unlock()
	if what != "" {
		s.p.o.Logger.Info("a snapshot waits " + what)
	}
}

// sourceSize is about the size of the source in bytes, 0 where that cannot be told. It
// opens nothing.
func (p *Pipeline) sourceSize() (n int64) {
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(p.o.Path + suffix); err == nil {
			n += info.Size()
		}
	}
	return n
}
