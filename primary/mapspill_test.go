package primary

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// A faultyBlocks is a file for blocks whose calls fail when told so.
type faultyBlocks struct {
	*os.File
	read, write error
}

func (f *faultyBlocks) ReadAt(b []byte, off int64) (int, error) {
	if f.read != nil {
		return 0, f.read
	}
	return f.File.ReadAt(b, off)
}

func (f *faultyBlocks) WriteAt(b []byte, off int64) (int, error) {
	if f.write != nil {
		return 0, f.write
	}
	return f.File.WriteAt(b, off)
}

// spillingMap makes a map with room for two blocks in memory, and its file.
func spillingMap(t interface {
	Helper()
	Fatal(...any)
}, dir string) (*pageMap, *faultyBlocks) {
	t.Helper()
	m, file := newPageMap(dir, 2*len(mapBlock{}), testLogger()), &faultyBlocks{}
	m.spill.open = func(int64) (blockFile, error) {
		f, err := unnamed(dir, "*")
		if err != nil {
			t.Fatal(err)
		}
		file.File = f
		return file, nil
	}
	return &m, file
}

// entry is what a test expects of a page.
type entry struct {
	kind   pageKind
	parent uint32
}

// TestPageMapInAFile: a map of which most is in a file is one that is all in memory,
// and both are what was written. One that finds the disk full on its way is, too.
func TestPageMapInAFile(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		spilled, file := spillingMap(t, dir)
		defer spilled.close()
		var inMemory pageMap
		want := map[uint32]entry{}
		size := uint32(0)
		spilled.resize(size)
		inMemory.resize(size)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 12).Draw(t, "op") {
			case 0, 1:
				size = rapid.Uint32Range(0, 9*blockPages).Draw(t, "size")
				spilled.resize(size)
				inMemory.resize(size)
				maps.DeleteFunc(want, func(p uint32, _ entry) bool { return p > size })
			case 2:
				if rapid.IntRange(0, 9).Draw(t, "reset") == 0 {
					spilled.reset()
					inMemory.reset()
					clear(want)
				}
			case 3:
				if rapid.IntRange(0, 9).Draw(t, "full") == 0 {
					file.write = syscall.ENOSPC
				}
			default:
				first := rapid.Uint32Range(0, size).Draw(t, "page")
				e := entry{pageKind(rapid.IntRange(0, 3).Draw(t, "kind")), 0}
				for p := first; p <= min(first+rapid.Uint32Range(0, 3).Draw(t, "more"), size); p++ {
					if e.kind != unmapped {
						e.parent = p + 1
					}
					spilled.set(p, e.kind, e.parent)
					inMemory.set(p, e.kind, e.parent)
					want[p] = e
				}
			}
			if file.write == nil && spilled.held > 2 {
				t.Fatalf("%d blocks are in memory", spilled.held)
			}
		}
		for p := range size + 2*blockPages {
			for name, m := range map[string]*pageMap{"in a file": spilled, "in memory": &inMemory} {
				if kind, parent := m.at(p); (entry{kind, parent}) != want[p] {
					t.Fatalf("%s: page %d is %v of page %d, want %v", name, p, kind, parent, want[p])
				}
			}
		}
		if err := spilled.compare(&inMemory); err != nil || spilled.lost != nil {
			t.Fatal(err, spilled.lost)
		}
	})
}

func fillMap(m *pageMap, pages uint32) {
	m.resize(pages)
	for p := uint32(1); p <= pages; p++ {
		m.set(p, treePage, p/2)
	}
}

// TestPageMapCompareInAFile: blocks that differ are found by their sums.
func TestPageMapCompareInAFile(t *testing.T) {
	a, _ := spillingMap(t, t.TempDir())
	b, _ := spillingMap(t, t.TempDir())
	defer a.close()
	defer b.close()
	fillMap(a, 5*blockPages)
	fillMap(b, 5*blockPages)
	if err := a.compare(b); err != nil {
		t.Error(err)
	}
	b.set(3*blockPages+7, chainNext, 1)
	if err := a.compare(b); !errors.Is(err, errInconsistent) || !strings.Contains(err.Error(), fmt.Sprintf("page %d is", 3*blockPages+7)) {
		t.Errorf("%v", err)
	}
}

