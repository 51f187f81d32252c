package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/tick"
)

// DefaultMaxPayload is the largest message that an embedded server takes unless
// told otherwise, in bytes: a record of at most 1 MiB and its headers fit.
const DefaultMaxPayload = 2 << 20

// DefaultSyncInterval is the time between two fsyncs of the embedded server's
// store. Trimming the change log counts on it being at most 10 s.
const DefaultSyncInterval = 10 * time.Second

// ServerOptions configures the embedded server. Name, Dir and Logger are
// required.
type ServerOptions struct {
	Name   string
	Dir    string // of the store, which no other server uses; created if missing
	Listen string // host:port, port 0 takes a free one; empty: no listener, only [Options].Server

	MaxStore     int64            // bytes of all streams and buckets; 0, and more than the disk has: 80 % of what the disk can give
	Streams      map[string]int64 // by database: the MaxBytes that its stream is to have; there is room for it
	MaxPayload   int              // bytes of one message; 0: DefaultMaxPayload
	SyncInterval time.Duration    // 0: DefaultSyncInterval
	SyncAlways   bool             // fsync before each acknowledgement

	Auth   ServerAuth
	TLS    TLS // Cert and Key are the server's own; with CA, clients must present a certificate of it
	Logger *slog.Logger
}

// ServerAuth is what clients must present: user and password, or a token, or
// nothing.
type ServerAuth struct{ User, Password, Token string }

// A Server is a NATS server with JetStream inside this process. Its methods may
// be called concurrently; Run only once.
type Server struct {
	o     ServerOptions
	opts  *server.Options
	ready chan struct{}                 // closed when clients may connect
	done  chan struct{}                 // closed when Run has returned
	now   atomic.Pointer[server.Server] // that runs; nil before Ready
	limit atomic.Int64                  // of its store
	above bool                          // limit is what streams were promised that are to have less; Run's own
	err   error                         // of Run; set before done is closed
}

// NewServer checks the options. It starts nothing and touches no file but the
// certificates.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Name == "" || o.Dir == "" || o.Logger == nil {
		return nil, fmt.Errorf("stream: embedded server: name %q, dir %q: both and a logger are required", o.Name, o.Dir)
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = DefaultMaxPayload
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = DefaultSyncInterval
	}
	opts := &server.Options{
		ServerName: o.Name, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: o.Dir, JetStreamMaxMemory: 256 << 20,
		SyncInterval: o.SyncInterval, SyncAlways: o.SyncAlways,
		MaxPayload: int32(o.MaxPayload), MaxPending: 64 << 20, WriteDeadline: 10 * time.Second,
		Username: o.Auth.User, Password: o.Auth.Password, Authorization: o.Auth.Token,
	}
	if err := listenOn(opts, o.Listen); err != nil {
		return nil, err
	}
	if o.TLS.Cert != "" || o.TLS.Key != "" {
		tc, err := server.GenTLSConfig(&server.TLSConfigOpts{
			CertFile: o.TLS.Cert, KeyFile: o.TLS.Key, CaFile: o.TLS.CA, Verify: o.TLS.CA != "",
		})
		if err != nil {
			return nil, fmt.Errorf("stream: embedded server: nats.tls: %w", err)
		}
		opts.TLS, opts.TLSConfig, opts.TLSTimeout = true, tc, 5
	}
	return &Server{o: o, opts: opts, ready: make(chan struct{}), done: make(chan struct{})}, nil
}

func listenOn(opts *server.Options, listen string) error {
	if listen == "" {
		opts.DontListen = true
		return nil
	}
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("stream: nats.listen %q: %w; want host:port", listen, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("stream: nats.listen %q: port %q; want host:port", listen, text)
	}
	opts.Host, opts.Port = host, int(port)
	if port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	return nil
}

// Ready is closed once clients may connect. It stays open when Run fails.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// WaitReady waits until clients may connect, Run has failed or ctx ends.
func (s *Server) WaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// URL is where clients connect; empty without a listener and before Ready.
func (s *Server) URL() string {
	select {
	case <-s.ready:
	default:
		return ""
	}
	if s.opts.DontListen {
		return ""
	}
	return s.now.Load().ClientURL()
}

// MaxStore is the limit of the store that is in force, in bytes: that of the options, or
// what streams have reserved, where that is more; 0 before Ready.
func (s *Server) MaxStore() int64 { return s.limit.Load() }

// Run starts the server and stops it when ctx ends. It returns after the store
// is closed, and never nil. Connections should be closed before ctx ends, else
// their last messages are lost.
func (s *Server) Run(ctx context.Context) error {
	s.err = s.run(ctx)
	close(s.done)
	return s.err
}

func (s *Server) run(ctx context.Context) error {
	lock, err := s.prepare()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // the process ends or the next Run says so
	for {
		err := s.serve(ctx)
		switch {
		case errors.Is(err, errAgain):
			s.o.Logger.Warn("the embedded NATS server has ended", "store_dir", s.opts.StoreDir, "err", err)
		case err != nil:
			return fmt.Errorf("stream: embedded server: %w", err)
		default:
			return context.Cause(ctx)
		}
		if err := tick.Wait(ctx, attendEvery); err != nil {
			return err
		}
	}
}

// errAgain means that another server is to take the place of the one that ran.
var errAgain = errors.New("it is to start again")

