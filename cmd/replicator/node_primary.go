package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/tick"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// A sourceDatabase is one database of a primary.
type sourceDatabase struct {
	service
	pipeline *primary.Pipeline
	path     string
	fleet    *fleet
	backlog  backlog
	clock    func() time.Time
	said     saying[cdc.Position]
	asked    atomic.Bool     // a replica that has come, or come on, waits to hear how far we are
	ask      chan<- struct{} // has room for one: some database was asked
}

// A saying is what was told last of a database. Where nothing happens every second one
// is left out, unless it is due for another reason.
type saying[T comparable] struct {
	what   T
	rested bool // the last one was left out
}

// again reports whether to tell what; quiet says that it leaves nothing open.
func (s *saying[T]) again(what T, quiet bool) bool {
	s.rested = quiet && what == s.what && !s.rested
	s.what = what
	return !s.rested
}

// listen hears how far the replicas are.
func (d *sourceDatabase) listen(ctx context.Context, conn *stream.Conn) error {
	if err := conn.OnReports(ctx, d.name, d.heard); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// beat tells replicas how far the database is; due: in any case.
func (d *sourceDatabase) beat(conn *stream.Conn, node string, due bool) {
	s := d.pipeline.Reach()
	if s.Position.LSN == 0 || d.err() != nil {
		return
	}
	d.backlog.note(mark{d.clock(), s.Position.LSN, s.Totals}, s.LSN.Published)
	h := heartbeat(s, node, d.clock())
	if d.said.again(h.Position, !due && s.Position.LSN == h.Position.LSN) {
		// Not connected: replicas notice by the silence, and conn has said it.
		_ = conn.SendHeartbeat(d.name, h)
	}
}

// heard takes the report of a replica.
func (d *sourceDatabase) heard(r stream.Report) {
	if d.fleet.add(r) {
		d.asked.Store(true)
		select {
		case d.ask <- struct{}{}:
		default:
		}
	}
	d.pipeline.Heard(r.Node, r.Seen)
	d.pipeline.Hold(r.Node, need(r, d.pipeline.Reach().Position.Lineage))
	if r.State == string(replica.Waiting) {
		d.pipeline.WantSnapshot()
	}
}

// need is what a replica needs of the history lineage: nothing, if it follows
// another one and is not about to leave that, or if only a person can help it.
func need(r stream.Report, lineage cdc.ID) primary.Need {
	switch replica.State(r.State) {
	case replica.Restoring:
		return primary.Need{After: r.Needs, Restoring: true}
	case replica.Failed, replica.Diverged:
		return primary.Need{}
	}
	if r.Applied.Lineage != lineage {
		return primary.Need{}
	}
	return primary.Need{After: r.Needs}
}

// heartbeat names the last boundary that is published. Its totals are of what
// is captured, so that a replica counts as behind what it cannot have yet.
func heartbeat(s primary.Reach, node string, now time.Time) stream.Heartbeat {
	at := cdc.Position{Lineage: s.Position.Lineage, Epoch: s.LSN.Epoch, LSN: s.LSN.Published}
	if s.Position.LSN == s.LSN.Published {
		at.Hash = s.Position.Hash // of any other boundary it is not known here
	}
	return stream.Heartbeat{
		Node: node, State: s.State, Position: at, Totals: stream.Totals{Transactions: s.Totals.Transactions, Bytes: s.Totals.Bytes},
		Captured: s.LSN.Captured, Durable: s.LSN.Durable, Published: s.LSN.Published,
		SentAt: now, Level: max(0, now.Sub(s.Level)),
	}
}

// A primaryNode is what the HTTP server of a primary asks.
type primaryNode struct {
	databases []*sourceDatabase
	clock     func() time.Time
	asked     chan struct{} // some database's replica waits to hear
}

// beat tells replicas how far each database is: all at once, since a hundred
// goroutines would cost more than what they send.
func (n *primaryNode) beat(ctx context.Context, conn *stream.Conn, node string) error {
	ticks := tick.NewTicker(heartbeatEvery)
	defer ticks.Stop()
	for all := true; ; {
		for _, d := range n.databases {
			if asked := d.asked.Swap(false); all || asked {
				d.beat(conn, node, asked)
			}
		}
		select {
		case <-ticks.C:
			ticks.Next()
			all = true
		case <-n.asked:
			all = false
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Databases implements web.Source.
func (n *primaryNode) Databases() []web.Database {
	var all []web.Database
	for _, d := range n.databases {
		all = append(all, d.describe())
	}
	return all
}

func (d *sourceDatabase) describe() web.Database {
	s, now := d.pipeline.Status(), d.clock()
	w := web.Database{
		Name: d.name, Path: d.path, State: s.State, Since: s.Since, Error: s.Error, Epoch: s.Position.Epoch,
		LSN: web.LSNs{Captured: &s.LSN.Captured, Durable: &s.LSN.Durable, Published: &s.LSN.Published},
		Lag: d.lag(s, now),
		Sizes: web.Sizes{
			Database: fileSize(d.path), SQLiteWAL: fileSize(d.path + "-wal"),
			ChangeLog: s.ChangeLog.Bytes, Snapshot: s.Snapshot.Stored,
		},
		Details:  primaryDetails(s, now),
		Warnings: primaryWarnings(s),
		Stalls:   stalls(&s.Capture.Stalls),
		Replicas: d.fleet.describe(now),
	}
	if err := d.err(); err != nil {
		w.State, w.Error = primary.StateFailed, err.Error()
		if errors.Is(err, primary.ErrFenced) {
			w.State = primary.StateFenced
		}
	}
	if p := s.Snapshot.Working; p != nil {
		w.Progress = snapshotProgress("snapshot", *p, now)
	}
	return w
}

// darkAfter is how long the capture may not come along until nobody can know what
// there is to publish.
const darkAfter = 5 * time.Second

func (d *sourceDatabase) lag(s primary.Status, now time.Time) web.Lag {
	if d.err() != nil || now.Sub(s.Level) > darkAfter {
		return web.Lag{Since: &s.Level}
	}
	return d.backlog.lag(mark{now, s.Position.LSN, s.Totals}, s.LSN.Published)
}

func primaryWarnings(s primary.Status) (all []string) {
	if h := s.Capture.Held; h != nil {
		all = append(all, h.String())
	}
	if r := s.Reports; r.Kept > 0 {
		all = append(all, fmt.Sprintf("%s of failed self-checks, the newest is %s; they hold no row values: please send them, then remove them", count(r.Kept, "report"), r.Newest))
	}
	return all
}

func primaryDetails(s primary.Status, now time.Time) web.Details {
	d := web.Details{
		"transactions_total": float64(s.Totals.Transactions), "changes_total": float64(s.Totals.Changes),
		"change_bytes_total":                    float64(s.Totals.Bytes),
		"sqlite_wal_generations_total":          float64(s.Capture.Generations),
		"sqlite_wal_turnovers_total":            float64(s.Capture.Turnovers),
		"sqlite_wal_turnovers_unfinished_total": float64(s.Capture.Unfinished),
		"repins_total":                          float64(s.Capture.Repins),
		"longest_stall_seconds":                 s.Capture.Stalls.Max.Seconds(),
		"spilled_bytes":                         float64(s.Capture.SpilledBytes),
		"tables":                                float64(s.Sums.Tables),
		"row_set_hashes_known":                  float64(s.Sums.Known),
		"row_set_hash_mismatches_total":         float64(s.Sums.Mismatches),
		"page_map_mismatches_total":             float64(s.Sums.MapMismatches),
		"inspections_total":                     float64(s.Sums.Inspections),
		"self_check_failures_total":             float64(s.Reports.Failed),
		"bug_reports":                           float64(s.Reports.Kept),
		"comparisons":                           float64(s.Audits),
		"snapshot_newest_lsn":                   float64(s.Snapshot.Newest),
		"change_log_first_lsn":                  float64(s.ChangeLog.First),
	}
	d["sqlite_wal_held_bytes"], d["sqlite_wal_held_seconds"] = 0, 0
	if h := s.Capture.Held; h != nil {
		d["sqlite_wal_held_bytes"], d["sqlite_wal_held_seconds"] = float64(h.Bytes), now.Sub(h.Since).Seconds()
	}
	if !s.Snapshot.Made.IsZero() {
		d["snapshot_newest_timestamp_seconds"] = float64(s.Snapshot.Made.Unix())
	}
	return d
}

func stalls(h *primary.StallHistogram) *web.Stalls {
	s := &web.Stalls{Counts: h.Counts[:], SumSeconds: h.Sum.Seconds()}
	for _, b := range primary.StallBounds {
		s.Bounds = append(s.Bounds, b.Seconds())
	}
	return s
}

// Sync implements web.Source.
func (n *primaryNode) Sync(ctx context.Context, db string, replicas int) (web.Position, error) {
	d, err := find(n.databases, db)
	if err != nil {
		return web.Position{}, err
	}
	at, err := d.pipeline.Sync(ctx)
	if err == nil && replicas > 0 {
		err = d.fleet.wait(ctx, at, replicas)
	}
	return positionOf(at), err
}

// lookEvery is the time between two looks at a position that has no signal.
const lookEvery = 10 * time.Millisecond

// Wait implements web.Source: on a primary, applied means published.
func (n *primaryNode) Wait(ctx context.Context, db string, want web.Position) (web.Position, error) {
	d, err := find(n.databases, db)
	if err != nil {
		return web.Position{}, err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		s := d.pipeline.Reach()
		at := web.Position{LSN: s.LSN.Published, Epoch: s.LSN.Epoch, Lineage: s.Position.Lineage}
		if at.LSN >= want.LSN && at.Epoch >= want.Epoch && (at.Lineage == want.Lineage || want.Lineage == cdc.ID{}) {
			return at, nil
		}
		select {
		case <-tick.C:
			if _, err := find(n.databases, db); err != nil { // it has failed meanwhile
				return at, err
			}
		case <-ctx.Done():
			return at, fmt.Errorf("wait for LSN %d of %s: published up to %d in epoch %d: %w", want.LSN, db, at.LSN, at.Epoch, context.Cause(ctx))
		}
	}
}

// Verify implements web.Source.
func (n *primaryNode) Verify(_ context.Context, db string) (web.Verification, error) {
	return web.Verification{}, refused("this is the primary of %s: ask a replica to verify itself", db)
}

// Repair implements web.Source.
func (n *primaryNode) Repair(_ context.Context, db string) (web.Position, error) {
	return web.Position{}, refused("this is the primary of %s: only a replica is repaired", db)
}

// Snapshot implements web.Source.
func (n *primaryNode) Snapshot(ctx context.Context, db string) (web.Snapshot, error) {
	d, err := find(n.databases, db)
	if err != nil {
		return web.Snapshot{}, err
	}
	m, err := d.pipeline.Snapshot(ctx)
	if err != nil {
		return web.Snapshot{}, fmt.Errorf("snapshot of %s: %w", db, err)
	}
	return web.Snapshot{
		ID: m.ID, LSN: m.Position.LSN, Epoch: m.Position.Epoch, CreatedAt: m.CreatedAt, Bytes: m.Size(), Stored: m.StoredSize(),
	}, nil
}

// aliveFor is how long after its last report a replica counts as alive.
const aliveFor = 5 * time.Second

// A fleet is what the replicas of one database report.
type fleet struct {
	*stream.Fleet
	clock   func() time.Time
	mu      sync.Mutex
	changed chan struct{} // closed at the next report
}

func newFleet(clock func() time.Time) *fleet {
	return &fleet{Fleet: stream.NewFleet(clock), clock: clock, changed: make(chan struct{})}
}

func (f *fleet) add(r stream.Report) (news bool) {
	news = f.Add(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
	return news
}

func (f *fleet) change() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// wait waits until as many replicas have reported that they applied at. Those count that
// are alive, or report before ctx ends, however seldom they do.
func (f *fleet) wait(ctx context.Context, at cdc.Position, replicas int) error {
	since := f.clock().Add(-aliveFor)
	for {
		changed := f.change()
		n := f.holding(at, since)
		if n >= replicas {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("LSN %d is applied by %d of %d replicas: %w", at.LSN, n, replicas, context.Cause(ctx))
		}
	}
}

// holding counts the replicas that have reported since then that they applied at.
func (f *fleet) holding(at cdc.Position, since time.Time) (n int) {
	for _, r := range f.Replicas() {
		if !r.ArrivedAt.Before(since) && holds(r, at) {
			n++
		}
	}
	return n
}

// holds reports whether a read at the replica sees what at covers: nothing is certain of
// one that differs or has failed.
func holds(r stream.Report, at cdc.Position) bool {
	switch replica.State(r.State) {
	case replica.Diverged, replica.Failed:
		return false
	}
	// An epoch before is of a history that lost its end: the record there is another.
	a := r.Applied
	return a.Lineage == at.Lineage && a.LSN >= at.LSN && a.Epoch >= at.Epoch
}

func (f *fleet) describe(now time.Time) []web.Replica {
	var all []web.Replica
	for _, r := range f.Replicas() {
		w := web.Replica{
			Node: r.Node, State: r.State, Error: r.Error, Epoch: r.Applied.Epoch, Applied: r.Applied.LSN,
			Lag:        web.Lag{Transactions: r.Lag.Transactions, Bytes: r.Lag.Bytes, Seconds: r.Lag.Seconds},
			ReportedAt: r.ArrivedAt, Alive: now.Sub(r.ArrivedAt) <= aliveFor,
		}
		if !r.Since.IsZero() {
			w.Lag.Since = &r.Since
		}
		if !w.Alive { // what it said last is not so any more
			w.Lag = web.Lag{Since: &w.ReportedAt}
		}
		all = append(all, w)
	}
	return all
}
