package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// A replicaDaemon is a running replica.
type replicaDaemon struct {
	e   *environment
	cfg config.Replica
	log *slog.Logger

	conn  *stream.Conn
	stack *stack
	node  *replicaNode
	web   *web.Server
}

// startReplica starts everything a replica consists of. The caller stops the
// stack, also after an error.
func startReplica(ctx context.Context, e *environment, cfg config.Replica) (*replicaDaemon, error) {
	d := &replicaDaemon{e: e, cfg: cfg, log: newLogger(e, cfg.Log), stack: newStack()}
	d.log.LogAttrs(ctx, slog.LevelInfo, "replica starts", cfg.Summary()...)
	conn, err := stream.Connect(ctx, stream.Options{
		URL: cfg.NATS.URL, Name: cfg.Node, Logger: d.log,
		Credentials: credentials(cfg.NATS.Credentials), TLS: transport(cfg.NATS.TLS),
	})
	if err != nil {
		return d, err
	}
	d.conn = conn
	d.stack.start(ctx, closeWith(conn))
	if err := d.serve(ctx); err != nil {
		return d, err
	}
	o := webOptions(e, cfg.HTTP, d.log)
	o.Node, o.Role, o.Source = cfg.Node, config.RoleReplica, d.node
	d.web, err = startWeb(ctx, d.stack, o)
	return d, err
}

// runReplica runs a replica until ctx ends.
func runReplica(ctx context.Context, e *environment, cfg config.Replica) error {
	lock, err := ownDataDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the process ends
	limitMemory(e, newLogger(e, cfg.Log), replicaHeap, replicaHeapEach, len(cfg.Databases))
	d, err := startReplica(ctx, e, cfg)
	defer d.stack.stop()
	if err != nil {
		return err
	}
	go announce(ctx, d.log, d.web)
	err = d.stack.wait(ctx)
	d.log.Info("replica stops")
	return err
}

// serve starts a replica for each database.
func (d *replicaDaemon) serve(ctx context.Context) error {
	d.node = &replicaNode{conn: d.conn, name: d.cfg.Node, clock: d.e.clock}
	for _, c := range d.cfg.Databases {
		db, err := d.database(c)
		if err != nil {
			return err
		}
		d.node.databases = append(d.node.databases, db)
	}
	d.stack.start(ctx, func(ctx context.Context) error {
		var services []*service
		for _, db := range d.node.databases {
			services = append(services, &db.service)
		}
		return supervise(ctx, d.log, services, func(*service, error) bool { return false })
	})
	return nil
}

func (d *replicaDaemon) database(c config.ReplicaDatabase) (*copyDatabase, error) {
	store := snapshotStore(d.conn, d.cfg.Snapshot.Store, d.cfg.Snapshot.Dir, c.Name, 1)
	db := &copyDatabase{path: c.Path, clock: d.e.clock}
	apply := d.cfg.Apply
	r, err := replica.New(replica.Options{
		Database: c.Name, Path: c.Path, SpoolDir: filepath.Join(d.cfg.DataDir, c.Name),
		Stream:    consumed{d.conn.Stream(c.Name, stream.StreamConfig{})},
		Snapshots: replica.FromStore(store, snapshot.Options{}),
		Reports:   reports{conn: d.conn, node: d.cfg.Node, clock: d.e.clock},
		Logger:    d.log,
		Apply: replica.Apply{
			GroupMaxRecords: apply.GroupMaxRecords, GroupMaxBytes: int64(apply.GroupMaxBytes), CacheBytes: int64(apply.CacheSize),
			CheckpointBytes: int64(apply.CheckpointSize), HoldWriteLock: apply.HoldWriteLock, OnDivergence: replica.Policy(apply.OnDivergence),
			VerifyRows: true,
		},
		ReportInterval: d.cfg.ReportInterval,
	})
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

// reports sends the status of a replica to its primary.
type reports struct {
	conn  *stream.Conn
	node  string
	clock func() time.Time
}

// Report implements replica.Reports.
func (r reports) Report(s replica.Status) {
	report := stream.Report{
		Node: r.node, DB: s.Database, State: string(s.State), Applied: s.Applied.Position, Seen: s.Applied.Position, Needs: s.Needs,
		Totals: stream.Totals{Transactions: s.Applied.Transactions, Bytes: s.Applied.Bytes},
		Error:  lastError(s), Version: buildInfo().version, SentAt: r.clock(),
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
