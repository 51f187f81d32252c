package snapshot

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

// kept makes snapshots at LSN 10, 20, ... and returns a store with them.
func kept(t *testing.T, n int, clock Clock) (*memStore, []Manifest) {
	t.Helper()
	store := newMemStore()
	var list []Manifest
	for i := range n {
		list = append(list, mustMake(t, store, newSource(512, 100, 1), cdc.LSN(10*i+10), Options{Clock: clock}))
	}
	return store, list
}

func lsns(list []Manifest) (l []cdc.LSN) {
	for _, m := range list {
		l = append(l, m.Position.LSN)
	}
	return l
}

func TestRetain(t *testing.T) {
	lose := func(lsn cdc.LSN) func(*memStore, []Manifest) {
		return func(s *memStore, list []Manifest) { delete(s.objects, chunkOf(list[lsn/10-1].ID, 2)) }
	}
	hold := func(lsn cdc.LSN) func(Manifest) bool {
		return func(m Manifest) bool { return m.Position.LSN == lsn }
	}
	unfit := errors.New("unfit")
	tests := []struct {
		name    string
		r       Retention
		damage  func(*memStore, []Manifest)
		deleted []cdc.LSN
		left    []cdc.LSN
		oldest  cdc.LSN
		err     error
	}{
		{"two", Retention{Keep: 2}, nil, []cdc.LSN{10, 20, 30}, []cdc.LSN{40, 50}, 40, nil},
		{"more than there are", Retention{Keep: 9}, nil, nil, []cdc.LSN{10, 20, 30, 40, 50}, 10, nil},
		{"held", Retention{Keep: 1, Hold: hold(20)}, nil, []cdc.LSN{10, 30, 40}, []cdc.LSN{20, 50}, 20, nil},
		{"newest of another history", Retention{Keep: 2, Drop: func(m Manifest) (bool, error) { return m.Position.LSN >= 40, nil }}, nil, []cdc.LSN{10, 40, 50}, []cdc.LSN{20, 30}, 20, nil},
		{"one that cannot be judged", Retention{Keep: 1, Drop: func(m Manifest) (bool, error) {
			if m.Position.LSN == 20 {
				return true, unfit
			}
			return true, nil
		}}, nil, nil, []cdc.LSN{10, 20, 30, 40, 50}, 0, unfit},
		{"incomplete does not count", Retention{Keep: 2}, lose(50), []cdc.LSN{10, 20}, []cdc.LSN{30, 40, 50}, 30, ErrDamaged},
		{"incomplete and old", Retention{Keep: 2}, lose(10), []cdc.LSN{10, 20, 30}, []cdc.LSN{40, 50}, 40, nil},
		{"held and incomplete", Retention{Keep: 1, Hold: hold(20)}, lose(20), []cdc.LSN{10, 30, 40}, []cdc.LSN{20, 50}, 50, ErrDamaged},
		{"proved", Retention{Keep: 1, Complete: func(_ context.Context, m Manifest) error {
			if m.Position.LSN > 30 {
				return unfit
			}
			return nil
		}}, nil, []cdc.LSN{10, 20}, []cdc.LSN{30, 40, 50}, 30, unfit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clock := newClock()
			store, list := kept(t, 5, clock)
			if tt.damage != nil {
				tt.damage(store, list)
			}
			tt.r.Clock = clock
			deleted, oldest, err := Retain(t.Context(), store, tt.r)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Errorf("error is %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.deleted, lsns(deleted)); diff != "" {
				t.Errorf("deleted (-want +got):\n%s", diff)
			}
			left, err := List(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.left, lsns(left)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if oldest != tt.oldest {
				t.Errorf("oldest is %d, want %d", oldest, tt.oldest)
			}
			for _, m := range deleted {
				if names := store.names(m.ID); len(names) > 0 {
					t.Errorf("left of %s: %v", m.ID, names)
				}
			}
		})
	}
}

// Leftovers go when they are old enough, and nothing else does.
func TestRetainSweeps(t *testing.T) {
	clock := newClock()
	store, list := kept(t, 1, clock)
	put := func(names ...string) {
		for _, name := range names {
			store.objects[name] = []byte("x")
		}
	}
	id := func() string {
		id, err := newID(77, clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	dead, active, broken, newer := id(), id(), id(), id()
	clock.advance(30 * time.Minute)
	young := id()
	put(chunkOf(dead, 1), chunkOf(dead, 2), chunkOf(dead, 3)+".tmp", chunkOf(active, 1), chunkOf(young, 1))
	put("readme.txt", "other/chunk-000001", chunkOf(broken, 1), manifestOf(broken), chunkOf(newer, 1))
	store.objects[manifestOf(newer)] = []byte(`{"format":2}`)
	clock.advance(30*time.Minute + time.Second)
	want := slices.DeleteFunc(store.names(""), func(n string) bool { return strings.HasPrefix(n, dead) })
	for range 2 { // the second time there is nothing left to do
		deleted, oldest, err := Retain(t.Context(), store, Retention{Keep: 1, Active: []string{active}, Clock: clock})
		if len(deleted) != 0 || oldest != list[0].Position.LSN {
			t.Errorf("deleted %d, oldest %d", len(deleted), oldest)
		}
		if !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrVersion) {
			t.Errorf("the manifests that cannot be read are not reported: %v", err)
		}
		got := store.names("")
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	}
}

// A make that ends between the listing and the sweep keeps its chunks.
func TestRetainRace(t *testing.T) {
	clock := newClock()
	store, list := kept(t, 1, clock)
	clock.advance(2 * time.Hour)
	name := manifestOf(list[0].ID)
	manifest := store.objects[name]
	delete(store.objects, name)
	store.before = func(op, n string) error {
		if op == "get" && n == name {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.objects[name] = manifest
		}
		return nil
	}
	if _, _, err := Retain(t.Context(), store, Retention{Keep: 1, Clock: clock}); err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), store, list[0], Options{}); err != nil {
		t.Error(err)
	}
}

// A store that fails at any call never leaves a manifest without its chunks.
func TestRetainStoreFails(t *testing.T) {
	down := errors.New("down")
	for n := 1; ; n++ {
		clock := newClock()
		store, _ := kept(t, 3, clock)
		calls := 0
		store.before = func(op, name string) error {
			if calls++; calls >= n {
				return down
			}
			return nil
		}
		_, _, err := Retain(t.Context(), store, Retention{Keep: 1, Clock: clock})
		store.before = nil
		list, lerr := List(t.Context(), store)
		if lerr != nil || len(list) == 0 {
			t.Fatalf("call %d fails: %d left, %v", n, len(list), lerr)
		}
		for _, m := range list {
			if err := Verify(t.Context(), store, m, Options{}); err != nil {
				t.Errorf("call %d fails: %v", n, err)
			}
		}
		if err == nil {
			if n < 10 {
				t.Errorf("done after %d calls", n)
			}
			return
		}
		if !errors.Is(err, down) {
			t.Errorf("call %d fails: %v", n, err)
		}
	}
}

func TestRetainKeepsOne(t *testing.T) {
	if _, _, err := Retain(t.Context(), newMemStore(), Retention{}); err == nil {
		t.Error("Retain accepts to keep nothing")
	}
	if deleted, oldest, err := Retain(t.Context(), newMemStore(), Retention{Keep: 1}); len(deleted) != 0 || oldest != 0 || err != nil {
		t.Errorf("empty store: %v, %d, %v", deleted, oldest, err)
	}
}
