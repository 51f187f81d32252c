package sqlitefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseWALHeader(t *testing.T) {
	for _, big := range []bool{false, true} {
		w := newWAL(65536, big, [2]uint32{1, 2})
		h, err := ParseWALHeader(w.file)
		want := WALHeader{BigEndian: big, PageSize: 65536, Checkpoint: 7, Salt: [2]uint32{1, 2}, Checksum: w.sum}
		if diff := cmp.Diff(want, h); err != nil || diff != "" {
			t.Errorf("error %v, header (-want +got):\n%s", err, diff)
		}
		for i := range WALHeaderSize {
			b := slices.Clone(w.file)
			b[i] ^= 0x10
			if _, err := ParseWALHeader(b); !errors.Is(err, ErrCorrupt) {
				t.Errorf("byte %d changed: %v, want ErrCorrupt", i, err)
			}
		}
	}
	for _, size := range []int{0, 256, 1000, 131072} {
		if _, err := ParseWALHeader(newWAL(size, false, [2]uint32{}).file); !errors.Is(err, ErrCorrupt) {
			t.Errorf("page size %d: %v, want ErrCorrupt", size, err)
		}
	}
	if _, err := ParseWALHeader(make([]byte, WALHeaderSize-1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("short: %v, want ErrCorrupt", err)
	}
}

func TestChecksumMatchesTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		b = b[:len(b)/8*8]
		start := Checksum{rapid.Uint32().Draw(t, "s0"), rapid.Uint32().Draw(t, "s1")}
		for _, big := range []bool{false, true} {
			if got, want := start.Add(b, big), slowChecksum(start, b, big); got != want {
				t.Errorf("big-endian %t: %08x, want %08x", big, got, want)
			}
		}
	})
}

func started(t testing.TB, r io.ReaderAt) *WALReader {
	t.Helper()
	w := NewWALReader(r)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// next calls Next and fails the test on an error.
func next(t testing.TB, r *WALReader, limit uint32) (WALTransaction, bool) {
	t.Helper()
	tx, ok, err := r.Next(limit)
	if err != nil {
		t.Fatal(err)
	}
	return tx, ok
}

// Whatever the transactions, the limits and the order of calls: exactly the
// transactions that end at the limit or before, in order, and the same after
// resuming at any of them; a changed bit is ErrLost at its frame.
func TestNextReturnsWhatWasCommitted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWAL(512, rapid.Bool().Draw(t, "big"), [2]uint32{rapid.Uint32().Draw(t, "salt"), 9})
		pages := rapid.SliceOfN(rapid.Uint32Range(1, 1<<32-1), 1, 5)
		var want []WALTransaction
		var frames uint32
		for range rapid.IntRange(0, 20).Draw(t, "transactions") {
			tx := WALTransaction{First: frames + 1, DBSize: rapid.Uint32Range(1, 1<<32-1).Draw(t, "size"), Pages: pages.Draw(t, "pages")}
			w.transaction(tx.DBSize, tx.Pages...)
			frames += uint32(len(tx.Pages))
			tx.Last = frames
			want = append(want, tx)
		}
		r := NewWALReader(bytes.NewReader(w.file))
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		positions := []WALPosition{r.Position()}
		for limit := uint32(0); ; limit = rapid.Uint32Range(limit, frames).Draw(t, "limit") {
			for {
				tx, ok, err := r.Next(limit)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if diff := cmp.Diff(want[len(positions)-1], tx); diff != "" || tx.Last > limit {
					t.Fatalf("limit %d (-want +got):\n%s", limit, diff)
				}
				positions = append(positions, r.Position())
			}
			if n := len(positions) - 1; n < len(want) && want[n].Last <= limit {
				t.Fatalf("limit %d: %d transactions, but one more ends at %d", limit, n, want[n].Last)
			}
			if limit == frames {
				break
			}
		}
		resumeAndDamage(t, w, positions, frames)
	})
}

