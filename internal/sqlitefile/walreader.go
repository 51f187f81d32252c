package sqlitefile

import (
	"errors"
	"fmt"
	"io"
)

var (
	// ErrNoWAL means that the -wal file is too short for a header: nothing was
	// written since it was created or truncated. Nothing is wrong; look again.
	ErrNoWAL = errors.New("sqlitefile: the SQLite WAL is empty")

	// ErrGeneration means that the -wal file is not, or no longer, the one of a
	// position: SQLite started it again, truncated it or made a new one.
	ErrGeneration = errors.New("sqlitefile: another generation of the SQLite WAL")

	// ErrLost means that a frame below the limit is not what follows the frame
	// before it: overwritten by another generation, truncated, or damaged. What
	// it held is unknown, and the database must be compared as a whole.
	ErrLost = errors.New("sqlitefile: frame of the SQLite WAL lost")
)

// readBatch is how much a WALReader reads at once, in bytes, and keepBatch how large
// a buffer it keeps while there is nothing to read.
const (
	readBatch = 256 << 10
	keepBatch = 32 << 10
)

// A WALPosition is the end of a commit in one generation of a SQLite WAL, or,
// with Frame 0, its beginning.
type WALPosition struct {
	Salt      [2]uint32
	Frame     uint32 // the commit frame; frames count from 1
	Checksum  Checksum
	PageSize  int    // bytes
	BigEndian bool   // as in WALHeader
	DBSize    uint32 // pages of the database after the commit; 0 when Frame is 0
}

// A WALTransaction is a committed transaction: the frames First to Last.
type WALTransaction struct {
	First, Last uint32
	DBSize      uint32   // pages of the database after it
	Pages       []uint32 // of frame First+i; valid until the next call of Next
}

// A WALReader reads the committed transactions of a SQLite WAL, in order. It
// never goes past the limit that the caller got from the wal-index, holds no
// state of a transaction that has not ended (SQLite may overwrite its frames in
// place), and verifies every frame: salts, and the checksum from the generation's
// start on. It is used by one goroutine at a time.
//
// After any error it stands where it stood before the call.
type WALReader struct {
	r     io.ReaderAt
	ready bool // Start or Resume succeeded
	pos   WALPosition
	pages []uint32

	// Frames that were read ahead: [first, first+count), all at or below a
	// limit, thus committed and stable as long as their generation lasts.
	buf   []byte
	first uint32
	count uint32

	scratch [WALHeaderSize]byte
}

// NewWALReader returns a reader of r, which need not have content yet. The caller
// keeps r open, and closes it.
func NewWALReader(r io.ReaderAt) *WALReader { return &WALReader{r: r} }

// Header reads and verifies the header that the file has now. It does not move
// the reader: where the salts differ from those of Position, a new generation has
// started. It fails with [ErrNoWAL] or [ErrCorrupt]; a header may also be half
// written, so look again before believing the latter.
func (w *WALReader) Header() (WALHeader, error) {
	n, err := w.readAt(w.scratch[:], 0)
	if err != nil {
		return WALHeader{}, fmt.Errorf("sqlitefile: read the SQLite WAL header: %w", err)
	}
	if n < WALHeaderSize {
		return WALHeader{}, fmt.Errorf("%w: %d bytes", ErrNoWAL, n)
	}
	return ParseWALHeader(w.scratch[:])
}

// Start goes to the beginning of the generation that the file has now.
func (w *WALReader) Start() error {
	h, err := w.Header()
	if err != nil {
		return err
	}
	w.move(WALPosition{Salt: h.Salt, Checksum: h.Checksum, PageSize: h.PageSize, BigEndian: h.BigEndian})
	return nil
}

// Resume goes to a position that Position returned earlier, of this file or of
// the same file in an earlier process. It fails with [ErrGeneration] if the file
// has another generation now, or another frame there. Equal frames do not prove
// that nothing happened since: frames after it may have been checkpointed away.
func (w *WALReader) Resume(pos WALPosition) error {
	h, err := w.Header()
	if errors.Is(err, ErrNoWAL) || errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrGeneration, err)
	}
	if err != nil {
		return err
	}
	if h.Salt != pos.Salt || h.PageSize != pos.PageSize || h.BigEndian != pos.BigEndian {
		return fmt.Errorf("%w: salts %08x and page size %d, want %08x and %d",
			ErrGeneration, h.Salt, h.PageSize, pos.Salt, pos.PageSize)
	}
	got := frame{salt: h.Salt, checksum: h.Checksum}
	if pos.Frame > 0 {
		b := w.scratch[:FrameHeaderSize]
		n, err := w.readAt(b, FrameOffset(pos.Frame, pos.PageSize))
		if err != nil {
			return fmt.Errorf("sqlitefile: read frame %d of the SQLite WAL: %w", pos.Frame, err)
		}
		if n < FrameHeaderSize {
			return fmt.Errorf("%w: it ends before frame %d", ErrGeneration, pos.Frame)
		}
		got = parseFrame(b)
	}
	if got.salt != pos.Salt || got.checksum != pos.Checksum || got.dbSize != pos.DBSize {
		return fmt.Errorf("%w: frame %d has salts %08x, checksum %08x and %d pages, want %08x, %08x and %d", ErrGeneration,
			pos.Frame, got.salt, got.checksum, got.dbSize, pos.Salt, pos.Checksum, pos.DBSize)
	}
	w.move(pos)
	return nil
}

