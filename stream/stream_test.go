package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sqlite-replicator/replicator/cdc"
)

const testPoll = 20 * time.Millisecond // each check is one request; what it finds does not depend on it

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// startServer runs a server until the returned stop or the end of the test.
func startServer(t testing.TB, o ServerOptions) (s *Server, stop func()) {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Name, o.Logger = "test", quiet()
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v, want canceled", err)
		}
	})
	t.Cleanup(stop)
	if err := s.WaitReady(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return s, stop
}

func connect(t testing.TB, o Options) *Conn {
	t.Helper()
	o.Logger = quiet()
	c, err := Connect(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func testConn(t testing.TB) *Conn {
	t.Helper()
	s, _ := startServer(t, ServerOptions{})
	return connect(t, Options{Server: s})
}

// create creates the stream of the database app.
func create(t testing.TB, c *Conn, first cdc.LSN, cfg StreamConfig) *Stream {
	t.Helper()
	if cfg.Poll == 0 {
		cfg.Poll = testPoll
	}
	s := c.Stream("app", cfg)
	if err := s.Create(testContext(t), first); err != nil {
		t.Fatal(err)
	}
	return s
}

func record(lsn cdc.LSN) []byte { return fmt.Appendf(nil, "record %d", lsn) }

// upTo gives the records after+1 to last, then io.EOF.
func upTo(after, last cdc.LSN, rec func(cdc.LSN) []byte) func(context.Context) ([]byte, cdc.LSN, error) {
	lsn := after
	return func(context.Context) ([]byte, cdc.LSN, error) {
		if lsn == last {
			return nil, 0, io.EOF
		}
		lsn++
		return rec(lsn), lsn, nil
	}
}

func publish(t testing.TB, s *Stream, after, last cdc.LSN) {
	t.Helper()
	at := after
	err := s.Publish(testContext(t), after, upTo(after, last, record), func(lsn cdc.LSN) {
		if lsn != at+1 {
			t.Errorf("acknowledged %d after %d", lsn, at)
		}
		at = lsn
	})
	if !errors.Is(err, io.EOF) || at != last {
		t.Fatalf("publish %d to %d: %v at %d", after+1, last, err, at)
	}
}

var errEnough = errors.New("enough")

// consume checks the records from to last as they arrive.
func consume(t testing.TB, s *Stream, from, last cdc.LSN) {
	t.Helper()
	want := from
	err := s.Consume(testContext(t), from, func(rec []byte, lsn cdc.LSN, pending uint64) error {
		if lsn != want || string(rec) != string(record(want)) {
			return fmt.Errorf("record %d is %q, want %d", lsn, rec, want)
		}
		if lsn == last {
			return errEnough
		}
		want++
		return nil
	}, nil)
	if !errors.Is(err, errEnough) {
		t.Fatalf("consume %d to %d: %v at %d", from, last, err, want)
	}
}

func TestPublishConsume(t *testing.T) {
	ctx := testContext(t)
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 5000)
	publish(t, s, 5000, 5001)
	for _, from := range []cdc.LSN{0, 1, 2, 4999, 5001} {
		consume(t, s, max(from, 1), 5001)
	}
	info, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !info.Exists || info.First != 1 || info.Last != 5001 || info.Messages != 5001 || info.Created.IsZero() || info.MaxBytes != 0 {
		t.Errorf("info is %+v", info)
	}
	if rec, err := s.Get(ctx, 77); err != nil || string(rec) != "record 77" {
		t.Errorf("Get(77) = %q, %v", rec, err)
	}
	if _, err := s.Get(ctx, 5002); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get beyond the end: %v, want ErrNotFound", err)
	}
}

func TestCreateFrom(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	s := create(t, c, 1001, StreamConfig{MaxBytes: 1 << 20})
	info, err := s.Info(ctx)
	if err != nil || info.First != 1001 || info.Last != 1000 || info.MaxBytes != 1<<20 {
		t.Fatalf("info %+v, %v; want 1001 to 1000", info, err)
	}
	publish(t, s, 1000, 1010)
	consume(t, s, 1001, 1010)
	if err := c.Stream("app", StreamConfig{}).Create(ctx, 7); !errors.Is(err, ErrExists) {
		t.Errorf("second Create: %v, want ErrExists", err)
	}
	if err := s.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx); err != nil {
		t.Errorf("second Delete: %v", err)
	}
	if info, err := s.Info(ctx); err != nil || info.Exists {
		t.Errorf("info after Delete %+v, %v", info, err)
	}
	if err := s.Publish(ctx, 1010, upTo(1010, 1011, record), nil); !errors.Is(err, ErrNoStream) {
		t.Errorf("publish after Delete: %v, want ErrNoStream", err)
	}
}

