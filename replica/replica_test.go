package replica

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/clock"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// fastClock is real time whose pauses are short, so that no test waits.
type fastClock struct{}

func (fastClock) Now() time.Time { return time.Now() }

func (fastClock) Sleep(ctx context.Context, d time.Duration) error {
	return clock.System{}.Sleep(ctx, min(d, time.Millisecond))
}

// A rig is a source and a running replica of it.
type rig struct {
	*source
	t     *testing.T
	o     Options
	r     *Replica
	snaps *snapshots
	ctx   context.Context
	stop  func() error
}

func newRig(t *testing.T, sql string) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	g := &rig{source: newSource(t, sql), t: t, ctx: ctx, snaps: &snapshots{}}
	g.o = Options{
		Only:     true,
		Database: "app", Path: filepath.Join(t.TempDir(), "replica.db"), Stream: g.log, Snapshots: g.snaps,
		Clock: fastClock{}, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Apply: Apply{HoldWriteLock: true, VerifyRows: true},
	}
	return g
}

// testWriter sends a log to the test's output.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// start runs the replica; the first start makes the snapshot it restores.
func (g *rig) start() {
	g.t.Helper()
	if len(g.snaps.list) == 0 {
		g.snaps.add(g.snapshot())
	}
	g.run()
}

func (g *rig) run() {
	g.t.Helper()
	var err error
	g.r, err = New(g.o)
	must(g.t, err)
	ctx, cancel := context.WithCancel(g.ctx)
	done := make(chan error, 1)
	go func() { done <- g.r.Run(ctx) }()
	var once sync.Once
	g.stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	g.t.Cleanup(func() {
		if err := g.stop(); err != nil && !errors.Is(err, context.Canceled) {
			g.t.Error(err)
		}
	})
}

// wait returns once the replica is where the source is.
func (g *rig) wait() {
	g.t.Helper()
	g.waitFor(g.enc.Position().LSN)
}

func (g *rig) waitFor(lsn cdc.LSN) {
	g.t.Helper()
	if _, err := g.r.WaitFor(g.ctx, cdc.Position{LSN: lsn}); err != nil {
		g.t.Fatalf("%v; status %+v, error %+v", err, g.r.Status(), g.r.Status().Error)
	}
}

// equal compares the contents of source and replica, and their schemas.
func (g *rig) equal() {
	g.t.Helper()
	g.wait()
	equalFiles(g.t, g.c, g.o.Path)
}

func equalFiles(t fataler, want *sqlite.Conn, path string) {
	t.Helper()
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if diff := cmp.Diff(content(t, want), content(t, c)); diff != "" {
		t.Fatalf("replica differs (-source +replica):\n%s", diff)
	}
	ok, err := c.QueryText("PRAGMA integrity_check")
	if err != nil || ok != "ok" {
		t.Fatalf("integrity check: %s, %v", ok, err)
	}
}

// A fataler is a testing.TB or a rapid.T.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

type contents struct {
	Tables  []sqlite.TableSum
	Schema  []string
	Headers [2]int64
}

func content(t fataler, c *sqlite.Conn) (out contents) {
	t.Helper()
	must(t, c.OpenRead())
	defer func() { must(t, c.Rollback()) }()
	var err error
	out.Tables, _, err = c.Content(context.Background(), nil)
	must(t, err)
	must(t, c.Query(`SELECT type||' '||name||' '||tbl_name||' '||coalesce(sql,'') FROM sqlite_schema
WHERE name NOT LIKE '\_replicator\_%' ESCAPE '\' AND tbl_name NOT LIKE '\_replicator\_%' ESCAPE '\' ORDER BY type, name`, nil, func(r sqlite.Row) error {
		out.Schema = append(out.Schema, r.Text(0))
		return nil
	}))
	for i, name := range []string{"user_version", "application_id"} {
		out.Headers[i], err = c.QueryInt("PRAGMA " + name)
		must(t, err)
	}
	return out
}

func TestBootstrapAndStream(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two')")
	g.start()
	g.equal()
	g.step("INSERT INTO t VALUES(3,'three'); UPDATE t SET b=b||'!' WHERE a=1; DELETE FROM t WHERE a=2")
	g.equal()
	if s := g.r.Status(); s.State != Streaming || s.Counters.Transactions != 1 || s.Counters.Changes != 3 || s.Applied.LSN != g.enc.Position().LSN {
		t.Errorf("status %+v", s)
	}
}

func TestRestartGoesOnFromTheFile(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a, b)")
	g.start()
	g.step("INSERT INTO t VALUES(1,1)")
	g.equal()
	if err := g.stop(); !errors.Is(err, context.Canceled) {
		t.Fatalf("Run: %v", err)
	}
	g.snaps.list = nil // must not be needed
	g.step("INSERT INTO t VALUES(2,2)")
	g.restart()
	g.step("INSERT INTO t VALUES(3,3)")
	g.run()
	g.equal()
}