func resumeAndDamage(t *rapid.T, w *walBuilder, positions []WALPosition, frames uint32) {
	at := rapid.IntRange(0, len(positions)-1).Draw(t, "resume")
	r := NewWALReader(bytes.NewReader(w.file))
	if err := r.Resume(positions[at]); err != nil {
		t.Fatalf("resume at %+v: %v", positions[at], err)
	}
	if frames == 0 {
		return
	}
	bit := rapid.IntRange(WALHeaderSize*8, len(w.file)*8-1).Draw(t, "bit")
	w.file[bit/8] ^= 1 << (bit % 8)
	bad := uint32((bit/8-WALHeaderSize)/(FrameHeaderSize+512)) + 1
	for {
		_, ok, err := r.Next(frames)
		switch {
		case errors.Is(err, ErrLost) && bad > positions[at].Frame:
			if !strings.Contains(err.Error(), fmt.Sprintf("frame %d:", bad)) {
				t.Fatalf("%v, want frame %d", err, bad)
			}
			return
		case err != nil:
			t.Fatal(err)
		case !ok && bad > positions[at].Frame:
			t.Fatalf("frame %d was changed, and nobody noticed", bad)
		case !ok:
			return
		}
	}
}

// Frames of a transaction that has not committed may be overwritten in place
// (cache spill, then the page changes again): what was read of them is void.
func TestOpenTransactionIsOverwritten(t *testing.T) {
	w := newWAL(512, false, [2]uint32{1, 2})
	w.transaction(5, 1, 2)
	open := *w
	open.file = slices.Clone(w.file)
	open.frame(3, 0, 'x')
	open.frame(4, 0, 'y')
	r := started(t, bytes.NewReader(open.file))
	next(t, r, 2)
	if tx, ok := next(t, r, 4); ok {
		t.Fatalf("an open transaction: %+v", tx)
	}
	before := r.Position()

	w.transaction(6, 5, 6, 7)
	r.r = bytes.NewReader(w.file)
	tx, ok := next(t, r, 5)
	want := WALTransaction{First: 3, Last: 5, DBSize: 6, Pages: []uint32{5, 6, 7}}
	if diff := cmp.Diff(want, tx); !ok || diff != "" {
		t.Errorf("ok %t (-want +got):\n%s", ok, diff)
	}
	if before.Frame != 2 || r.Position().Frame != 5 || r.Position().DBSize != 6 {
		t.Errorf("positions %+v and %+v", before, r.Position())
	}
}

// One transaction longer than the read-ahead buffer, and one page that fills it.
func TestLongTransactions(t *testing.T) {
	for _, c := range []struct{ size, frames int }{{512, 2000}, {65536, 9}} {
		w := newWAL(c.size, false, [2]uint32{1, 2})
		pages := make([]uint32, c.frames)
		for i := range pages {
			pages[i] = uint32(2*i + 1)
		}
		w.transaction(77, pages...)
		w.transaction(78, 5)
		r := started(t, bytes.NewReader(w.file))
		tx, ok := next(t, r, uint32(c.frames+1))
		if diff := cmp.Diff(WALTransaction{First: 1, Last: uint32(c.frames), DBSize: 77, Pages: pages}, tx); !ok || diff != "" {
			t.Errorf("ok %t (-want +got):\n%s", ok, diff)
		}
		if tx, ok = next(t, r, uint32(c.frames+1)); !ok || tx.DBSize != 78 {
			t.Errorf("%t, %+v", ok, tx)
		}
	}
}

func TestLost(t *testing.T) {
	w := newWAL(512, false, [2]uint32{1, 2})
	w.transaction(5, 1, 2)
	w.transaction(6, 3)
	first := len(w.file)
	cases := map[string]func([]byte) []byte{
		"stale salts":     func(b []byte) []byte { b[FrameOffset(3, 512)+8]++; return b },
		"page 0":          func(b []byte) []byte { copy(b[FrameOffset(3, 512):], []byte{0, 0, 0, 0}); return b },
		"content":         func(b []byte) []byte { b[first-1]++; return b },
		"cut in a frame":  func(b []byte) []byte { return b[:first-1] },
		"cut at a frame":  func(b []byte) []byte { return b[:FrameOffset(3, 512)] },
		"cut in a header": func(b []byte) []byte { return b[:FrameOffset(3, 512)+10] },
	}
	for name, edit := range cases {
		r := started(t, bytes.NewReader(edit(slices.Clone(w.file))))
		next(t, r, 3)
		before := r.Position()
		for range 2 { // and again: an error changes nothing
			if _, ok, err := r.Next(3); ok || !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "frame 3") {
				t.Errorf("%s: %t, %v, want ErrLost with frame 3", name, ok, err)
			}
		}
		if r.Position() != before {
			t.Errorf("%s: moved to %+v", name, r.Position())
		}
		r.r = bytes.NewReader(w.file)
		if tx, ok := next(t, r, 3); !ok || tx.DBSize != 6 {
			t.Errorf("%s: after it was healed: %t, %+v", name, ok, tx)
		}
	}

	zero := newWAL(512, false, [2]uint32{1, 2})
	zero.frame(0, 1, 0) // every check but that of the page number passes
	if _, _, err := started(t, bytes.NewReader(zero.file)).Next(1); !errors.Is(err, ErrLost) {
		t.Errorf("page 0 with a valid checksum: %v, want ErrLost", err)
	}
}

