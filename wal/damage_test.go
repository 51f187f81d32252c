package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

// sample is a change log of a few segments, ended cleanly or left after a Sync
// that no mark follows.
func sample(t testing.TB, clean bool) (fs *durable.Mem, names []string, w *writer) {
	t.Helper()
	fs = durable.NewMem()
	l := open(t, fs, "/log", 1<<10)
	w = newWriter(l, 1)
	must(t, w.epoch())
	for i := range 14 {
		must(t, w.commit(40+i*13))
		if i%3 == 2 {
			must(t, l.Sync())
		}
	}
	must(t, l.Sync())
	if clean {
		must(t, l.Close())
	}
	names, err := fs.ReadDir("/log")
	must(t, err)
	if len(names) < 3 {
		t.Fatalf("the sample has the segments %v, want 3 or more", names)
	}
	return fs, names, w
}

// outcome opens fs and reads all that it gives. It fails on a wrong record.
func outcome(fs *durable.Mem, w *writer) (cdc.LSN, error) {
	l, err := Open("/log", Options{FS: fs})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Last(), readAll(l, w.out, 1, l.Last())
}

// Every byte of a change log that was ended cleanly is covered: any flip is
// damage.
func TestFlipIsDamage(t *testing.T) {
	fs, names, w := sample(t, true)
	for _, name := range names {
		path := filepath.Join("/log", name)
		whole := fs.Image(path)
		for i := range whole {
			image := fs.Crash(nil)
			b := append([]byte(nil), whole...)
			b[i] ^= 1 << (i % 8)
			image.SetImage(path, b)
			if last, err := outcome(image, w); !errors.Is(err, ErrDamaged) && !errors.Is(err, cdc.ErrVersion) {
				t.Fatalf("flip at %d of %d in %s: log to LSN %d, %v", i, len(whole), name, last, err)
			}
		}
	}
}

// After a Sync and no clean end the last group of records is not proven by a
// mark, and still a flip never looks torn, but for the size of the very last
// sector's content.
func TestFlipInTheLastGroup(t *testing.T) {
	fs, names, w := sample(t, false)
	path := filepath.Join("/log", names[len(names)-1])
	whole := fs.Image(path)
	last := w.log.Last()
	for bit := range len(whole) * 8 {
		image := fs.Crash(nil)
		b := append([]byte(nil), whole...)
		b[bit/8] ^= 1 << (bit % 8)
		image.SetImage(path, b)
		if got, err := outcome(image, w); !errors.Is(err, ErrDamaged) && !errors.Is(err, cdc.ErrVersion) {
			t.Fatalf("flip of bit %d at %d of %d: log to LSN %d of %d, %v", bit%8, bit/8, len(whole), got, last, err)
		}
	}
}

// A log that ends anywhere ends with the last whole record, and what a mark
// covers cannot be missing.
func TestTruncated(t *testing.T) {
	fs, names, w := sample(t, false)
	path := filepath.Join("/log", names[len(names)-1])
	whole := fs.Image(path)
	first, _ := parseName(names[len(names)-1])
	for n := range whole {
		image := fs.Crash(nil)
		image.SetImage(path, whole[:n])
		got, err := outcome(image, w)
		if err != nil {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
		want, at := first-1, headerSize
		for lsn := first; n > headerSize && lsn <= w.log.Last(); lsn++ {
			if isMark(whole[at:]) {
				at += markSize
			}
			if at += len(w.out[lsn]); at <= n {
				want = lsn
			}
		}
		if got != want {
			t.Fatalf("%d of %d bytes: log to LSN %d, want %d", n, len(whole), got, want)
		}
	}
}

func TestMissingSegment(t *testing.T) {
	fs, names, w := sample(t, true)
	must(t, fs.Remove(filepath.Join("/log", names[1])))
	if _, err := outcome(fs, w); !errors.Is(err, ErrDamaged) {
		t.Errorf("a segment is missing: %v", err)
	}
}

func TestUnbornSegment(t *testing.T) {
	for _, content := range [][]byte{nil, []byte("rplch"), make([]byte, headerSize)} {
		fs, _, w := sample(t, true)
		last := w.log.Last()
		path := segmentPath("/log", last+1)
		fs.SetImage(path, content)
		if got, err := outcome(fs, w); err != nil || got != last {
			t.Errorf("a last segment of %d bytes: log to %d, %v; want %d", len(content), got, err, last)
		}
		if fs.Image(path) != nil {
			t.Errorf("a last segment of %d bytes is still there", len(content))
		}
	}
}

// Random garbage after the records is either cut off or refused.
func TestGarbageTail(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		fs, names, w := sample(t, false)
		path := filepath.Join("/log", names[len(names)-1])
		garbage := make([]byte, rng.IntN(3000))
		for i := range garbage {
			garbage[i] = byte(rng.Uint32())
		}
		fs.SetImage(path, append(fs.Image(path), garbage...))
		if got, err := outcome(fs, w); err == nil && got != w.log.Last() || err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d bytes of garbage: log to %d, %v", len(garbage), got, err)
		}
	}
}

// Any bytes as the last segment: an answer or a named error, never a panic.
func FuzzOpen(f *testing.F) {
	fs, names, _ := sample(f, true)
	f.Add(fs.Image(filepath.Join("/log", names[0])))
	f.Add(fs.Image(filepath.Join("/log", names[2])))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, first := range []cdc.LSN{1, 9} {
			fs := durable.NewMem()
			must(t, fs.MkdirAll("/log"))
			fs.SetImage(segmentPath("/log", first), b)
			if err := walkAll(fs, first); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, cdc.ErrVersion) {
				t.Error(err)
			}
		}
	})
}

func walkAll(fs *durable.Mem, first cdc.LSN) error {
	r, err := newFileReader(fs, "/log", 0)
	if err != nil {
		return err
	}
	for {
		if _, _, err := r.Next(); err != nil {
			break
		}
	}
	if err := r.Close(); err != nil {
		return err
	}
	l, err := Open("/log", Options{FS: fs})
	if err != nil {
		return err
	}
	defer l.Close()
	for lsn := first; lsn <= l.Durable(); lsn++ {
		if _, err := l.Record(lsn); err != nil {
			return fmt.Errorf("record %d: %w", lsn, err)
		}
		if _, err := l.Boundary(lsn); err != nil && !errors.Is(err, ErrNone) {
			return fmt.Errorf("boundary at %d: %w", lsn, err)
		}
	}
	return nil
}

// A sector of zeros is what a torn write leaves, but not where a sync mark
// proves that the sector was durable.
func TestLostSector(t *testing.T) {
	fs := durable.NewMem()
	l := open(t, fs, "/log", 1<<20)
	w := newWriter(l, 1)
	must(t, errors.Join(w.epoch(), w.commit(3000), l.Sync()))
	proven := l.Size()
	must(t, errors.Join(w.commit(3000), l.Sync()))
	path := segmentPath("/log", 1)
	whole := fs.Image(path)
	for at := headerSize; at+sectorSize <= len(whole); at += sectorSize {
		image := fs.Crash(nil)
		b := append([]byte(nil), whole...)
		clear(b[at : at+sectorSize])
		image.SetImage(path, b)
		got, err := outcome(image, w)
		if int64(at) < proven && int64(at)+sectorSize > proven {
			continue // it holds the mark as well
		}
		if covered := int64(at) < proven; covered && !errors.Is(err, ErrDamaged) || !covered && (err != nil || got != 2) {
			t.Errorf("no sector at %d, %d bytes are proven: log to LSN %d, %v", at, proven, got, err)
		}
	}
}
