package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A Reader gives the durable records of a Log in order and waits for more. It
// is used by one goroutine. It holds one file open; Close it.
type Reader struct {
	log  *Log
	next cdc.LSN
	cuts int
	seg  *segment // nil between two segments
	cur  cursor
}

// Reader starts at record from, which may be the one after the last. Below the
// first record it gives ErrTrimmed.
func (l *Log) Reader(from cdc.LSN) (*Reader, error) {
	v := l.current.Load()
	if next := l.Last() + 1; from == 0 || from > next {
		return nil, fmt.Errorf("wal: read from LSN %d: %w, the next one is %d", from, ErrNone, next)
	}
	if _, err := v.find(from); err != nil && len(v.segments) > 0 {
		return nil, err
	}
	return &Reader{log: l, next: from, cuts: v.cuts}, nil
}

// Next returns the next record as soon as it is durable; rec is valid until
// the following call. It ends with the error of ctx, with ErrTrimmed when Trim
// was faster, with ErrFailed when the log has failed or was closed and every
// durable record was read, or with ErrDamaged. A call after an error of ctx
// goes on where the last one stopped.
func (r *Reader) Next(ctx context.Context) (rec []byte, h cdc.Head, err error) {
	for {
		v := r.log.current.Load()
		if v.cuts != r.cuts {
			return nil, cdc.Head{}, fmt.Errorf("%w: while a reader was at LSN %d", ErrCut, r.next)
		}
		if r.next <= v.durable {
			return r.read(v)
		}
		if v.err != nil {
			return nil, cdc.Head{}, v.err
		}
		r.cur.rest()
		select {
		case <-v.changed:
		case <-ctx.Done():
			return nil, cdc.Head{}, ctx.Err()
		}
	}
}

// read reads record r.next, which is durable in v.
func (r *Reader) read(v *view) ([]byte, cdc.Head, error) {
	for {
		if r.seg == nil {
			seg, c, err := r.log.enter(v, r.next)
			if err != nil {
				return nil, cdc.Head{}, err
			}
			c.buf, c.bufAt = r.cur.buf[:0], 0
			r.seg, r.cur = seg, c
		}
		rec, h, err := r.cur.next(v.limit(r.seg))
		if errors.Is(err, io.EOF) && r.seg != v.last() {
			if err := r.Close(); err != nil {
				return nil, cdc.Head{}, err
			}
			continue
		}
		if err == nil && h.LSN != r.next {
			err = fmt.Errorf("%w: record %d where %d is due", cdc.ErrCorrupt, h.LSN, r.next)
		}
		if err != nil {
			return nil, cdc.Head{}, r.seg.broken(r.cur.offset, err)
		}
		r.next++
		return rec, h, nil
	}
}

// Close releases the open file.
func (r *Reader) Close() error {
	if r.seg == nil {
		return nil
	}
	r.seg = nil
	return r.cur.file.Close()
}

// broken is damaged, for a place where a record must be.
func (s *segment) broken(offset int64, err error) error {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: a record is missing", cdc.ErrCorrupt)
	}
	return s.damaged(offset, err)
}

// find gives the index of the segment that lsn belongs to.
func (v *view) find(lsn cdc.LSN) (int, error) {
	i := sort.Search(len(v.segments), func(i int) bool { return v.segments[i].first > lsn })
	if i == 0 {
		first := v.durable + 1
		if len(v.segments) > 0 {
			first = v.segments[0].first
		}
		return 0, fmt.Errorf("%w: LSN %d, the first one is %d", ErrTrimmed, lsn, first)
	}
	return i - 1, nil
}

// limit is how many bytes of seg readers of v may read. A segment that v does
// not have was trimmed, and so had been completed.
func (v *view) limit(seg *segment) int64 {
	if seg == v.last() {
		return v.end
	}
	return seg.end
}

// enter opens the segment of the durable record lsn and moves to it.
func (l *Log) enter(v *view, lsn cdc.LSN) (*segment, cursor, error) {
	i, err := v.find(lsn)
	if err != nil {
		return nil, cursor{}, err
	}
	seg := v.segments[i]
	file, err := l.opts.FS.Open(seg.path, os.O_RDONLY)
	if err != nil {
		if _, trimmed := l.current.Load().find(lsn); trimmed != nil {
			return nil, cursor{}, trimmed
		}
		return nil, cursor{}, fmt.Errorf("wal: read: %w", err)
	}
	near := seg.find(lsn)
	c := cursor{file: file, offset: near.offset}
	if err := c.skipTo(seg, near.lsn, lsn, v.limit(seg)); err != nil {
		return nil, cursor{}, errors.Join(seg.broken(c.offset, err), file.Close())
	}
	return seg, c, nil
}
