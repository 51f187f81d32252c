package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// each runs a test on the real file system and on the one in memory.
func each(t *testing.T, test func(t *testing.T, fs FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, OS{}, t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := NewMem()
		if err := m.MkdirAll("/d"); err != nil {
			t.Fatal(err)
		}
		test(t, m, "/d")
		if n := m.OpenFiles(); n != 0 {
			t.Errorf("%d files are left open", n)
		}
	})
}

func TestFile(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := filepath.Join(dir, "f")
		if _, err := fs.Open(name, os.O_RDONLY); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("open a missing file: %v", err)
		}
		f, err := fs.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL); !errors.Is(err, os.ErrExist) {
			t.Errorf("create a file twice: %v", err)
		}
		if _, err := f.WriteAt([]byte("abc"), 2); err != nil {
			t.Error(err)
		}
		if err := errors.Join(f.Sync(), f.Truncate(4), fs.Remove(name)); err != nil {
			t.Error(err)
		}
		b := make([]byte, 8) // removed, and still readable
		if n, err := f.ReadAt(b, 0); n != 4 || !errors.Is(err, io.EOF) || string(b[:4]) != "\x00\x00ab" {
			t.Errorf("read %d bytes %q, %v", n, b, err)
		}
		if n, err := f.Size(); n != 4 || err != nil {
			t.Errorf("size %d, %v", n, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := f.Sync(); err == nil {
			t.Error("a closed file was synced")
		}
	})
}

func TestDirectories(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		deep := filepath.Join(dir, "a", "b")
		if err := errors.Join(fs.MkdirAll(deep), fs.MkdirAll(deep)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"2", "1"} {
			if err := WriteFile(fs, filepath.Join(deep, name), nil); err != nil {
				t.Fatal(err)
			}
		}
		if names, err := fs.ReadDir(deep); err != nil || !slices.Equal(names, []string{"1", "2"}) {
			t.Errorf("ReadDir = %v, %v", names, err)
		}
		if _, err := fs.ReadDir(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("ReadDir of nothing: %v", err)
		}
	})
}

func TestReadFile(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := filepath.Join(dir, "f")
		if err := WriteFile(fs, name, []byte("old")); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(fs, name, []byte("new!")); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadFile(fs, name, 4); string(b) != "new!" || err != nil {
			t.Errorf("ReadFile = %q, %v", b, err)
		}
		if _, err := ReadFile(fs, name, 3); err == nil {
			t.Error("ReadFile returned more than its limit")
		}
	})
}

// A power failure before any call of WriteFile, or a call that fails, leaves the
// old content or the new; once it returned nil, the new.
func TestWriteFileIsAtomic(t *testing.T) {
	before, after := strings.Repeat("old", 700), strings.Repeat("newer", 900)
	rapid.Check(t, func(t *rapid.T) {
		m := NewMem()
		if err := WriteFile(m, "/f", []byte(before)); err != nil {
			t.Fatal(err)
		}
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
		check := func(m *Mem, allowed ...string) {
			b, err := ReadFile(m.Crash(pick), "/f", 1<<20)
			if err != nil || !slices.Contains(allowed, string(b)) {
				t.Fatalf("after a crash: %d bytes, %v", len(b), err)
			}
		}
		calls, fail := 0, rapid.IntRange(0, 8).Draw(t, "fail")
		happened := rapid.Bool().Draw(t, "happened")
		m.Inject(func(c Call) Fault {
			check(m, before, after)
			if calls++; calls == fail {
				return Fault{Err: syscall.EIO, Happened: happened, Wrote: c.Size / 2}
			}
			return Fault{}
		})
		err := WriteFile(m, "/f", []byte(after))
		m.Inject(nil)
		if err == nil {
			check(m, after)
		} else {
			check(m, before, after)
		}
	})
}

func TestMemFailedSyncLosesContent(t *testing.T) {
	m := NewMem()
	f, err := m.Open("/f", os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("lost"), 0); err != nil {
		t.Fatal(err)
	}
	m.Inject(func(c Call) Fault { return Fault{Err: syscall.EIO} })
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("injected sync: %v", err)
	}
	m.Inject(nil)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := string(m.Image("/f")); got != "lost" {
		t.Errorf("the page cache holds %q", got)
	}
	if got := string(m.Crash(nil).Image("/f")); got != "\x00\x00\x00\x00" {
		t.Errorf("the disk holds %q", got)
	}
}

// A sector is written whole: what was written to it first is there if what came
// later is.
func TestMemSectorOfTwoWrites(t *testing.T) {
	m := NewMem()
	f, err := m.Open("/f", os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, s := range []string{"first", "second"} {
		if _, err := f.WriteAt([]byte(s), int64(5*i)); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for choice := range 1 << 8 {
		n := 0
		after := m.Crash(func(int) int { n++; return choice >> (n - 1) & 1 })
		seen[strings.TrimRight(string(after.Image("/f")), "\x00")] = true
	}
	if len(seen) != 3 || !seen[""] || !seen["first"] || !seen["firstsecond"] {
		t.Errorf("after a crash there is one of %v", seen)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	l, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockDir(dir)
	want := "another replicator (pid " + strconv.Itoa(os.Getpid()) + ") uses " + dir + "; stop it or choose another directory"
	if !errors.Is(err, ErrLocked) || err.Error() != want {
		t.Errorf("second lock: %v, want %s", err, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = LockDir(dir); err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := LockDir(filepath.Join(dir, "none")); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("lock of a missing directory: %v", err)
	}
}

// A file that is written bit by bit is replaced whole, or not at all.
func TestReplace(t *testing.T) {
	each(t, func(t *testing.T, fs FS, dir string) {
		name := filepath.Join(dir, "f")
		piece := []byte(strings.Repeat("0123456789", writeChunk/4))
		pieces := func(n int, failure error) error {
			return Replace(fs, name, func(w io.Writer) error {
				for range n {
					if _, err := w.Write(piece); err != nil {
						return err
					}
					if _, err := w.Write(piece[:7]); err != nil {
						return err
					}
				}
				return failure
			})
		}
		if err := pieces(1, nil); err != nil {
			t.Fatal(err)
		}
		if err := pieces(3, syscall.EDOM); !errors.Is(err, syscall.EDOM) {
			t.Errorf("the error of the one who writes is lost: %v", err)
		}
		for _, n := range []int{1, 3, 0} {
			if n != 1 {
				if err := pieces(n, nil); err != nil {
					t.Fatal(err)
				}
			}
			want := strings.Repeat(string(piece)+string(piece[:7]), n)
			if b, err := ReadFile(fs, name, 1<<30); err != nil || string(b) != want {
				t.Errorf("%d pieces: %d bytes, want %d: %v", n, len(b), len(want), err)
			}
		}
	})
}
