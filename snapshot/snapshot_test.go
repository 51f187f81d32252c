package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sqlite-replicator/replicator/cdc"
)

// What was read comes back, for any shape, codec, chunk size and store.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		pageSize := 512 << rapid.IntRange(0, 7).Draw(rt, "page size")
		src := newSource(pageSize, rapid.IntRange(0, 40).Draw(rt, "pages"), rapid.Uint64().Draw(rt, "seed"))
		src.most = rapid.IntRange(0, 3).Draw(rt, "pages a read")
		o := Options{
			Codec:      rapid.SampledFrom([]Codec{"", None, S2, Zstd}).Draw(rt, "codec"),
			ChunkBytes: rapid.IntRange(1, 300_000).Draw(rt, "chunk"),
			Parallel:   rapid.IntRange(0, 5).Draw(rt, "parallel"),
			Clock:      newClock(),
		}
		var store Store = newMemStore()
		if rapid.Bool().Draw(rt, "directory") {
			store = NewDir(filepath.Join(dir, fmt.Sprint("store", n)))
		}
		lsn := cdc.LSN(rapid.Uint64().Draw(rt, "lsn"))
		m, err := Make(t.Context(), store, src, identity(lsn), o)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := Latest(t.Context(), store, lsn)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			rt.Fatalf("stored manifest differs (-made +listed):\n%s", diff)
		}
		if err := Verify(t.Context(), store, got, o); err != nil {
			rt.Fatal(err)
		}
		path := filepath.Join(dir, fmt.Sprint(n, ".db"))
		if err := Restore(t.Context(), store, got, path, o); err != nil {
			rt.Fatal(err)
		}
		checkFile(rt, path, src.data)
	})
}

// checkFile wants exactly data at path, and no sidecar.
func checkFile(t rapid.TB, path string, data []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, data) {
		t.Fatalf("%s has %d bytes that differ from the %d of the source", path, len(b), len(data))
	}
	if _, err := os.Stat(sidecarOf(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("sidecar of a finished restore: %v", err)
	}
}

func TestProgress(t *testing.T) {
	store, src, clock := newMemStore(), newSource(4096, 37, 1), newClock()
	var last Progress
	calls := 0
	o := Options{ChunkBytes: 16 << 10, Clock: clock, Progress: func(p Progress) {
		if p.Bytes < last.Bytes {
			t.Errorf("progress went back from %d to %d", last.Bytes, p.Bytes)
		}
		if calls == 0 && (p.Bytes != 0 || p.ID == "") {
			t.Errorf("first progress is %+v", p)
		}
		last = p
		calls++
	}}
	m := mustMake(t, store, src, 1, o)
	want := Progress{ID: m.ID, Bytes: m.Size(), Total: m.Size(), Stored: m.StoredSize(), Started: clock.now}
	if last != want || calls != len(m.Chunks)+1 {
		t.Errorf("after %d calls progress is %+v, want %+v", calls, last, want)
	}
}

