package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// Bounds of what a comparison waits for.
const (
	comparePatience = time.Minute      // without anything that moves
	beginTimeout    = 30 * time.Second // until the primary has frozen its state
	stateTimeout    = 5 * time.Second  // until it says how far it is
	silentPrimary   = 20 * time.Second // until it counts as gone
	rowsTimeout     = time.Minute      // until it has hashed what is asked for at once
	keepEvery       = 10 * time.Second // between two signs that the primary's audit is wanted
	endTimeout      = 2 * time.Second
)

// A comparison is a verification under way: the primary freezes its state, the replica
// goes to exactly the same LSN, and both hash every row. It ends with its context, on
// both sides.
type comparison struct {
	d    *copyDatabase
	node *replicaNode
	id   cdc.ID // of the primary's audit, once it has begun

	mu   sync.Mutex
	at   time.Time        // since when hashes are computed, and later, since when rows are looked for
	seen compared         // of the hashes
	most float64          // share of them that was shown
	rows replica.Progress // of the search for rows that differ; Total 0: there is none
}

// compared is how far both sides have come.
type compared struct {
	here  sqlite.Read
	there sqlite.Read
	bytes int64 // that the primary has to read, about
	whole bool  // it has
}

// compare runs a comparison.
func (n *replicaNode) compare(ctx context.Context, d *copyDatabase) (web.Verification, error) {
	c := &comparison{d: d, node: n}
	d.comparing.Store(c)
	defer d.comparing.CompareAndSwap(c, nil)
	began := d.clock()
	g, during := errgroup.WithContext(ctx)
	var v web.Verification
	done := make(chan struct{})
	g.Go(func() (err error) {
		defer close(done)
		v, err = c.run(during)
		return err
	})
	g.Go(func() error { return c.watch(during, done) })
	err := g.Wait()
	v.Node, v.Database, v.Seconds = n.name, d.name, d.clock().Sub(began).Seconds()
	return v, err
}

func (c *comparison) run(ctx context.Context) (v web.Verification, err error) {
	var begun auditBegun
	defer func() { c.end(ctx, begun.ID) }()
	var keeping sync.WaitGroup
	defer keeping.Wait()
	wanted, enough := context.WithCancel(ctx)
	defer enough()
	view, err := c.d.replica.HoldAt(ctx, func(ctx context.Context) (_ cdc.LSN, err error) {
		if begun, err = c.begin(ctx); err == nil {
			c.id = begun.ID
			keeping.Go(func() { c.keep(wanted) })
		}
		return begun.At.LSN, err
	})
	if errors.Is(err, replica.ErrDiverged) {
		at := c.d.replica.Status().Applied
		return web.Verification{LSN: at.LSN, Epoch: at.Epoch, Differences: []string{err.Error()}}, nil
	}
	if err != nil {
		return v, absent(ctx, err)
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	if view.Position() != begun.At {
		return v, fmt.Errorf("verify %s: this replica is at %s where the primary is at %s", c.d.name, view.Position(), begun.At)
	}
	here, there, err := c.sums(ctx, view)
	if err != nil {
		return v, err
	}
	v = web.Verification{LSN: begun.At.LSN, Epoch: begun.At.Epoch, Tables: len(there.Tables)}
	for _, t := range there.Tables {
		v.Rows += int64(t.Rows)
	}
	var differ []string
	v.Differences, differ = differences(here.Tables, there.Tables)
	if left := len(c.d.replica.Status().LeftOff); here.Schema != there.Schema && left == 0 {
		v.Differences, differ = append(v.Differences, "the schema differs"), append(differ, "sqlite_schema")
	}
	v.Equal = len(v.Differences) == 0
	err = c.name(ctx, view, here.Tables, there.Tables, &v)
	c.d.replica.Compared(view, differ) // whether rows have names or not
	return v, err
}

// begin makes the primary freeze its state.
func (c *comparison) begin(ctx context.Context) (auditBegun, error) {
	short, cancel := context.WithTimeout(ctx, beginTimeout)
	defer cancel()
	begun, err := ask[auditBegun](short, c.node.conn, c.d.name, methodAuditBegin, nil)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: the primary does not capture %s at present; see its status: %w", web.ErrUnavailable, c.d.name, err)
	}
	return begun, err
}

