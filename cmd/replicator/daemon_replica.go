package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// A replicaDaemon is a running replica.
type replicaDaemon struct {
	daemon
	cfg  config.Replica
	node *replicaNode
}

// startReplica starts everything a replica consists of. The caller stops the
// stack, also after an error.
func startReplica(ctx context.Context, e *environment, cfg config.Replica) (*replicaDaemon, error) {
	d := &replicaDaemon{daemon: newDaemon(e, cfg.Log), cfg: cfg}
	d.log.LogAttrs(ctx, slog.LevelInfo, "replica starts", cfg.Summary()...)
	var databases []web.Database
	for _, c := range cfg.Databases {
		databases = append(databases, web.Database{Name: c.Name, Path: c.Path})
	}
	if err := d.open(ctx, cfg.Node, config.RoleReplica, cfg.HTTP, databases); err != nil {
		return d, err
	}
	if err := d.connect(ctx, natsOptions(cfg.Node, cfg.NATS.URL, cfg.NATS.Credentials, cfg.NATS.TLS)); err != nil {
		return d, err
	}
	return d, d.serve(ctx)
}

// runReplica runs a replica until ctx ends.
func runReplica(ctx context.Context, e *environment, cfg config.Replica) error {
	return runNode(ctx, e, cfg.DataDir, func(ctx context.Context) (daemon, error) {
		limitMemory(e, newLogger(e, cfg.Log), replicaHeap, replicaHeapEach, len(cfg.Databases))
		shareCaches(e, int64(cfg.Apply.CacheSize), len(cfg.Databases))
		d, err := startReplica(ctx, e, cfg)
		return d.daemon, err
	})
}

// serve starts a replica for each database.
func (d *replicaDaemon) serve(ctx context.Context) error {
	d.node = &replicaNode{conn: d.conn, name: d.cfg.Node, clock: d.e.clock}
	turns := snapshotTurns(d.cfg.Snapshot.MaxMemory)
	for _, c := range d.cfg.Databases {
		db, err := d.database(c, turns)
		if err != nil {
			return err
		}
		d.node.databases = append(d.node.databases, db)
	}
	d.lobby.open(d.node)
	d.stack.start(ctx, func(ctx context.Context) error {
		var services []*service
		for _, db := range d.node.databases {
			services = append(services, &db.service)
		}
		return supervise(ctx, d.log, services, func(*service, error) bool { return false })
	})
	return nil
}

func (d *replicaDaemon) database(c config.ReplicaDatabase, turns *snapshot.Turns) (*copyDatabase, error) {
	db := &copyDatabase{path: c.Path, clock: d.e.clock, stepped: make(chan struct{}, 1)}
	o := replicaOptions(d.cfg, c)
	o.Stream = consumed{d.conn.Stream(c.Name, stream.StreamConfig{})}
	o.Snapshots = replica.FromStore(snapshotStore(d.conn, d.cfg.Snapshot.Store, d.cfg.Snapshot.Dir, c.Name, 1), snapshot.Options{})
	o.Reports = &reports{conn: d.conn, node: d.cfg.Node, version: buildInfo().version, clock: d.e.clock}
	o.Turns, o.Logger = turns, d.log
	r, err := replica.New(o)
	if err != nil {
		return nil, err
	}
	db.replica = r
	db.service = service{name: c.Name, run: func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return r.Run(ctx) })
		g.Go(func() error { return db.hear(ctx, d.conn) })
		g.Go(func() error { return db.measure(ctx, d.conn) })
		return g.Wait()
	}}
	return db, nil
}

// reports sends the status of a replica to its primary. One goroutine uses it.
type reports struct {
	conn    *stream.Conn
	node    string
	version string
	clock   func() time.Time
	said    saying[reported]
}

// What was reported last.
type reported struct {
	state   replica.State
	applied replica.Mark
	source  cdc.Position
}

// Report implements replica.Reports.
func (r *reports) Report(s replica.Status) {
	even := s.State == replica.Streaming && s.Lag.Seconds != nil && *s.Lag.Seconds == 0
	if !r.said.again(reported{s.State, s.Applied, s.Source.Position}, even) {
		return
	}
	report := stream.Report{
		Node: r.node, DB: s.Database, State: string(s.State), Applied: s.Applied.Position, Seen: s.Applied.Position, Needs: s.Needs,
		Totals: stream.Totals{Transactions: s.Applied.Transactions, Bytes: s.Applied.Bytes},
		Error:  lastError(s), Version: r.version, SentAt: r.clock(),
	}
	if at := s.Source.Position; at.Epoch > report.Seen.Epoch || at.Epoch == report.Seen.Epoch && at.LSN > report.Seen.LSN {
		report.Seen = at
	}
	if lagKnown(s) {
		report.Lag = stream.Lag{Transactions: &s.Lag.Transactions, Bytes: &s.Lag.Bytes, Seconds: s.Lag.Seconds}
	}
	if s.Lag.Since != nil {
		report.Since = *s.Lag.Since
	}
	_ = r.conn.SendReport(report) // the next one comes soon; conn says when it is down
}
