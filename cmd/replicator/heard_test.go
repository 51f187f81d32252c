package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/web"
)

type (
	noStream  struct{ primary.Stream }
	noRecords struct{ replica.Stream }
)

// quietSource is a database of a primary that does not run.
func quietSource(f testing.TB, clock func() time.Time) *sourceDatabase {
	dir := f.TempDir()
	p, err := primary.New(primary.Options{
		Name: "app", Path: filepath.Join(dir, "app.db"), Dir: dir, Stream: noStream{}, Snapshots: snapshot.NewDir(dir),
		Sources: &primary.Sources{}, Clock: clock, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	d := &sourceDatabase{pipeline: p, fleet: newFleet(clock), clock: clock, ask: make(chan struct{}, 1)}
	d.name = "app"
	return d
}

// shown checks that what a node says of a database can be read.
func shown(t *testing.T, role string, d web.Database) {
	t.Helper()
	s := web.Status{Node: "n", Role: role, Databases: []web.Database{d}}
	if _, err := json.Marshal(s); err != nil {
		t.Fatalf("%+v cannot be shown: %v", d, err)
	}
	printStatus(io.Discard, s, paint{})
}

// FuzzHeardReport: whatever a replica reports, the primary goes on and shows its status.
func FuzzHeardReport(f *testing.F) {
	for _, s := range []string{
		`{"node":"r","db":"app","state":"streaming","applied":{"lineage":"00000000000000000000000000000000","epoch":1,"lsn":7},"needs":7,"lag":{"seconds":1.5}}`,
		`{"node":"r","state":"restoring","needs":18446744073709551615}`, `{"node":"r","state":"waiting"}`,
		`{"node":"r","since":"0000-01-01T00:00:00Z","lag":{"seconds":-1e308,"bytes":0}}`, `{"node":"\u001b[2J"}`, `{"seen":{"epoch":18446744073709551615}}`,
	} {
		f.Add([]byte(s))
	}
	d := quietSource(f, time.Now)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r stream.Report
		if json.Unmarshal(b, &r) == nil {
			d.heard(r)
			shown(t, "primary", d.describe())
		}
	})
}

// FuzzHeardHeartbeat: whatever a primary says, the replica shows its status, and a lag
// that is a number.
func FuzzHeardHeartbeat(f *testing.F) {
	for _, s := range []string{
		`{"node":"p","position":{"epoch":1,"lsn":7},"captured":9,"durable":8,"published":7,"totals":{"transactions":5},"sent_at":"2026-01-02T03:04:05Z"}`,
		`{"state":"failed","published":7,"level_ns":9223372036854775807,"sent_at":"2026-01-02T03:04:05Z"}`, `{"state":"\u001b[2J","level_ns":-9223372036854775808}`,
		`{"published":18446744073709551615,"sent_at":"9999-12-31T23:59:59Z"}`, `{"sent_at":"0000-01-01T00:00:00Z","published":1}`, `{}`,
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	store := snapshot.NewDir(dir)
	r, err := replica.New(replica.Options{
		Database: "app", Path: filepath.Join(dir, "copy.db"), Stream: noRecords{}, Snapshots: replica.FromStore(store, snapshot.Options{}),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	d := &copyDatabase{replica: r, path: filepath.Join(dir, "copy.db"), clock: time.Now}
	d.name = "app"
	f.Fuzz(func(t *testing.T, b []byte) {
		var h stream.Heartbeat
		if json.Unmarshal(b, &h) != nil {
			return
		}
		d.heard(h)
		if lag := r.Status().Lag; lag.Seconds != nil || lag.Since == nil { // it has no file, whatever it hears
			t.Fatalf("after %+v the lag is %+v", h, lag)
		}
		shown(t, "replica", d.describe(true))
	})
}

// TestClockIsMeasuredWhenItWasSet: the next measurement is half a minute away, and a
// heartbeat that comes late by a moment is no reason for one.
func TestClockIsMeasuredWhenItWasSet(t *testing.T) {
	ctx, conn := embedded(t)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	var ahead atomic.Int64 // the primary's clock
	there := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	asked := make(chan struct{}, 100)
	served, err := conn.Serve(ctx, "app", stream.MethodClock, func(ctx context.Context, q []byte) ([]byte, error) {
		asked <- struct{}{}
		return stream.ClockHandler(there)(ctx, q)
	})
	if err != nil {
		t.Fatal(err)
	}
	store := snapshot.NewDir(t.TempDir())
	r, err := replica.New(replica.Options{Database: "app", Path: filepath.Join(t.TempDir(), "copy.db"), Stream: noRecords{}, Snapshots: replica.FromStore(store, snapshot.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	d := &copyDatabase{replica: r, clock: time.Now, stepped: make(chan struct{}, 1)}
	d.name = "app"
	measured := make(chan error, 1)
	go func() { measured <- d.measure(ctx, conn) }()
	for _, by := range []time.Duration{0, time.Hour, -24 * time.Hour} {
		ahead.Store(int64(by))
		d.heard(stream.Heartbeat{SentAt: there()})
		for off := time.Duration(d.offset.Load()) - by; off.Abs() > time.Second; off = time.Duration(d.offset.Load()) - by {
			runtime.Gosched()
			if ctx.Err() != nil {
				t.Fatal("it was not measured")
			}
		}
	}
	d.heard(stream.Heartbeat{SentAt: there().Add(-clockStep / 2)})
	if len(d.stepped) > 0 {
		t.Error("a heartbeat came late, and the clock is measured")
	}
	cancel()
	<-served
	if err := <-measured; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := len(asked); n > 30 {
		t.Errorf("the clock was asked for %d times", n)
	}
}