// keep asks for the primary's audit until ctx ends: also while the replica is on its way
// to it, and while it hashes what the primary has hashed already. One that nobody asks for
// ends.
func (c *comparison) keep(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		_, _ = c.state(ctx, math.MaxInt) // and for no tables; who needs it hears what is wrong with it
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// end releases what the primary holds for an audit, whatever has become of ctx. Where
// it cannot be told it notices by itself.
func (c *comparison) end(ctx context.Context, id cdc.ID) {
	if id == (cdc.ID{}) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	_, _ = ask[struct{}](ctx, c.node.conn, c.d.name, methodAuditEnd, auditRequest{ID: id})
}

// sums gives the content of both sides, which hash it at the same time.
func (c *comparison) sums(ctx context.Context, view *replica.View) (here, there primary.Audit, err error) {
	c.mu.Lock()
	c.at = c.d.clock()
	c.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		here.Tables, here.Schema, err = view.Content(ctx, func(r sqlite.Read) {
			c.note(func(s *compared) { s.here = r })
		})
		return err
	})
	g.Go(func() (err error) {
		there, err = c.audit(ctx)
		return err
	})
	return here, there, g.Wait()
}

// audit asks the primary until it has hashed everything. It may be away for a while.
func (c *comparison) audit(ctx context.Context) (primary.Audit, error) {
	heard := c.d.clock()
	var tables []sqlite.TableSum
	for {
		s, err := c.state(ctx, len(tables))
		switch now := c.d.clock(); {
		case err == nil && s.Audit != nil:
			tables = append(tables, s.Audit.Tables...)
			if s.More && len(s.Audit.Tables) > 0 {
				heard = now
				continue
			}
			c.note(func(p *compared) { p.there, p.whole = s.Read, true })
			s.Audit.Tables = tables
			return *s.Audit, nil
		case err == nil:
			heard = now
			c.note(func(p *compared) { p.there, p.bytes = s.Read, s.Bytes })
			continue
		case ctx.Err() != nil:
			return primary.Audit{}, context.Cause(ctx)
		case errors.Is(err, stream.ErrRemote) || now.Sub(heard) > silentPrimary:
			return primary.Audit{}, absent(ctx, err)
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return primary.Audit{}, context.Cause(ctx)
		}
	}
}

// state asks how far the primary is, and for its tables from an index on.
func (c *comparison) state(ctx context.Context, from int) (auditState, error) {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	return ask[auditState](ctx, c.node.conn, c.d.name, methodAuditState, auditRequest{ID: c.id, From: &from})
}

// maxNamedTables bounds the tables of which rows are named.
const maxNamedTables = 100

// name finds out which rows differ in tables that both sides have.
func (c *comparison) name(ctx context.Context, view *replica.View, here, there []sqlite.TableSum, v *web.Verification) error {
	tables := unequal(here, there)
	tables = tables[:min(len(tables), maxNamedTables)]
	rows := replica.Progress{Unit: "rows"}
	for _, t := range tables {
		rows.Total += t.Rows
	}
	for _, t := range tables {
		found, err := c.find(ctx, view, t.Name, func(done uint64) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.rows.Total == 0 {
				c.at = c.d.clock()
			}
			c.rows = rows
			c.rows.Done += done
		})
		rows.Done += t.Rows
		switch {
		case errors.Is(err, sqlite.ErrNoRowid):
			v.Differences = append(v.Differences, fmt.Sprintf("table %s: its rows have no rowid to name them by", t.Name))
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil: // that the table differs is known all the same
			v.Differences = append(v.Differences, fmt.Sprintf("table %s: its rows cannot be named: %v", t.Name, err))
		default:
			v.Differing = append(v.Differing, tableRows(t.Name, found))
		}
	}
	return nil
}

func (c *comparison) find(ctx context.Context, view *replica.View, table string, progress func(uint64)) (replica.DifferingRows, error) {
	rows, err := view.Runs(table)
	if err != nil {
		return replica.DifferingRows{}, err
	}
	defer rows.Close()
	return replica.FindDiffering(ctx, rows, &auditedTable{c, table}, progress)
}

