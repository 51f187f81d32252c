package wal

import (
	"errors"
	"fmt"
	"io"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

// readAhead is how many bytes a cursor reads at once, at least.
const readAhead = 256 << 10

// A cursor walks the entries of one segment file.
type cursor struct {
	file   durable.File
	offset int64  // of the next entry
	synced int64  // by the last sync mark passed
	buf    []byte // the file's bytes from bufAt on
	bufAt  int64
}

// peek gives n bytes at the cursor's offset, fewer where limit cuts them off.
// They are valid until the next peek.
func (c *cursor) peek(n int, limit int64) ([]byte, error) {
	if rest := limit - c.offset; int64(n) > rest {
		n = int(max(rest, 0))
	}
	at := c.offset - c.bufAt
	if at >= 0 && at+int64(n) <= int64(len(c.buf)) {
		return c.buf[at : at+int64(n)], nil
	}
	if err := c.fill(n, limit); err != nil {
		return nil, err
	}
	return c.buf[:n], nil
}

// fill moves the buffer to the cursor's offset and reads n bytes or more.
func (c *cursor) fill(n int, limit int64) error {
	kept := 0
	if at := c.offset - c.bufAt; at >= 0 && at < int64(len(c.buf)) {
		kept = copy(c.buf, c.buf[at:])
	}
	size := int(min(int64(max(n, readAhead)), limit-c.offset))
	if cap(c.buf) < size {
		c.buf = append(make([]byte, 0, max(size, min(2*cap(c.buf), readAhead))), c.buf[:kept]...)
	}
	c.bufAt, c.buf = c.offset, c.buf[:size]
	got, err := c.file.ReadAt(c.buf[kept:], c.offset+int64(kept))
	if got == size-kept {
		return nil
	}
	c.buf = c.buf[:0]
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the file is shorter than it was", cdc.ErrCorrupt)
	}
	return err
}

// rest gives a large buffer back: there is nothing to read for now.
func (c *cursor) rest() {
	const keep = 32 << 10
	if cap(c.buf) > keep {
		c.buf = nil
	}
}

// forget drops what was read ahead, because it may have been read while it was
// being written.
func (c *cursor) forget() { c.buf = c.buf[:0] }

// head reads the head of the next record, past a sync mark, and stays before
// the record. At limit it gives io.EOF; what else the bytes cause wraps
// cdc.ErrCorrupt. The head is not verified: only the whole record can be.
func (c *cursor) head(limit int64) (cdc.Head, error) {
	for {
		b, err := c.peek(cdc.HeaderSize, limit)
		if err != nil {
			return cdc.Head{}, err
		}
		if len(b) == 0 {
			return cdc.Head{}, io.EOF
		}
		if !isMark(b) {
			return cdc.ParseHead(b)
		}
		synced, ok := parseMark(b, c.offset)
		if !ok {
			return cdc.Head{}, fmt.Errorf("%w: sync mark", cdc.ErrCorrupt)
		}
		c.synced = synced
		c.offset += markSize
	}
}

// next reads and checks the next record and moves past it. rec is valid until
// the cursor is used again. Errors are those of head.
func (c *cursor) next(limit int64) (rec []byte, h cdc.Head, err error) {
	h, err = c.head(limit)
	if err != nil {
		return nil, cdc.Head{}, err
	}
	rec, err = c.peek(h.Length, limit)
	if err != nil {
		return nil, cdc.Head{}, err
	}
	if h, err = cdc.Check(rec); err != nil {
		return nil, cdc.Head{}, err
	}
	c.offset += int64(len(rec))
	return rec, h, nil
}

// skipTo walks from the record at, which is where the cursor stands, to the
// record lsn, by the heads alone.
func (c *cursor) skipTo(s *segment, at, lsn cdc.LSN, limit int64) error {
	for ; at < lsn; at++ {
		h, err := c.head(limit)
		if err != nil {
			return err
		}
		if h.LSN != at {
			return fmt.Errorf("%w: record %d where %d is due", cdc.ErrCorrupt, h.LSN, at)
		}
		s.index.add(at, c.offset)
		c.offset += int64(h.Length)
	}
	return nil
}
