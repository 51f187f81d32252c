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

// ErrNoAudit means that there is no audit of that name: nobody asked for it for a
// while, or the primary was started again.
var ErrNoAudit = errors.New("no such comparison; start it again")

// errAuditSpace ends an audit whose pin costs too much.
var errAuditSpace = errors.New("the comparison gave way to the application: the SQLite WAL grew past half of max_sqlite_wal, " +
	"and starts over only when the comparison ends; verify when less is written, or raise capture.max_sqlite_wal")

const (
	// auditLease is how long an audit lasts that nobody asks for.
	auditLease = 30 * time.Second
	// auditVerdict bounds the time in which the capture takes notice of what was found.
	auditVerdict = time.Minute
	// maxAudits bounds the audits at a time: each holds a pin and reads everything.
	maxAudits = 4
	// maxRuns bounds an answer of AuditRows: it is one message.
	maxRuns = 4096
)

// An Audit is the content of the source at one position, as sums of its tables,
// to compare with a replica at the same position.
type Audit struct {
	At     cdc.Position
	Schema [2]uint64 // sum of the schema's text
	Tables []sqlite.TableSum
}

// An AuditState is how far an audit has come.
type AuditState struct {
	Read  sqlite.Read
	Bytes int64  // to be read, about
	Audit *Audit // nil until everything is read
}

// audits are the comparisons under way.
type audits struct {
	clock func() time.Time

	mu      sync.Mutex
	running map[cdc.ID]*audit
}

// An audit holds a pin until it is ended, or until nobody asks for it any more.
type audit struct {
	ctx    context.Context // ends with the term, when the pin costs too much, and with the audit
	cancel context.CancelCauseFunc
	frozen *Frozen
	bytes  int64 // of the pages of its tables
	done   chan struct{}
	result Audit // once done is closed
	err    error // once done is closed

	reading sync.Mutex // who uses the connection of frozen

	mu    sync.Mutex
	read  sqlite.Read
	asked time.Time // the last time
}

// BeginAudit freezes the source and starts to sum it up. The replica that asks
// goes to exactly the position it returns, asks again and again with Audit how far the
// sums are, and ends the audit.
func (p *Pipeline) BeginAudit(ctx context.Context) (cdc.ID, cdc.Position, error) {
	id, err := cdc.NewID(nil)
	if err != nil {
		return id, cdc.Position{}, err
	}
	a := &audit{asked: p.o.Clock(), done: make(chan struct{})}
	err = p.askOn(ctx, func(c *capture) (err error) {
		if a.frozen, err = c.freeze(); err == nil {
			a.bytes = int64(c.decoder.pages.mapped()) * int64(a.frozen.PageSize())
		}
		return err
	})
	if err != nil {
		return id, cdc.Position{}, err
	}
	a.ctx, a.cancel = context.WithCancelCause(a.frozen.alive)
	if err := p.audits.add(id, a); err != nil {
		return id, cdc.Position{}, errors.Join(err, a.frozen.Close())
	}
	go a.run(p.summer.verify)
	return id, a.frozen.At, nil
}

// run sums up the frozen state, tells verify what the capture believes of it, and
// keeps it for questions until the audit ends.
func (a *audit) run(verify func(context.Context, cdc.Position, []knownSum, []sqlite.TableSum) int) {
	alive := a.frozen.alive
	a.err = a.sum()
	close(a.done)
	if a.err == nil {
		ctx, cancel := context.WithTimeout(alive, auditVerdict)
		verify(ctx, a.frozen.At, a.frozen.sums, a.result.Tables)
		cancel()
		<-a.ctx.Done()
	}
	a.cancel(a.err)
	a.reading.Lock()
	defer a.reading.Unlock()
	_ = a.frozen.Close() // a read transaction: nothing to lose
}

func (a *audit) sum() (err error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	a.result.At = a.frozen.At
	a.result.Tables, a.result.Schema, err = a.frozen.Conn().Content(a.ctx, func(r sqlite.Read) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.read = r
	})
	if err != nil && a.ctx.Err() != nil {
		err = context.Cause(a.ctx)
	}
	return err
}

// Audit tells how far an audit is. It waits for the sums until ctx ends.
func (p *Pipeline) Audit(ctx context.Context, id cdc.ID) (AuditState, error) {
	a, err := p.audits.ask(id)
	if err != nil {
		return AuditState{}, fmt.Errorf("audit %s of %s: %w", id, p.o.Name, err)
	}
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	a.mu.Lock()
	s := AuditState{Read: a.read, Bytes: a.bytes}
	a.mu.Unlock()
	select {
	case <-a.done:
		s.Audit = &a.result
		return s, a.err
	default:
		return s, nil
	}
}

// A RowRange asks for the rows of a table by rowid, as sqlite.RunReader.Read says. No
// answer has more than maxRuns runs.
type RowRange struct {
	Table       string
	First, Last int64
	Size, Most  int
}

// AuditRows hashes rows of an audit whose sums are known. The error wraps
// sqlite.ErrNoRowid where the table has no rowids.
func (p *Pipeline) AuditRows(ctx context.Context, id cdc.ID, q RowRange) ([]sqlite.RowRun, error) {
	a, err := p.audits.ask(id)
	if err != nil {
		return nil, fmt.Errorf("audit %s of %s: %w", id, p.o.Name, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.ctx, func() { cancel(context.Cause(a.ctx)) })()
	a.reading.Lock()
	defer a.reading.Unlock()
	if a.ctx.Err() != nil { // the connection may be closed
		return nil, context.Cause(a.ctx)
	}
	rows, err := a.frozen.Conn().Runs(q.Table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	runs, err := rows.Read(ctx, q.First, q.Last, q.Size, min(q.Most, maxRuns))
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return runs, err
}

// EndAudit releases what an audit holds. One that is not known has ended.
func (p *Pipeline) EndAudit(id cdc.ID) { p.audits.end(id) }

func (s *audits) add(id cdc.ID, a *audit) error {
	s.expire()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		s.running = map[cdc.ID]*audit{}
	}
	if len(s.running) >= maxAudits {
		return fmt.Errorf("%d comparisons are under way; try again when one has ended", len(s.running))
	}
	s.running[id] = a
	return nil
}

// ask finds an audit and notes that somebody wants it.
func (s *audits) ask(id cdc.ID) (*audit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.running[id]
	if a == nil {
		return nil, ErrNoAudit
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = s.clock()
	return a, nil
}

func (s *audits) end(id cdc.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.running[id]; a != nil {
		a.cancel(ErrNoAudit)
		delete(s.running, id)
	}
}

// expire ends the audits that nobody has asked for in a while: their replica is gone.
func (s *audits) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.running {
		a.mu.Lock()
		idle := s.clock().Sub(a.asked)
		a.mu.Unlock()
		if idle > auditLease {
			a.cancel(ErrNoAudit)
			delete(s.running, id)
		}
	}
}

// interrupt makes the audits give up what they hold. They stay to say why.
func (s *audits) interrupt(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.running {
		a.cancel(why)
	}
}

// reading is how many audits hold a pin.
func (s *audits) reading() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.running {
		if a.ctx.Err() == nil {
			n++
		}
	}
	return n
}