// A second publisher is refused at its first record, and the first one at the
// next, whoever wins.
func TestTwoPublishers(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	a := create(t, c, 1, StreamConfig{})
	publish(t, a, 0, 10)
	b := c.Stream("app", StreamConfig{})
	foreign := func(lsn cdc.LSN) []byte { return []byte("foreign") }
	if err := b.Publish(ctx, 9, upTo(9, 500, foreign), failAcked(t)); !errors.Is(err, ErrSequence) {
		t.Errorf("publish behind the end: %v, want ErrSequence", err)
	}
	if err := b.Publish(ctx, 12, upTo(12, 500, foreign), failAcked(t)); !errors.Is(err, ErrSequence) {
		t.Errorf("publish beyond the end: %v, want ErrSequence", err)
	}
	if rec, err := a.Get(ctx, 10); err != nil || string(rec) != "record 10" {
		t.Errorf("record 10 is %q, %v", rec, err)
	}
	if err := b.Publish(ctx, 10, upTo(10, 11, foreign), func(cdc.LSN) {}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := a.Publish(ctx, 10, upTo(10, 500, record), failAcked(t)); !errors.Is(err, ErrSequence) {
		t.Errorf("publish after a foreign record: %v, want ErrSequence", err)
	}
	if info, err := a.Info(ctx); err != nil || info.Last != 11 {
		t.Errorf("info %+v, %v; want the end at 11", info, err)
	}
}

func failAcked(t *testing.T) func(cdc.LSN) {
	return func(lsn cdc.LSN) { t.Errorf("record %d was acknowledged", lsn) }
}

// Two primaries that both end at the same record publish at once. One wins, and
// no record of the other is in the stream: not even later ones, whose expected
// sequence would fit.
func TestPublisherRace(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	s := create(t, c, 1, StreamConfig{})
	publish(t, s, 0, 1)
	for round := range 30 {
		info, err := s.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			wg.Go(func() {
				own := func(cdc.LSN) []byte { return []byte(name) }
				err := s.Publish(ctx, info.Last, upTo(info.Last, info.Last+50, own), func(cdc.LSN) {})
				if !errors.Is(err, io.EOF) && !errors.Is(err, ErrSequence) {
					t.Errorf("round %d: %s: %v, want io.EOF or ErrSequence", round, name, err)
				}
			})
		}
		wg.Wait()
		var authors []byte
		after, err := s.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for lsn := info.Last + 1; lsn <= after.Last; lsn++ {
			rec, err := s.Get(ctx, lsn)
			if err != nil {
				t.Fatal(err)
			}
			authors = append(authors, rec...)
		}
		if strings.Contains(string(authors), "a") && strings.Contains(string(authors), "b") {
			t.Fatalf("round %d: records of both: %s", round, authors)
		}
	}
}

// The acknowledgements of a window are lost: publishing again is refused, and
// the stream shows our own bytes, which is how the primary knows to go on.
func TestLostAcks(t *testing.T) {
	ctx := testContext(t)
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 300)
	if err := s.Publish(ctx, 100, upTo(100, 300, record), failAcked(t)); !errors.Is(err, ErrSequence) {
		t.Fatalf("publish again: %v, want ErrSequence", err)
	}
	info, err := s.Info(ctx)
	if err != nil || info.Last != 300 {
		t.Fatalf("info %+v, %v", info, err)
	}
	if rec, err := s.Get(ctx, info.Last); err != nil || string(rec) != string(record(300)) {
		t.Fatalf("record 300 is %q, %v", rec, err)
	}
	publish(t, s, 300, 310)
}

