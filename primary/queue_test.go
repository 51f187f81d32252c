package primary

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// A crowd counts who is inside the stores of several databases at once.
type crowd struct {
	inside, most atomic.Int32
	open         chan struct{} // nobody leaves before it is closed
}

type crowdedStore struct {
	snapshot.Store
	*crowd
}

func (s crowdedStore) Put(ctx context.Context, name string, b []byte) error {
	n := s.inside.Add(1)
	defer s.inside.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	select {
	case <-s.open:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.Store.Put(ctx, name, b)
}

// A heard logger closes heard when a line with text came n times.
type heard struct {
	slog.Handler
	text  string
	left  *atomic.Int32
	heard chan struct{}
}

func listen(text string, n int) heard {
	h := heard{slog.DiscardHandler, text, &atomic.Int32{}, make(chan struct{})}
	h.left.Store(int32(n))
	return h
}

func (h heard) Enabled(context.Context, slog.Level) bool { return true }
func (h heard) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h heard) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, h.text) && h.left.Add(-1) == 0 {
		close(h.heard)
	}
	return nil
}

// Many databases make their first snapshots one after the other. Those that wait say
// so, hold no pin, and replicate all the same.
func TestSnapshotsTakeTurns(t *testing.T) {
	const databases = 12
	sources := &Sources{Turns: snapshot.NewTurns(1)}
	c := &crowd{open: make(chan struct{})}
	waits := listen("a snapshot waits for its turn", databases-1)
	var all []*bench
	for i := range databases {
		b := newBench(t, oneTable)
		b.edit = func(o *Options) {
			o.Name, o.Sources, o.Snapshots, o.Logger = fmt.Sprintf("db%d", i), sources, crowdedStore{b.store, c}, slog.New(waits)
		}
		all = append(all, b)
		b.start()
	}
	select {
	case <-waits.heard:
	case <-t.Context().Done():
	case <-all[0].ctx.Done():
		t.Fatal("some do not wait")
	}
	waiting := 0
	for _, b := range all {
		b.exec("INSERT INTO t(v) VALUES(1)")
		b.sync()
		s := b.p.Status()
		if s.Snapshot.Working == nil || s.Snapshot.Working.Waits == "" {
			continue
		}
		waiting++
		if s.State != StateSnapshotting || s.Error != "" || b.p.snapshots.reading() {
			t.Errorf("one that waits: %+v, a snapshot holds a pin: %t", s, b.p.snapshots.reading())
		}
	}
	if waiting != databases-1 {
		t.Errorf("%d of %d wait", waiting, databases)
	}
	var made sync.WaitGroup
	for _, b := range all {
		made.Go(func() { // is asked for while one is due, and served together with it
			if _, err := b.p.Snapshot(b.ctx); err != nil {
				t.Error(err)
			}
		})
	}
	close(c.open)
	made.Wait()
	for _, b := range all {
		b.awaitSnapshot(1)
		if w := b.p.Status().Snapshot.Working; w != nil {
			t.Errorf("after its snapshot one is at %+v", w)
		}
	}
	if n := c.most.Load(); n != 1 {
		t.Errorf("%d were at work at once", n)
	}
}

// A stop does not wait for a turn, and whoever asked hears of it.
func TestStopWhileWaitingForATurn(t *testing.T) {
	b := newBench(t, oneTable)
	sources := &Sources{Turns: snapshot.NewTurns(1)}
	done, err := sources.Turns.Take(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	waits := listen("a snapshot waits", 1)
	b.edit = func(o *Options) { o.Sources, o.Logger = sources, slog.New(waits) }
	b.start()
	<-waits.heard
	asked := make(chan made, 1)
	b.p.snapshots.requests <- asked
	b.end()
	if made := <-asked; made.err == nil {
		t.Error("a snapshot was made without a turn")
	}
	done()
	if _, err := sources.Turns.Take(t.Context(), 1, func(string) { t.Error("a turn was kept") }); err != nil {
		t.Error(err)
	}
}

// A resync restores a snapshot, too.
func TestResyncTakesItsTurn(t *testing.T) {
	b := newBench(t, oneTable)
	sources := &Sources{Turns: snapshot.NewTurns(1)}
	b.edit = func(o *Options) {
		o.Sources = sources
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return noReplay{}, nil }
	}
	b.start()
	b.exec("INSERT INTO t(v) VALUES(1)")
	before := b.sync()
	if _, err := b.p.Snapshot(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.end()
	b.reconnect()
	b.exec("INSERT INTO t(v) VALUES(2)")
	done, err := sources.Turns.Take(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	waits, edit := listen("to find out what was missed waits", 1), b.edit
	b.edit = func(o *Options) { edit(o); o.Logger = slog.New(waits) }
	b.start()
	<-waits.heard
	if s := b.p.Status(); s.State != StateResyncing || !strings.Contains(s.Error, "waits for its turn") {
		t.Errorf("while it waits: %s, %q", s.State, s.Error)
	}
	b.exec("INSERT INTO t(v) VALUES(3)") // the application does not wait
	done()
	b.sync()
	if got := b.operations(before.LSN); got != "insert 2" {
		t.Errorf("captured %q, want both inserts", got)
	}
}

// TestTurnNeedsATerm: a database that is away, or whose capture has other things to do,
// takes no turn from the others, and whoever asked for its snapshot has it later.
func TestTurnNeedsATerm(t *testing.T) {
	b := newBench(t, oneTable)
	log, err := wal.Open(t.TempDir(), wal.Options{})
	noError(t, err)
	t.Cleanup(func() { noError(t, log.Close()) })
	synctest.Test(t, func(t *testing.T) {
		o := b.options()
		o.Sources = &Sources{Turns: snapshot.NewTurns(1)}
		p, err := New(o)
		noError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return p.snapshots.Run(ctx, log) })
		asked := make(chan made, 1)
		p.snapshots.requests <- asked
		free := func(when string) {
			t.Helper()
			done, err := o.Sources.Turns.Take(ctx, 1, func(string) { t.Errorf("%s: the turn is taken", when) })
			noError(t, err)
			done()
		}
		synctest.Wait()
		free("no term")
		p.capturing.Store(true)
		time.Sleep(2 * dueEvery) // in the bubble: it takes no time
		p.capturing.Store(false)
		time.Sleep(2 * freezePatience)
		free("a term that does not answer")
		p.capturing.Store(true)
		p.snapshots.begin(0)
		other := errors.New("the capture answers")
		call := <-p.calls
		call.done <- other
		if made := <-asked; !errors.Is(made.err, other) {
			t.Errorf("whoever asked hears %v", made.err)
		}
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
