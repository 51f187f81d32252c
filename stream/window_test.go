package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sqlite-replicator/replicator/cdc"
)

// TestWindow: whatever a link takes, it is used, and nothing waits on it for long.
func TestWindow(t *testing.T) {
	for name, link := range map[string]struct {
		rate      int64 // bytes a second
		roundTrip time.Duration
		record    int64 // bytes
	}{
		"slow":                  {100 << 10, 50 * time.Millisecond, 2 << 10},
		"slow, large records":   {100 << 10, 50 * time.Millisecond, 512 << 10},
		"ordinary":              {1 << 20, 50 * time.Millisecond, 128 << 10},
		"fast":                  {100 << 20, time.Millisecond, 128 << 10},
		"fast, by a satellite":  {10 << 20, 600 * time.Millisecond, 128 << 10},
		"very fast, far away":   {50 << 20, 150 * time.Millisecond, 128 << 10},
		"of records of one row": {1 << 20, 50 * time.Millisecond, 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const linger, lasting = time.Second, 30 * time.Second
				passed, worst := fly(newWindow(linger), link.rate, link.roundTrip, link.record, time.Now().Add(lasting))
				alone := func(size int64) time.Duration { return time.Duration(size) * time.Second / time.Duration(link.rate) }
				if most := link.roundTrip + alone(link.record) + max(2*linger, alone(windowLeast)); worst > most {
					t.Errorf("an acknowledgement took %s, want at most %s", worst, most)
				}
				used := float64(passed) / float64(link.rate) / lasting.Seconds()
				if used < 0.85 {
					t.Errorf("%.0f %% of the link were used", 100*used)
				}
			})
		})
	}
}

// fly sends records through a window and over a link until the end, and tells how many
// bytes passed, and how long the slowest acknowledgement took.
func fly(w *window, rate int64, roundTrip time.Duration, record int64, end time.Time) (passed int64, worst time.Duration) {
	type sent struct {
		flight
		acked time.Time
	}
	link, back := make(chan flight, windowRecords), make(chan sent, windowRecords)
	go func() {
		defer close(link)
		for time.Now().Before(end) {
			f, err := w.enter(context.Background(), record)
			if err != nil {
				return
			}
			link <- f
		}
	}()
	go func() {
		defer close(back)
		for f := range link {
			time.Sleep(time.Duration(f.size) * time.Second / time.Duration(rate))
			back <- sent{f, time.Now().Add(roundTrip)}
		}
	}()
	for f := range back {
		time.Sleep(time.Until(f.acked))
		took := time.Since(f.left)
		w.arrived(f.flight, took)
		w.leave(f.flight)
		if time.Now().Before(end) {
			passed += f.size
		}
		worst = max(worst, took)
	}
	return passed, worst
}

// TestHeartbeatOnASlowLink: it does not wait behind all that is there to be consumed.
func TestHeartbeatOnASlowLink(t *testing.T) {
	if testing.Short() {
		t.Skip("a second of a slow link")
	}
	t.Parallel()
	ctx := testContext(t)
	srv, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
	near := connect(t, Options{Server: srv})
	const last, size = 128, 64 << 10
	err := create(t, near, 1, StreamConfig{}).Publish(ctx, 0, upTo(0, last, func(cdc.LSN) []byte { return make([]byte, size) }), func(cdc.LSN) {})
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	const pace, perTick = 20 * time.Millisecond, 160 << 10 // 8 MiB/s
	far := connect(t, Options{URL: slowLink(t, srv.URL(), pace, perTick)})
	var consumed, before atomic.Int64
	if err := far.OnHeartbeat(ctx, "app", func(Heartbeat) { before.Store(consumed.Load()) }); err != nil {
		t.Fatal(err)
	}
	err = far.Stream("app", StreamConfig{}).Consume(ctx, 1, func(rec []byte, lsn cdc.LSN, _ uint64) error {
		consumed.Add(int64(len(rec)))
		switch lsn {
		case 1:
			return near.SendHeartbeat("app", Heartbeat{})
		case last:
			return errEnough
		}
		return nil
	})
	if most := int64(4 << 20); !errors.Is(err, errEnough) || before.Load() == 0 || before.Load() > most {
		t.Errorf("%v, and a heartbeat came behind %d bytes of records, want at most %d", err, before.Load(), most)
	}
}