// move goes to pos and forgets what was read ahead.
func (w *WALReader) move(pos WALPosition) {
	w.pos, w.ready, w.count = pos, true, 0
}

// Position returns the end of the transaction that Next returned last, or where
// Start or Resume went.
func (w *WALReader) Position() WALPosition { return w.pos }

// Next returns the next committed transaction that ends at frame limit or before,
// and moves behind it; ok is false if there is none. limit is the last committed
// frame by the wal-index (mxFrame): up to there every frame must be valid, and
// one that is not is [ErrLost].
func (w *WALReader) Next(limit uint32) (tx WALTransaction, ok bool, err error) {
	if !w.ready {
		return WALTransaction{}, false, errors.New("sqlitefile: Next before Start or Resume")
	}
	w.pages = w.pages[:0]
	frameSize := FrameHeaderSize + w.pos.PageSize
	sum := w.pos.Checksum
	for n := w.pos.Frame; n < limit; {
		n++
		if n-w.first >= w.count { // also when n < w.first
			if err := w.fill(n, limit); err != nil {
				return WALTransaction{}, false, err
			}
		}
		b := w.buf[int(n-w.first)*frameSize:][:frameSize]
		f := parseFrame(b)
		sum = sum.Add(b[:8], w.pos.BigEndian).Add(b[FrameHeaderSize:], w.pos.BigEndian)
		if f.page == 0 || f.salt != w.pos.Salt || f.checksum != sum {
			w.count = 0
			return WALTransaction{}, false, w.lost(n, f, sum)
		}
		w.pages = append(w.pages, f.page)
		if f.dbSize != 0 {
			tx = WALTransaction{First: w.pos.Frame + 1, Last: n, DBSize: f.dbSize, Pages: w.pages}
			w.pos.Frame, w.pos.Checksum, w.pos.DBSize = n, sum, f.dbSize
			if n == limit && len(w.buf) > keepBatch {
				w.buf, w.count = nil, 0
			}
			return tx, true, nil
		}
	}
	w.count = 0 // read, but not of a transaction that ended: never believe it twice
	return WALTransaction{}, false, nil
}

// fill reads frames from n on, at most up to limit, in one batch.
func (w *WALReader) fill(n, limit uint32) error {
	frameSize := FrameHeaderSize + w.pos.PageSize
	count := min(uint32(readBatch/frameSize), limit-n+1)
	w.count = 0
	if size := int(count) * frameSize; len(w.buf) < size {
		w.buf = make([]byte, size)
	}
	got, err := w.readAt(w.buf[:int(count)*frameSize], FrameOffset(n, w.pos.PageSize))
	if err != nil {
		return fmt.Errorf("sqlitefile: read frame %d of the SQLite WAL: %w", n, err)
	}
	if count = uint32(got / frameSize); count == 0 {
		return fmt.Errorf("%w: frame %d of %d: the file ends before it does", ErrLost, n, limit)
	}
	w.first, w.count = n, count
	return nil
}

func (w *WALReader) lost(n uint32, f frame, sum Checksum) error {
	return fmt.Errorf("%w: frame %d: page %d, salts %08x, checksum %08x, want salts %08x, checksum %08x",
		ErrLost, n, f.page, f.salt, f.checksum, w.pos.Salt, sum)
}

// readAt fills b and returns fewer bytes only where the file ends. Any other
// error stays one: an EIO must not look like the end of a file.
func (w *WALReader) readAt(b []byte, off int64) (int, error) {
	n, err := w.r.ReadAt(b, off)
	switch {
	case n == len(b) || errors.Is(err, io.EOF):
		return n, nil
	case err == nil:
		return n, io.ErrNoProgress
	}
	return n, err
}