func TestPublishEnds(t *testing.T) {
	c := testConn(t)
	s := create(t, c, 1, StreamConfig{})
	t.Run("next fails", func(t *testing.T) {
		boom, n := errors.New("boom"), 0
		next := upTo(0, 3, record)
		err := s.Publish(testContext(t), 0, func(ctx context.Context) ([]byte, cdc.LSN, error) {
			rec, lsn, err := next(ctx)
			if err != nil {
				err = boom
			}
			return rec, lsn, err
		}, func(cdc.LSN) { n++ })
		if !errors.Is(err, boom) || n != 3 {
			t.Errorf("%v after %d, want boom after 3", err, n)
		}
	})
	t.Run("context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(testContext(t))
		next := upTo(3, 4, record)
		err := s.Publish(ctx, 3, func(ctx context.Context) ([]byte, cdc.LSN, error) {
			if rec, lsn, err := next(ctx); err == nil {
				return rec, lsn, nil
			}
			<-ctx.Done()
			return nil, 0, ctx.Err()
		}, func(cdc.LSN) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want canceled", err)
		}
	})
	t.Run("gap in the records", func(t *testing.T) {
		err := s.Publish(testContext(t), 4, upTo(5, 6, record), failAcked(t))
		if err == nil || !strings.Contains(err.Error(), "record 6 where 5 is due") {
			t.Errorf("%v, want record 6 where 5 is due", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		err := s.Publish(testContext(t), 4, upTo(4, 5, func(cdc.LSN) []byte { return make([]byte, DefaultMaxPayload) }), failAcked(t))
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v, want ErrTooLarge", err)
		}
	})
}

func TestFull(t *testing.T) {
	ctx := testContext(t)
	s := create(t, testConn(t), 1, StreamConfig{MaxBytes: 1 << 20})
	big := func(lsn cdc.LSN) []byte { return append(record(lsn), make([]byte, 100<<10)...) }
	var at cdc.LSN
	acked := func(lsn cdc.LSN) { at = lsn }
	if err := s.Publish(ctx, 0, upTo(0, 20, big), acked); !errors.Is(err, ErrFull) {
		t.Fatalf("publish into a full stream: %v, want ErrFull", err)
	}
	info, err := s.Info(ctx)
	if err != nil || info.Last != at || at == 0 {
		t.Fatalf("info %+v, %v; acknowledged %d", info, err, at)
	}
	if err := s.PurgeBelow(ctx, at+100); err != nil {
		t.Fatal(err)
	}
	if info, err = s.Info(ctx); err != nil || info.First != at || info.Last != at {
		t.Fatalf("info %+v, %v; want only %d", info, err, at)
	}
	if err := s.Publish(ctx, at, upTo(at, at+5, big), acked); !errors.Is(err, io.EOF) {
		t.Errorf("publish after the purge: %v", err)
	}
	if err := s.PurgeThrough(ctx, at); err != nil {
		t.Fatal(err)
	}
	if info, err = s.Info(ctx); err != nil || info.First != at+1 || info.Last != at || info.Messages != 0 {
		t.Fatalf("info %+v, %v; want none, the end at %d", info, err, at)
	}
	publish(t, s, at, at+1)
	if err := s.PurgeBelow(ctx, 3); err != nil {
		t.Errorf("purge of what is gone: %v", err)
	}
}

// A stream moved forward keeps its new end, with and without records in it, over
// a restart of the server.
func TestPurgeForward(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	for _, step := range []struct{ publish, to cdc.LSN }{{5, 40}, {40, 70}, {75, 100}} {
		srv, stop := startServer(t, ServerOptions{Dir: dir})
		c := connect(t, Options{Server: srv})
		s := c.Stream("app", StreamConfig{Poll: testPoll})
		info, err := s.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !info.Exists {
			create(t, c, 1, StreamConfig{})
		}
		publish(t, s, info.Last, step.publish)
		if err := s.PurgeThrough(ctx, step.to); err != nil {
			t.Fatal(err)
		}
		if info, err = s.Info(ctx); err != nil || info.First != step.to+1 || info.Last != step.to || info.Messages != 0 {
			t.Errorf("info %+v, %v; want none, the end at %d", info, err, step.to)
		}
		c.Close()
		stop()
	}
}

func TestCreateBeyondStore(t *testing.T) {
	srv, _ := startServer(t, ServerOptions{MaxStore: 8 << 20})
	c := connect(t, Options{Server: srv})
	if err := c.Stream("app", StreamConfig{MaxBytes: 64 << 20}).Create(testContext(t), 1); !errors.Is(err, ErrFull) {
		t.Errorf("%v, want ErrFull", err)
	}
}

func TestReconfigure(t *testing.T) {
	ctx := testContext(t)
	dir := t.TempDir()
	srv, stop := startServer(t, ServerOptions{Dir: dir})
	c := connect(t, Options{Server: srv})
	s := create(t, c, 100, StreamConfig{MaxBytes: 1 << 20})
	publish(t, s, 99, 150)
	if err := s.PurgeBelow(ctx, 120); err != nil {
		t.Fatal(err)
	}
	before, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stream("app", StreamConfig{MaxBytes: 2 << 20, Compress: true}).Reconfigure(ctx); err != nil {
		t.Fatal(err)
	}
	c.Close()
	stop()
	srv, _ = startServer(t, ServerOptions{Dir: dir})
	s = connect(t, Options{Server: srv}).Stream("app", StreamConfig{})
	after, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before.MaxBytes = 2 << 20
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	consume(t, s, 120, 150)
}

