package primary

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// streamWindow is what of a large value is in memory at a time, in bytes; a multiple of
// 16.
const streamWindow = 64 << 10

// maxRecordHeader is far more bytes than the header of a record with SQLite's greatest
// number of columns has, 32,767.
const maxRecordHeader = 1 << 20

// image returns the hash of a row: record or, of a large one, where c stands.
func (h *rowHasher) image(rowid int64, record []byte, c *cursor) (cdc.RowSum, error) {
	if c == nil {
		return h.hash(rowid, record)
	}
	return h.hashFrom(rowid, c.image(), streamWindow)
}

// hashFrom is hash for a record that is read once, from its start, and of which no more
// than a header and a window of that many bytes are in memory.
func (h *rowHasher) hashFrom(rowid int64, record cdc.Image, window int) (sum cdc.RowSum, err error) {
	r := bufio.NewReaderSize(record.From, window)
	if !h.inOrder {
		whole := make([]byte, record.Size)
		if _, err := io.ReadFull(r, whole); err != nil {
			return sum, err
		}
		return h.hash(rowid, whole)
	}
	at, err := h.splitFrom(r, record.Size)
	if err != nil {
		return sum, err
	}
	s := newHashState()
	if h.rowid {
		s.block(uint64(sqlite.ClassInteger), uint64(rowid))
	}
	n := 0 // columns that are hashed; those at the end that read as missing do not count
	for i := range h.columns {
		c := &h.columns[i]
		if c.field >= len(h.fields) {
			break
		}
		f := h.fields[c.field]
		if _, err := r.Discard(int(f.at - at)); err != nil {
			return sum, err
		}
		at = f.end
		size := int(f.end - f.at)
		long := f.serial >= 12 && size > window && size != len(c.missing.bytes)
		var v hashedValue
		if !long {
			if v, err = h.readValue(r, c, size); err != nil {
				return sum, err
			}
			if v.equal(&c.missing) {
				continue
			}
		}
		for ; n < i; n++ {
			s.add(&h.columns[n].missing)
		}
		n++
		if !long {
			s.add(&v)
		} else if err := s.addFrom(r, sqlite.ClassBlob-sqlite.Class(f.serial&1), size, window); err != nil {
			return sum, err
		}
	}
	if h.rowid {
		n++
	}
	return s.sum(uint64(n)), nil
}

// splitFrom reads the header of a record of size bytes and finds the fields.
func (h *rowHasher) splitFrom(r *bufio.Reader, size int) (header uint32, err error) {
	start, err := r.Peek(min(9, size))
	if err != nil {
		return 0, err
	}
	n, _ := sqlitefile.Varint(start)
	if n > uint64(min(size, maxRecordHeader)) {
		return 0, fmt.Errorf("%w: header of %d bytes in a record of %d", sqlitefile.ErrCorrupt, n, size)
	}
	b, err := h.read(r, int(n))
	if err != nil {
		return 0, err
	}
	return uint32(n), h.split(b, size)
}

// readValue reads the value of column c, which has size bytes. It is valid until the
// next read.
func (h *rowHasher) readValue(r *bufio.Reader, c *summedColumn, size int) (v hashedValue, err error) {
	b, err := h.read(r, size)
	if err != nil {
		return v, err
	}
	f := &h.fields[c.field]
	f.at, f.end = 0, uint32(size)
	h.load(&v, c, b)
	return v, nil
}

// read reads n bytes, which are valid until the next read.
func (h *rowHasher) read(r *bufio.Reader, n int) ([]byte, error) {
	if cap(h.buf) < n {
		h.buf = make([]byte, n)
	}
	b := h.buf[:n]
	_, err := io.ReadFull(r, b)
	return b, err
}

// addFrom is add for a text or blob of size bytes, more than eight, that r gives.
func (s *hashState) addFrom(r *bufio.Reader, class sqlite.Class, size, window int) error {
	first, err := r.Peek(8)
	if err != nil {
		return err
	}
	s.block(uint64(class)|uint64(size)<<3, binary.LittleEndian.Uint64(first))
	if _, err := r.Discard(len(first)); err != nil {
		return err
	}
	for left := size - len(first); left > 0; {
		b, err := r.Peek(min(left, window))
		if err != nil {
			return err
		}
		s.rest(b)
		left -= len(b)
		if _, err := r.Discard(len(b)); err != nil {
			return err
		}
	}
	return nil
}
