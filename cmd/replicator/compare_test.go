package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

// TestComparisonProgress: the slower side counts, and what was shown is not taken back.
func TestComparisonProgress(t *testing.T) {
	noon := clockOf(t)()
	now := noon
	var out bytes.Buffer
	m := newMeter(&environment{stderr: &out, clock: func() time.Time { return now }, watched: true})
	c := &comparison{d: &copyDatabase{clock: func() time.Time { return now }}}
	if p := c.progress(); p != nil {
		t.Errorf("before it begins: %+v", p)
	}
	c.at = noon
	const mib = 1 << 20
	for i, tt := range []struct {
		seen compared
		want string
	}{
		{compared{here: sqlite.Read{Rows: 10}}, "verifying"}, // the primary has not answered yet
		{compared{here: sqlite.Read{Rows: 500}, there: sqlite.Read{Rows: 200, Bytes: 20 * mib}, bytes: 100 * mib}, "verifying 20 % of 100.0 MiB, 10.0 MiB/s, 8.0 s left"},
		{compared{here: sqlite.Read{Rows: 300}, there: sqlite.Read{Rows: 600, Bytes: 60 * mib}, bytes: 100 * mib}, "verifying 30 % of 100.0 MiB, 10.0 MiB/s, 7.0 s left"},
		{compared{here: sqlite.Read{Rows: 310}, there: sqlite.Read{Rows: 900, Bytes: 60 * mib}, bytes: 100 * mib}, "verifying 30 % of 100.0 MiB, 7.5 MiB/s, 9.3 s left"},
		{compared{here: sqlite.Read{Rows: 500}, there: sqlite.Read{Rows: 1000}, bytes: 100 * mib, whole: true}, "verifying 50 % of 100.0 MiB, 10.0 MiB/s, 5.0 s left"},
		{compared{here: sqlite.Read{Rows: 1000}, there: sqlite.Read{Rows: 999, Bytes: 200 * mib}, bytes: 100 * mib}, "verifying 99 % of 100.0 MiB, 16.5 MiB/s, 60 ms left"},
		{compared{here: sqlite.Read{Rows: 1000}, there: sqlite.Read{Rows: 1000}, bytes: 100 * mib, whole: true}, "verifying 100 % of 100.0 MiB, 14.3 MiB/s, 0 ms left"},
	} {
		now = noon.Add(time.Duration(i+1) * time.Second)
		c.note(func(s *compared) { *s = tt.seen })
		out.Reset()
		m.show(*c.progress())
		if want := "\r" + tt.want + clearRest; out.String() != want {
			t.Errorf("step %d shows %q, want %q", i, out.String(), want)
		}
	}
	c.at, c.rows = now, replica.Progress{Done: 500, Total: 1000, Unit: "rows"}
	now = now.Add(time.Second)
	out.Reset()
	m.show(*c.progress())
	if want := "\rlooking for rows that differ 50 % of 1,000 rows, 500 rows/s, 1.0 s left" + clearRest; out.String() != want {
		t.Errorf("shows %q, want %q", out.String(), want)
	}
}

// TestPatience ends when nothing has moved for its time, and not before.
func TestPatience(t *testing.T) {
	now := clockOf(t)()
	p := patience{limit: time.Minute}
	for i, tt := range []struct {
		sight sight
		after time.Duration
		over  bool
	}{
		{sight{applied: 1}, 0, false},
		{sight{applied: 1}, 59 * time.Second, false},
		{sight{applied: 2}, 10 * time.Second, false},
		{sight{applied: 2}, 59 * time.Second, false},
		{sight{applied: 2, seen: compared{here: sqlite.Read{Rows: 1}}}, time.Second, false},
		{sight{applied: 2, seen: compared{here: sqlite.Read{Rows: 1}}}, time.Minute, true},
	} {
		now = now.Add(tt.after)
		if got := p.over(tt.sight, now); got != tt.over {
			t.Errorf("step %d: over is %t", i, got)
		}
	}
}

