package wal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

var captured = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// A writer appends to a Log through an Encoder and remembers every record.
type writer struct {
	log *Log
	enc *cdc.Encoder
	out map[cdc.LSN][]byte
	n   int
}

func newWriter(log *Log, epoch cdc.Epoch) *writer {
	w := &writer{log: log, out: map[cdc.LSN][]byte{}}
	w.resume(log, epoch)
	return w
}

func (w *writer) resume(log *Log, epoch cdc.Epoch) {
	t := log.Tail()
	t.Boundary.Lineage = cdc.ID{1}
	w.log = log
	w.enc = cdc.NewEncoder(t, epoch, cdc.ID{2, byte(epoch)}, func(rec []byte, h cdc.Head, b *cdc.Boundary) error {
		w.out[h.LSN] = append([]byte(nil), rec...) // a failed append may have written it
		return w.log.Append(rec, h, b)
	})
}

func (w *writer) boundary() cdc.Boundary {
	w.n++
	return cdc.Boundary{CapturedAt: captured.Add(time.Duration(w.n) * time.Second), Source: cdc.SourcePosition{Frame: uint32(w.n)}}
}

func (w *writer) epoch() error { return w.enc.Epoch(w.boundary()) }

// begin adds a table and one row of size bytes that do not compress.
func (w *writer) begin(size int) error {
	row := make([]byte, size)
	x := uint64(w.n)*2654435761 + 12345
	for i := range row {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		row[i] = byte(x)
	}
	return w.row(row)
}

// parts begins a transaction of n part records, which are small on disk.
func (w *writer) parts(n int) error { return w.row(make([]byte, n*cdc.MaxBody-100)) }

func (w *writer) row(row []byte) error {
	table := &cdc.Table{Name: "t"}
	if err := w.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: table}, 0)); err != nil {
		return err
	}
	return w.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpInsert, Table: table, Rowid: int64(w.n), New: row}, 0))
}

// end completes what begin or parts began.
func (w *writer) end() error {
	if err := w.enc.End(w.boundary(), false); err != nil {
		return err
	}
	return w.enc.Flush()
}

// commit writes a transaction with one row as one record, or more if it is large.
func (w *writer) commit(size int) error {
	if err := w.begin(size); err != nil {
		return err
	}
	return w.end()
}

func must(t interface {
	Helper()
	Fatal(...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, fs durable.FS, dir string, segment int64) *Log {
	t.Helper()
	l, err := Open(dir, Options{FS: fs, SegmentBytes: segment})
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// readAll checks that the log holds exactly the records of want from first to
// last, and that they are chained.
func readAll(l *Log, want map[cdc.LSN][]byte, from, last cdc.LSN) error {
	r, err := l.Reader(from)
	if err != nil {
		return err
	}
	defer r.Close()
	var v *cdc.Verifier
	if from == 1 {
		v = cdc.NewVerifier(cdc.Position{})
	}
	done, cancel := context.WithCancel(context.Background())
	cancel() // so that Next does not wait
	for lsn := from; lsn <= last; lsn++ {
		rec, h, err := r.Next(done)
		if err != nil {
			return err
		}
		if h.LSN != lsn || string(rec) != string(want[lsn]) {
			return fmt.Errorf("record %d of %d bytes where %d of %d bytes was appended", h.LSN, len(rec), lsn, len(want[lsn]))
		}
		if v != nil {
			if _, err := v.Verify(rec, true); err != nil {
				return err
			}
		}
	}
	if l.Durable() != last {
		return fmt.Errorf("the log ends at %d, want %d", l.Durable(), last)
	}
	if _, h, err := r.Next(done); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("after the last record: record %d, %v", h.LSN, err)
	}
	return nil
}
