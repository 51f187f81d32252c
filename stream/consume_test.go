package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sqlite-replicator/replicator/cdc"
)

func TestConsumeStart(t *testing.T) {
	ctx := testContext(t)
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 10)
	if err := s.PurgeBelow(ctx, 5); err != nil {
		t.Fatal(err)
	}
	never := func([]byte, cdc.LSN, uint64) error { return errors.New("a record came") }
	var trimmed *TrimmedError
	if err := s.Consume(ctx, 4, never); !errors.Is(err, ErrTrimmed) || !errors.As(err, &trimmed) || trimmed.FirstLSN() != 5 {
		t.Errorf("below the first: %v, want ErrTrimmed, 5", err)
	}
	if err := s.Consume(ctx, 12, never); !errors.Is(err, ErrBeyond) {
		t.Errorf("beyond the last: %v, want ErrBeyond", err)
	}
	if err := s.conn.Stream("other", StreamConfig{}).Consume(ctx, 1, never); !errors.Is(err, ErrNoStream) {
		t.Errorf("no stream: %v, want ErrNoStream", err)
	}
	boom := errors.New("boom")
	if err := s.Consume(ctx, 5, func([]byte, cdc.LSN, uint64) error { return boom }); !errors.Is(err, boom) {
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
			err := s.Consume(ctx, 10, func([]byte, cdc.LSN, uint64) error { return tt.do(ctx, s) })
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// recreate deletes the stream and creates it from first. The server removes the
// old files in the background and answers a creation that meets them with an
// error of its own, which a caller meets as ErrUnavailable and asks again.
func recreate(first cdc.LSN) func(context.Context, *Stream) error {
	return func(ctx context.Context, s *Stream) error {
		if err := s.Delete(ctx); err != nil {
			return err
		}
		err := s.Create(ctx, first)
		for errors.Is(err, ErrUnavailable) {
			err = s.Create(ctx, first)
		}
		return err
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
	err = s.Consume(ctx, 1, func(_ []byte, lsn cdc.LSN, _ uint64) error { at = lsn; return nil })
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
		switch at = lsn; lsn {
		case 10:
			dropConsumers(t, s)
			publish(t, s, 10, 20)
		case 20:
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("%v at %d", err, at)
	}
}

func dropConsumers(t *testing.T, s *Stream) {
	t.Helper()
	ctx := testContext(t)
	h, err := s.handle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name := range h.ConsumerNames(ctx).Name() {
		if err := h.DeleteConsumer(ctx, name); err != nil {
			t.Fatal(err)
		}
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

// pending counts what is behind a record, as far as is known when it comes.
func TestPending(t *testing.T) {
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 1000)
	err := s.Consume(testContext(t), 1, func(_ []byte, lsn cdc.LSN, pending uint64) error {
		switch {
		case lsn <= 1000 && pending != uint64(1000-lsn), lsn == 1001 && pending != 0:
			return fmt.Errorf("record %d has %d behind it", lsn, pending)
		case lsn == 1000:
			publish(t, s, 1000, 1001)
		case lsn == 1001:
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
}

// What a consumer sets up is small: a process may have hundreds of them.
func TestConsumeMemory(t *testing.T) {
	s := create(t, testConn(t), 1, StreamConfig{})
	publish(t, s, 0, 10)
	const limit = 2 << 20 // bytes; the server of the test is part of it
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := s.Consume(testContext(t), 10, func([]byte, cdc.LSN, uint64) error { return errEnough })
	runtime.ReadMemStats(&after)
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > limit {
		t.Errorf("a consumer of one record allocated %d bytes, want at most %d", took, limit)
	}
}
