package sqlitefile

import "fmt"

// At returns the position of the commit frame n in the generation that the file
// has now, without reading the frames before it. The caller knows from the
// wal-index that n is valid, and from holding the write lock that it stays so:
// the frame's own checksum, which covers everything before it, is believed.
func (w *WALReader) At(n uint32) (WALPosition, error) {
	h, err := w.Header()
	if err != nil {
		return WALPosition{}, err
	}
	b := w.scratch[:FrameHeaderSize]
	got, err := w.readAt(b, FrameOffset(n, h.PageSize))
	if err != nil {
		return WALPosition{}, fmt.Errorf("sqlitefile: read frame %d of the SQLite WAL: %w", n, err)
	}
	if got < FrameHeaderSize {
		return WALPosition{}, fmt.Errorf("%w: frame %d: the file ends before it", ErrLost, n)
	}
	f := parseFrame(b)
	if f.salt != h.Salt || f.dbSize == 0 {
		return WALPosition{}, fmt.Errorf("%w: frame %d has salts %08x and %d pages, want salts %08x and a commit",
			ErrLost, n, f.salt, f.dbSize, h.Salt)
	}
	return WALPosition{
		Salt: h.Salt, Frame: n, Checksum: f.checksum, PageSize: h.PageSize, BigEndian: h.BigEndian, DBSize: f.dbSize,
	}, nil
}
