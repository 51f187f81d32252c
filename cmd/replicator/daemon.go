package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// A daemon is what a node of either role stands on.
type daemon struct {
	e     *environment
	log   *slog.Logger
	stack *stack
	lobby *lobby
	web   *web.Server
	conn  *stream.Conn // nil until it is connected
}

func newDaemon(e *environment, c config.Log) daemon {
	return daemon{e: e, log: newLogger(e, c), stack: newStack()}
}

// newLogger writes to standard error as the configuration says.
func newLogger(e *environment, c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.SlogLevel()}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(e.stderr, o))
	}
	return slog.New(slog.NewTextHandler(e.stderr, o))
}

// runNode runs what start starts, on a data directory of its own, until ctx ends.
func runNode(ctx context.Context, e *environment, dir string, start func(context.Context) (daemon, error)) error {
	lock, err := ownDataDir(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the process ends
	keepTempIn(e, dir)
	d, err := start(ctx)
	defer d.stack.stop()
	if err == nil {
		err = d.stack.wait(ctx)
	}
	if ctx.Err() != nil { // it was told to end, be it in the middle of a start
		d.log.Info("the node stops")
		return nil
	}
	return err
}

// ownDataDir creates a data directory and keeps other nodes out of it.
func ownDataDir(dir string) (*durable.Lock, error) {
	if err := sqlite.CheckBuild(); err != nil {
		return nil, err
	}
	if err := (durable.OS{}).MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	lock, err := durable.LockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	return lock, nil
}

// open starts the HTTP server and returns once it listens: from then on everyone
// can see how the node is, and what it waits for.
func (d *daemon) open(ctx context.Context, node, role string, h config.HTTP, databases []web.Database) error {
	d.lobby = &lobby{databases: databases, since: d.e.clock()}
	o := webOptions(h)
	o.Node, o.Role, o.Version, o.Source = node, role, buildInfo().version, d.lobby
	o.Registry, o.Clock, o.Logger = web.NewRegistry(), d.e.clock, d.log
	server, err := web.New(o)
	if err != nil {
		return err
	}
	d.web = server
	d.stack.startFront(ctx, server.Run)
	select {
	case <-server.Ready():
		d.log.Info("serving", "url", "http://"+server.Addr())
		return nil
	case err := <-d.stack.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// connect connects to NATS.
func (d *daemon) connect(ctx context.Context, o stream.Options) error {
	d.lobby.say("NATS at " + o.Where() + " does not answer yet")
	o.Logger = d.log
	conn, err := stream.Connect(ctx, o)
	if err != nil {
		return err
	}
	d.conn = conn
	d.stack.start(ctx, func(ctx context.Context) error {
		<-ctx.Done()
		conn.Close()
		return context.Cause(ctx)
	})
	return nil
}

// snapshotStore is where the snapshots of a database are.
func snapshotStore(conn *stream.Conn, kind, dir, db string, replicas int) snapshot.Store {
	if kind == config.StoreDir {
		return dirStore(dir, db)
	}
	return conn.Objects(db, replicas)
}

// fileSize is the size of a file in bytes, 0 if there is none. It does not open
// the file: a descriptor of a database that is closed drops SQLite's locks.
func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
