package wal

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// maxBounds bounds the boundaries that are kept in memory: 64 Ki of 32 bytes.
const maxBounds = 64 << 10

// A bound is what lag needs of a boundary.
type bound struct {
	lsn          cdc.LSN
	capturedAt   int64 // nanoseconds since 1970; 0 when unknown
	transactions uint64
	bytes        uint64
}

func newBound(lsn cdc.LSN, b *cdc.Boundary) bound {
	n := bound{lsn: lsn, transactions: b.Transactions, bytes: b.Bytes}
	if !b.CapturedAt.IsZero() {
		n.capturedAt = b.CapturedAt.UnixNano()
	}
	return n
}

// boundaries holds the last boundaries, ascending, in a ring once it is full.
// Safe for concurrent use.
type boundaries struct {
	mu    sync.Mutex
	ring  []bound
	start int // of the oldest
}

func (x *boundaries) add(lsn cdc.LSN, b *cdc.Boundary) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := newBound(lsn, b)
	if len(x.ring) < maxBounds {
		x.ring = append(x.ring, n)
		return
	}
	x.ring[x.start] = n
	x.start = (x.start + 1) % maxBounds
}

// from gives the first boundary at or above lsn, if the ring proves that it is
// the first: it holds one below it as well.
func (x *boundaries) from(lsn cdc.LSN) (bound, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := func(i int) bound { return x.ring[(x.start+i)%len(x.ring)] }
	i := sort.Search(len(x.ring), func(i int) bool { return at(i).lsn >= lsn })
	if i == len(x.ring) || i == 0 && at(0).lsn != lsn {
		return bound{}, false
	}
	return at(i), true
}

// A Lag is what lies between a position and the last boundary of the log.
type Lag struct {
	Transactions uint64
	Bytes        uint64    // of operations, before compression
	Since        time.Time // when the oldest of the transactions was captured; zero when there are none
}

// Lag is how far a replica that has applied the boundary record applied is
// behind the last boundary that was appended. It is cheap for the last 64 Ki
// boundaries and reads the disk below. A position below the log gives
// ErrTrimmed; one above it has no lag. Applied 0 means nothing.
func (l *Log) Lag(applied cdc.LSN) (Lag, error) {
	last := l.lastBoundary()
	if applied >= last.lsn {
		return Lag{}, nil
	}
	var done bound
	if applied > 0 {
		var err error
		if done, err = l.bound(applied); err != nil {
			return Lag{}, fmt.Errorf("wal: lag behind LSN %d: %w", applied, err)
		}
	}
	next, err := l.bound(applied + 1)
	if err != nil {
		return Lag{}, fmt.Errorf("wal: lag behind LSN %d: %w", applied, err)
	}
	lag := Lag{Transactions: last.transactions - done.transactions, Bytes: last.bytes - done.bytes}
	if lag.Transactions > 0 && next.capturedAt != 0 {
		lag.Since = time.Unix(0, next.capturedAt).UTC()
	}
	return lag, nil
}

func (l *Log) lastBoundary() bound {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.state.history.tail
	return bound{lsn: t.Position.LSN, transactions: t.Boundary.Transactions, bytes: t.Boundary.Bytes}
}

func (l *Log) bound(lsn cdc.LSN) (bound, error) {
	if b, ok := l.bounds.from(lsn); ok {
		return b, nil
	}
	rec, err := l.Boundary(lsn)
	if err != nil {
		return bound{}, err
	}
	return newBound(rec.LSN, rec.Boundary), nil
}

// ErrNone means that there is no such record yet.
var ErrNone = errors.New("wal: no such record yet")

// Record returns a copy of the durable record lsn.
func (l *Log) Record(lsn cdc.LSN) ([]byte, error) {
	var out []byte
	err := l.at(lsn, func(seg *segment, c *cursor, limit int64) error {
		rec, h, err := c.next(limit)
		if err == nil && h.LSN != lsn {
			err = fmt.Errorf("%w: record %d where %d is due", cdc.ErrCorrupt, h.LSN, lsn)
		}
		if err != nil {
			return seg.broken(c.offset, err)
		}
		out = append([]byte(nil), rec...)
		return nil
	})
	return out, err
}

// Boundary returns the first durable boundary record at or above lsn, without
// its operations.
func (l *Log) Boundary(lsn cdc.LSN) (cdc.Record, error) {
	var out cdc.Record
	err := l.at(lsn, func(seg *segment, c *cursor, limit int64) error {
		for {
			h, err := c.head(limit)
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("%w: boundary at or above LSN %d", ErrNone, lsn)
			}
			if err != nil {
				return seg.broken(c.offset, err)
			}
			if !h.Kind.Boundary() {
				c.offset += int64(h.Length)
				continue
			}
			rec, _, err := c.next(limit)
			if err == nil {
				out, err = cdc.DecodeBoundary(rec)
			}
			if err != nil {
				return seg.broken(c.offset, err)
			}
			return nil
		}
	})
	return out, err
}

// at calls read with a cursor at the durable record lsn. A segment holds whole
// transactions, so that what belongs together is below its limit.
func (l *Log) at(lsn cdc.LSN, read func(seg *segment, c *cursor, limit int64) error) error {
	v := l.current.Load()
	if lsn > v.durable {
		return fmt.Errorf("%w: LSN %d, the last durable one is %d", ErrNone, lsn, v.durable)
	}
	seg, c, err := l.enter(v, lsn)
	if err != nil {
		return err
	}
	defer c.file.Close() // nothing was written
	return read(seg, &c, v.limit(seg))
}