// TestPutOnASlowLink: a snapshot on its way leaves room for heartbeats.
func TestPutOnASlowLink(t *testing.T) {
	if testing.Short() {
		t.Skip("a second of a slow link")
	}
	t.Parallel()
	ctx := testContext(t)
	srv, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
	const pace, perTick = 20 * time.Millisecond, 160 << 10 // 8 MiB/s
	near, far := connect(t, Options{URL: slowLink(t, srv.URL(), pace, perTick)}), connect(t, Options{Server: srv})
	o := near.Objects("app", 1)
	if err := o.Put(ctx, "first", []byte("x")); err != nil { // with it there is a bucket
		t.Fatal(err)
	}
	var came, before atomic.Int64
	chunk := func(m *nats.Msg) {
		if came.Add(int64(len(m.Data))) == int64(len(m.Data)) {
			_ = near.SendHeartbeat("app", Heartbeat{})
		}
	}
	if _, err := far.nc.Subscribe(o.message(">"), chunk); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(far.OnHeartbeat(ctx, "app", func(Heartbeat) { before.Store(came.Load()) }), far.nc.Flush()); err != nil {
		t.Fatal(err)
	}
	var puts sync.WaitGroup
	for i := range 4 {
		puts.Go(func() {
			if err := o.Put(ctx, fmt.Sprint(i), make([]byte, 2<<20)); err != nil {
				t.Error(err)
			}
		})
	}
	puts.Wait()
	if most := int64(3 << 20); before.Load() == 0 || before.Load() > most {
		t.Errorf("a heartbeat came behind %d bytes of objects, want at most %d", before.Load(), most)
	}
}

// TestGetsOnASlowLink: what is read of several objects leaves room, too: it is not all asked
// for at once.
func TestGetsOnASlowLink(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	srv, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
	near := connect(t, Options{Server: srv})
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		if err := near.Objects("app", 1).Put(ctx, name, make([]byte, objectChunk)); err != nil {
			t.Fatal(err)
		}
	}
	var asked atomic.Int64
	if _, err := near.nc.Subscribe("$JS.API.DIRECT.GET.*", func(*nats.Msg) { asked.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := near.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	const pace, perTick = 20 * time.Millisecond, 32 << 10 // 1.6 MiB/s
	far := connect(t, Options{URL: slowLink(t, srv.URL(), pace, perTick)}).Objects("app", 1)
	first := make(chan error, len(names))
	for _, name := range names {
		go func() {
			_, err := far.Get(ctx, name)
			first <- err
		}()
	}
	if err := <-first; err != nil || asked.Load() < 1 || asked.Load() > 2 {
		t.Errorf("%d messages were asked for before the first had come, %v", asked.Load(), err)
	}
}

// TestPutTakesItsTime: an object may take longer than any single message of it may, as where
// a large one, and others beside it, share a slow link.
func TestPutTakesItsTime(t *testing.T) {
	if testing.Short() {
		t.Skip("2.6 s of a slow link")
	}
	t.Parallel()
	srv, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0", MaxPayload: 64<<10 + headerRoom})
	const pace, perTick = 20 * time.Millisecond, 32 << 10 // 1.6 MiB/s
	o := connect(t, Options{URL: slowLink(t, srv.URL(), pace, perTick)}).Objects("app", 1)
	o.patience, o.conn.parts = 2400*time.Millisecond, newWindow(50*time.Millisecond)
	if err := o.Put(testContext(t), "n", make([]byte, 4<<20)); err != nil {
		t.Error(err)
	}
}

// TestPublishOnASlowLink: a backlog may take longer than any single acknowledgement may.
func TestPublishOnASlowLink(t *testing.T) {
	if testing.Short() {
		t.Skip("2.6 s of a slow link")
	}
	t.Parallel()
	srv, _ := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
	const pace, perTick = 20 * time.Millisecond, 32 << 10 // 1.6 MiB/s
	s := create(t, connect(t, Options{URL: slowLink(t, srv.URL(), pace, perTick)}), 1, StreamConfig{AckTimeout: 2400 * time.Millisecond})
	const last = 64
	acked := cdc.LSN(0)
	err := s.Publish(testContext(t), 0, upTo(0, last, func(cdc.LSN) []byte { return make([]byte, 64<<10) }), func(lsn cdc.LSN) { acked = lsn })
	if !errors.Is(err, io.EOF) || acked != last {
		t.Errorf("%v after record %d, want %d records", err, acked, last)
	}
}