func TestResumeElsewhere(t *testing.T) {
	build := func(salt uint32, page uint32) []byte {
		w := newWAL(512, false, [2]uint32{salt, 2})
		w.transaction(5, page, 2)
		return w.file
	}
	r := started(t, bytes.NewReader(build(1, 1)))
	begin := r.Position()
	next(t, r, 2)
	end := r.Position()

	stale := build(1, 1)
	stale[FrameOffset(2, 512)+8]++
	otherSize := newWAL(1024, false, [2]uint32{1, 2}).file
	for name, c := range map[string]struct {
		file []byte
		pos  WALPosition
	}{
		"other salts":                  {build(9, 1), end},
		"other salts at the start":     {build(9, 1), begin},
		"other frame":                  {build(1, 3), end},
		"stale frame":                  {stale, end},
		"shorter file":                 {build(1, 1)[:FrameOffset(2, 512)+5], end},
		"empty file":                   {nil, end},
		"no WAL":                       {make([]byte, 4096), end},
		"other page size":              {otherSize, begin},
		"zero position":                {build(1, 1), WALPosition{}},
		"not a commit":                 {build(1, 1), WALPosition{Salt: end.Salt, Frame: 1, PageSize: 512, DBSize: 5}},
		"frame beyond any file":        {build(1, 1), WALPosition{Salt: end.Salt, Frame: 1<<32 - 1, PageSize: 512}},
		"size differs, all else equal": {build(1, 1), WALPosition{end.Salt, end.Frame, end.Checksum, 512, false, 6}},
	} {
		r := NewWALReader(bytes.NewReader(c.file))
		if err := r.Resume(c.pos); !errors.Is(err, ErrGeneration) {
			t.Errorf("%s: %v, want ErrGeneration", name, err)
		}
		if _, _, err := r.Next(2); err == nil {
			t.Errorf("%s: Next works after Resume failed", name)
		}
	}
}

// A new generation shows in the header, and the reader keeps its place.
func TestHeaderRereads(t *testing.T) {
	old, fresh := newWAL(512, false, [2]uint32{1, 2}), newWAL(512, false, [2]uint32{2, 8})
	old.transaction(5, 1)
	fresh.transaction(6, 1)
	r := started(t, bytes.NewReader(old.file))
	next(t, r, 1)
	before := r.Position()
	r.r = bytes.NewReader(fresh.file)
	h, err := r.Header()
	if err != nil || h.Salt != fresh.salt || r.Position() != before {
		t.Errorf("header %+v, %v, position %+v", h, err, r.Position())
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	if tx, ok := next(t, r, 1); !ok || tx.DBSize != 6 {
		t.Errorf("%t, %+v", ok, tx)
	}
}

func TestEmptyWAL(t *testing.T) {
	for _, n := range []int{0, 31} {
		r := NewWALReader(bytes.NewReader(make([]byte, n)))
		if err := r.Start(); !errors.Is(err, ErrNoWAL) {
			t.Errorf("%d bytes: %v, want ErrNoWAL", n, err)
		}
	}
	if err := NewWALReader(bytes.NewReader(make([]byte, 32))).Start(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("zeroes: %v, want ErrCorrupt", err)
	}
}

// faultyReader fails from one offset on, after a part of what was asked for.
type faultyReader struct {
	io.ReaderAt
	from int64
	err  error
}

func (f *faultyReader) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) <= f.from {
		return f.ReaderAt.ReadAt(b, off)
	}
	return len(b) / 2, f.err
}