// A damaged, absent or foreign object gives an error that names it, and no file
// that looks complete.
func TestDamage(t *testing.T) {
	for _, codec := range []Codec{None, S2, Zstd} {
		base := newMemStore()
		m := mustMake(t, base, newSource(4096, 20, 1), 7, Options{Codec: codec})
		other := mustMake(t, base, newSource(4096, 20, 2), 8, Options{Codec: codec})
		two, three := chunkOf(m.ID, 2), chunkOf(m.ID, 3)
		tests := []struct {
			name   string
			damage func(s *memStore)
			want   []string
		}{
			{"bit", func(s *memStore) { s.objects[two] = flip(s.objects[two], 100) }, []string{two}},
			{"two chunks", func(s *memStore) {
				s.objects[two] = flip(s.objects[two], 0)
				delete(s.objects, three)
			}, []string{two, three}},
			{"missing", func(s *memStore) { delete(s.objects, two) }, []string{two}},
			{"empty", func(s *memStore) { s.objects[two] = nil }, []string{two}},
			{"short", func(s *memStore) { s.objects[two] = s.objects[two][:9] }, []string{two}},
			{"long", func(s *memStore) { s.objects[two] = append(bytes.Clone(s.objects[two]), 0) }, []string{two}},
			{"swapped", func(s *memStore) { s.objects[two], s.objects[three] = s.objects[three], s.objects[two] }, []string{two, three}},
			{"of another snapshot", func(s *memStore) { s.objects[two] = s.objects[chunkOf(other.ID, 2)] }, []string{two}},
		}
		for _, tt := range tests {
			t.Run(string(codec)+"/"+tt.name, func(t *testing.T) {
				store := base.clone()
				tt.damage(store)
				err := Verify(t.Context(), store, m, Options{Clock: newClock()})
				if !errors.Is(err, ErrDamaged) {
					t.Fatalf("Verify: %v", err)
				}
				for _, name := range tt.want {
					if !strings.Contains(err.Error(), name) {
						t.Errorf("Verify does not name %s: %v", name, err)
					}
				}
				if n := strings.Count(err.Error(), "\n") + 1; n != len(tt.want) {
					t.Errorf("Verify reports %d chunks, want %d: %v", n, len(tt.want), err)
				}
				path := filepath.Join(t.TempDir(), "app.db")
				if err := Restore(t.Context(), store, m, path, Options{Clock: newClock()}); !errors.Is(err, ErrDamaged) {
					t.Fatalf("Restore: %v", err)
				}
				if _, err := os.Stat(sidecarOf(path)); err != nil {
					t.Errorf("the damaged restore looks complete: %v", err)
				}
				if err := Install(path, path+".final"); err == nil {
					t.Error("Install takes a damaged restore")
				}
			})
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 4
	return b
}

// The raw sum is a second line: a codec that unpacks wrongly is found out.
func TestRawSum(t *testing.T) {
	store := newMemStore()
	m := mustMake(t, store, newSource(4096, 8, 1), 7, Options{})
	m.Chunks[1].Sum[0] ^= 1
	if err := Verify(t.Context(), store, m, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Verify: %v", err)
	}
}

func TestDamagedManifest(t *testing.T) {
	base := newMemStore()
	old := mustMake(t, base, newSource(4096, 8, 1), 7, Options{})
	bad := mustMake(t, base, newSource(4096, 8, 2), 8, Options{})
	name := manifestOf(bad.ID)
	tests := []struct {
		name   string
		damage func(s *memStore)
		want   error
	}{
		{"bit", func(s *memStore) { s.objects[name] = flip(s.objects[name], len(s.objects[name])/2) }, ErrDamaged},
		{"short", func(s *memStore) { s.objects[name] = s.objects[name][:200] }, ErrDamaged},
		{"empty", func(s *memStore) { s.objects[name] = nil }, ErrDamaged},
		{"of another snapshot", func(s *memStore) { s.objects[name] = s.objects[manifestOf(old.ID)] }, ErrDamaged},
		{"newer", func(s *memStore) { s.objects[name] = []byte(`{"format":2,"new":true}`) }, ErrVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := base.clone()
			tt.damage(store)
			list, err := List(t.Context(), store)
			if len(list) != 1 || list[0].ID != old.ID {
				t.Errorf("List gives %d manifests", len(list))
			}
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), name) {
				t.Errorf("List: %v", err)
			}
			if m, err := Latest(t.Context(), store, 0); err != nil || m.ID != old.ID {
				t.Errorf("Latest is %q, %v", m.ID, err)
			}
			if _, err := Latest(t.Context(), store, 8); !errors.Is(err, ErrNone) || !errors.Is(err, tt.want) {
				t.Errorf("Latest from 8: %v", err)
			}
		})
	}
}

