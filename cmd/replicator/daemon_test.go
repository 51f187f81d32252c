package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/stream"
)

func TestStackEndsFromTheTop(t *testing.T) {
	var mu sync.Mutex
	var ended []string
	s := newStack()
	ctx, cancel := context.WithCancel(t.Context())
	until := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, name)
			return ctx.Err()
		}
	}
	s.startFront(ctx, until("http"))
	for _, name := range []string{"server", "connection", "databases"} {
		s.start(ctx, until(name))
	}
	cancel()
	if err := s.wait(ctx); err != nil {
		t.Errorf("an orderly end is %v", err)
	}
	s.stop()
	if want := []string{"http", "databases", "connection", "server"}; !slices.Equal(ended, want) {
		t.Errorf("ended in the order %q, want %q", ended, want)
	}
}

func TestStackEndsWithAPart(t *testing.T) {
	s := newStack()
	s.start(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	s.start(t.Context(), func(context.Context) error { return errors.New("port in use") })
	if err := s.wait(t.Context()); err == nil || err.Error() != "port in use" {
		t.Errorf("got %v", err)
	}
	s.stop()
}

func TestSupervise(t *testing.T) {
	broken := errors.New("broken")
	log := slog.New(slog.DiscardHandler)
	runs := func(started chan<- struct{}) func(context.Context) error {
		return func(ctx context.Context) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		}
	}
	breaks := func(context.Context) error { return broken }
	never := func(*service, error) bool { return false }

	t.Run("the only one takes the node with it", func(t *testing.T) {
		s := &service{name: "a", run: breaks}
		if err := supervise(t.Context(), log, []*service{s}, never); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unless its state must be seen", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &service{name: "a", run: breaks}
		keep := func(_ *service, err error) bool { cancel(); return errors.Is(err, broken) }
		if err := supervise(ctx, log, []*service{s}, keep); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("so does the last one", func(t *testing.T) {
		services := []*service{{name: "a", run: breaks}, {name: "b", run: breaks}}
		if err := supervise(t.Context(), log, services, never); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("others go on", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		started, failed := make(chan struct{}), make(chan struct{})
		bad := &service{name: "bad", run: func(context.Context) error { defer close(failed); return broken }}
		good := &service{name: "good", run: runs(started)}
		done := make(chan error, 1)
		go func() { done <- supervise(ctx, log, []*service{bad, good}, never) }()
		<-started
		<-failed
		select {
		case err := <-done:
			t.Fatalf("supervise ended with %v", err)
		default:
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if good.err() != nil {
			t.Errorf("the good one has failed: %v", good.err())
		}
	})
}

func TestDifferences(t *testing.T) {
	sum := func(name string, rows, sum uint64) sqlite.TableSum {
		return sqlite.TableSum{Name: name, Rows: rows, Sum: [2]uint64{sum, 0}}
	}
	there := []sqlite.TableSum{sum("a", 1, 1), sum("b", 2, 2), sum("c", 3, 3), sum("d", 1000, 4)}
	if got, tables := differences(there, there); got != nil || tables != nil || unequal(there, there) != nil {
		t.Errorf("equal tables differ: %q", got)
	}
	here := []sqlite.TableSum{sum("a", 1, 9), sum("c", 4, 3), sum("d", 1000, 4), sum("e", 1, 1)}
	want := []string{
		"table a has 1 row on both, but not the same",
		"table b is missing here; the primary has 2 rows in it",
		"table c has 4 rows here and 3 on the primary",
		"table e is not on the primary; it has 1 row here",
	}
	got, tables := differences(here, there)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "e"}, tables); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]sqlite.TableSum{there[0], there[2]}, unequal(here, there)); diff != "" {
		t.Errorf("tables on both sides that differ: %s", diff)
	}
}

func TestFleetWait(t *testing.T) {
	f := newFleet(clockOf(t))
	here, other := cdc.ID{1}, cdc.ID{2}
	report := func(node string, lineage cdc.ID, epoch cdc.Epoch, lsn cdc.LSN) {
		f.add(stream.Report{Node: node, Applied: cdc.Position{Lineage: lineage, Epoch: epoch, LSN: lsn}})
	}
	report("r1", here, 3, 7)
	report("r2", other, 3, 9) // of another history: its numbers mean nothing here
	report("r4", here, 2, 9)  // of an end of this one that was lost
	want := cdc.Position{Lineage: here, Epoch: 3, LSN: 7}
	if err := f.wait(t.Context(), want, 1); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.wait(ctx, want, 2); !errors.Is(err, context.Canceled) || err.Error() != "LSN 7 is applied by 1 of 2 replicas: context canceled" {
		t.Errorf("got %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- f.wait(t.Context(), want, 2) }()
	report("r3", here, 4, 8)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSaying: what is quiet is told every second time, and all else at once.
func TestSaying(t *testing.T) {
	var s saying[int]
	for i, c := range []struct {
		what        int
		quiet, told bool
	}{
		{1, true, true}, {1, true, false}, {1, true, true}, {1, true, false},
		{2, true, true}, {2, true, false}, {3, true, true}, // news is never left out
		{3, false, true}, {3, false, true}, {3, true, false}, {3, true, true},
	} {
		if got := s.again(c.what, c.quiet); got != c.told {
			t.Errorf("%d: told %t, want %t", i, got, c.told)
		}
	}
}
