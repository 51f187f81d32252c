package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/web"
)

// A node is a Source that says what the test tells it to.
type node struct {
	databases []web.Database
	sync      func(ctx context.Context, db string, replicas int) (web.Position, error)
	wait      func(ctx context.Context, db string, at web.Position) (web.Position, error)
	verify    func(ctx context.Context, db string) (web.Verification, error)
	repair    func(ctx context.Context, db string) (web.Position, error)
	snapshot  func(ctx context.Context, db string) (web.Snapshot, error)
}

func (n *node) Databases() []web.Database { return n.databases }

func (n *node) Sync(ctx context.Context, db string, replicas int) (web.Position, error) {
	return n.sync(ctx, db, replicas)
}

func (n *node) Wait(ctx context.Context, db string, at web.Position) (web.Position, error) {
	return n.wait(ctx, db, at)
}

func (n *node) Verify(ctx context.Context, db string) (web.Verification, error) {
	return n.verify(ctx, db)
}

func (n *node) Repair(ctx context.Context, db string) (web.Position, error) {
	return n.repair(ctx, db)
}

func (n *node) Snapshot(ctx context.Context, db string) (web.Snapshot, error) {
	return n.snapshot(ctx, db)
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func options(n *node) web.Options {
	return web.Options{
		Listen: "127.0.0.1:0", Node: "node-1", Role: "replica", Version: "v1", Source: n,
		Registry: web.NewRegistry(), Clock: func() time.Time { return noon }, Logger: slog.New(slog.DiscardHandler),
	}
}

func newServer(t *testing.T, o web.Options) *web.Server {
	t.Helper()
	s, err := web.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// do serves one request and returns its status and body.
func do(t *testing.T, s http.Handler, method, target string, header ...string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func ptr[T any](v T) *T { return &v }

// streaming is a replica's database without lag at LSN 7.
func streaming(name string) web.Database {
	return web.Database{
		Name: name, Path: "/srv/" + name + ".db", State: web.StateStreaming, Since: noon, Epoch: 2,
		LSN: web.LSNs{Applied: ptr(cdc.LSN(7))},
		Lag: web.Lag{Transactions: ptr(uint64(0)), Bytes: ptr(uint64(0)), Seconds: ptr(0.0)},
	}
}

func TestReady(t *testing.T) {
	behind := streaming("app")
	behind.Lag.Seconds = ptr(2.5)
	unknown := streaming("app")
	unknown.Lag = web.Lag{Since: ptr(noon)}
	broken := streaming("app")
	broken.State, broken.Error = "diverged", "table t differs"
	primary := streaming("app")
	primary.LSN = web.LSNs{Captured: ptr(cdc.LSN(9)), Published: ptr(cdc.LSN(8))}

	for _, tt := range []struct {
		name, query string
		databases   []web.Database
		code        int
		reason      string
	}{
		{"no database", "", nil, 200, ""},
		{"streaming", "", []web.Database{streaming("app")}, 200, ""},
		{"within both bounds", "?max_lag=2s&min_lsn=7", []web.Database{streaming("app")}, 200, ""},
		{"LSN not reached", "?min_lsn=8", []web.Database{streaming("app")}, 503, "app: at LSN 7, want 8"},
		{"published counts on a primary", "?min_lsn=9", []web.Database{primary}, 503, "app: at LSN 8, want 9"},
		{"lag without a bound", "", []web.Database{behind}, 200, ""},
		{"lag above the bound", "?max_lag=2s", []web.Database{behind}, 503, "app: 2.500 s behind, want at most 2.000"},
		{"unknown lag is never within a bound", "?max_lag=24h", []web.Database{unknown}, 503, "app: its lag is not known"},
		{"one of two", "", []web.Database{streaming("a"), broken}, 503, "app: diverged: table t differs"},
		{"bad duration", "?max_lag=soon", nil, 400, `parameter max_lag is \"soon\"`},
		{"negative duration", "?max_lag=-1s", nil, 400, `parameter max_lag is \"-1s\"`},
		{"bad LSN", "?min_lsn=-1", nil, 400, `parameter min_lsn is \"-1\"`},
		{"unknown parameter", "?maxlag=1s", nil, 400, `unknown parameter \"maxlag\"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, options(&node{databases: tt.databases}))
			code, body := do(t, s, "GET", "/readyz"+tt.query)
			if code != tt.code || !strings.Contains(body, tt.reason) {
				t.Errorf("status %d, body %s; want %d with %q", code, body, tt.code, tt.reason)
			}
		})
	}
}

func TestStatusIsStable(t *testing.T) {
	d := streaming("app")
	d.Progress = &web.Progress{What: "restoring", Unit: "bytes", Done: 1, Total: 2, PerSecond: 3, ETASeconds: ptr(4.0)}
	d.Details = web.Details{"reseeds_total": 1}
	p := web.Database{
		Name: "b", State: "offline", Since: noon, Error: "NATS does not answer", Warnings: []string{"a reader"}, Epoch: 3,
		LSN:    web.LSNs{Captured: ptr(cdc.LSN(3)), Durable: ptr(cdc.LSN(2)), Published: ptr(cdc.LSN(0))},
		Lag:    web.Lag{Since: ptr(noon)},
		Sizes:  web.Sizes{Database: 1, SQLiteWAL: 2, ChangeLog: 3, Snapshot: 4},
		Stalls: &web.Stalls{Bounds: []float64{0.001}, Counts: []uint64{2, 1}, SumSeconds: 0.5},
		Replicas: []web.Replica{{
			Node: "replica-1", State: "streaming", Epoch: 3, Applied: 2, ReportedAt: noon, Alive: true,
			Lag: web.Lag{Transactions: ptr(uint64(1)), Bytes: ptr(uint64(10)), Seconds: ptr(0.25)},
		}},
	}
	code, body := do(t, newServer(t, options(&node{databases: []web.Database{d, p}})), "GET", "/v1/status")
	want := `{"node":"node-1","role":"replica","version":"v1","time":"2026-01-02T12:00:00Z","databases":[` +
		`{"name":"app","path":"/srv/app.db","state":"streaming","since":"2026-01-02T12:00:00Z","epoch":2,` +
		`"lsn":{"applied":7},"lag":{"transactions":0,"bytes":0,"seconds":0},"sizes":{"database":0,"sqlite_wal":0},` +
		`"progress":{"what":"restoring","unit":"bytes","done":1,"total":2,"per_second":3,"eta_seconds":4},"details":{"reseeds_total":1}},` +
		`{"name":"b","path":"","state":"offline","since":"2026-01-02T12:00:00Z","error":"NATS does not answer","warnings":["a reader"],"epoch":3,` +
		`"lsn":{"captured":3,"durable":2,"published":0},"lag":{"transactions":null,"bytes":null,"seconds":null,"since":"2026-01-02T12:00:00Z"},` +
		`"sizes":{"database":1,"sqlite_wal":2,"change_log":3,"snapshot":4},"details":null,` +
		`"writer_stalls":{"bounds":[0.001],"counts":[2,1],"sum_seconds":0.5},"replicas":[{"node":"replica-1","state":"streaming",` +
		`"epoch":3,"applied":2,"lag":{"transactions":1,"bytes":10,"seconds":0.25},"reported_at":"2026-01-02T12:00:00Z","alive":true}]}]}`
	if diff := cmp.Diff(want, compact(t, body)); code != 200 || diff != "" {
		t.Errorf("status %d, body (-want +got):\n%s", code, diff)
	}
}

func compact(t *testing.T, body string) string {
	t.Helper()
	var b strings.Builder
	var v json.RawMessage
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	for _, line := range strings.Split(string(v), "\n") {
		b.WriteString(strings.Replace(strings.TrimLeft(line, " "), `": `, `":`, 1))
	}
	return b.String()
}

func TestLag(t *testing.T) {
	d := streaming("app")
	d.Replicas = []web.Replica{{Node: "r", Lag: web.Lag{Since: ptr(noon)}}}
	_, body := do(t, newServer(t, options(&node{databases: []web.Database{d}})), "GET", "/v1/lag")
	want := `{"databases":[{"name":"app","lag":{"transactions":0,"bytes":0,"seconds":0},` +
		`"replicas":[{"node":"r","lag":{"transactions":null,"bytes":null,"seconds":null,"since":"2026-01-02T12:00:00Z"}}]}]}`
	if diff := cmp.Diff(want, compact(t, body)); diff != "" {
		t.Error(diff)
	}
	_, body = do(t, newServer(t, options(&node{})), "GET", "/v1/lag")
	if got := compact(t, body); got != `{"databases":[]}` {
		t.Errorf("without databases: %s", got)
	}
}

func TestOperations(t *testing.T) {
	unknown := fmt.Errorf("database %q: %w", "nope", web.ErrUnknown)
	n := &node{
		sync: func(ctx context.Context, db string, replicas int) (web.Position, error) {
			switch {
			case db == "nope":
				return web.Position{}, unknown
			case replicas > 1:
				<-ctx.Done()
				return web.Position{LSN: 5, Epoch: 1}, fmt.Errorf("applied by 1 of %d replicas: %w", replicas, context.Cause(ctx))
			}
			return web.Position{LSN: 5, Epoch: 1}, nil
		},
		wait: func(ctx context.Context, db string, at web.Position) (web.Position, error) {
			switch {
			case at.Epoch == 9:
				return web.Position{LSN: 5, Epoch: 1}, fmt.Errorf("%w: epoch 9 has not begun", web.ErrConflict)
			case at.LSN > 5:
				<-ctx.Done()
				return web.Position{LSN: 5, Epoch: 1}, fmt.Errorf("applied up to 5: %w", context.Cause(ctx))
			}
			return web.Position{LSN: 5, Epoch: 1, Lineage: at.Lineage}, nil
		},
		verify: func(ctx context.Context, db string) (web.Verification, error) {
			if db == "slow" {
				<-ctx.Done()
				return web.Verification{}, context.Cause(ctx)
			}
			if deadline, bound := ctx.Deadline(); bound {
				return web.Verification{}, fmt.Errorf("nobody asked for a bound of %s", deadline)
			}
			return web.Verification{Node: "r", Database: "app", LSN: 5, Epoch: 1, Differences: []string{"table t: 1 row here, 2 there"},
				Differing: []web.TableRows{{Table: "t", First: []web.DifferingRow{{Rowid: -7, Fault: "missing"}}, Count: 1}}}, nil
		},
		repair: func(context.Context, string) (web.Position, error) {
			return web.Position{LSN: 5, Epoch: 1}, nil
		},
		snapshot: func(context.Context, string) (web.Snapshot, error) {
			return web.Snapshot{}, errors.New("disk broke")
		},
	}
	s := newServer(t, options(n))
	for _, tt := range []struct {
		method, target string
		code           int
		body           string
	}{
		{"POST", "/v1/databases/app/sync", 200, `{"lsn":5,"epoch":1}`},
		{"POST", "/v1/databases/app/sync?replicas=1&timeout=1s", 200, `{"lsn":5,"epoch":1}`},
		{"POST", "/v1/databases/app/sync?replicas=2&timeout=1ms", 504, `{"error":"applied by 1 of 2 replicas: time is up","lsn":5,"epoch":1}`},
		{"POST", "/v1/databases/app/sync?replicas=-1", 400, `{"error":"parameter replicas is \"-1\", want a number such as 42"}`},
		{"POST", "/v1/databases/app/sync?replicas=99999", 400, `{"error":"parameter replicas is \"99999\", want a number up to 10000"}`},
		{"POST", "/v1/databases/app/sync?timeout=48h", 400, `{"error":"parameter timeout is \"48h\", want a duration up to 24h such as 5s or 500ms"}`},
		{"POST", "/v1/databases/nope/sync", 404, `{"error":"database \"nope\": unknown database"}`},
		{"GET", "/v1/databases/app/sync", 405, `{"error":"method GET; use POST"}`},
		{"GET", "/v1/databases/app/wait?lsn=5&lineage=0000000000000000000000000000000a", 200, `{"lsn":5,"epoch":1,"lineage":"0000000000000000000000000000000a"}`},
		{"GET", "/v1/databases/app/wait?lsn=5&lineage=a", 400, `{"error":"parameter lineage is \"a\", want the 32 digits that sync answered with"}`},
		{"GET", "/v1/databases/app/wait?lsn=5", 200, `{"lsn":5,"epoch":1}`},
		{"GET", "/v1/databases/app/wait?lsn=6&timeout=1ms", 504, `{"error":"applied up to 5: time is up","lsn":5,"epoch":1}`},
		{"GET", "/v1/databases/app/wait?lsn=5&epoch=9", 409, `{"error":"not on this node: epoch 9 has not begun","lsn":5,"epoch":1}`},
		{"GET", "/v1/databases/app/wait", 400, `{"error":"parameter lsn is \"\", want the number to wait for, 1 or more"}`},
		{"GET", "/v1/databases/app/wait?lsn=x", 400, `{"error":"parameter lsn is \"x\", want a number such as 42"}`},
		{"POST", "/v1/databases/app/wait?lsn=5", 405, `{"error":"method POST; use GET"}`},
		{"POST", "/v1/databases/app/verify", 200, `{"node":"r","database":"app","lsn":5,"epoch":1,"equal":false,"tables":0,"rows":0,"differences":["table t:1 row here, 2 there"],"differing_rows":[{"table":"t","first":[{"rowid":-7,"fault":"missing"}],"count":1}],"seconds":0}`},
		{"POST", "/v1/databases/slow/verify?timeout=1ms", 504, `{"error":"time is up"}`},
		{"POST", "/v1/databases/slow/verify?timeout=0s", 504, `{"error":"time is up"}`},
		{"POST", "/v1/databases/app/repair", 200, `{"lsn":5,"epoch":1}`},
		{"GET", "/v1/databases/app/repair", 405, `{"error":"method GET; use POST"}`},
		{"POST", "/v1/databases/app/snapshot", 500, `{"error":"disk broke"}`},
		{"GET", "/healthz", 200, `{"ok":true}`},
		{"DELETE", "/v1/status", 405, `{"error":"method DELETE; use GET"}`},
		{"GET", "/", 404, `{"error":"no such path: /"}`},
		{"GET", "/debug/pprof/", 404, `{"error":"no such path: /debug/pprof/"}`},
	} {
		t.Run(tt.method+" "+tt.target, func(t *testing.T) {
			code, body := do(t, s, tt.method, tt.target)
			got := strings.Replace(compact(t, body), `"table t: `, `"table t:`, 1)
			if diff := cmp.Diff(tt.body, got); code != tt.code || diff != "" {
				t.Errorf("status %d, want %d; body (-want +got):\n%s", code, tt.code, diff)
			}
		})
	}
}

// TestVerifyEndsWithItsClient: whoever goes away leaves no work behind, be it one that
// sends a body with each POST.
func TestVerifyEndsWithItsClient(t *testing.T) {
	for name, body := range map[string]string{"no body": "", "a body": "{}"} {
		t.Run(name, func(t *testing.T) { verifyUntilTheClientGoes(t, strings.NewReader(body)) })
	}
}

func verifyUntilTheClientGoes(t *testing.T, body io.Reader) {
	began, ended := make(chan struct{}), make(chan error, 1)
	h := newServer(t, options(&node{verify: func(ctx context.Context, _ string) (web.Verification, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return web.Verification{}, ctx.Err()
	}}))
	s := httptest.NewServer(h)
	defer s.Close()
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/databases/app/verify", body)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-began
		leave()
	}()
	if res, err := s.Client().Do(r); !errors.Is(err, context.Canceled) {
		t.Errorf("answer %v, %v", res, err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the work ends with %v", err)
	}
}

func TestToken(t *testing.T) {
	o := options(&node{})
	o.Token = "sesame"
	s := newServer(t, o)
	for _, tt := range []struct {
		name, value string
		code        int
	}{
		{"none", "", 401},
		{"wrong", "Bearer Sesame", 401},
		{"a prefix of it", "Bearer sesam", 401},
		{"another scheme", "Basic sesame", 401},
		{"right", "Bearer sesame", 200},
		{"right, in lower case", "bearer sesame", 200},
	} {
		for _, path := range []string{"/healthz", "/metrics", "/v1/status"} {
			code, body := do(t, s, "GET", path, "Authorization", tt.value)
			if code != tt.code {
				t.Errorf("%s: GET %s gives %d, want %d", tt.name, path, code, tt.code)
			}
			if strings.Contains(body, "sesame") {
				t.Errorf("%s: the answer shows the token: %s", tt.name, body)
			}
		}
	}
}

func TestRefusesOtherSites(t *testing.T) {
	called := false
	n := &node{snapshot: func(context.Context, string) (web.Snapshot, error) {
		called = true
		return web.Snapshot{}, nil
	}}
	s := newServer(t, options(n))
	code, _ := do(t, s, "POST", "/v1/databases/app/snapshot", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
	if code != 403 || called {
		t.Errorf("status %d, called %t: a page of another site made a snapshot", code, called)
	}
}

func TestPprofOnRequest(t *testing.T) {
	o := options(&node{})
	o.Pprof = true
	s := newServer(t, o)
	if code, _ := do(t, s, "GET", "/debug/pprof/cmdline"); code != 200 {
		t.Errorf("status %d", code)
	}
	asked := fmt.Sprintf("%#x", reflect.ValueOf(web.New).Pointer())
	r, w := httptest.NewRequest("POST", "/debug/pprof/symbol", strings.NewReader(asked)), httptest.NewRecorder()
	if s.ServeHTTP(w, r); !strings.Contains(w.Body.String(), asked+" ") {
		t.Errorf("what is at %s: %q", asked, w.Body)
	}
}

func TestMetrics(t *testing.T) {
	d := streaming("app")
	d.Details = web.Details{"reseeds_total": 3, "not_a_metric": 1}
	cut := streaming("cut")
	cut.State, cut.Lag = "offline", web.Lag{Since: ptr(noon)}
	cut.Stalls = &web.Stalls{Bounds: []float64{0.001, 0.002}, Counts: []uint64{5, 0, 1}, SumSeconds: 0.25}
	cut.Replicas = []web.Replica{{Node: "r", Applied: 4, Alive: true, Lag: web.Lag{Seconds: ptr(0.5)}}}
	o := options(&node{databases: []web.Database{d, cut}})
	s := newServer(t, o)
	code, body := do(t, s, "GET", "/metrics")
	for _, want := range []string{
		`# TYPE replicator_info gauge`,
		`replicator_info{node="node-1",role="replica",version="v1"} 1`,
		`replicator_lsn{db="cut",step="applied"} 7`,
		`replicator_lag_seconds{db="app"} 0`,
		`replicator_state{db="app",state="streaming"} 1`,
		`replicator_state{db="cut",state="streaming"} 0`,
		`replicator_state{db="cut",state="offline"} 1`,
		`replicator_replica_lag_seconds{db="cut",replica="r"} 0.5`,
		`# TYPE replicator_writer_stall_seconds histogram`,
		`replicator_writer_stall_seconds_bucket{db="cut",le="0.001"} 5`,
		`replicator_writer_stall_seconds_bucket{db="cut",le="0.002"} 5`,
		`replicator_writer_stall_seconds_bucket{db="cut",le="+Inf"} 6`,
		`replicator_writer_stall_seconds_sum{db="cut"} 0.25`,
		`# TYPE replicator_reseeds_total counter`,
		`replicator_reseeds_total{db="app"} 3`,
		`# TYPE go_goroutines gauge`,
	} {
		if !slices.Contains(strings.Split(body, "\n"), want) {
			t.Errorf("GET /metrics gives %d without the line %s", code, want)
		}
	}
	// What is not known has no value, and what has no help text is no metric.
	// A replica has neither a change log nor snapshots.
	for _, unwanted := range []string{`replicator_lag_seconds{db="cut"}`, "not_a_metric", `what="change_log"`, `what="snapshot"`} {
		if strings.Contains(body, unwanted) {
			t.Errorf("GET /metrics has %s", unwanted)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

// run starts s and returns its URL and what Run gives.
func run(t *testing.T, ctx context.Context, s *web.Server) (string, <-chan error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return "http://" + s.Addr(), done
}

func TestRunEndsWaitingRequests(t *testing.T) {
	entered := make(chan struct{})
	n := &node{wait: func(ctx context.Context, _ string, _ web.Position) (web.Position, error) {
		close(entered)
		<-ctx.Done()
		return web.Position{LSN: 1}, context.Cause(ctx)
	}}
	ctx, cancel := context.WithCancel(t.Context())
	url, done := run(t, ctx, newServer(t, options(n)))
	answered := make(chan string, 1)
	go func() {
		res, err := http.Get(url + "/v1/databases/app/wait?lsn=9&timeout=1h")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer func() { _ = res.Body.Close() }()
		body, _ := io.ReadAll(res.Body)
		answered <- fmt.Sprint(res.StatusCode, " ", string(body))
	}()
	<-entered
	cancel()
	if got := <-answered; !strings.HasPrefix(got, "503 ") {
		t.Errorf("a request that waits ends with %s", got)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	o := options(&node{})
	o.Listen = l.Addr().String()
	err = newServer(t, o).Run(t.Context())
	want := "web: cannot listen on " + o.Listen + ": the port is in use; stop the other program or set http.listen to a free port"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := web.New(web.Options{}); err == nil {
		t.Error("New takes no options at all")
	}
	o := options(&node{})
	newServer(t, o)
	if _, err := web.New(o); err == nil {
		t.Error("New registers its metrics twice in one registry")
	}
}
