package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDirStore(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "deep", "store")
	d := NewDir(dir)
	if names, err := d.List(ctx, ""); err != nil || len(names) != 0 {
		t.Errorf("List before the first Put: %v, %v", names, err)
	}
	for _, name := range []string{"a/1", "a/2", "ab/1", "top"} {
		if err := d.Put(ctx, name, []byte("old "+name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Put(ctx, "a/1", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b, err := d.Get(ctx, "a/1"); err != nil || string(b) != "new" {
		t.Errorf("Get: %q, %v", b, err)
	}
	for prefix, want := range map[string][]string{
		"":    {"a/1", "a/2", "ab/1", "top"},
		"a":   {"a/1", "a/2", "ab/1"},
		"a/":  {"a/1", "a/2"},
		"a/2": {"a/2"},
		"x":   nil,
		"x/y": nil,
	} {
		names, err := d.List(ctx, prefix)
		slices.Sort(names)
		if diff := cmp.Diff(want, names); err != nil || diff != "" {
			t.Errorf("List(%q): %v, (-want +got):\n%s", prefix, err, diff)
		}
	}
	for _, name := range []string{"a/3", "b/1"} {
		if _, err := d.Get(ctx, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Get of absent %s: %v", name, err)
		}
		if err := d.Delete(ctx, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Delete of absent %s: %v", name, err)
		}
	}
	for _, name := range []string{"a/1", "a/2", "ab/1", "top"} {
		if err := d.Delete(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("after deleting all: %v, %v", entries, err)
	}
}

func TestDirStoreNames(t *testing.T) {
	d := NewDir(t.TempDir())
	for _, name := range []string{"", ".", "..", "../x", "a/../../x", "/etc/x", "a//b", "a/"} {
		if err := d.Put(t.Context(), name, nil); err == nil {
			t.Errorf("Put accepts %q", name)
		}
		if _, err := d.Get(t.Context(), name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Get of %q: %v", name, err)
		}
		if err := d.Delete(t.Context(), name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Delete of %q: %v", name, err)
		}
	}
	if _, err := d.List(t.Context(), "../"); err == nil {
		t.Error("List leaves the directory")
	}
}

// TestDirStoreNotMounted: an empty folder is no store without snapshots when it is on
// another file system than the snapshots were.
func TestDirStoreNotMounted(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "mnt", "app")
	note := filepath.Join(t.TempDir(), "store.json")
	device := uint64(1)
	start := func() *DirStore { // as a new process does
		d := NewDirAt(dir, note)
		d.home.device = func(string) (uint64, error) { return device, nil }
		return d
	}
	put := func(d *DirStore, name string) {
		t.Helper()
		if err := d.Put(ctx, name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	list := func(d *DirStore, want int) {
		t.Helper()
		if names, err := d.List(ctx, ""); err != nil || len(names) != want {
			t.Errorf("%q, %v, want %d", names, err, want)
		}
	}
	away := func(d *DirStore) {
		t.Helper()
		_, err := d.List(ctx, "")
		_, gerr := d.Get(ctx, "a/1")
		for _, err := range []error{err, gerr, d.Put(ctx, "a/2", nil)} {
			if !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), note) {
				t.Errorf("not mounted: %v", err)
			}
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("written to where the mount should be: %v", err)
		}
	}
	list(start(), 0) // never used
	d := start()
	put(d, "a/1")
	list(d, 1)
	if err := os.Rename(dir, dir+".disk"); err != nil {
		t.Fatal(err)
	}
	device = 2
	away(start())
	away(d)
	device = 1
	list(start(), 0) // deleted, on the same disk: a fact
	device = 3
	if err := os.Rename(dir+".disk", dir); err != nil {
		t.Fatal(err)
	}
	d = start()
	list(d, 1) // moved to another disk, or the number of its device is another one
	put(d, "a/2")
	list(start(), 2)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	device = 1
	away(start()) // the note has followed
}

// A leavingStore loses its mount after the next List.
type leavingStore struct {
	*DirStore
	leave func()
}

func (s *leavingStore) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := s.DirStore.List(ctx, prefix)
	if s.leave != nil {
		s.leave()
		s.leave = nil
	}
	return names, err
}

// TestUnmountedAfterTheList: what cannot be found because the mount went away is neither
// deleted nor damaged. One who only reads has no note of where the mount should be, but
// the manifest is missing as well.
func TestUnmountedAfterTheList(t *testing.T) {
	for _, noted := range []bool{true, false} {
		root := t.TempDir()
		dir, device := filepath.Join(root, "mnt", "app"), uint64(1)
		store := &leavingStore{DirStore: NewDirAt(dir, filepath.Join(root, "store.json"))}
		store.home.device = func(string) (uint64, error) { return device, nil }
		o := Options{Clock: newClock()}
		older, newer := mustMake(t, store, newSource(4096, 20, 1), 7, o), mustMake(t, store, newSource(4096, 20, 1), 9, o)
		want := ErrGone
		if noted {
			want = syscall.ENODEV
		} else {
			store.DirStore = NewDir(dir)
		}
		move := func(from, to string, on uint64) {
			if device = on; os.Rename(from, to) != nil {
				t.Fatal("not moved")
			}
		}
		leave := func() { move(dir, dir+".disk", 2) }
		store.leave = leave
		list, err := List(t.Context(), store)
		if noted && (list != nil || !errors.Is(err, want)) {
			t.Errorf("List gives %d snapshots, %v", len(list), err)
		}
		err = Verify(t.Context(), store, newer, o)
		rerr := Restore(t.Context(), store, newer, filepath.Join(root, "copy.db"), o)
		for _, err := range []error{err, rerr} {
			if !errors.Is(err, want) || errors.Is(err, ErrDamaged) {
				t.Errorf("with a note %t: %v", noted, err)
			}
		}
		if err := store.Delete(t.Context(), manifestOf(older.ID)); noted && !errors.Is(err, want) {
			t.Errorf("Delete: %v", err)
		}
		move(dir+".disk", dir, 1)
		store.leave = leave
		if deleted, _, err := Retain(t.Context(), store, Retention{Keep: 1, Clock: o.Clock}); noted && (len(deleted) > 0 || !errors.Is(err, want)) {
			t.Errorf("Retain deleted %d snapshots, %v", len(deleted), err)
		}
		move(dir+".disk", dir, 1)
		if list, err := List(t.Context(), store); err != nil || len(list) != 2 {
			t.Errorf("mounted again: %d snapshots, %v", len(list), err)
		}
		if err := Verify(t.Context(), store, newer, o); err != nil {
			t.Error(err)
		}
	}
}
