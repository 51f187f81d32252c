package primary

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// ErrNoAudit means that there is no audit of that name: it expired, or the
// primary was started again.
var ErrNoAudit = errors.New("no such comparison; start it again")

const auditLifetime = 10 * time.Minute

// An Audit is the content of the source at one position, as sums of its tables,
// to compare with a replica at the same position.
type Audit struct {
	At     cdc.Position
	Schema [2]uint64 // sum of the schema's text
	Tables []sqlite.TableSum
}

// audits are the comparisons under way.
type audits struct {
	mu      sync.Mutex
	clock   func() time.Time
	running map[cdc.ID]*audit
}

type audit struct {
	ctx    context.Context // ends with the term, or when the pin costs too much
	cancel context.CancelCauseFunc
	began  time.Time
	frozen *Frozen
	done   chan struct{}
	result Audit
	err    error
}

// BeginAudit freezes the source and starts to sum it up. The replica that asks
// goes to exactly the position it returns. Audit gives the result.
func (p *Pipeline) BeginAudit(ctx context.Context) (cdc.ID, cdc.Position, error) {
	id, err := cdc.NewID(nil)
	if err != nil {
		return id, cdc.Position{}, err
	}
	frozen, err := p.freeze(ctx)
	if err != nil {
		return id, cdc.Position{}, err
	}
	a := &audit{began: p.o.Clock(), frozen: frozen, done: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancelCause(frozen.alive)
	if err := p.audits.add(id, a); err != nil {
		return id, cdc.Position{}, errors.Join(err, frozen.Close())
	}
	go a.run(p.summer.verify)
	return id, frozen.At, nil
}

// run sums up the frozen state, and tells verify what the capture believes of it.
func (a *audit) run(verify func(context.Context, cdc.Position, []knownSum, []sqlite.TableSum) int) {
	a.result.At = a.frozen.At
	var err error
	a.result.Tables, a.result.Schema, err = a.frozen.Conn().Content(a.ctx, nil)
	if err != nil && a.ctx.Err() != nil {
		err = context.Cause(a.ctx)
	}
	a.err = errors.Join(err, a.frozen.Close())
	a.cancel(nil)
	close(a.done)
	if a.err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), auditLifetime)
		defer cancel()
		verify(ctx, a.frozen.At, a.frozen.sums, a.result.Tables)
	}
}

// Audit waits for the sums of an audit and ends it.
func (p *Pipeline) Audit(ctx context.Context, id cdc.ID) (Audit, error) {
	a := p.audits.get(id)
	if a == nil {
		return Audit{}, fmt.Errorf("audit %s of %s: %w", id, p.o.Name, ErrNoAudit)
	}
	select {
	case <-a.done:
		p.audits.remove(id)
		return a.result, a.err
	case <-ctx.Done():
		return Audit{}, context.Cause(ctx)
	}
}

// maxAudits bounds the audits at a time: each holds a pin and reads everything.
const maxAudits = 4

func (s *audits) add(id cdc.ID, a *audit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		s.running = map[cdc.ID]*audit{}
	}
	for old, o := range s.running {
		if s.clock().Sub(o.began) > auditLifetime {
			o.cancel(ErrNoAudit)
			delete(s.running, old)
		}
	}
	if len(s.running) >= maxAudits {
		return fmt.Errorf("%d comparisons are under way; try again when one has ended", len(s.running))
	}
	s.running[id] = a
	return nil
}

// interrupt ends the audits that still read.
func (s *audits) interrupt(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.running {
		a.cancel(why)
	}
}

// reading reports whether an audit holds a pin.
func (s *audits) reading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.running {
		if a.ctx.Err() == nil {
			return true
		}
	}
	return false
}

func (s *audits) get(id cdc.ID) *audit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

func (s *audits) remove(id cdc.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, id)
}