// TestPageMapWithoutRoomOnTheDisk stays in memory, whole.
func TestPageMapWithoutRoomOnTheDisk(t *testing.T) {
	for name, spoil := range map[string]func(*pageMap, *faultyBlocks){
		"no file":  func(m *pageMap, _ *faultyBlocks) { m.spill.open = inDir(filepath.Join(t.TempDir(), "none")) },
		"no write": func(_ *pageMap, f *faultyBlocks) { f.write = syscall.ENOSPC },
	} {
		t.Run(name, func(t *testing.T) {
			m, file := spillingMap(t, t.TempDir())
			defer m.close()
			spoil(m, file)
			fillMap(m, 5*blockPages)
			var want pageMap
			fillMap(&want, 5*blockPages)
			if err := m.compare(&want); err != nil || m.lost != nil {
				t.Error(err, m.lost)
			}
			if m.held != 6 || m.spill.full == nil {
				t.Errorf("%d blocks are in memory: %v", m.held, m.spill.full)
			}
		})
	}
}

// TestPageMapThatCannotBeReadBack: what a block said is not made up.
func TestPageMapThatCannotBeReadBack(t *testing.T) {
	for name, spoil := range map[string]func(*faultyBlocks){
		"error": func(f *faultyBlocks) { f.read = syscall.EIO },
		"short": func(f *faultyBlocks) { noError(t, f.Truncate(10)) },
		"other": func(f *faultyBlocks) {
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, 100); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			b[0] ^= 1
			if _, err := f.WriteAt(b, 100); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, file := spillingMap(t, t.TempDir())
			defer m.close()
			fillMap(m, 5*blockPages)
			m.at(3 * blockPages)
			m.at(4 * blockPages) // the first block is in the file now
			spoil(file)
			if kind, _ := m.at(1); kind != unmapped || m.lost == nil {
				t.Errorf("page 1 is %v, error %v", kind, m.lost)
			}
		})
	}
}

// TestDecodeWithALostMap: the transaction is no defect of the source or of the
// decoder, and nothing of it counts. The next load begins anew.
func TestDecodeWithALostMap(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(a); CREATE TABLE u(a)")
	s.exec("INSERT INTO t SELECT zeroblob(300) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<8000) SELECT i FROM n); INSERT INTO u VALUES(1)")
	s.before = s.read()
	noError(t, s.decoder.load(s.before, s.before.count()))
	if s.decoder.pages.spill.file == nil {
		t.Fatal("everything is in memory")
	}
	noError(t, s.decoder.pages.spill.file.(*os.File).Truncate(0))
	s.exec("UPDATE t SET a=1 WHERE rowid%100=0; UPDATE u SET a=2")
	after := s.read()
	err := s.decoder.transaction(s.before, after, after.differing(s.before), after.count(), s.sorter)
	if !errors.Is(err, io.EOF) || errors.Is(err, errInconsistent) {
		t.Fatalf("%v", err)
	}
	if err := s.decoder.transaction(s.before, after, nil, after.count(), s.sorter); err == nil {
		t.Error("it goes on with a map that is lost")
	}
}

// TestDecodeWithALostMapThatIsBuiltAnew: a transaction after which the map is built anew,
// as it is too large for less, does not hide what could not be read while it was decoded.
func TestDecodeWithALostMapThatIsBuiltAnew(t *testing.T) {
	const rows = "SELECT zeroblob(300) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<4000) SELECT i FROM n)"
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(a); INSERT INTO t "+rows+
		"; CREATE TABLE gap(a); INSERT INTO gap SELECT a FROM t LIMIT 1100; CREATE TABLE u(a); INSERT INTO u VALUES(1); DROP TABLE gap")
	s.decoder.updates.least = 0
	pages := &s.decoder.pages
	pages.at(1) // so that no other block is in memory
	// The last block is that of u alone.
	if _, err := pages.spill.file.WriteAt(make([]byte, len(mapBlock{})), offsetOf(len(pages.blocks)-1)); err != nil {
		t.Fatal(err)
	}
	s.exec("BEGIN; DELETE FROM t; INSERT INTO t " + rows + "; UPDATE u SET a=2; COMMIT")
	after := s.read()
	err := s.decoder.transaction(s.before, after, after.differing(s.before), after.count(), s.sorter)
	if !s.decoder.updates.rebuild {
		t.Fatalf("the map was not built anew: %v", err)
	}
	if err == nil || errors.Is(err, errInconsistent) {
		t.Errorf("%v", err)
	}
}

// Of eight million pages, of which all, or 32 MiB, are in memory.
func BenchmarkPageMap(b *testing.B) {
	const pages = 8 << 20
	for name, m := range map[string]pageMap{"memory": {}, "file": newPageMap(b.TempDir(), mapsInAll, testLogger())} {
		b.Run(name, func(b *testing.B) {
			defer m.close()
			fillMap(&m, pages)
			page := uint32(1)
			for b.Loop() {
				page = page*1664525 + 1013904223
				m.at(page % pages)
			}
		})
	}
}
