package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// A traceFS notes what changes in a directory and when files are synced, and can
// make a step fail.
type traceFS struct {
	durable.OS
	steps    []step
	fail     func(s step) error
	happened bool // what fails has happened all the same
}

// A step is "open", "sync", "remove", "rename" or "syncdir" of base names.
type step struct{ Op, Name, To string }

func (f *traceFS) do(s step, act func() error) error {
	f.steps = append(f.steps, s)
	if f.fail != nil {
		if err := f.fail(s); err != nil {
			if f.happened {
				err = errors.Join(err, act())
			}
			return err
		}
	}
	return act()
}

func (f *traceFS) Open(name string, flag int) (file durable.File, err error) {
	if flag&os.O_CREATE == 0 {
		file, err = f.OS.Open(name, flag)
	} else {
		err = f.do(step{Op: "open", Name: filepath.Base(name)}, func() error {
			file, err = f.OS.Open(name, flag)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return &traceFile{file, f, filepath.Base(name)}, nil
}

func (f *traceFS) Rename(from, to string) error {
	return f.do(step{"rename", filepath.Base(from), filepath.Base(to)}, func() error { return f.OS.Rename(from, to) })
}

func (f *traceFS) Remove(name string) error {
	return f.do(step{Op: "remove", Name: filepath.Base(name)}, func() error { return f.OS.Remove(name) })
}

func (f *traceFS) SyncDir(dir string) error {
	return f.do(step{Op: "syncdir"}, func() error { return f.OS.SyncDir(dir) })
}

type traceFile struct {
	durable.File
	fs   *traceFS
	name string
}

func (f *traceFile) Sync() error {
	return f.fs.do(step{Op: "sync", Name: f.name}, f.File.Sync)
}

// The sidecar is durable before the file exists, and goes after it is durable.
func TestRestoreOrder(t *testing.T) {
	store := newMemStore()
	m := mustMake(t, store, newSource(4096, 20, 1), 7, Options{})
	dfs := &traceFS{}
	if err := restore(t.Context(), dfs, store, m, filepath.Join(t.TempDir(), "app.db"), Options{}); err != nil {
		t.Fatal(err)
	}
	want := []step{
		{"open", "app.db.partial.tmp", ""},
		{"sync", "app.db.partial.tmp", ""},
		{"rename", "app.db.partial.tmp", "app.db.partial"},
		{"syncdir", "", ""},
		{"open", "app.db", ""},
		{"sync", "app.db", ""},
		{"syncdir", "", ""},
		{"remove", "app.db.partial", ""},
		{"syncdir", "", ""},
	}
	if diff := cmp.Diff(want, dfs.steps); diff != "" {
		t.Error(diff)
	}
}

// Whatever step fails, or fails although it happened, the file does not look complete
// unless it is, and the same call finishes it.
func TestRestoreStepFails(t *testing.T) {
	store := newMemStore()
	src := newSource(4096, 20, 1)
	m := mustMake(t, store, src, 7, Options{})
	const removal = 7                  // of the sidecar
	for n := range 2 * (removal + 1) { // the step after it makes that durable: either way is right
		at, happened := n/2, n%2 == 1
		dfs := &traceFS{happened: happened}
		dfs.fail = func(step) error {
			if len(dfs.steps) == at+1 {
				return fs.ErrPermission
			}
			return nil
		}
		path := filepath.Join(t.TempDir(), "app.db")
		if err := restore(t.Context(), dfs, store, m, path, Options{}); !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("step %d, happened %t: %v", at, happened, err)
		}
		_, ferr := os.Stat(path)
		_, serr := os.Stat(sidecarOf(path))
		if complete := ferr == nil && serr != nil; complete != (at == removal && happened) {
			t.Errorf("step %d fails, happened %t, and the file looks complete: %t", at, happened, complete)
		} else if complete {
			checkFile(t, path, src.data)
			continue
		}
		if err := Restore(t.Context(), store, m, path, Options{}); err != nil {
			t.Errorf("after step %d failed, happened %t: %v", at, happened, err)
			continue
		}
		checkFile(t, path, src.data)
	}
}

// After a failed sync the disk may hold nothing of what reads back well.
func TestRestoreSyncFails(t *testing.T) {
	store := newMemStore()
	src := newSource(4096, 20, 1)
	m := mustMake(t, store, src, 7, Options{})
	path := filepath.Join(t.TempDir(), "app.db")
	dfs := &traceFS{fail: func(s step) error {
		if s == (step{Op: "sync", Name: "app.db"}) {
			return fs.ErrPermission
		}
		return nil
	}}
	if err := restore(t.Context(), dfs, store, m, path, Options{}); !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	before := store.fetched()
	if err := Restore(t.Context(), store, m, path, Options{}); err != nil {
		t.Fatal(err)
	}
	if n := store.fetched() - before; n != len(m.Chunks) {
		t.Errorf("fetched %d chunks again, want all %d", n, len(m.Chunks))
	}
}

// An interrupted restore fetches only what is not there, by its sum.
func TestRestoreResumes(t *testing.T) {
	store := newMemStore()
	src := newSource(4096, 40, 1)
	m := mustMake(t, store, src, 7, Options{}) // 10 chunks
	path := filepath.Join(t.TempDir(), "app.db")
	down := errors.New("down")
	store.before = func(op, name string) error {
		if strings.HasSuffix(name, "chunk-000007") {
			return down
		}
		return nil
	}
	o := Options{Parallel: 1, Clock: newClock()}
	if err := Restore(t.Context(), store, m, path, o); !errors.Is(err, down) {
		t.Fatal(err)
	}
	store.before = nil
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte{1, 2, 3}, m.offset(m.Chunks[2])+77); err != nil { // what a power failure does
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	clear(store.gets)
	var last Progress
	o.Progress = func(p Progress) { last = p }
	if err := Restore(t.Context(), store, m, path, o); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, src.data)
	want := map[string]int{}
	for _, i := range []int{3, 7, 8, 9, 10} {
		want[chunkOf(m.ID, i)] = 1
	}
	if diff := cmp.Diff(want, store.gets); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	if resumed := 5 * int64(m.ChunkBytes); last.Resumed != resumed || last.Bytes != m.Size() {
		t.Errorf("progress is %+v, want %d resumed", last, resumed)
	}
}

// A store that hiccups does not interrupt a restore.
func TestRestoreRetries(t *testing.T) {
	store := newMemStore()
	src := newSource(4096, 40, 1)
	m := mustMake(t, store, src, 7, Options{})
	var n atomic.Int32
	store.before = func(op, name string) error {
		if n.Add(1)%2 == 1 {
			return errors.New("hiccup")
		}
		return nil
	}
	path := filepath.Join(t.TempDir(), "app.db")
	if err := Restore(t.Context(), store, m, path, Options{Parallel: 1, Clock: newClock()}); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, src.data)
}