func TestConsumeStart(t *testing.T) {
	ctx := testContext(t)
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 10)
	if err := s.PurgeBelow(ctx, 5); err != nil {
		t.Fatal(err)
	}
	never := func([]byte, cdc.LSN, uint64) error { return errors.New("a record came") }
	var trimmed *TrimmedError
	if err := s.Consume(ctx, 4, never, nil); !errors.Is(err, ErrTrimmed) || !errors.As(err, &trimmed) || trimmed.FirstLSN() != 5 {
		t.Errorf("below the first: %v, want ErrTrimmed, 5", err)
	}
	if err := s.Consume(ctx, 12, never, nil); !errors.Is(err, ErrBeyond) {
		t.Errorf("beyond the last: %v, want ErrBeyond", err)
	}
	if err := s.conn.Stream("other", StreamConfig{}).Consume(ctx, 1, never, nil); !errors.Is(err, ErrNoStream) {
		t.Errorf("no stream: %v, want ErrNoStream", err)
	}
	boom := errors.New("boom")
	if err := s.Consume(ctx, 5, func([]byte, cdc.LSN, uint64) error { return boom }, nil); !errors.Is(err, boom) {
		t.Errorf("handle failed: %v, want boom", err)
	}
}

// Whatever is done to the stream under a consumer that waits at its end has a
// name.
func TestConsumeUnder(t *testing.T) {
	tests := []struct {
		name string
		do   func(ctx context.Context, s *Stream) error
		want error
	}{
		{"deleted", func(ctx context.Context, s *Stream) error { return s.Delete(ctx) }, ErrNoStream},
		{"created again lower", recreate(1), ErrRecreated},
		{"created again where it was", recreate(11), ErrRecreated},
		{"created again higher", recreate(500), ErrRecreated},
		{"purged beyond", func(ctx context.Context, s *Stream) error {
			h, err := s.handle(ctx)
			if err != nil {
				return err
			}
			return h.Purge(ctx, jetstream.WithPurgeSequence(500))
		}, ErrTrimmed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := testContext(t)
			s := create(t, testConn(t), 1, StreamConfig{})
			publish(t, s, 0, 10)
			handle := func([]byte, cdc.LSN, uint64) error { return nil }
			err := s.Consume(ctx, 10, handle, func() error { return tt.do(ctx, s) })
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

func recreate(first cdc.LSN) func(context.Context, *Stream) error {
	return func(ctx context.Context, s *Stream) error {
		if err := s.Delete(ctx); err != nil {
			return err
		}
		return s.Create(ctx, first)
	}
}

// A hole in the stream, which JetStream passes over silently.
func TestConsumeHole(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	s := c.Stream("app", StreamConfig{Poll: testPoll})
	cfg := s.config(1)
	cfg.DenyDelete = false
	h, err := c.js.CreateStream(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, s, 0, 10)
	if err := h.DeleteMsg(ctx, 6); err != nil {
		t.Fatal(err)
	}
	var at cdc.LSN
	err = s.Consume(ctx, 1, func(_ []byte, lsn cdc.LSN, _ uint64) error { at = lsn; return nil }, nil)
	var trimmed *TrimmedError
	if !errors.As(err, &trimmed) || *trimmed != (TrimmedError{Want: 6, First: 7}) || at != 5 {
		t.Errorf("%v at %d, want 6 gone at 5", err, at)
	}
}

// The JetStream consumer vanishes without a word: another one takes over.
func TestConsumerLost(t *testing.T) {
	ctx := testContext(t)
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 10)
	var at cdc.LSN
	err := s.Consume(ctx, 1, func(_ []byte, lsn cdc.LSN, _ uint64) error {
		if at = lsn; lsn == 20 {
			return errEnough
		}
		return nil
	}, func() error {
		if at != 10 {
			return nil
		}
		h, err := s.handle(ctx)
		if err != nil {
			return err
		}
		for name := range h.ConsumerNames(ctx).Name() {
			if err := h.DeleteConsumer(ctx, name); err != nil {
				return err
			}
		}
		publish(t, s, 10, 20)
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("%v at %d", err, at)
	}
}

// A record that the stream has and that does not come is waited for, longer
// each time, and then asked for again.
func TestWatch(t *testing.T) {
	ctx := testContext(t)
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 3)
	c := &consumption{s: s, want: 2, stallPolls: 2}
	for _, polls := range []int{2, 4, 8} {
		w := watch{at: c.want}
		for i := range polls {
			if err := c.watch(ctx, &w); (i == polls-1) != errors.Is(err, errRestart) {
				t.Fatalf("poll %d of %d: %v", i+1, polls, err)
			}
		}
	}
	w := watch{at: c.want}
	c.want = 4 // progress, and then a quiet database
	for range 10 {
		if err := c.watch(ctx, &w); err != nil {
			t.Fatal(err)
		}
	}
}

// idle runs exactly when all that there is has been handled.
func TestIdle(t *testing.T) {
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 1000)
	var at cdc.LSN
	var calls []cdc.LSN
	err := s.Consume(testContext(t), 1, func(_ []byte, lsn cdc.LSN, pending uint64) error {
		if at = lsn; lsn <= 1000 && pending != uint64(1000-lsn) {
			return fmt.Errorf("record %d has %d behind it", lsn, pending)
		}
		return nil
	}, func() error {
		if calls = append(calls, at); at == 1001 {
			return errEnough
		}
		publish(t, s, 1000, 1001)
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]cdc.LSN{1000, 1001}, calls); diff != "" {
		t.Error(diff)
	}
}

// A server that restarts on its store takes up where it was, for a publisher
// and a consumer that stay.
func TestServerRestart(t *testing.T) {
	ctx := testContext(t)
	dir, addr := t.TempDir(), freePort(t)
	_, stop := startServer(t, ServerOptions{Dir: dir, Listen: addr})
	c := connect(t, Options{URL: "nats://" + addr})
	s := create(t, c, 1, StreamConfig{})
	publish(t, s, 0, 100)

	consumed, got := make(chan error, 1), make(chan cdc.LSN, 200)
	go func() {
		consumed <- s.Consume(ctx, 1, func(rec []byte, lsn cdc.LSN, _ uint64) error {
			if got <- lsn; lsn == 110 {
				return errEnough
			}
			return nil
		}, nil)
	}()
	for <-got != 100 {
	}
	changed := c.Changed()
	stop()
	<-changed
	if err := s.Publish(ctx, 100, upTo(100, 110, record), failAcked(t)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("publish while the server is away: %v, want ErrUnavailable", err)
	}
	if err := c.Err(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Err() = %v, want ErrUnavailable", err)
	}
	startServer(t, ServerOptions{Dir: dir, Listen: addr})
	if err := c.WaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 100, 110)
	if err := <-consumed; !errors.Is(err, errEnough) {
		t.Errorf("consumer: %v", err)
	}
}

