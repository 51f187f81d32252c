package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/web"
)

// A meter shows on a terminal how far a longer piece of work has come, in one line
// that it writes over. Where standard error is no terminal it shows nothing. It may
// be used concurrently.
type meter struct {
	w     io.Writer // nil: no terminal
	clock func() time.Time

	mu    sync.Mutex
	shown time.Time // zero: the line is empty
}

// meterEvery is the time between two lines.
const meterEvery = 200 * time.Millisecond

func newMeter(e *environment) *meter {
	m := &meter{clock: e.clock}
	if e.watched {
		m.w = e.stderr
	}
	return m
}

func (m *meter) show(p web.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.clock(); m.w != nil && now.Sub(m.shown) >= meterEvery {
		m.shown = now
		fmt.Fprint(m.w, "\r", progressText(p), clearRest)
	}
}

// clear empties the line for what comes next.
func (m *meter) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.shown.IsZero() {
		m.shown = time.Time{}
		fmt.Fprint(m.w, "\r", clearRest)
	}
}

const clearRest = "\x1b[K" // of the line

// snapshot makes the meter show how far what is done to a snapshot has come.
func (m *meter) snapshot(what string) snapshot.Options {
	return snapshot.Options{Progress: func(p snapshot.Progress) { m.show(*snapshotProgress(what, p, m.clock())) }}
}

// records shows how many of so many records are done.
func (m *meter) records(what string, began time.Time, done, total uint64) {
	m.show(*workProgress(what, replica.Progress{Done: done, Total: total, Unit: "records"}, m.clock().Sub(began)))
}

// follow shows what a node says of its work on a database until stop is called.
func (m *meter) follow(ctx context.Context, c *client, db string) (stop func()) {
	if m.w == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(meterEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			var s web.Status
			_ = c.do(ctx, http.MethodGet, "/v1/status", nil, &s) // who asked for the work hears why it fails
			for _, d := range s.Databases {
				if d.Name == db && d.Progress != nil {
					m.show(*d.Progress)
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		cancel()
		<-ended
		m.clear()
	}
}

// snapshotProgress is what is told of work on a snapshot.
func snapshotProgress(what string, p snapshot.Progress, now time.Time) *web.Progress {
	w := &web.Progress{What: what, Unit: "bytes", Done: p.Bytes, Total: p.Total, PerSecond: p.Rate(now), Waits: p.Waits}
	if left, known := p.ETA(now); known {
		s := left.Seconds()
		w.ETASeconds = &s
	}
	return w
}

// workProgress is what is told of a replica's work that has taken so long.
func workProgress(what string, p replica.Progress, since time.Duration) *web.Progress {
	w := &web.Progress{What: what, Unit: p.Unit, Done: int64(p.Done), Total: int64(p.Total), Waits: p.Waits}
	if rate, left, known := p.Pace(since); known {
		s := left.Seconds()
		w.PerSecond, w.ETASeconds = rate, &s
	}
	return w
}