// startedDemo runs a primary and a replica of a database with one row in its table t, which
// app writes.
func startedDemo(ctx context.Context, t *testing.T) (d *demoRun, app *sqlite.Conn) {
	t.Helper()
	d, err := newDemoRun(&environment{clock: time.Now, wd: t.TempDir()}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	if app, err = sqlite.Open(d.source, sqlite.Options{Plain: true, Create: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = app.Close() })
	if err := app.Exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	if err := d.start(ctx); err != nil {
		t.Fatal(err)
	}
	return d, app
}

// TestVerifyIsCancelled: when the one who asked has gone, the primary releases what it
// has frozen before the replica's request ends.
func TestVerifyIsCancelled(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	d, _ := startedDemo(ctx, t)
	if _, err := d.replica.node.Sync(ctx, demoDatabase, 0); err != nil {
		t.Fatal(err)
	}
	audits := func() int { return d.primary.node.databases[0].pipeline.Status().Audits }

	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	var frozen atomic.Bool
	same := *d.replica.node
	same.databases = []*copyDatabase{{
		service: service{name: demoDatabase}, replica: d.replica.node.databases[0].replica,
		clock: func() time.Time { // is asked once both sides have frozen their state
			if audits() > 0 {
				frozen.Store(true)
				cancel()
			}
			return time.Now()
		},
	}}
	_, err := same.Verify(asked, demoDatabase)
	if !errors.Is(err, context.Canceled) || !frozen.Load() {
		t.Errorf("got %v; frozen: %t", err, frozen.Load())
	}
	if n := audits(); n != 0 {
		t.Errorf("the primary still holds %d comparisons", n)
	}
	if p := same.databases[0].comparing.Load(); p != nil {
		t.Error("the status still shows the comparison")
	}
	db := d.replica.node.databases[0]
	db.comparing.Store(&comparison{d: db, at: time.Now()})
	if p := d.replica.node.Databases()[0].Progress; p == nil || p.What != "verifying" {
		t.Errorf("the status shows %+v of a comparison", p)
	}
	v, err := d.replica.node.Verify(ctx, demoDatabase)
	if err != nil || !v.Equal || v.Rows != 1 {
		t.Errorf("another one gives %+v, %v", v, err)
	}
}

// TestVerifyOfALateReplica: what the primary has frozen is asked for while the replica is on
// its way there, however long that takes.
func TestVerifyOfALateReplica(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	d, app := startedDemo(ctx, t)
	at, err := d.replica.node.Sync(ctx, demoDatabase, 0)
	if err != nil {
		t.Fatal(err)
	}
	next := auditBegun{ID: cdc.ID{1}, At: cdc.Position{Lineage: at.Lineage, Epoch: at.Epoch, LSN: at.LSN + 1}}
	write := sync.OnceValue(func() error { return app.Exec("INSERT INTO t VALUES(2)") }) // which the replica comes to
	conn := d.replica.conn
	serve := func(method string, h stream.Handler) {
		if _, err := conn.Serve(ctx, "late", method, h); err != nil {
			t.Fatal(err)
		}
	}
	serve(methodAuditBegin, handler(func(context.Context, struct{}) (auditBegun, error) { return next, nil }))
	serve(methodAuditState, handler(func(_ context.Context, r auditRequest) (auditState, error) {
		if r.ID != next.ID {
			t.Errorf("asked for %s", r.ID)
		}
		return auditState{}, write()
	}))
	same := *d.replica.node
	same.databases = []*copyDatabase{{service: service{name: "late"}, replica: d.replica.node.databases[0].replica, clock: time.Now}}
	_, err = same.Verify(ctx, "late") // the hash of the boundary, and so the position, is not known here
	if err == nil || ctx.Err() != nil || d.replica.node.databases[0].replica.Status().Applied.LSN != next.At.LSN {
		t.Errorf("the replica did not come to LSN %d: %v", next.At.LSN, err)
	}
}

// TestVerifyRepairs: what the command asks for, in order, and when it gives up.
func TestVerifyRepairs(t *testing.T) {
	for _, tt := range []struct {
		repair  bool
		differs int // times
		asked   string
		code    int
	}{
		{false, 0, "verify", codeOK},
		{false, 1, "verify", codeDiverged},
		{true, 0, "repair verify", codeOK},
		{true, 1, "repair verify repair verify", codeOK},
		{true, 2, "repair verify repair verify repair verify", codeOK},
		{true, 9, "repair verify repair verify repair verify", codeDiverged},
	} {
		var asked []string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" {
				t.Errorf("asked for %s", r.URL.RawQuery)
			}
			what := strings.TrimPrefix(r.URL.Path, "/v1/databases/app/")
			asked = append(asked, what)
			verified := 0
			for _, a := range asked {
				if a == "verify" {
					verified++
				}
			}
			_ = json.NewEncoder(w).Encode(web.Verification{Database: "app", Node: "replica-1", Equal: verified > tt.differs})
		}))
		var out bytes.Buffer
		o := verifyOptions{target: target{url: s.URL}, db: "app", repair: tt.repair}
		err := o.run(t.Context(), &environment{stdout: &out, clock: time.Now})
		if err != nil {
			err = &ranError{err}
		}
		if got := strings.Join(asked, " "); got != tt.asked || exitCode(err) != tt.code {
			t.Errorf("repair %t, differs %d times: asked %s, exit %d", tt.repair, tt.differs, got, exitCode(err))
		}
		if lines := strings.Count(out.String(), "\n"); lines != strings.Count(tt.asked, "verify") {
			t.Errorf("%d lines:\n%s", lines, out.String())
		}
		s.Close()
	}
}