// serve runs one server until ctx ends.
func (s *Server) serve(ctx context.Context) error {
	if err := s.bound(); err != nil {
		return err
	}
	ns, err := server.NewServer(s.opts.Clone())
	if err != nil {
		return err
	}
	log := newServerLog(s.o.Logger)
	ns.SetLoggerV2(log, false, false, false)
	if ctx.Err() != nil {
		return nil
	}
	// Start returns when the store is recovered, which may take long, and cannot
	// be cut short: a Shutdown beside it is a data race.
	ns.Start()
	if ns.ReadyForConnections(time.Second) {
		s.take(ns)
		err = s.attend(ctx, ns, log)
	} else {
		if err = log.failure(); err == nil {
			err = errors.New("it does not accept connections")
		}
		if s.now.Load() != nil { // what is in the way of a second start may pass
			err = fmt.Errorf("%w: %w", errAgain, err)
		}
	}
	ns.Shutdown()
	ns.WaitForShutdown()
	return err
}

// take makes ns the server that clients reach, at the port of the one before.
func (s *Server) take(ns *server.Server) {
	if a, ok := ns.Addr().(*net.TCPAddr); ok {
		s.opts.Port = a.Port
	}
	s.limit.Store(s.opts.JetStreamMaxStore)
	if s.now.Swap(ns) == nil {
		close(s.ready)
	}
}

// InProcessConn implements the client's InProcessConnProvider: a connection to the
// server that runs.
func (s *Server) InProcessConn() (net.Conn, error) { return s.now.Load().InProcessConn() }

// attend waits for the end of ctx or a fatal error. After a write that failed, on
// a full disk say, a stream refuses whatever comes until JetStream starts again,
// and does not say so to the publisher: errAgain, once there is room. To start
// JetStream alone would be a data race in the server with whoever asks it something
// at that moment. Nor can it lower the limit of its store while it runs.
func (s *Server) attend(ctx context.Context, ns *server.Server, log *serverLog) error {
	ticks := tick.NewTicker(attendEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-log.fatal:
			return err
		case <-ticks.C:
			ticks.Next()
			if (!ns.JetStreamEnabled() || log.broken.Load()) && s.hasRoom() {
				return fmt.Errorf("%w: JetStream could not write to its store, and now there is room", errAgain)
			}
			if s.above && s.given() {
				return fmt.Errorf("%w: its streams were given less, and now the limit of its store can be lower", errAgain)
			}
		}
	}
}

const (
	attendEvery = time.Second
	enoughRoom  = 256 << 20 // bytes free, or a tenth of the store's limit, for JetStream to start again
)

// hasRoom reports whether the store can take more than a few messages.
func (s *Server) hasRoom() bool {
	free, err := freeBytes(s.opts.StoreDir)
	return err == nil && free >= min(enoughRoom, s.opts.JetStreamMaxStore/10)
}

// bound chooses the limit of the store. JetStream counts the MaxBytes of a stream as used,
// whatever is in it; where that comes to more than the limit, it changes no stream any
// more, not even to less, and whoever publishes has to. So where streams were promised
// more than there is, as on a disk that the application has filled meanwhile, the limit is
// what they were promised, until those of the databases were given less.
func (s *Server) bound() error {
	limit, err := storeLimit(s.o.Dir)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", s.o.Dir, err)
	}
	if s.o.MaxStore > limit {
		s.o.Logger.Warn("nats.max_store is more than the disk can give, using less", "want", s.o.MaxStore, "using", limit)
	}
	// A full disk gets no error reply from JetStream, only silence until a restart; a
	// limit below it does.
	limit = bounded(s.o.MaxStore, limit)
	now, then := promised(reservations(s.o.Dir), s.o.Streams)
	s.above = now > max(limit, then)
	if now > limit {
		s.o.Logger.Warn("streams were promised more than nats.store_dir can give", "promised", now, "want", limit)
	}
	s.opts.JetStreamMaxStore = max(limit, now+1) // a bucket reserves nothing, and counts as one byte
	return nil
}

// given reports whether no stream of the databases has reserved more than it is to have.
func (s *Server) given() bool {
	now, then := promised(reservations(s.o.Dir), s.o.Streams)
	return now == then
}

// prepare does what is better refused in one line here than in the server's
// log, or not refused at all: the listener, the folder, and another server in it, which
// would take its streams for its own.
func (s *Server) prepare() (*durable.Lock, error) {
	if err := s.tryListener(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("stream: embedded server: store folder: %w", err)
	}
	lock, err := durable.LockAs(s.o.Dir, "nats.lock") // data_dir, which has a lock of its own, may be the same
	if err != nil {
		return nil, fmt.Errorf("stream: embedded server: nats.store_dir: %w", err)
	}
	return lock, nil
}

func (s *Server) tryListener() error {
	if s.opts.DontListen || s.opts.Port == server.RANDOM_PORT {
		return nil
	}
	addr := net.JoinHostPort(s.opts.Host, strconv.Itoa(s.opts.Port))
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("stream: embedded server: cannot listen on %s: %w", addr, ErrPortInUse)
	}
	if err != nil {
		return fmt.Errorf("stream: embedded server: cannot listen on %s: %w; set nats.listen", addr, err)
	}
	return l.Close()
}