func tableRows(table string, found replica.DifferingRows) web.TableRows {
	t := web.TableRows{Table: table, Count: found.Count, More: found.More}
	for _, r := range found.First {
		t.First = append(t.First, web.DifferingRow{Rowid: r.Rowid, Fault: string(r.Fault)})
	}
	return t
}

// An auditedTable is a table of the primary in the state that it has frozen. It
// implements replica.RowSource.
type auditedTable struct {
	of    *comparison
	table string
}

// Read implements replica.RowSource.
func (t *auditedTable) Read(ctx context.Context, first, last int64, size, most int) ([]sqlite.RowRun, error) {
	ctx, cancel := context.WithTimeout(ctx, rowsTimeout)
	defer cancel()
	runs, err := ask[[]sqlite.RowRun](ctx, t.of.node.conn, t.of.d.name, methodAuditRows,
		auditRequest{ID: t.of.id, Rows: &primary.RowRange{Table: t.table, First: first, Last: last, Size: size, Most: most}})
	if err != nil {
		return nil, err
	}
	return runs, checkRuns(runs, first, last, size)
}

// checkRuns refuses an answer that sqlite.RunReader.Read does not give: whoever
// believes it may never come to an end.
func checkRuns(runs []sqlite.RowRun, first, last int64, size int) error {
	if len(runs) == 0 {
		return fmt.Errorf("answer to %s: empty", methodAuditRows)
	}
	for i, r := range runs {
		if r.Upto < first || r.Upto > last || i > 0 && r.Upto <= runs[i-1].Upto || r.Rows > uint64(size) {
			return fmt.Errorf("answer to %s: run %d of rows %d to %d has %d rows up to %d", methodAuditRows, i, first, last, r.Rows, r.Upto)
		}
	}
	return nil
}

func (c *comparison) note(f func(*compared)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.seen)
}

// progress is how far both sides are: the slower one counts. nil: neither has begun.
func (c *comparison) progress() *web.Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	took := c.d.clock().Sub(c.at)
	switch {
	case c.at.IsZero():
		return nil
	case c.rows.Total > 0:
		return workProgress("looking for rows that differ", c.rows, took)
	}
	c.most = max(c.most, c.seen.share())
	total := uint64(c.seen.bytes)
	return workProgress("verifying", replica.Progress{Done: uint64(c.most * float64(total)), Total: total, Unit: "bytes"}, took)
}

// share is how much of the work is done by the slower side, from 0 to 1. Only the
// primary knows how much there is; both read the same rows in the same order.
func (s *compared) share() float64 {
	share := 1.0
	if !s.whole {
		share = min(float64(s.there.Bytes)/float64(max(s.bytes, 1)), 0.99) // bytes is an estimate
	}
	if s.here.Rows < s.there.Rows {
		share *= float64(s.here.Rows) / float64(s.there.Rows)
	}
	return share
}

// watch ends a comparison in which nothing moves any more. It returns nil once done
// is closed.
func (c *comparison) watch(ctx context.Context, done <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	p := patience{limit: comparePatience}
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if p.over(c.sight(), c.d.clock()) {
			s := c.d.replica.Status()
			return fmt.Errorf("%w: nothing has moved for %s; the replica is %s%s", web.ErrUnavailable, comparePatience, s.State, because(s))
		}
	}
}

func because(s replica.Status) string {
	if text := lastError(s); text != "" {
		return ": " + text
	}
	return ""
}

// A sight is everything that moves while a comparison goes on.
type sight struct {
	seen    compared
	rows    replica.Progress
	state   replica.State // until hashes are computed, like what follows
	applied cdc.LSN
	work    replica.Progress
}

func (c *comparison) sight() sight {
	r := c.d.replica.Status()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := sight{seen: c.seen, rows: c.rows}
	if !c.at.IsZero() {
		return s
	}
	s.state, s.applied = r.State, r.Applied.LSN
	if r.Progress != nil {
		s.work = *r.Progress
	}
	return s
}

// A patience ends when it has had the same sight for too long.
type patience struct {
	limit time.Duration
	last  sight
	since time.Time
}

func (p *patience) over(now sight, at time.Time) bool {
	if p.since.IsZero() || now != p.last {
		p.last, p.since = now, at
	}
	return at.Sub(p.since) >= p.limit
}
