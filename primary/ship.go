package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/wal"
)

// ErrFenced means that the stream holds records that this primary did not
// write: another one has, or had, the database. Nothing is overwritten.
var ErrFenced = errors.New("fenced: the stream belongs to another primary or another history")

// A StreamState is what a stream holds.
type StreamState struct {
	Exists      bool
	First, Last cdc.LSN // First is Last+1 when it is empty
	Messages    uint64
	Bytes       uint64
	MaxBytes    int64     // 0: no bound
	FirstTime   time.Time // when the oldest record was stored; zero: not known
}

// A Stream carries the records of one database; the sequence of a message is
// the LSN of its record. It has one method more than an interface should,
// because a publisher has to trim, too.
//
// Errors that the caller branches on have a method Condition() string:
// "sequence", "full", "no_stream", "unavailable".
type Stream interface {
	State(ctx context.Context) (StreamState, error)
	Create(ctx context.Context, first cdc.LSN) error
	Get(ctx context.Context, lsn cdc.LSN) ([]byte, error)
	Publish(ctx context.Context, after cdc.LSN, next func(context.Context) ([]byte, cdc.LSN, error), acked func(cdc.LSN)) error
	PurgeBelow(ctx context.Context, lsn cdc.LSN) error
	PurgeThrough(ctx context.Context, after, lsn cdc.LSN) error
}

func condition(err error) string {
	var c interface{ Condition() string }
	if errors.As(err, &c) {
		return c.Condition()
	}
	return ""
}

// errRefused means that the stream is full. That NATS has no room for a stream, or for
// its bounds, is something else: no snapshot helps.
var errRefused = errors.New("the next record is refused")

const (
	shipRetryFirst = 100 * time.Millisecond
	shipRetryLast  = 2 * time.Second
)

// A shipper publishes the change log to the stream, from wherever the stream
// ends.
type shipper struct {
	stream Stream
	log    *wal.Log
	logger *slog.Logger

	published atomic.Uint64
	epoch     publishedEpoch // at published
	// ours is set while it publishes to a stream that it has compared: at any other
	// time stream and snapshots may be another primary's by now.
	ours atomic.Bool
	// makeRoom is called when the stream is full, and names a snapshot that stands in
	// for all up to it, 0 for none.
	makeRoom func(ctx context.Context) (cdc.LSN, error)
	room     cdc.LSN // what makeRoom has named and is still to go; Run's own
	// trouble reports what the shipper waits for; nil when it ships.
	trouble func(error)
	moved   func() // published has changed
	taken   func() // the stream is ours
	created func() // a stream is made: what else NATS held may be gone, too

	recovery *recovery // tells what this node wrote and lost; nil: all that is unknown is foreign
}

