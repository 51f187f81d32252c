package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// heartbeatEvery is the time between two heartbeats; where nothing happens it is
// twice as long. Replicas call a path dead after 5 s without one.
const heartbeatEvery = 500 * time.Millisecond

// A primaryDaemon is a running primary.
type primaryDaemon struct {
	daemon
	cfg  config.Primary
	node *primaryNode
	url  string // of the embedded server; "" when NATS is elsewhere
}

// startPrimary starts everything a primary consists of. The caller stops the
// stack, also after an error.
func startPrimary(ctx context.Context, e *environment, cfg config.Primary) (*primaryDaemon, error) {
	d := &primaryDaemon{daemon: newDaemon(e, cfg.Log), cfg: cfg}
	if err := checkSources(cfg.Databases); err != nil {
		return d, err
	}
	if err := d.autoSizes(); err != nil {
		return d, err
	}
	d.log.LogAttrs(ctx, slog.LevelInfo, "primary starts", append(cfg.Summary(), limits(d.cfg)...)...)
	if !cfg.ChangeLog.Fsync {
		d.log.Warn("the change log is not fsynced: a power failure may take its last records, and replicas move back with the source",
			"key", "change_log.fsync")
	}
	var databases []web.Database
	for _, c := range cfg.Databases {
		databases = append(databases, web.Database{Name: c.Name, Path: c.Path})
	}
	if err := d.open(ctx, cfg.Node, config.RolePrimary, cfg.HTTP, databases); err != nil {
		return d, err
	}
	if err := d.reachNATS(ctx); err != nil {
		return d, err
	}
	return d, d.serve(ctx)
}

// runPrimary runs a primary until ctx ends.
func runPrimary(ctx context.Context, e *environment, cfg config.Primary) error {
	return runNode(ctx, e, cfg.DataDir, func(ctx context.Context) (daemon, error) {
		limitMemory(e, newLogger(e, cfg.Log), primaryHeap+mapsOf(cfg.Databases), primaryHeapEach, len(cfg.Databases)-primaryHeapFor+1)
		d, err := startPrimary(ctx, e, cfg)
		return d.daemon, err
	})
}

// autoSizes fills in the sizes that follow from the free space. A stream on
// servers of your own is bounded by them.
func (d *primaryDaemon) autoSizes() error {
	c := &d.cfg
	free, err := freeBelow(c.DataDir)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	c.Capture.MaxSQLiteWAL = autoSQLiteWAL(c.Capture.MaxSQLiteWAL, free)
	c.ChangeLog.MaxSize = autoChangeLog(c.ChangeLog.MaxSize, free)
	c.Snapshot.MaxHeld = autoHeld(c.Snapshot.MaxHeld, free)
	if c.NATS.IsEmbedded() {
		return d.boundStreams()
	}
	return nil
}

// boundStreams bounds the streams by the room in the embedded server's store, which may be
// more or less than at the last start.
func (d *primaryDaemon) boundStreams() error {
	c := &d.cfg
	store := c.NATS.Embedded.StoreDir
	if err := os.MkdirAll(store, 0o700); err != nil {
		return fmt.Errorf("nats.store_dir: %w", err)
	}
	var names []string
	for _, db := range c.Databases {
		names = append(names, db.Name)
	}
	room, err := stream.LookAtStore(store, int64(c.NATS.Embedded.MaxStore), names)
	if err != nil {
		return fmt.Errorf("nats.store_dir: %w", err)
	}
	if len(room.Others) > 0 {
		d.log.Warn("other streams, as of databases no longer configured, keep their room in nats.store_dir until they are deleted with `nats stream rm`",
			"streams", strings.Join(room.Others, ","))
	}
	want := c.Stream.MaxBytes
	c.Stream.MaxBytes = autoStream(want, config.Size(max(room.Streams, 0)), len(names))
	if c.Stream.MaxBytes < want {
		d.log.Warn("stream.max_bytes for each database is more than nats.store_dir can give, using less", "want", want, "using", c.Stream.MaxBytes)
	}
	return nil
}

// freeBelow is the free space of a folder, which is created if need be.
func freeBelow(dir string) (config.Size, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	return freeSpace(unix.Statfs, dir)
}

// checkSources refuses, before anything has the files open, what can never
// become right while the node runs: two databases that are one file and, as the
// only database, a file of something else. Among several databases such a one
// fails alone.
func checkSources(databases []config.PrimaryDatabase) error {
	var seen []os.FileInfo
	var names []string
	for _, db := range databases {
		info, err := os.Stat(db.Path)
		if errors.Is(err, os.ErrNotExist) || err != nil && len(databases) > 1 {
			continue // it may come, or its mount may
		}
		if err != nil {
			return fmt.Errorf("database %s: %w", db.Name, err)
		}
		for i := range seen {
			if os.SameFile(seen[i], info) {
				return usagef("databases %s and %s are one file, %s; remove one of them from the configuration", names[i], db.Name, db.Path)
			}
		}
		seen, names = append(seen, info), append(names, db.Name)
		if len(databases) > 1 {
			continue
		}
		if err := checkHeader(db.Path, info); err != nil {
			return fmt.Errorf("database %s: %w", db.Name, err)
		}
	}
	return nil
}

