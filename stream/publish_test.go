package stream

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

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

// TestPurgeOfAnothersStream: whoever lost the stream removes nothing from it, and nothing
// that a publisher has sent is removed by another one that takes the stream over.
func TestPurgeOfAnothersStream(t *testing.T) {
	ctx := testContext(t)
	c := testConn(t)
	a := create(t, c, 1, StreamConfig{})
	b := c.Stream("app", StreamConfig{})
	for _, s := range []*Stream{a, b} { // b has published last
		info, err := s.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, s, info.Last, info.Last+10)
	}
	if err := a.PurgeBelow(ctx, 5); !errors.Is(err, ErrSequence) {
		t.Errorf("purge below 5: %v, want ErrSequence", err)
	}
	if err := a.PurgeThrough(ctx, 10, 40); !errors.Is(err, ErrSequence) {
		t.Errorf("purge through 40: %v, want ErrSequence", err)
	}
	if info, err := a.Info(ctx); err != nil || info.Messages != 20 {
		t.Errorf("info %+v, %v; want 20 records", info, err)
	}
	if err := b.PurgeBelow(ctx, 5); err != nil {
		t.Error(err)
	}
	for round := range 30 {
		purgeWhile(t, a, b, round)
	}
}

// purgeWhile lets b publish while a purges the stream through a later record.
func purgeWhile(t *testing.T, a, b *Stream, round int) {
	ctx := testContext(t)
	info, err := a.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	after, ready, purged := info.Last+1, make(chan struct{}), make(chan error, 1)
	next, sent := upTo(info.Last, after+200, record), 0
	var acked cdc.LSN
	err = b.Publish(ctx, info.Last, func(ctx context.Context) ([]byte, cdc.LSN, error) {
		if sent++; sent == 2 { // the first is acknowledged
			<-ready
			go func() { purged <- a.PurgeThrough(context.WithoutCancel(ctx), after, after+1000) }()
		}
		return next(ctx)
	}, func(lsn cdc.LSN) {
		if acked = lsn; lsn == after {
			close(ready)
		}
	})
	if !errors.Is(err, io.EOF) && !errors.Is(err, ErrSequence) {
		t.Errorf("round %d: publish: %v, want io.EOF or ErrSequence", round, err)
	}
	if err := <-purged; err != nil && !errors.Is(err, ErrSequence) {
		t.Errorf("round %d: purge: %v, want ErrSequence", round, err)
	}
	if _, err := a.Get(ctx, acked); err != nil && acked > after {
		t.Fatalf("round %d: record %d, which was acknowledged, is gone: %v", round, acked, err)
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

// A publisher that waits for its next record while another one takes the stream
// over, or while it is reconfigured, finds out at that record.
func TestTakenOver(t *testing.T) {
	for name, take := range map[string]func(*testing.T, *Stream){
		"by a publisher": func(t *testing.T, s *Stream) { publish(t, s, 1, 1) },
		"reconfigured": func(t *testing.T, s *Stream) {
			if err := s.conn.Stream("app", StreamConfig{MaxBytes: 1 << 30}).Reconfigure(testContext(t)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := create(t, testConn(t), 1, StreamConfig{})
			first := make(chan struct{})
			next := upTo(0, 5, record)
			err := s.Publish(testContext(t), 0, func(ctx context.Context) ([]byte, cdc.LSN, error) {
				rec, lsn, err := next(ctx)
				if lsn == 2 {
					<-first
					take(t, s)
				}
				return rec, lsn, err
			}, func(lsn cdc.LSN) {
				if lsn != 1 {
					t.Errorf("record %d was acknowledged", lsn)
				}
				close(first)
			})
			if !errors.Is(err, ErrSequence) {
				t.Errorf("%v, want ErrSequence", err)
			}
			publish(t, s, 1, 5)
		})
	}
}

// A publisher that has nothing to send notices what happens to the stream, so
// that a primary whose database is quiet creates it again.
func TestIdlePublisher(t *testing.T) {
	tests := []struct {
		name string
		do   func(ctx context.Context, s *Stream, stopServer func()) error
		want error
	}{
		{"deleted", func(ctx context.Context, s *Stream, _ func()) error { return s.Delete(ctx) }, ErrNoStream},
		{"created again", func(ctx context.Context, s *Stream, _ func()) error { return recreate(2)(ctx, s) }, ErrSequence},
		{"taken over", func(ctx context.Context, s *Stream, _ func()) error {
			_, err := s.claim(ctx, 1)
			return err
		}, ErrSequence},
		{"server gone", func(_ context.Context, _ *Stream, stopServer func()) error { stopServer(); return nil }, ErrUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := testContext(t)
			srv, stop := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
			s := create(t, connect(t, Options{URL: srv.URL()}), 1, StreamConfig{})
			first := make(chan struct{})
			next := upTo(0, 1, record)
			err := s.Publish(ctx, 0, func(idle context.Context) ([]byte, cdc.LSN, error) {
				rec, lsn, err := next(ctx)
				if err == nil {
					return rec, lsn, nil
				}
				<-first
				if err := tt.do(ctx, s, stop); err != nil {
					return nil, 0, err
				}
				<-idle.Done()
				return nil, 0, idle.Err()
			}, func(cdc.LSN) { close(first) })
			// A look may fall between the end of the old stream and the new one.
			between := tt.name == "created again" && errors.Is(err, ErrNoStream)
			if !errors.Is(err, tt.want) && !between {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}