func TestRestoreRefuses(t *testing.T) {
	store := newMemStore()
	src := newSource(4096, 8, 1)
	m := mustMake(t, store, src, 7, Options{})
	for _, suffix := range []string{"", "-wal", "-journal"} {
		path := filepath.Join(t.TempDir(), "app.db")
		if err := os.WriteFile(path+suffix, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Restore(t.Context(), store, m, path, Options{}); !errors.Is(err, ErrExists) {
			t.Errorf("with %q in the way: %v", suffix, err)
		}
		if b, err := os.ReadFile(path + suffix); err != nil || string(b) != "mine" {
			t.Errorf("%q was touched: %q, %v", suffix, b, err)
		}
		if err := Discard(path); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path + suffix); err != nil {
			t.Errorf("Discard took what is not an unfinished restore: %v", err)
		}
	}
	if err := Restore(t.Context(), store, Manifest{}, filepath.Join(t.TempDir(), "app.db"), Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("of an empty manifest: %v", err)
	}
}

// A partial of one snapshot is not continued with another.
func TestRestoreOtherSnapshot(t *testing.T) {
	store := newMemStore()
	m := mustMake(t, store, newSource(4096, 8, 1), 7, Options{})
	src := newSource(4096, 8, 2)
	other := mustMake(t, store, src, 7, Options{})
	delete(store.objects, chunkOf(m.ID, 2))
	path := filepath.Join(t.TempDir(), "app.db")
	if err := Restore(t.Context(), store, m, path, Options{}); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), store, other, path, Options{}); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	if err := Discard(path); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), store, other, path, Options{}); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, src.data)
}

// The file goes before its sidecar: without one it would look complete.
func TestDiscardOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	for _, name := range []string{path, sidecarOf(path)} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dfs := &traceFS{}
	if err := discard(dfs, path); err != nil {
		t.Fatal(err)
	}
	want := []step{{"remove", "app.db", ""}, {"syncdir", "", ""}, {"remove", "app.db.partial", ""}, {"syncdir", "", ""}}
	if !slices.Equal(dfs.steps, want) {
		t.Errorf("steps are %v, want %v", dfs.steps, want)
	}
}

// A sidecar that no restore of ours has written is in the way like that of
// another snapshot: whoever owns the path may discard it.
func TestRestoreForeignSidecar(t *testing.T) {
	store, src := newMemStore(), newSource(4096, 4, 1)
	m := mustMake(t, store, src, 1, Options{})
	path := filepath.Join(t.TempDir(), "app.db")
	if err := os.WriteFile(sidecarOf(path), make([]byte, 2*sidecarLimit), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Restore(t.Context(), store, m, path, Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	if err := errors.Join(Discard(path), Restore(t.Context(), store, m, path, Options{})); err != nil {
		t.Error(err)
	}
}
