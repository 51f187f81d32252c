package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"github.com/sqlite-replicator/replicator/internal/config"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// newLogger writes to standard error as the configuration says.
func newLogger(e *environment, c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.SlogLevel()}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(e.stderr, o))
	}
	return slog.New(slog.NewTextHandler(e.stderr, o))
}

// ownDataDir creates a data directory and keeps other nodes out of it.
func ownDataDir(dir string) (*durable.Lock, error) {
	if err := sqlite.CheckBuild(); err != nil {
		return nil, err
	}
	if err := (durable.OS{}).MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	return durable.LockDir(dir)
}

// A stack is what a node consists of, each part standing on those before it.
// They end in the opposite order: a part never loses what it stands on.
type stack struct {
	parts  []part
	failed chan error // the first part that ended by itself
}

type part struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func newStack() *stack { return &stack{failed: make(chan error, 1)} }

// start runs the next part. It does not end with ctx but when the stack is
// stopped.
func (s *stack) start(ctx context.Context, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := part{cancel: cancel, done: make(chan struct{})}
	s.parts = append(s.parts, p)
	go func() {
		defer close(p.done)
		if err := run(ctx); ctx.Err() == nil {
			select {
			case s.failed <- err:
			default:
			}
		}
	}()
}

// wait waits for the end of ctx, which is the orderly one, or of a part.
func (s *stack) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// stop ends every part.
func (s *stack) stop() {
	for i := len(s.parts) - 1; i >= 0; i-- {
		s.parts[i].cancel()
		<-s.parts[i].done
	}
}

// A service is the work for one database, which ends by itself only when it
// cannot go on.
type service struct {
	name  string
	run   func(context.Context) error
	ended atomic.Pointer[error] // why it did
}

// err is why the service has ended, nil while it runs.
func (s *service) err() error {
	if err := s.ended.Load(); err != nil {
		return *err
	}
	return nil
}

// supervise runs services until ctx ends. One that fails leaves the others
// alone; the last one takes the node with it, as there is nothing left to serve,
// unless keep says that the state of one must stay to be seen.
func supervise(ctx context.Context, log *slog.Logger, services []*service, keep func(*service, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type end struct {
		s   *service
		err error
	}
	ends := make(chan end)
	for _, s := range services {
		go func() { ends <- end{s, s.run(ctx)} }()
	}
	var fatal error
	stay := false
	for left := len(services) - 1; left >= 0; left-- {
		e := <-ends
		if ctx.Err() != nil {
			continue
		}
		e.s.ended.Store(&e.err)
		stay = stay || keep(e.s, e.err)
		switch {
		case left > 0:
			log.Error("database failed; the others go on", "db", e.s.name, "err", e.err)
		case stay:
			log.Error("database failed; what is left of the node only tells its state", "db", e.s.name, "err", e.err)
		default:
			fatal = e.err
		}
	}
	if fatal != nil {
		return fatal
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// closeWith is the part of a stack that closes conn.
func closeWith(conn *stream.Conn) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		conn.Close()
		return context.Cause(ctx)
	}
}

// startWeb adds the HTTP server as the last part.
func startWeb(ctx context.Context, s *stack, o web.Options) (*web.Server, error) {
	o.Registry = web.NewRegistry()
	server, err := web.New(o)
	if err != nil {
		return nil, err
	}
	s.start(ctx, server.Run)
	return server, nil
}

func webOptions(e *environment, h config.HTTP, log *slog.Logger) web.Options {
	return web.Options{
		Listen: h.Listen, Token: h.Token.Reveal(), Pprof: h.Pprof,
		Version: buildInfo().version, Clock: e.clock, Logger: log,
	}
}

// announce logs where the server listens, once it does.
func announce(ctx context.Context, log *slog.Logger, server *web.Server) {
	select {
	case <-server.Ready():
		log.Info("serving", "url", "http://"+server.Addr())
	case <-ctx.Done():
	}
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

// refused wraps what the other role does.
func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", web.ErrConflict, fmt.Errorf(format, args...))
}

func unknown(db string) error {
	return fmt.Errorf("%w %q", web.ErrUnknown, db)
}

var errStopped = errors.New("the database has failed")