// Run ships until ctx ends or the change log fails or the primary is fenced.
func (s *shipper) Run(ctx context.Context) error {
	for pause := shipRetryFirst; ; pause = min(2*pause, shipRetryLast) {
		before := s.published.Load()
		err := s.once(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrFenced):
			s.trouble(err)
			return err
		case errors.Is(err, errBehind):
			return err
		case errors.Is(err, wal.ErrFailed), errors.Is(err, wal.ErrDamaged):
			return fmt.Errorf("%w: %w", errLog, err)
		case errors.Is(err, errRefused):
			room, failed := s.makeRoom(ctx)
			s.room, err = max(s.room, room), errors.Join(err, failed)
		}
		s.trouble(err)
		if s.published.Load() != before {
			pause = shipRetryFirst
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// once reconciles with the stream and publishes until the first error.
func (s *shipper) once(ctx context.Context) error {
	if err := s.awaitFirst(ctx); err != nil {
		return err
	}
	s.epoch.set(0)
	after, err := s.reconcile(ctx)
	if err != nil {
		return err
	}
	if after, err = s.giveRoom(ctx, after); err != nil {
		return err
	}
	if err := s.readEpoch(after); err != nil {
		return err
	}
	s.published.Store(uint64(after))
	s.moved()
	r, err := s.log.Reader(after + 1)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // reading only: nothing can be lost
	s.trouble(nil)
	s.ours.Store(true)
	defer s.ours.Store(false)
	s.taken()
	asked := false
	err = s.stream.Publish(ctx, after, func(ctx context.Context) ([]byte, cdc.LSN, error) {
		asked = true
		rec, h, err := r.Next(ctx)
		if err == nil {
			s.epoch.sent(h)
		}
		return rec, h.LSN, err
	}, func(lsn cdc.LSN) {
		s.epoch.acked(lsn)
		s.published.Store(uint64(lsn))
		s.moved()
	})
	if asked && condition(err) == "full" {
		err = fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

// giveRoom removes what the snapshot that makeRoom has named stands in for, from a stream
// that ends at after, and tells where it ends then. The snapshot has taken its time, so it
// is called only when the stream has been compared again.
func (s *shipper) giveRoom(ctx context.Context, after cdc.LSN) (cdc.LSN, error) {
	room := s.room
	if room <= after {
		s.room = 0 // should it fail, the stream is full again, and the snapshot is there
		if room == 0 {
			return after, nil
		}
		return after, s.stream.PurgeBelow(ctx, room)
	}
	if err := s.stream.PurgeThrough(ctx, after, room); err != nil {
		return 0, err
	}
	s.logger.Warn("the stream is too small for what waits to be published; replicas take up a new snapshot", "lsn", room)
	s.room = 0
	return room, nil
}

// readEpoch notes the epoch of the stream's last record, if the change log has it.
func (s *shipper) readEpoch(last cdc.LSN) error {
	if first := s.log.First(); first == 0 || last < first {
		return nil
	}
	b, err := s.log.Record(last)
	if errors.Is(err, wal.ErrTrimmed) {
		return nil
	}
	if err != nil {
		return err
	}
	h, err := cdc.ParseHead(b)
	s.epoch.set(h.Epoch)
	return err
}

// awaitFirst waits until the change log holds a record.
func (s *shipper) awaitFirst(ctx context.Context) error {
	if s.log.First() != 0 {
		return nil
	}
	r, err := s.log.Reader(s.log.Last() + 1)
	if err != nil {
		return err
	}
	_, _, err = r.Next(ctx)
	return errors.Join(err, r.Close())
}

// reconcile finds the LSN after which to publish, by comparing the stream's
// last record with the change log's. It never overwrites a foreign record.
func (s *shipper) reconcile(ctx context.Context) (cdc.LSN, error) {
	state, err := s.stream.State(ctx)
	if err != nil {
		return 0, err
	}
	first := s.log.First()
	if first == 0 { // nothing captured yet, so nothing to compare with either
		if state.Exists && state.Last > 0 {
			return 0, s.foreign(ctx, state, "this data directory has no change log")
		}
		return 0, nil
	}
	switch {
	case !state.Exists:
		// The change log begins outside of any transaction, so the stream can, too.
		s.created() // not only if it says so: the answer may be lost
		if err := s.stream.Create(ctx, first); err != nil {
			return 0, err
		}
		s.logger.Info("stream created", "first_lsn", first)
		return first - 1, nil
	case state.Last == 0 && first == 1:
		return 0, nil
	case state.Last > s.log.Last():
		return 0, s.foreign(ctx, state, fmt.Sprintf("the change log here ends at %d", s.log.Last()))
	case state.Last < first:
		return s.forward(ctx, state, first)
	case state.Messages == 0:
		return state.Last, s.emptied(ctx, state)
	}
	return state.Last, s.same(ctx, state, first)
}

// same checks that the stream's last record is ours. Where somebody has removed it, the last
// one that is left must be, and a snapshot where the stream ends.
func (s *shipper) same(ctx context.Context, state StreamState, first cdc.LSN) error {
	lsn, theirs, err := lastLeft(ctx, s.stream, state, state.Last)
	if err != nil {
		return err
	}
	if lsn < state.Last {
		if err := s.emptied(ctx, state); err != nil {
			return err
		}
	}
	if lsn < first {
		return s.below(ctx, state)
	}
	ours, err := s.log.Record(lsn)
	if err != nil {
		return err
	}
	if !bytes.Equal(ours, theirs) {
		return s.foreign(ctx, state, "its last record differs from the one in the change log here")
	}
	return nil
}

// recordAt reads one record of a stream; nil where state tells that records are missing.
//
// One that NATS counts and does not find is not missing. It was removed since state was asked
// for, which the next state tells, or a disk is in trouble: whose it is, is not known.
func recordAt(ctx context.Context, stream Stream, state StreamState, lsn cdc.LSN) ([]byte, error) {
	b, err := stream.Get(ctx, lsn)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if lsn < state.First || lsn > state.Last || state.Messages < uint64(state.Last-state.First+1) {
		return nil, nil
	}
	return nil, fmt.Errorf("record %d of the stream cannot be read, although NATS counts it, so whose the stream is cannot be told; it is asked again, "+
		"and if that does not end and there is no other primary, empty the stream with `nats stream purge%s`: %w", lsn, named(stream), err)
}

// lastLeft is the last record at or below from, with its number; 0 if there is none.
func lastLeft(ctx context.Context, stream Stream, state StreamState, from cdc.LSN) (cdc.LSN, []byte, error) {
	for lsn := from; lsn >= max(state.First, 1); lsn-- {
		if b, err := recordAt(ctx, stream, state, lsn); err != nil || b != nil {
			return lsn, b, err
		}
	}
	return 0, nil, nil
}

// emptied checks that a stream without a record was emptied by us, or by an operator,
// and not by another primary whose transaction did not fit.
func (s *shipper) emptied(ctx context.Context, state StreamState) error {
	if s.recovery == nil || state.Last == 0 {
		return nil
	}
	strange, err := s.recovery.strangers(ctx, s.log, state.Last)
	if err != nil || !strange {
		return err
	}
	return s.foreign(ctx, state, "the snapshot there is not of the history in the change log here")
}

// forward handles a stream that ends before the change log begins: what lies
// between is gone, so the stream goes on with the first record that is left,
// and replicas take up a snapshot. Nothing can be compared byte by byte.
func (s *shipper) forward(ctx context.Context, state StreamState, first cdc.LSN) (cdc.LSN, error) {
	compare := s.below
	if state.Messages == 0 {
		compare = s.emptied
	}
	if err := compare(ctx, state); err != nil {
		return 0, err
	}
	if state.Last+1 == first {
		return state.Last, nil
	}
	s.logger.Warn("the stream ends before the change log begins; it goes on at a later record, replicas take up a snapshot",
		"stream_last", state.Last, "first_lsn", first)
	return first - 1, s.stream.PurgeThrough(ctx, state.Last, first-1)
}

// below checks that the last boundary record in the stream, which is below the change log,
// is ours.
func (s *shipper) below(ctx context.Context, state StreamState) error {
	theirs, err := s.lastBoundary(ctx, state)
	if err != nil {
		return err
	}
	strange := theirs == nil
	if !strange {
		strange, err = strangeBelow(s.log, s.recovery, theirs.Boundary.Lineage, theirs.Boundary.Term, theirs.Epoch)
		if err != nil {
			return err
		}
	}
	if strange {
		return s.foreign(ctx, state, "its records are not of the history in the change log here")
	}
	return nil
}

// lastBoundary is the last boundary record in the stream; nil if there is none
// above what is no record at all.
func (s *shipper) lastBoundary(ctx context.Context, state StreamState) (*cdc.Record, error) {
	for from := state.Last; ; {
		lsn, b, err := lastLeft(ctx, s.stream, state, from)
		if err != nil || lsn == 0 {
			return nil, err
		}
		rec, err := cdc.DecodeBoundary(b)
		if err != nil {
			return nil, nil // nothing that we wrote
		}
		if rec.Boundary != nil {
			return &rec, nil
		}
		from = lsn - 1
	}
}

// foreign is the error for a stream that does not end as the change log has it:
// errBehind where this node wrote it all, else a fence.
func (s *shipper) foreign(ctx context.Context, state StreamState, why string) error {
	if s.recovery != nil {
		lost, err := s.recovery.find(ctx, s.log, state)
		if err != nil {
			return err
		}
		if lost != nil {
			return errBehind
		}
	}
	return fmt.Errorf("%w: it ends at record %d and %s; if the other primary is gone for good, delete the stream with "+
		"`nats stream rm%s`, otherwise stop this one", ErrFenced, state.Last, why, named(s.stream))
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
