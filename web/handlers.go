package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// Times that a request may take unless ?timeout= says otherwise.
const (
	syncTimeout     = 5 * time.Second
	waitTimeout     = 30 * time.Second
	verifyTimeout   = -1 // none: it ends when nothing moves any more
	repairTimeout   = 6 * time.Hour
	snapshotTimeout = 6 * time.Hour
	maxTimeout      = 24 * time.Hour
)

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]bool{"ok": true})
}

// A readiness is the answer of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"` // why not
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	q := params{values: r.URL.Query()}
	maxLag := q.duration("max_lag", -1)
	minLSN := q.uint("min_lsn", 0)
	if q.refuse(w, "max_lag", "min_lsn") {
		return
	}
	var a readiness
	for _, d := range s.o.Source.Databases() {
		if reason := unready(d, maxLag, cdc.LSN(minLSN)); reason != "" {
			a.Reasons = append(a.Reasons, d.Name+": "+reason)
		}
	}
	a.Ready = len(a.Reasons) == 0
	code := http.StatusOK
	if !a.Ready {
		code = http.StatusServiceUnavailable
	}
	answer(w, code, a)
}

// unready says why a database is not ready; maxLag below 0 is no bound.
func unready(d Database, maxLag time.Duration, minLSN cdc.LSN) string {
	switch lag := d.Lag.Seconds; {
	case d.State != StateStreaming && d.Error != "":
		return d.State + ": " + d.Error
	case d.State != StateStreaming:
		return d.State
	case d.LSN.Here() < minLSN:
		return fmt.Sprintf("at LSN %d, want %d", d.LSN.Here(), minLSN)
	case maxLag < 0:
		return ""
	case lag == nil:
		return "its lag is not known"
	case *lag > maxLag.Seconds():
		return fmt.Sprintf("%.3f s behind, want at most %.3f", *lag, maxLag.Seconds())
	}
	return ""
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Status{
		Node: s.o.Node, Role: s.o.Role, Version: s.o.Version, Time: s.o.Clock().UTC(), Databases: s.databases(),
	})
}

// databases is never nil, so that JSON has a list.
func (s *Server) databases() []Database {
	return append([]Database{}, s.o.Source.Databases()...)
}

func (s *Server) lag(w http.ResponseWriter, _ *http.Request) {
	a := Lags{Databases: []DatabaseLag{}}
	for _, d := range s.o.Source.Databases() {
		one := DatabaseLag{Name: d.Name, Lag: d.Lag}
		for _, r := range d.Replicas {
			one.Replicas = append(one.Replicas, ReplicaLag{r.Node, r.Lag})
		}
		a.Databases = append(a.Databases, one)
	}
	answer(w, http.StatusOK, a)
}

func (s *Server) sync(w http.ResponseWriter, r *http.Request) {
	q := params{values: r.URL.Query()}
	timeout, replicas := q.duration("timeout", syncTimeout), q.uint("replicas", 0)
	if replicas > maxReplicas {
		q.bad("replicas", fmt.Sprintf("a number up to %d", maxReplicas))
	}
	if q.refuse(w, "timeout", "replicas") {
		return
	}
	within(w, r, timeout, func(ctx context.Context) (any, error) {
		at, err := s.o.Source.Sync(ctx, r.PathValue("db"), int(replicas))
		return &at, err
	})
}

// maxReplicas bounds ?replicas=.
const maxReplicas = 10_000

func (s *Server) wait(w http.ResponseWriter, r *http.Request) {
	q := params{values: r.URL.Query()}
	timeout := q.duration("timeout", waitTimeout)
	lsn, epoch := q.uint("lsn", 0), q.uint("epoch", 0)
	if lsn == 0 {
		q.bad("lsn", "the number to wait for, 1 or more")
	}
	lineage := q.id("lineage")
	if q.refuse(w, "timeout", "lsn", "epoch", "lineage") {
		return
	}
	within(w, r, timeout, func(ctx context.Context) (any, error) {
		at, err := s.o.Source.Wait(ctx, r.PathValue("db"), Position{LSN: cdc.LSN(lsn), Epoch: cdc.Epoch(epoch), Lineage: lineage})
		return &at, err
	})
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	q := params{values: r.URL.Query()}
	timeout := q.duration("timeout", verifyTimeout)
	if q.refuse(w, "timeout") {
		return
	}
	within(w, r, timeout, func(ctx context.Context) (any, error) {
		return s.o.Source.Verify(ctx, r.PathValue("db"))
	})
}

func (s *Server) repair(w http.ResponseWriter, r *http.Request) {
	q := params{values: r.URL.Query()}
	timeout := q.duration("timeout", repairTimeout)
	if q.refuse(w, "timeout") {
		return
	}
	within(w, r, timeout, func(ctx context.Context) (any, error) {
		at, err := s.o.Source.Repair(ctx, r.PathValue("db"))
		return &at, err
	})
}

func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) {
	q := params{values: r.URL.Query()}
	timeout := q.duration("timeout", snapshotTimeout)
	if q.refuse(w, "timeout") {
		return
	}
	within(w, r, timeout, func(ctx context.Context) (any, error) {
		return s.o.Source.Snapshot(ctx, r.PathValue("db"))
	})
}

// errTimeUp is what whoever waits for too long hears, and not of contexts.
var errTimeUp = errors.New("time is up")

// within answers with what do returns before the timeout, if that is not
// negative. A *Position goes into an error, too: how far this node has come.
func within(w http.ResponseWriter, r *http.Request, timeout time.Duration, do func(context.Context) (any, error)) {
	ctx := r.Context()
	if timeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeUp)
		defer cancel()
	}
	body, err := do(ctx)
	extend(w, 0)
	if err == nil {
		answer(w, http.StatusOK, body)
		return
	}
	failure := Error{Error: err.Error()}
	if at, ok := body.(*Position); ok && at.LSN != 0 {
		failure.Position = at
	}
	answer(w, statusOf(ctx, err), failure)
}

// params reads the parameters of a request and keeps the first mistake.
type params struct {
	values url.Values
	err    error
}

func (p *params) bad(key, want string) {
	if p.err == nil {
		p.err = fmt.Errorf("parameter %s is %q, want %s", key, p.values.Get(key), want)
	}
}

func (p *params) uint(key string, absent uint64) uint64 {
	text := p.values.Get(key)
	if text == "" {
		return absent
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		p.bad(key, "a number such as 42")
	}
	return n
}

// id is zero where there is none.
func (p *params) id(key string) (id cdc.ID) {
	if text := p.values.Get(key); text != "" && id.UnmarshalText([]byte(text)) != nil {
		p.bad(key, "the 32 digits that sync answered with")
	}
	return id
}

func (p *params) duration(key string, absent time.Duration) time.Duration {
	text := p.values.Get(key)
	if text == "" {
		return absent
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxTimeout {
		p.bad(key, "a duration up to 24h such as 5s or 500ms")
	}
	return d
}

// refuse answers a request that has a bad or an unknown parameter.
func (p *params) refuse(w http.ResponseWriter, known ...string) bool {
	for key := range p.values {
		if p.err == nil && !slices.Contains(known, key) {
			p.err = fmt.Errorf("unknown parameter %q, want one of %q", key, known)
		}
	}
	if p.err != nil {
		fail(w, http.StatusBadRequest, p.err)
	}
	return p.err != nil
}