func TestLatest(t *testing.T) {
	store := newMemStore()
	if _, err := Latest(t.Context(), store, 0); !errors.Is(err, ErrNone) {
		t.Errorf("empty store: %v", err)
	}
	clock := newClock()
	src := newSource(512, 3, 1)
	for _, lsn := range []cdc.LSN{100, 9, 20} {
		mustMake(t, store, src, lsn, Options{Clock: clock})
	}
	clock.advance(10e9)
	again := mustMake(t, store, src, 100, Options{Clock: clock})
	store.objects["readme.txt"] = []byte("not ours")
	list, err := List(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	var got []cdc.LSN
	for _, m := range list {
		got = append(got, m.Position.LSN)
	}
	if diff := cmp.Diff([]cdc.LSN{9, 20, 100, 100}, got); diff != "" {
		t.Error(diff)
	}
	if m, err := Latest(t.Context(), store, 21); err != nil || m.ID != again.ID {
		t.Errorf("Latest is %q, %v, want %q", m.ID, err, again.ID)
	}
	if _, err := Latest(t.Context(), store, 101); !errors.Is(err, ErrNone) {
		t.Errorf("above all: %v", err)
	}
}

// A store that fails now and then is tried again, with growing pauses; one that
// stays down ends the make, and nothing is listed or left.
func TestMakeStoreFails(t *testing.T) {
	down := errors.New("down")
	for _, happened := range []bool{false, true} {
		for _, victim := range []string{"chunk-000003", manifestName} {
			for _, failures := range []int{1, attempts - 1, attempts, 1000} {
				t.Run(fmt.Sprintf("%s/%d/happened=%t", victim, failures, happened), func(t *testing.T) {
					store, clock := newMemStore(), newClock()
					var mu sync.Mutex
					left := failures
					fail := func(op, name string) error {
						mu.Lock()
						defer mu.Unlock()
						if op != "put" || !strings.HasSuffix(name, victim) || left == 0 {
							return nil
						}
						left--
						return down
					}
					if happened {
						store.after = fail
					} else {
						store.before = fail
					}
					src := newSource(4096, 20, 1)
					m, err := Make(t.Context(), store, src, identity(1), Options{ChunkBytes: 16 << 10, Clock: clock})
					list, lerr := List(t.Context(), store)
					if lerr != nil {
						t.Fatal(lerr)
					}
					if failures < attempts {
						if err != nil || len(list) != 1 || len(clock.slept) != failures {
							t.Fatalf("Make: %v, %d listed, slept %v", err, len(list), clock.slept)
						}
						if err := Verify(t.Context(), store, m, Options{}); err != nil {
							t.Error(err)
						}
						return
					}
					if !errors.Is(err, down) || len(list) != 0 || len(store.names("")) != 0 {
						t.Fatalf("Make: %v, left %v", err, store.names(""))
					}
					if diff := cmp.Diff(attempts-1, len(clock.slept)); diff != "" {
						t.Error(diff)
					}
				})
			}
		}
	}
}

// TestMakeAsksAgain: a store that does not answer, when all is there but the manifest, is no
// reason to take everything back.
func TestMakeAsksAgain(t *testing.T) {
	store, asked := newMemStore(), 0
	store.before = func(op, _ string) error {
		if op != "list" {
			return nil
		}
		if asked++; asked < attempts {
			return errors.New("no answer")
		}
		return nil
	}
	if _, err := Make(t.Context(), store, newSource(4096, 20, 1), identity(1), Options{Clock: newClock()}); err != nil {
		t.Error(err)
	}
}

// When the manifest may be there and cannot be removed, its chunks stay.
func TestMakeUnsureManifest(t *testing.T) {
	down := errors.New("down")
	store := newMemStore()
	cut := false
	store.after = func(op, name string) error {
		if strings.HasSuffix(name, manifestName) {
			cut = true // it happened, but from here on the store is out of reach
			return down
		}
		return nil
	}
	store.before = func(op, name string) error {
		if cut {
			return down
		}
		return nil
	}
	if _, err := Make(t.Context(), store, newSource(4096, 20, 1), identity(1), Options{Clock: newClock()}); !errors.Is(err, down) {
		t.Fatal(err)
	}
	store.before = nil
	m, err := Latest(t.Context(), store, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(t.Context(), store, m, Options{}); err != nil {
		t.Error(err)
	}
}

// A make that was taken for a leftover does not publish a manifest without chunks.
func TestMakeSweptAway(t *testing.T) {
	store := newMemStore()
	store.before = func(op, name string) error {
		if op == "list" {
			store.mu.Lock()
			defer store.mu.Unlock()
			clear(store.objects)
		}
		return nil
	}
	if _, err := Make(t.Context(), store, newSource(4096, 20, 1), identity(1), Options{Clock: newClock()}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Make: %v", err)
	}
	if n := len(store.names("")); n != 0 {
		t.Errorf("%d objects left", n)
	}
}

// A brokenSource fails or misbehaves from a page on.
type brokenSource struct {
	*memSource
	from uint32
	n    int
	err  error
}

func (s brokenSource) ReadPages(ctx context.Context, first uint32, dst []byte) (int, error) {
	if first >= s.from {
		return s.n, s.err
	}
	return s.memSource.ReadPages(ctx, first, dst)
}

func TestMakeBadSource(t *testing.T) {
	bad := errors.New("bad sector")
	ok := func() *memSource { return newSource(4096, 20, 1) }
	notDatabase := ok()
	notDatabase.data[0] = 'x'
	wrongSize := ok()
	wrongSize.data[16] = 2
	tooShort := ok()
	tooShort.data = tooShort.data[:4096*19]
	wrongEncoding := ok()
	wrongEncoding.data[59] = 4
	oddPages := ok()
	oddPages.pageSize = 1000
	tests := []struct {
		name string
		src  Source
		want string
	}{
		{"read error", brokenSource{ok(), 9, 0, bad}, "read page 9: bad sector"},
		{"no progress", brokenSource{ok(), 9, 0, nil}, "read page 9: unexpected EOF"},
		{"too many", brokenSource{ok(), 9, 1000, nil}, "got 1000 pages"},
		{"negative", brokenSource{ok(), 9, -1, nil}, "got -1 pages"},
		{"not a database", notDatabase, "does not start a SQLite database"},
		{"other page size", wrongSize, "header says pages of 512 bytes"},
		{"short", tooShort, "header says 20 pages, there are 19"},
		{"encoding", wrongEncoding, "text encoding 4"},
		{"page size", oddPages, "pages of 1000 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := newMemStore()
			_, err := Make(t.Context(), store, tt.src, identity(1), Options{ChunkBytes: 16 << 10, Clock: newClock()})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Make: %v, want %q", err, tt.want)
			}
			if names := store.names(""); len(names) != 0 {
				t.Errorf("left %v", names)
			}
		})
	}
}

func TestMakeCancelled(t *testing.T) {
	store := newMemStore()
	ctx, cancel := context.WithCancel(t.Context())
	store.after = func(op, name string) error {
		if strings.HasSuffix(name, "chunk-000002") {
			cancel()
		}
		return nil
	}
	_, err := Make(ctx, store, newSource(4096, 200, 1), identity(1), Options{ChunkBytes: 16 << 10, Clock: newClock()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Make: %v", err)
	}
	if names := store.names(""); len(names) != 0 {
		t.Errorf("left %v", names)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{{Codec: "lzma"}, {ChunkBytes: -1}, {ChunkBytes: 65 << 20}, {Parallel: -1}} {
		if _, err := Make(t.Context(), newMemStore(), newSource(512, 1, 1), identity(1), o); err == nil {
			t.Errorf("Make accepts %+v", o)
		}
	}
}
