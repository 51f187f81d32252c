package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// A pushedFile notes what is pushed and settled, and can fail.
type pushedFile struct {
	durable.File
	pushed, settled []extent
	fail            func(op string) error
}

func (f *pushedFile) do(op string, list *[]extent, e extent) error {
	*list = append(*list, e)
	if f.fail == nil {
		return nil
	}
	return f.fail(op)
}

func (f *pushedFile) Push(at, n int64) error { return f.do("push", &f.pushed, extent{at, n}) }

func (f *pushedFile) Settle(at, n int64) error { return f.do("settle", &f.settled, extent{at, n}) }

// discarded is a file that takes everything.
type discarded struct{ durable.File }

func (discarded) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// What is written goes out at once, and is waited for when too much is under way,
// the oldest first.
func TestOutflow(t *testing.T) {
	file := &pushedFile{File: discarded{}}
	out := newOutflow(file)
	b := make([]byte, outflowBytes/2)
	n := int64(len(b))
	for i := range int64(4) {
		if err := out.write(b, i*n); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]extent{{0, n}, {n, n}, {2 * n, n}, {3 * n, n}}, file.pushed, cmp.AllowUnexported(extent{})); diff != "" {
		t.Errorf("pushed: %s", diff)
	}
	if diff := cmp.Diff([]extent{{0, n}, {n, n}}, file.settled, cmp.AllowUnexported(extent{})); diff != "" {
		t.Errorf("settled: %s", diff)
	}
	file.fail = func(op string) error { return fs.ErrPermission }
	if err := out.write(b, 4*n); !errors.Is(err, fs.ErrPermission) || !out.failed.Load() {
		t.Errorf("%v; failed is %t", err, out.failed.Load())
	}
}

// A pushFS makes the disk lose what is written out ahead of the sync.
type pushFS struct {
	durable.OS
	fail func(op string) error
}

func (f *pushFS) Open(name string, flag int) (durable.File, error) {
	file, err := f.OS.Open(name, flag)
	if err != nil || filepath.Ext(name) != ".db" {
		return file, err
	}
	return &pushedFile{File: file, fail: f.fail}, nil
}

// A part that the disk lost may still read back well from memory. It was reported
// once, and no sync after that tells of it: everything is fetched again.
func TestRestorePushFails(t *testing.T) {
	store := newMemStore()
	src := newSource(4096, 20, 1)
	m := mustMake(t, store, src, 7, Options{})
	path := filepath.Join(t.TempDir(), "app.db")
	pushes := 0
	dfs := &pushFS{fail: func(string) error {
		if pushes++; pushes == len(m.Chunks) {
			return fs.ErrPermission
		}
		return nil
	}}
	if err := restore(t.Context(), dfs, store, m, path, Options{Parallel: 1}); !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("the file stays with %v, %v", info, err)
	}
	before := store.fetched()
	if err := Restore(t.Context(), store, m, path, Options{}); err != nil {
		t.Fatal(err)
	}
	if n := store.fetched() - before; n != len(m.Chunks) {
		t.Errorf("fetched %d chunks again, want all %d", n, len(m.Chunks))
	}
	checkFile(t, path, src.data)
}
