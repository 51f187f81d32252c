package primary

import (
	"context"
	"errors"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A gatedStore holds up what is put while it is shut.
type gatedStore struct {
	snapshot.Store
	mu   sync.Mutex
	gate *gate // nil: open
}

type gate struct {
	once            sync.Once
	reached, opened chan struct{}
}

func (s *gatedStore) shut() *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	return s.gate
}

func (s *gatedStore) Put(ctx context.Context, name string, data []byte) error {
	s.mu.Lock()
	g := s.gate
	s.mu.Unlock()
	if g != nil {
		g.once.Do(func() { close(g.reached) })
		select {
		case <-g.opened:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Store.Put(ctx, name, data)
}

// TestRoomInAStreamThatWasTakenOver: a snapshot that is to make room takes its time. Another
// primary that takes the stream over meanwhile, with more room, loses nothing of what it
// publishes.
func TestRoomInAStreamThatWasTakenOver(t *testing.T) {
	b := newBench(t, oneTable)
	store := &gatedStore{Store: b.store}
	b.store = store
	b.start()
	b.awaitSnapshot(b.sync().LSN)
	b.end()
	heir := newBench(t, oneTable)
	noError(t, os.CopyFS(heir.dir, os.DirFS(b.dir)))
	b.start()
	b.sync()
	g := store.shut()
	b.stream.set(func(s *fakeStream) { s.limit = 64 << 10 })
	b.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1000) INSERT INTO t(v) SELECT randomblob(700) FROM n")
	select {
	case <-g.reached:
	case <-b.ctx.Done():
		t.Fatal("no snapshot is made to make room")
	}
	b.stream.set(func(s *fakeStream) { s.limit = 0 })
	tail := openLog(t, heir).Tail()
	tail.Next = b.stream.last + 1
	e := cdc.NewEncoder(tail, tail.Position.Epoch+2, cdc.ID{9}, func(rec []byte, h cdc.Head, _ *cdc.Boundary) error { return b.stream.add(rec, h.LSN) })
	noError(t, e.Epoch(cdc.Boundary{}))
	foreign := b.stream.last
	close(g.opened)
	if err := b.await(); !errors.Is(err, ErrFenced) {
		t.Errorf("Run returned %v", err)
	}
	if _, err := b.stream.Get(b.ctx, foreign); err != nil || b.stream.last != foreign {
		t.Errorf("record %d of the other primary: %v; the stream ends at %d", foreign, err, b.stream.last)
	}
}

// TestCutOffPrimaryTrimsNothing: a primary that was cut off comes back to the stream and the
// snapshots of another history, which was begun in its place. Before it has compared
// the stream it deletes nothing, even if something was to be trimmed when it was cut off.
func TestCutOffPrimaryTrimsNothing(t *testing.T) {
	b := newBench(t, oneTable)
	store := &failingStore{Store: b.store}
	b.store = store
	b.start()
	b.write(5)
	b.snapshot()
	b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
	b.exec("INSERT INTO t(v) VALUES(1)")
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().State == StateOffline }))
	_, err := b.p.Snapshot(b.ctx)
	noError(t, err)
	store.set(fakeCondition("unavailable"), fakeCondition("unavailable"))

	other := newBench(t, oneTable)
	other.edit = func(o *Options) { o.Node = "other" }
	other.start()
	other.write(20)
	at := other.snapshot()
	other.write(5)
	other.end()
	names, err := store.Store.List(b.ctx, "")
	noError(t, err)
	for _, name := range names {
		noError(t, store.Store.Delete(b.ctx, name))
	}
	names, err = other.store.List(b.ctx, "")
	noError(t, err)
	for _, name := range names {
		data, err := other.store.Get(b.ctx, name)
		noError(t, err)
		noError(t, store.Store.Put(b.ctx, name, data))
	}
	theirs := maps.Clone(other.stream.records)
	b.stream.set(func(s *fakeStream) { // all but State answers
		s.exists, s.first, s.last, s.records = true, other.stream.first, other.stream.last, theirs
		s.mute, s.down = s.down, nil
	})
	store.set(nil, nil)
	_, err = b.p.Snapshot(b.ctx) // and what it makes superfluous is looked at
	noError(t, err)
	b.stream.set(func(s *fakeStream) { s.mute = nil })
	if err := b.await(); !errors.Is(err, ErrFenced) {
		t.Errorf("Run returned %v", err)
	}
	list, err := snapshot.List(b.ctx, store.Store)
	noError(t, err)
	left := false
	for _, m := range list {
		left = left || m.Node == "other" && m.Position.LSN == at
	}
	if !left {
		t.Errorf("the other history's snapshot at %d was deleted", at)
	}
	if got, want := len(b.stream.records), len(other.stream.records); got != want {
		t.Errorf("the other history's stream had %d records and has %d", want, got)
	}
}

