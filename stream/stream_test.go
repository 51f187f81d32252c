package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

// consume checks the records from to last as they arrive. As every caller does,
// it asks again when NATS was away.
func consume(t testing.TB, s *Stream, from, last cdc.LSN) {
	t.Helper()
	ctx, want, err := testContext(t), from, error(ErrUnavailable)
	for errors.Is(err, ErrUnavailable) {
		err = s.Consume(ctx, want, func(rec []byte, lsn cdc.LSN, _ uint64) error {
			if lsn != want || string(rec) != string(record(want)) {
				return fmt.Errorf("record %d is %q, want %d", lsn, rec, want)
			}
			if lsn == last {
				return errEnough
			}
			want++
			return nil
		})
	}
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
	if err := s.PurgeThrough(ctx, at, at); err != nil {
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
		if err := s.PurgeThrough(ctx, step.publish, step.to); err != nil {
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
	if err := c.Stream("app", StreamConfig{MaxBytes: 64 << 20}).Create(testContext(t), 1); !errors.Is(err, ErrOverbooked) {
		t.Errorf("%v, want ErrOverbooked", err)
	}
}

// TestReconfigure: a stream takes up what it is configured to be.
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

	// More copies than there are servers, and no bound of its own: what can be done is done.
	if err := s.conn.Stream("app", StreamConfig{Replicas: 3}).Reconfigure(ctx); err != nil {
		t.Fatal(err)
	}
	h, err := s.handle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if c := h.CachedInfo().Config; c.MaxBytes != before.MaxBytes || c.Replicas != 1 || c.Compression != jetstream.NoCompression {
		t.Errorf("max_bytes %d, %d replicas, compression %s", c.MaxBytes, c.Replicas, c.Compression)
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
		next, err := cdc.LSN(1), error(ErrUnavailable)
		for errors.Is(err, ErrUnavailable) {
			err = s.Consume(ctx, next, func(_ []byte, lsn cdc.LSN, _ uint64) error {
				next = lsn + 1
				if got <- lsn; lsn == 110 {
					return errEnough
				}
				return nil
			})
		}
		consumed <- err
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
		{api(500, 10047, "insufficient storage resources available"), ErrOverbooked},
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
