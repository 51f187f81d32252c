package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what a Server is made of. Token and Pprof may be zero.
type Options struct {
	Listen string // host:port; port 0 takes a free one
	Token  string // that every request must carry as a bearer token; empty: none
	Pprof  bool   // serve /debug/pprof

	Node, Role, Version string // as status says them

	Source   Source
	Registry *prometheus.Registry // gets this package's collector
	Clock    func() time.Time
	Logger   *slog.Logger
}

// A Server serves one node. Its methods may be called concurrently; Run once.
type Server struct {
	o       Options
	handler http.Handler
	ready   chan struct{} // closed once it listens
	addr    string        // set before ready is closed
}

// New checks the options and registers the metrics. It starts nothing.
func New(o Options) (*Server, error) {
	if o.Listen == "" || o.Source == nil || o.Registry == nil || o.Clock == nil || o.Logger == nil {
		return nil, errors.New("web: incomplete options")
	}
	if err := o.Registry.Register(newCollector(o)); err != nil {
		return nil, fmt.Errorf("web: metrics: %w", err)
	}
	s := &Server{o: o, ready: make(chan struct{})}
	s.handler = s.guard(s.routes())
	return s, nil
}

const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 2 * time.Minute
	writeTimeout   = 30 * time.Second // of an answer; requests that wait get more
	maxHeaderBytes = 64 << 10
	maxBodyBytes   = 64 << 10
	stopTimeout    = 2 * time.Second
)

// Run serves until ctx ends. Requests that wait end with it. It returns after
// every request has, and never nil.
func (s *Server) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", s.o.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("web: cannot listen on %s: the port is in use; stop the other program or set http.listen to a free port", s.o.Listen)
	}
	if err != nil {
		return fmt.Errorf("web: cannot listen on %s: %w; set http.listen", s.o.Listen, err)
	}
	s.addr = l.Addr().String()
	close(s.ready)
	srv := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		WriteTimeout: writeTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:    slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("web: serve %s: %w", s.addr, err)
	case <-ctx.Done():
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(bye); err != nil {
		_ = srv.Close() // who is still connected now does not read its answer
	}
	<-failed
	return context.Cause(ctx)
}

// Ready is closed once the server listens. It stays open when Run fails.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is the address that the server listens on; only to be called after Ready.
func (s *Server) Addr() string { return s.addr }

// ServeHTTP lets tests and other servers serve this one's requests.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/healthz", only(http.MethodGet, s.healthz))
	mux.Handle("/readyz", only(http.MethodGet, s.readyz))
	mux.Handle("/metrics", only(http.MethodGet, promhttp.HandlerFor(s.o.Registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelWarn),
	}).ServeHTTP))
	mux.Handle("/v1/status", only(http.MethodGet, s.status))
	mux.Handle("/v1/lag", only(http.MethodGet, s.lag))
	mux.Handle("/v1/databases/{db}/sync", only(http.MethodPost, s.sync))
	mux.Handle("/v1/databases/{db}/wait", only(http.MethodGet, s.wait))
	mux.Handle("/v1/databases/{db}/verify", only(http.MethodPost, s.verify))
	mux.Handle("/v1/databases/{db}/repair", only(http.MethodPost, s.repair))
	mux.Handle("/v1/databases/{db}/snapshot", only(http.MethodPost, s.snapshot))
	if s.o.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", patient(pprof.Profile))
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", patient(pprof.Trace))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, fmt.Errorf("no such path: %s", r.URL.Path))
	})
	return mux
}

// patient lifts the limit on the time of an answer.
func patient(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		extend(w, time.Hour)
		h(w, r)
	}
}

// extend gives the answer d and a little more.
func extend(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d + writeTimeout)) // a recorder in a test has none
}

// only lets one method through; HEAD counts as GET.
func only(method string, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
			w.Header().Set("Allow", method)
			fail(w, http.StatusMethodNotAllowed, fmt.Errorf("method %s; use %s", r.Method, method))
			return
		}
		h(w, r)
	})
}

// swallow reads the body of a request, which none but that for symbols needs and some
// clients send. As long as it is not read, an answer waits for it, and nobody hears that
// the client has gone.
func swallow(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(headerTimeout)) // a recorder in a test has none
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return fmt.Errorf("the request needs no body, and the one that it has does not come, or not within %d bytes: %w", maxBodyBytes, err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	_ = c.SetReadDeadline(time.Time{})
	return nil
}

// guard refuses requests without the token, and those that a browser sends on
// behalf of another site.
func (s *Server) guard(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	want := sha256.Sum256([]byte(s.o.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := swallow(w, r); err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
		if s.o.Token != "" {
			got := sha256.Sum256([]byte(bearer(r)))
			if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				w.Header().Set("WWW-Authenticate", "Bearer")
				fail(w, http.StatusUnauthorized, errors.New("the request needs the header Authorization: Bearer with the token of http.token"))
				return
			}
		}
		if err := cross.Check(r); err != nil {
			fail(w, http.StatusForbidden, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