// A listedStore calls hook when it is listed.
type listedStore struct {
	snapshot.Store
	hook func()
}

func (s *listedStore) List(ctx context.Context, prefix string) ([]string, error) {
	s.hook()
	return s.Store.List(ctx, prefix)
}

// TestTakenOverWhileItTrims: a primary that was stopped for long as it was about to trim hears
// that it has lost the stream before it has looked through the snapshots. The new primary's
// are not its own, and stay.
func TestTakenOverWhileItTrims(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.write(3)
	b.snapshot()
	m, err := snapshot.Make(b.ctx, b.store, filePages(make([]byte, 0)), snapshot.Manifest{Database: "app", Node: "heir", Position: cdc.Position{LSN: 99}}, snapshot.Options{})
	noError(t, err)
	b.end()
	p, err := New(b.options())
	noError(t, err)
	ship := &shipper{}
	ship.published.Store(3)
	ship.ours.Store(true)
	p.ship.Store(ship)
	p.o.Snapshots = &listedStore{b.store, func() { ship.ours.Store(false) }}
	p.terms, err = openTerms(b.dir, "test", testLogger())
	noError(t, err)
	s := p.snapshots
	s.log, s.untrimmed = openLog(t, b), true
	s.trim(b.ctx)
	list, err := snapshot.List(b.ctx, b.store)
	noError(t, err)
	if !s.untrimmed || list[len(list)-1].ID != m.ID {
		t.Errorf("the new primary's snapshot was deleted, %d are left; to be trimmed: %t", len(list), s.untrimmed)
	}
}

// A roomlessStream cannot be made, or be given its bounds: NATS has no room for them.
type roomlessStream struct {
	*fakeStream
	made  bool
	tries atomic.Int32
}

func (s *roomlessStream) refuse() error {
	s.tries.Add(1)
	s.wrote.notify()
	return fakeCondition("full")
}

func (s *roomlessStream) Create(ctx context.Context, first cdc.LSN) error {
	if s.made {
		return s.fakeStream.Create(ctx, first)
	}
	return s.refuse()
}

func (s *roomlessStream) Publish(context.Context, cdc.LSN, func(context.Context) ([]byte, cdc.LSN, error), func(cdc.LSN)) error {
	return s.refuse()
}

// TestStreamThatNATSHasNoRoomFor: no snapshot makes room for a stream that is not there, or
// for bounds that it cannot be given.
func TestStreamThatNATSHasNoRoomFor(t *testing.T) {
	for _, made := range []bool{false, true} {
		b := newBench(t, oneTable)
		s := &roomlessStream{fakeStream: b.stream, made: made}
		b.edit = func(o *Options) { o.Stream = s }
		b.start()
		noError(t, s.wrote.wait(b.ctx, func() bool { return s.tries.Load() >= 4 }))
		if list, err := snapshot.List(b.ctx, b.store); err != nil || len(list) > 1 { // the first one that is ever made
			t.Errorf("made %t: %d snapshots, %v", made, len(list), err)
		}
		if got := b.p.Status(); !made && (got.State != StateOffline || got.Error != fakeCondition("full").Error()) {
			t.Errorf("%s: %s", got.State, got.Error)
		}
	}
}