func TestConditions(t *testing.T) {
	api := func(status int, code jetstream.ErrorCode, text string) error {
		return &jetstream.APIError{Code: status, ErrorCode: code, Description: text}
	}
	tests := []struct {
		err  error
		want *Condition
	}{
		{api(400, 10071, "wrong last sequence: 7"), ErrSequence},
		{api(400, 10164, "wrong last sequence"), ErrSequence},
		{api(503, 10077, "maximum bytes exceeded"), ErrFull},
		{api(503, 10077, "no space left on device"), ErrFull},
		{api(503, 10077, "store is closed"), ErrUnavailable},
		{api(503, 10023, "insufficient resources"), ErrFull},
		{api(500, 10047, "insufficient storage resources available"), ErrFull},
		{api(503, 10008, "JetStream system temporarily unavailable"), ErrUnavailable},
		{api(404, 10059, "stream not found"), ErrNoStream},
		{api(404, 10037, "no message found"), ErrNotFound},
		{nats.ErrDisconnected, ErrUnavailable},
		{nats.ErrAuthorization, ErrAuth},
		{errors.New("other"), nil},
	}
	for _, tt := range tests {
		err := wrap(t.Context(), tt.err, "try")
		var c interface{ Condition() string }
		if tt.want == nil {
			if errors.As(err, &c) {
				t.Errorf("%v is %q, want none", err, c.Condition())
			}
			continue
		}
		if !errors.Is(err, tt.want) || !errors.As(err, &c) || c.Condition() != tt.want.word {
			t.Errorf("%v is not %q", err, tt.want.word)
		}
	}
}
