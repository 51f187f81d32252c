package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/tick"
)

const (
	// auditShare is the share of one CPU, and of the disk, that reading tables in the
	// background may take: one part in so many.
	auditShare = 4
	// auditNap is how long the auditor sleeps when there is nothing to read.
	auditNap = time.Second
	// auditRest is the least time, for which a pause is worth the timer.
	auditRest = 2 * time.Millisecond
	// auditWAL bounds, in parts of Apply.CheckpointBytes, the SQLite WAL up to which
	// the auditor takes its time: while it reads a table, the file cannot start over.
	auditWAL = 4
)

// An auditor reads whole tables, to find their row-set hashes or to prove them: one
// table in one read transaction, on a connection of its own.
type auditor struct {
	sums     *rowSums
	path     string
	clock    Clock
	log      *slog.Logger
	interval time.Duration
	hurry    func() bool
	found    chan error // one error: the file is not what it should be

	owed    time.Duration // rest, for work that was done
	worked  time.Time     // since when work is not accounted for
	failed  map[string]bool
	trouble string // that was said
}

// startAuditor reads tables until stop. Without Apply.VerifyRows it does nothing.
func startAuditor(ctx context.Context, r *Replica) (a *auditor, stop func()) {
	a = &auditor{
		sums: r.sums, path: r.o.Path, clock: r.o.Clock, log: r.o.Logger, interval: r.o.Apply.AuditInterval,
		hurry: func() bool { return r.board.status().SQLiteWAL > auditWAL*r.o.Apply.CheckpointBytes },
		found: make(chan error, 1), failed: make(map[string]bool),
	}
	if r.sums == nil {
		return a, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	return a, func() {
		cancel()
		<-done
	}
}

// run ends with ctx, or when it has found something.
func (a *auditor) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.audit(ctx)
		var d *Divergence
		switch {
		case ctx.Err() != nil:
		case errors.As(err, &d) || sqlite.IsCorrupt(err):
			a.found <- err
			return
		default:
			a.complain(err)
			_ = a.clock.Sleep(ctx, tick.Until(a.clock.Now(), auditNap)) // the loop looks at ctx
		}
	}
}

// complain says once what keeps the tables from being read.
func (a *auditor) complain(err error) {
	text := ""
	if err != nil && !sqlite.IsBusy(err) {
		text = err.Error()
	}
	if text != "" && text != a.trouble {
		a.log.Warn("cannot read the replica's tables to prove them; trying again", "err", err)
	}
	a.trouble = text
}

// audit reads the tables that wait, and all of them when it is time to.
func (a *auditor) audit(ctx context.Context) error {
	if !a.sums.waiting(a.clock.Now(), a.interval) {
		return nil
	}
	c, err := sqlite.Open(a.path, sqlite.Options{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("replica: audit: %w", err)
	}
	for ctx.Err() == nil && err == nil {
		var more bool
		if more, err = a.next(ctx, c); !more {
			break
		}
	}
	if cerr := c.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("replica: audit: %w", cerr)
	}
	return err
}

// next reads the table that waits first. more is false when there was none.
func (a *auditor) next(ctx context.Context, c *sqlite.Conn) (more bool, err error) {
	a.worked = a.clock.Now()
	t, err := a.sums.begin(c)
	if err != nil {
		return false, err
	}
	if t == nil {
		if a.sums.finished(a.clock.Now()) {
			a.log.Info("read the replica's tables")
		}
		return false, nil
	}
	sum, err := c.SumTablePaced(ctx, t.name, func(rows uint64) {
		a.sums.progress(rows)
		a.rest(ctx)
	})
	if rerr := c.Rollback(); err == nil {
		err = rerr
	}
	a.sums.progress(0)
	switch {
	case ctx.Err() != nil:
		a.sums.again(t)
		return false, nil
	case sqlite.Passes(err) || sqlite.IsCorrupt(err):
		a.sums.again(t)
		return false, fmt.Errorf("replica: audit of table %q at LSN %d: %w", t.name, t.lsn, err)
	case err != nil:
		a.excuse(t, err)
		return true, nil
	}
	if d := a.sums.learn(t, sum.Sum); d != nil {
		return false, d
	}
	return true, nil
}

// excuse passes over a table which this program cannot read, until the next pass.
func (a *auditor) excuse(t *reading, err error) {
	if !a.failed[t.name] {
		a.failed[t.name] = true
		a.log.Warn("table cannot be proved", "table", t.name, "lsn", t.lsn, "err", err)
	}
}

// rest pauses for as long as the share demands.
func (a *auditor) rest(ctx context.Context) {
	now := a.clock.Now()
	a.owed += max(now.Sub(a.worked), 0) * (auditShare - 1)
	a.worked = now
	if a.hurry() {
		a.owed = 0
	}
	if a.owed < auditRest {
		return
	}
	_ = a.clock.Sleep(ctx, a.owed) // the caller looks at ctx
	a.worked = a.clock.Now()
	// Timers may be late by as much as the rest; that is made up for.
	a.owed = max(a.owed-a.worked.Sub(now), -auditRest)
}

// A reading is a table that is being read as it was at one LSN.
type reading struct {
	of     *rowSum
	name   string
	lsn    cdc.LSN
	era    int
	change cdc.RowSum // of the table, up to lsn
}

// waiting reports whether there are tables to read; at the end of the interval
// that is all of them.
func (s *rowSums) waiting(now time.Time, interval time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 && !s.audited.IsZero() && now.Sub(s.audited) >= interval {
		for _, e := range s.byName {
			s.queue = append(s.queue, e)
		}
	}
	return len(s.queue) > 0 || s.audited.IsZero()
}

// begin opens a read transaction on c and gives the table to read in it; nil: none.
func (s *rowSums) begin(c *sqlite.Conn) (*reading, error) {
	s.mu.Lock() // no commit until the transaction has its snapshot
	defer s.mu.Unlock()
	for len(s.queue) > 0 && !s.queue[0].live {
		s.queue = s.queue[1:]
	}
	if len(s.queue) == 0 {
		return nil, nil
	}
	err := c.OpenRead()
	var at Mark
	if err == nil {
		at, _, err = readPosition(c)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("replica: audit: %w", err), c.Rollback())
	}
	e := s.queue[0]
	s.queue = s.queue[1:]
	return &reading{of: e, name: e.name, lsn: at.LSN, era: e.era, change: e.change}, nil
}

// finished notes that no table waits, unless one has come meanwhile.
func (s *rowSums) finished(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 {
		return false
	}
	s.audited = now
	return true
}

func (s *rowSums) progress(rows uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scanned = rows
}

// again puts a table back that could not be read to its end.
func (s *rowSums) again(t *reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, t.of)
}

// learn takes the hash of a table as it was read. If the table's hash was known, or
// the primary has given it for the table as it is, they must be equal.
func (s *rowSums) learn(t *reading, sum cdc.RowSum) *Divergence {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := t.of
	if !e.live || e.era != t.era {
		return nil
	}
	if e.known {
		if e.base.Add(t.change) != sum {
			return &Divergence{LSN: t.lsn, Table: t.name, err: ErrRowSum, here: true}
		}
		return nil
	}
	e.base, e.known = sum.Sub(t.change), true
	if e.claim.lsn == 0 {
		return nil
	}
	if e.sum() != e.claim.sum {
		e.base = e.claim.sum.Sub(e.change) // of the rows as they should be: a seal must not call these right
		return &Divergence{LSN: e.claim.lsn, Table: e.name, err: ErrRowSum, here: e.claim.own}
	}
	if !e.claim.own {
		e.proved = e.claim.lsn
	}
	return nil
}
