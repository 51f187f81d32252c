package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// A copyDatabase is one database of a replica.
type copyDatabase struct {
	service
	replica *replica.Replica
	path    string
	clock   func() time.Time
	offset  atomic.Int64  // primary's clock minus ours, as last measured
	apart   time.Duration // the same, as the heartbeat showed it that last made us measure
	stepped chan struct{} // has room for one: somebody has set a clock, it seems

	comparing atomic.Pointer[comparison] // the last one that began; nil: none is under way
}

// hear hands heartbeats to the replica.
func (d *copyDatabase) hear(ctx context.Context, conn *stream.Conn) error {
	if err := conn.OnHeartbeat(ctx, d.name, d.heard); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// heard takes a heartbeat of the primary.
func (d *copyDatabase) heard(h stream.Heartbeat) {
	now := d.clock()
	if apart := h.SentAt.Sub(now); max(apart-d.apart, d.apart-apart) > clockStep {
		d.apart = apart
		select {
		case d.stepped <- struct{}{}:
		default:
		}
	}
	d.replica.Heard(replica.Heartbeat{
		State: word(h.State), Position: h.Position, Captured: h.Captured, Durable: h.Durable, Published: h.Published,
		Transactions: h.Totals.Transactions, Bytes: h.Totals.Bytes,
		SentAt: h.SentAt, Level: max(0, h.Level), ReceivedAt: now, Offset: time.Duration(d.offset.Load()),
	})
}

// word is s if it is one that a state may have, else "": it comes from whoever may
// publish, and is shown.
func word(s string) string {
	if len(s) > maxWord || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return s
}

// maxWord is the length of the longest state that is taken from another node.
const maxWord = 20

const (
	measureEvery = 30 * time.Second // between two measurements of the clock offset
	measureAgain = time.Second      // after one that failed
	maxRoundTrip = time.Second      // of a measurement that is worth something
	clockStep    = time.Second      // heartbeats that come by so much earlier or later are a reason for one
)

// measure keeps the clock offset.
func (d *copyDatabase) measure(ctx context.Context, conn *stream.Conn) error {
	for {
		pause := measureAgain
		offset, rtt, err := conn.ClockOffset(ctx, d.name, d.clock)
		if err == nil && rtt <= maxRoundTrip {
			d.offset.Store(int64(offset))
			pause = measureEvery
		}
		select {
		case <-time.After(pause):
		case <-d.stepped:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A replicaNode is what the HTTP server of a replica asks.
type replicaNode struct {
	databases []*copyDatabase
	conn      *stream.Conn
	name      string
	clock     func() time.Time
}

// Databases implements web.Source.
func (n *replicaNode) Databases() []web.Database {
	var all []web.Database
	for _, d := range n.databases {
		all = append(all, d.describe(n.conn.Connected()))
	}
	return all
}

func (d *copyDatabase) describe(connected bool) web.Database {
	s, now := d.replica.Status(), d.clock()
	w := web.Database{
		Name: d.name, Path: d.path, State: string(s.State), Since: s.Since, Error: lastError(s), Epoch: s.Applied.Epoch,
		LSN:     web.LSNs{Applied: &s.Applied.LSN},
		Lag:     web.Lag{Since: s.Lag.Since},
		Sizes:   web.Sizes{Database: fileSize(d.path), SQLiteWAL: fileSize(d.path + "-wal")},
		Details: d.details(s, connected),
	}
	if s.Progress != nil {
		w.Progress = workProgress(string(s.State), *s.Progress, now.Sub(s.Since))
	} else if c := d.comparing.Load(); c != nil {
		w.Progress = c.progress()
	}
	if lagKnown(s) {
		w.Lag = web.Lag{Transactions: &s.Lag.Transactions, Bytes: &s.Lag.Bytes, Seconds: s.Lag.Seconds}
	}
	if err := d.err(); err != nil {
		w.State, w.Error, w.Lag = string(replica.Failed), err.Error(), web.Lag{Since: s.Lag.Since}
	}
	return w
}

// lagKnown reports whether the lag means anything: before the first snapshot is
// restored everything is behind, whatever there is of it.
func lagKnown(s replica.Status) bool { return s.Lag.Seconds != nil && s.Applied.LSN > 0 }

// lastError is the trouble that explains the state; one that is over does not.
func lastError(s replica.Status) string {
	if s.Error == nil || s.State == replica.Streaming || s.State == replica.CatchingUp {
		return ""
	}
	return s.Error.Text
}

func (d *copyDatabase) details(s replica.Status, connected bool) web.Details {
	up := 0.0
	if connected {
		up = 1
	}
	all := web.Details{
		"transactions_total":         float64(s.Applied.Transactions),
		"change_bytes_total":         float64(s.Applied.Bytes),
		"applied_transactions_total": float64(s.Counters.Transactions),
		"applied_changes_total":      float64(s.Counters.Changes),
		"applied_records_total":      float64(s.Counters.Records),
		"applied_commits_total":      float64(s.Counters.Commits),
		"applied_swaps_total":        float64(s.Counters.Swaps),
		"reseeds_total":              float64(s.Counters.Reseeds),
		"divergences_total":          float64(s.Counters.Divergences),
		"stray_writes_total":         float64(s.Counters.StrayWrites),
		"left_off_indexes":           float64(len(s.LeftOff)),
		"clock_offset_seconds":       -time.Duration(d.offset.Load()).Seconds(),
		"connected":                  up,
	}
	if v := s.Verification; v != nil {
		all["tables"] = float64(v.Tables)
		all["row_set_hashes_known"] = float64(v.Known)
		all["row_set_hashes_verified"] = float64(v.Verified)
		all["row_set_hashes_oldest_verified_lsn"] = float64(v.OldestLSN)
		all["row_set_hash_mismatches_total"] = float64(s.Counters.Mismatches)
	}
	return all
}

// Sync implements web.Source: it asks the primary and waits until this replica
// has applied what it says, so that a read here sees every earlier commit.
func (n *replicaNode) Sync(ctx context.Context, db string, replicas int) (web.Position, error) {
	d, err := find(n.databases, db)
	if err != nil {
		return web.Position{}, err
	}
	if replicas > 1 {
		return web.Position{}, refused("this is a replica of %s: it knows of no other; ask the primary for %d replicas", db, replicas)
	}
	at, err := ask[cdc.Position](ctx, n.conn, db, methodSync, nil)
	if err != nil {
		return web.Position{}, absent(ctx, err)
	}
	if _, err := d.replica.WaitFor(ctx, at); err != nil {
		return web.Position{}, err
	}
	return positionOf(at), nil
}

// positionOf is at as the HTTP server gives it.
func positionOf(at cdc.Position) web.Position {
	return web.Position{LSN: at.LSN, Epoch: at.Epoch, Lineage: at.Lineage}
}

// absent marks an error that is the primary's absence, or that of NATS: it may
// come back before the caller gives up.
func absent(ctx context.Context, err error) error {
	if ctx.Err() == nil && (errors.Is(err, stream.ErrNoResponder) || errors.Is(err, stream.ErrUnavailable)) {
		return fmt.Errorf("%w: %w", web.ErrUnavailable, err)
	}
	return err
}

// Wait implements web.Source.
func (n *replicaNode) Wait(ctx context.Context, db string, want web.Position) (web.Position, error) {
	d, err := find(n.databases, db)
	if err != nil {
		return web.Position{}, err
	}
	at, err := d.replica.WaitFor(ctx, cdc.Position{Lineage: want.Lineage, Epoch: want.Epoch, LSN: want.LSN})
	return positionOf(at), err
}

// Verify implements web.Source.
func (n *replicaNode) Verify(ctx context.Context, db string) (web.Verification, error) {
	d, err := find(n.databases, db)
	if err != nil {
		return web.Verification{}, err
	}
	return n.compare(ctx, d)
}

// Repair implements web.Source.
func (n *replicaNode) Repair(ctx context.Context, db string) (web.Position, error) {
	d, err := find(n.databases, db)
	if err != nil {
		return web.Position{}, err
	}
	err = d.replica.Repair(ctx)
	return positionOf(d.replica.Status().Applied.Position), err
}

// Snapshot implements web.Source.
func (n *replicaNode) Snapshot(_ context.Context, db string) (web.Snapshot, error) {
	return web.Snapshot{}, refused("this is a replica of %s: only its primary makes snapshots", db)
}