// EIO must stay EIO: taken for the end of the file it would read as lost frames,
// or as none.
func TestIOErrorsPass(t *testing.T) {
	w := newWAL(512, false, [2]uint32{1, 2})
	w.transaction(5, 1)
	w.transaction(6, 2)
	good := bytes.NewReader(w.file)
	r := started(t, good)
	next(t, r, 1)
	pos := r.Position()
	for _, fault := range []error{syscall.EIO, nil} {
		want := fault
		if fault == nil { // a reader that breaks io.ReaderAt's contract
			want = io.ErrNoProgress
		}
		bad := &faultyReader{good, FrameOffset(2, 512), fault}
		r.r = bad
		if _, ok, err := r.Next(2); ok || !errors.Is(err, want) || errors.Is(err, ErrLost) {
			t.Errorf("Next: %t, %v, want %v", ok, err, want)
		}
		bad.from = FrameOffset(1, 512)
		if err := r.Resume(pos); !errors.Is(err, want) || errors.Is(err, ErrGeneration) {
			t.Errorf("Resume: %v, want %v", err, want)
		}
		bad.from = 0
		if err := r.Start(); !errors.Is(err, want) || errors.Is(err, ErrNoWAL) {
			t.Errorf("Start: %v, want %v", err, want)
		}
		if err := r.Resume(pos); !errors.Is(err, want) || errors.Is(err, ErrGeneration) {
			t.Errorf("Resume, header: %v, want %v", err, want)
		}
	}
	r.r = good
	if tx, ok := next(t, r, 2); !ok || tx.DBSize != 6 {
		t.Errorf("after the faults: %t, %+v", ok, tx)
	}
}

// repair makes the salts and checksums of the first frames of a file right, since
// mutated bytes alone hardly ever get past them.
func repair(file []byte, frames int) []byte {
	if frames == 0 {
		return file
	}
	w := newWAL(512, frames%2 == 1, [2]uint32{1, 2})
	rest := file[min(len(file), WALHeaderSize):]
	for ; frames > 0 && len(rest) >= FrameHeaderSize+512; frames-- {
		w.frame(binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:]), rest[FrameHeaderSize])
		rest = rest[FrameHeaderSize+512:]
	}
	return append(w.file, rest...)
}

func FuzzWALReader(f *testing.F) {
	w := newWAL(512, false, [2]uint32{1, 2})
	w.transaction(5, 1, 2)
	w.transaction(6, 3)
	f.Add(w.file, uint32(3), uint8(0))
	f.Add(w.file, uint32(3), uint8(3))
	f.Add(newWAL(512, true, [2]uint32{1, 2}).file, uint32(0), uint8(0))
	addGolden(f, ".db-wal", uint32(20), uint8(0))
	f.Fuzz(func(t *testing.T, file []byte, limit uint32, repaired uint8) {
		file = repair(file, int(repaired))
		r := NewWALReader(bytes.NewReader(file))
		if err := r.Start(); err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNoWAL) {
				t.Errorf("unexpected error %v", err)
			}
			return
		}
		for last := uint32(0); ; {
			tx, ok, err := r.Next(limit)
			if err != nil && !errors.Is(err, ErrLost) {
				t.Errorf("unexpected error %v", err)
			}
			if !ok {
				break
			}
			if tx.First != last+1 || tx.Last > limit || int(tx.Last-tx.First)+1 != len(tx.Pages) || tx.DBSize == 0 {
				t.Fatalf("transaction %+v after frame %d, limit %d", tx, last, limit)
			}
			last = tx.Last
			if err := NewWALReader(bytes.NewReader(file)).Resume(r.Position()); err != nil {
				t.Errorf("resume where it stands: %v", err)
			}
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	page := make([]byte, 4096)
	for i := range page {
		page[i] = byte(i)
	}
	for _, big := range []bool{false, true} {
		b.Run(map[bool]string{false: "little", true: "big"}[big], func(b *testing.B) {
			b.SetBytes(int64(len(page)))
			sum := Checksum{1, 2}
			for b.Loop() {
				sum = sum.Add(page, big)
			}
		})
	}
}

func BenchmarkWALReaderNext(b *testing.B) {
	for name, frames := range map[string]int{"1": 1, "100": 100} {
		b.Run("frames="+name, func(b *testing.B) {
			w := newWAL(4096, false, [2]uint32{1, 2})
			pages := make([]uint32, frames)
			for i := range pages {
				pages[i] = uint32(i + 1)
			}
			total := uint32(1000)
			for range int(total) / frames {
				w.transaction(1000, pages...)
			}
			r := started(b, bytes.NewReader(w.file))
			begin := r.Position()
			b.ReportAllocs()
			b.SetBytes(int64(frames) * (FrameHeaderSize + 4096))
			for b.Loop() {
				_, ok, err := r.Next(total)
				if err != nil || !ok {
					b.Fatal(ok, err)
				}
				if r.Position().Frame == total {
					if err := r.Resume(begin); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