// checkHeader reads the start of a file that no connection of this process has
// open yet.
func checkHeader(path string, info os.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file; set path to a SQLite database", path)
	}
	if info.Size() == 0 {
		return nil // as SQLite makes it: the first table is still to come
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // reading only
	const magic = "SQLite format 3\x00"
	b := make([]byte, len(magic))
	if _, err := io.ReadFull(f, b); err != nil || string(b) != magic {
		return fmt.Errorf("%s is not a SQLite database (or it is encrypted); set path to one", path)
	}
	return nil
}

// reachNATS starts the embedded server, if there is one, and connects.
func (d *primaryDaemon) reachNATS(ctx context.Context) error {
	o := natsOptions(d.cfg.Node, d.cfg.NATS.URL, d.cfg.NATS.Credentials, d.cfg.NATS.TLS)
	if d.cfg.NATS.IsEmbedded() {
		d.lobby.say("the NATS server in this process reads its store, " + d.cfg.NATS.Embedded.StoreDir)
		o := serverOptions(d.cfg)
		o.Logger = d.log
		server, err := stream.NewServer(o)
		if err != nil {
			return err
		}
		d.stack.start(ctx, server.Run)
		if err := server.WaitReady(ctx); err != nil {
			return err
		}
		d.url = server.URL()
		d.log.Info("NATS server is up", "url", d.url, "store_dir", d.cfg.NATS.Embedded.StoreDir)
		return d.connect(ctx, stream.Options{Server: server, Name: d.cfg.Node})
	}
	return d.connect(ctx, o)
}

// serve starts a pipeline for each database.
func (d *primaryDaemon) serve(ctx context.Context) error {
	d.node = &primaryNode{clock: d.e.clock, asked: make(chan struct{}, 1)}
	packer, err := cdc.NewPacker(recordCodec(d.cfg))
	if err != nil {
		return err
	}
	sources := &primary.Sources{Turns: snapshotTurns(d.cfg.Snapshot.MaxMemory)}
	for i := range d.cfg.Databases {
		db, err := d.database(i, sources, packer)
		if err != nil {
			return err
		}
		d.node.databases = append(d.node.databases, db)
	}
	d.lobby.open(d.node)
	d.stack.start(ctx, func(ctx context.Context) error { return d.node.beat(ctx, d.conn, d.cfg.Node) })
	d.stack.start(ctx, func(ctx context.Context) error {
		var services []*service
		worked := map[*service]func() bool{}
		for _, db := range d.node.databases {
			services = append(services, &db.service)
			worked[&db.service] = db.pipeline.Worked
		}
		// A primary that is fenced while it works stays: its status says what resolves it.
		return supervise(ctx, d.log, services, func(s *service, err error) bool {
			return errors.Is(err, primary.ErrFenced) && worked[s]()
		})
	})
	return nil
}

func (d *primaryDaemon) database(i int, sources *primary.Sources, packer *cdc.Packer) (*sourceDatabase, error) {
	c := d.cfg.WithInherited(i)
	o := pipelineOptions(d.cfg, i)
	o.Stream = &published{Stream: d.conn.Stream(c.Name, streamConfig(d.cfg))}
	o.Snapshots = snapshotStore(d.conn, d.cfg.Snapshot.Store, d.cfg.Snapshot.Dir, c.Name, d.cfg.NATS.Replicas)
	if d.cfg.Snapshot.Store == config.StoreDir { // a folder that is not mounted holds no snapshots, and is to hold none
		o.Snapshots = snapshot.NewDirAt(filepath.Join(d.cfg.Snapshot.Dir, c.Name), filepath.Join(o.Dir, "store.json"))
	}
	o.ChangeLog.Packer = packer
	o.Sources, o.Replay, o.Clock, o.Logger, o.Version = sources, openReplay, d.e.clock, d.log, buildInfo().version
	p, err := primary.New(o)
	if err != nil {
		return nil, err
	}
	db := &sourceDatabase{pipeline: p, path: c.Path, fleet: newFleet(d.e.clock), clock: d.e.clock, ask: d.node.asked}
	db.service = service{name: c.Name, run: func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return p.Run(ctx) })
		g.Go(func() error { return serveRPC(ctx, d.conn, c.Name, p, stream.ClockHandler(d.e.clock)) })
		g.Go(func() error { return db.listen(ctx, d.conn) })
		return g.Wait()
	}}
	return db, nil
}