// TestCheckRuns: what SQLite gives is believed, and nothing that would not end.
func TestCheckRuns(t *testing.T) {
	run := func(upto int64, rows uint64) sqlite.RowRun { return sqlite.RowRun{Upto: upto, Rows: rows} }
	for _, tt := range []struct {
		runs []sqlite.RowRun
		ok   bool
	}{
		{[]sqlite.RowRun{run(1, 2), run(5, 2), run(9, 1)}, true},
		{[]sqlite.RowRun{run(9, 0)}, true},
		{[]sqlite.RowRun{run(0, 1)}, true},
		{nil, false},
		{[]sqlite.RowRun{run(-1, 1)}, false},
		{[]sqlite.RowRun{run(10, 1)}, false},
		{[]sqlite.RowRun{run(5, 3)}, false},
		{[]sqlite.RowRun{run(5, 1), run(5, 0)}, false},
		{[]sqlite.RowRun{run(5, 1), run(4, 1)}, false},
	} {
		if err := checkRuns(tt.runs, 0, 9, 2); (err == nil) != tt.ok {
			t.Errorf("%v: %v", tt.runs, err)
		}
	}
}

// TestPrintVerification names a bounded number of rows.
func TestPrintVerification(t *testing.T) {
	var out bytes.Buffer
	o := verifyOptions{}
	v := web.Verification{
		Node: "replica-1", Database: "app", LSN: 9, Tables: 2, Rows: 1234, Seconds: 1.25, Differences: []string{"table t has 3 rows here and 1,231 on the primary"},
		Differing: []web.TableRows{
			{Table: "t", First: []web.DifferingRow{{Rowid: -1, Fault: "extra"}, {Rowid: 2, Fault: "missing"}, {Rowid: 3, Fault: "differs"}}, Count: 3},
			{Table: "u", First: []web.DifferingRow{{Rowid: 1, Fault: "differs"}}, Count: 2},
			{Table: "v", First: []web.DifferingRow{{Rowid: 1, Fault: "differs"}}, Count: 10_000, More: true},
		},
	}
	if err := o.print(&environment{stdout: &out}, v); err != nil {
		t.Fatal(err)
	}
	want := `app on replica-1: DIFFERENT at LSN 9: 2 tables, 1,234 rows, 1.2 s
  table t has 3 rows here and 1,231 on the primary
  table t: rowid -1 is not on the primary
  table t: rowid 2 is missing here
  table t: rowid 3 differs
  table u: rowid 1 differs
  table u: and 1 other row
  table v: rowid 1 differs
  table v: and more than 9,999 other rows
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
