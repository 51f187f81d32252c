package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// heartbeatEvery is the time between two heartbeats; replicas call a path dead
// after 5 s without one.
const heartbeatEvery = 500 * time.Millisecond

// A primaryDaemon is a running primary.
type primaryDaemon struct {
	e   *environment
	cfg config.Primary
	log *slog.Logger

	bounded bool // the configuration names the bound of the streams

	conn  *stream.Conn
	stack *stack
	node  *primaryNode
	url   string // of the embedded server; "" when NATS is elsewhere
	web   *web.Server
}

// startPrimary starts everything a primary consists of. The caller stops the
// stack, also after an error.
func startPrimary(ctx context.Context, e *environment, cfg config.Primary) (*primaryDaemon, error) {
	d := &primaryDaemon{e: e, cfg: cfg, log: newLogger(e, cfg.Log), stack: newStack(), bounded: cfg.Stream.MaxBytes != 0}
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
	if err := d.connect(ctx); err != nil {
		return d, err
	}
	if err := d.serve(ctx); err != nil {
		return d, err
	}
	o := webOptions(e, cfg.HTTP, d.log)
	o.Node, o.Role, o.Source = cfg.Node, config.RolePrimary, d.node
	var err error
	d.web, err = startWeb(ctx, d.stack, o)
	return d, err
}

// runPrimary runs a primary until ctx ends.
func runPrimary(ctx context.Context, e *environment, cfg config.Primary) error {
	lock, err := ownDataDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the process ends
	limitMemory(e, newLogger(e, cfg.Log), primaryHeap+mapsOf(cfg.Databases), primaryHeapEach, len(cfg.Databases))
	d, err := startPrimary(ctx, e, cfg)
	defer d.stack.stop()
	if err != nil {
		return err
	}
	go announce(ctx, d.log, d.web)
	err = d.stack.wait(ctx)
	d.log.Info("primary stops")
	return err
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
	if !c.NATS.IsEmbedded() {
		return nil
	}
	store, err := freeBelow(c.NATS.Embedded.StoreDir)
	if err != nil {
		return fmt.Errorf("nats.store_dir: %w", err)
	}
	if c.NATS.Embedded.MaxStore > 0 {
		store = min(store, c.NATS.Embedded.MaxStore)
	}
	c.Stream.MaxBytes = autoStream(c.Stream.MaxBytes, store, len(c.Databases))
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
		if errors.Is(err, os.ErrNotExist) {
			continue // it may come
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

// connect starts the embedded server, if there is one, and the connection.
func (d *primaryDaemon) connect(ctx context.Context) error {
	o := stream.Options{URL: d.cfg.NATS.URL, Name: d.cfg.Node, Logger: d.log,
		Credentials: credentials(d.cfg.NATS.Credentials), TLS: transport(d.cfg.NATS.TLS)}
	if d.cfg.NATS.IsEmbedded() {
		server, err := d.embedded()
		if err != nil {
			return err
		}
		d.stack.start(ctx, server.Run)
		if err := server.WaitReady(ctx); err != nil {
			return err
		}
		d.url = server.URL()
		d.log.Info("NATS server is up", "url", d.url, "store_dir", d.cfg.NATS.Embedded.StoreDir)
		o = stream.Options{Server: server, Name: d.cfg.Node, Logger: d.log}
	}
	conn, err := stream.Connect(ctx, o)
	if err != nil {
		return err
	}
	d.conn = conn
	d.stack.start(ctx, closeWith(conn))
	return nil
}

func (d *primaryDaemon) embedded() (*stream.Server, error) {
	n := d.cfg.NATS
	return stream.NewServer(stream.ServerOptions{
		Name: d.cfg.Node, Dir: n.Embedded.StoreDir, Listen: n.Embedded.Listen,
		MaxStore: int64(n.Embedded.MaxStore), MaxPayload: int(n.Embedded.MaxPayload),
		SyncInterval: n.Embedded.SyncInterval, SyncAlways: n.Embedded.SyncAlways,
		Auth:   stream.ServerAuth{User: n.Credentials.User, Password: n.Credentials.Password.Reveal(), Token: n.Credentials.Token.Reveal()},
		TLS:    transport(n.TLS),
		Logger: d.log,
	})
}

// serve starts a pipeline for each database.
func (d *primaryDaemon) serve(ctx context.Context) error {
	d.node = &primaryNode{clock: d.e.clock}
	sources := &primary.Sources{}
	for i := range d.cfg.Databases {
		db, err := d.database(i, sources)
		if err != nil {
			return err
		}
		d.node.databases = append(d.node.databases, db)
	}
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

func (d *primaryDaemon) database(i int, sources *primary.Sources) (*sourceDatabase, error) {
	c, cfg := d.cfg, d.cfg.WithInherited(i)
	store := snapshotStore(d.conn, c.Snapshot.Store, c.Snapshot.Dir, cfg.Name, c.NATS.Replicas)
	p, err := primary.New(primary.Options{
		Name: cfg.Name, Path: cfg.Path, Dir: filepath.Join(c.DataDir, cfg.Name), Node: c.Node,
		Stream: &published{
			Stream: d.conn.Stream(cfg.Name, stream.StreamConfig{
				MaxBytes: int64(c.Stream.MaxBytes), Replicas: c.NATS.Replicas, Compress: c.Stream.Compression == "s2",
			}),
			configured: d.bounded,
		},
		Snapshots: store, Sources: sources,
		Capture: captureOptions(c.Capture, cfg),
		Snapshot: primary.SnapshotOptions{
			Interval: orNever(cfg.SnapshotInterval), AfterBytes: int64(orMost(c.Snapshot.AfterBytes)), Keep: c.Snapshot.Keep,
			StreamAge: c.Stream.MaxAge, MaxHeld: int64(c.Snapshot.MaxHeld),
			ChunkBytes: int(c.Snapshot.ChunkSize), Codec: snapshot.Codec(c.Snapshot.Compression),
		},
		ChangeLog: primary.ChangeLogOptions{
			SegmentBytes: int64(c.ChangeLog.SegmentSize), MaxBytes: int64(c.ChangeLog.MaxSize), RetainFor: c.ChangeLog.RetainAge,
			NoSync: !c.ChangeLog.Fsync,
		},
		Replay: openReplay, Only: len(c.Databases) == 1, Clock: d.e.clock, Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	db := &sourceDatabase{pipeline: p, path: cfg.Path, fleet: newFleet(d.e.clock), clock: d.e.clock}
	db.service = service{name: cfg.Name, run: func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return p.Run(ctx) })
		g.Go(func() error { return serveRPC(ctx, d.conn, cfg.Name, p, stream.ClockHandler(d.e.clock)) })
		g.Go(func() error { return db.beat(ctx, d.conn, c.Node) })
		return g.Wait()
	}}
	return db, nil
}

func captureOptions(c config.Capture, db config.PrimaryDatabase) primary.CaptureOptions {
	return primary.CaptureOptions{
		MaxSQLiteWAL: int64(db.MaxSQLiteWAL), TurnoverBytes: int64(c.TurnoverSize),
		RepinFrames: uint32(c.RepinFrames), MaxStall: c.MaxStall,
		SpillBytes: spillBytes, SyncSource: c.SyncSource, PollInterval: c.PollInterval,
	}
}

// spillBytes is what a transaction may take in memory before it goes to a
// temporary file.
const spillBytes = 16 << 20

// orNever turns "not by time" into a time that does not come.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return 1 << 62
	}
	return d
}

// orMost turns "not by size" into a size that is not reached.
func orMost(s config.Size) config.Size {
	if s == 0 {
		return 1 << 62
	}
	return s
}
