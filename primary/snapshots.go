package primary

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/clock"
	"github.com/sqlite-replicator/replicator/internal/tick"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// errSnapshotSpace ends the making of a snapshot whose pin costs too much.
var errSnapshotSpace = errors.New("the SQLite WAL grew past half of max_sqlite_wal while the snapshot was read; it is tried again later")

// SnapshotOptions say when snapshots are made and how many are kept.
type SnapshotOptions struct {
	Interval   time.Duration // age at which a new one is made, if anything changed
	AfterBytes int64         // bytes of operations after which a new one is made
	StreamAge  time.Duration // age at which records leave the stream; snapshots are made often enough for it; 0: no bound
	MaxHeld    int64         // bytes of snapshots, and of the stream, up to which replicas that still need them hold them
	Keep       int
	ChunkBytes int
	Codec      snapshot.Codec
}

const (
	dueEvery        = time.Second     // between two looks at whether a snapshot is due
	crowdedEvery    = 4 * time.Second // between two looks at where the stream begins and how full it is
	snapshotBackOff = 15 * time.Second
)

// A snapshotter makes, retains and trims below the snapshots of one pipeline.
type snapshotter struct {
	p        *Pipeline
	requests chan chan made
	wake     chan struct{} // has room for one: look at once whether a snapshot is due

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of the one being made
	shelf
	retryAt time.Time
	// forgotten is set when the snapshots may be gone and must be looked at again.
	forgotten atomic.Bool
	// untrimmed is true from a new snapshot until everything below was trimmed;
	// Run's own.
	untrimmed bool
	crowded   bool      // the stream is nearly full
	looked    time.Time // at the stream
	percent   snapshot.Progress
	demand    demand
	readBack  reverifier
	needs     needs
	held      bool      // the last trim left what a replica holds; Run's own
	trimmed   time.Time // when that was
}

// A shelf is what is known of the snapshots over one opening of the change log. The next
// opening may find that records gave way to the stream's: a break that was among them, say,
// is none.
type shelf struct {
	log      *wal.Log
	newest   snapshot.Manifest // of this history
	oldest   cdc.LSN
	have     bool
	broken   cdc.LSN    // the last break record known
	recalled bool       // what an earlier run left is known; Run's own
	unknown  int64      // bytes that the change log may have while it is not; Run's own
	acked    ackHistory // Run's own
}

func newSnapshotter(p *Pipeline) *snapshotter {
	return &snapshotter{
		p: p, requests: make(chan chan made), wake: make(chan struct{}, 1),
		readBack: reverifier{p: p}, needs: needs{most: p.o.Snapshot.MaxHeld},
	}
}

// open begins over an opening of the change log. Nothing else of the snapshotter runs.
func (s *snapshotter) open(log *wal.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shelf = shelf{log: log, acked: ackHistory{keep: s.p.o.ChangeLog.RetainFor}, unknown: unknownBound(log, s.p.o.ChangeLog.MaxBytes)}
	s.readBack.open()
}

// Run makes a snapshot whenever one is due or asked for and its turn has come, and
// trims.
func (s *snapshotter) Run(ctx context.Context, log *wal.Log) error {
	q := newQueue(ctx, s)
	defer q.end()
	var readers sync.WaitGroup
	defer readers.Wait()
	ticks := tick.NewTicker(dueEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case asked := <-s.requests:
			q.asked = append(q.asked, asked)
			q.join()
			continue
		case done := <-q.turn:
			q.serve(done)
			continue
		case <-s.wake:
		case <-ticks.C:
			ticks.Next()
		}
		due, err := s.tick(ctx, log)
		if err != nil {
			return fmt.Errorf("%w: %w", errLog, err)
		}
		s.p.status.needing(s.status(&SnapshotStatus{}))
		s.considerReadingBack(ctx, &readers, log)
		if due || len(q.asked) > 0 {
			q.join()
		}
	}
}

// tick trims, and reports whether a snapshot is due and would be among ours. Its error
// is the change log's.
func (s *snapshotter) tick(ctx context.Context, log *wal.Log) (due bool, err error) {
	s.acked.note(s.p.o.Clock(), s.p.published())
	if err := s.trimLog(log); err != nil {
		return false, err
	}
	if s.forgotten.Swap(false) {
		s.recalled = false
	}
	if !s.recalled {
		if s.recalled, err = s.recall(ctx, log); err != nil || !s.recalled {
			return false, err
		}
	}
	// All databases at the same ticks, and with those who ask for the streams anyway.
	if now := s.p.o.Clock(); now.Truncate(crowdedEvery) != s.looked.Truncate(crowdedEvery) {
		s.lookAtStream(ctx)
	}
	s.untrimmed = s.untrimmed || s.readBack.foundDamage()
	s.trim(ctx)
	return s.p.ours() && s.due(log), nil
}

// considerReadingBack keeps the proof going that snapshots can stand in for what
// the change log is to give up.
func (s *snapshotter) considerReadingBack(ctx context.Context, readers *sync.WaitGroup, log *wal.Log) {
	s.mu.Lock()
	oldest := s.oldest
	s.mu.Unlock()
	s.readBack.consider(ctx, readers, log, oldest, s.lookAgain)
}

// lookAgain makes Run look at once whether something is due.
func (s *snapshotter) lookAgain() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// recall learns the state left by an earlier run: the newest snapshot, and
// whether a break record came after it. It is false while the store does not
// answer.
func (s *snapshotter) recall(ctx context.Context, log *wal.Log) (bool, error) {
	if err := s.refresh(ctx); err != nil {
		s.p.status.trouble(troubleSnapshot, err)
		return false, nil
	}
	s.p.status.trouble(troubleSnapshot, nil)
	broken, err := lastBreak(ctx, log, s.newestLSN()+1)
	if unreadable(err) {
		// Whether a break is there is not known, and nothing can be resynced from
		// before. What is published is the stream's, and goes on.
		s.p.o.Logger.Error("the change log cannot be read after the newest snapshot; another one is made, which needs none of it", "err", err)
		broken, err = log.Durable(), nil
	}
	if err != nil {
		return false, err
	}
	s.noteBreak(broken)
	s.p.changed.notify() // of what snapshots there are
	return true, nil
}

// forget makes the next tick look at what snapshots there are.
func (s *snapshotter) forget() { s.forgotten.Store(true) }

// refresh notes what snapshots there are of this history. Others are in the way of whoever
// takes up the newest, and are deleted as soon as that may be.
func (s *snapshotter) refresh(ctx context.Context) error {
	all, err := snapshot.List(ctx, s.p.o.Snapshots)
	if err != nil && all == nil {
		return err
	}
	var list []snapshot.Manifest
	for _, m := range all {
		ours, err := s.p.recovery().isOurs(s.log, m)
		if err != nil {
			return err
		}
		if ours {
			list = append(list, m)
		}
	}
	if n := len(all) - len(list); n > 0 {
		s.untrimmed = true
		s.p.o.Logger.Warn("there are snapshots of another history; they are deleted once the stream is known to be ours", "number", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest, s.oldest = snapshot.Manifest{}, 0
	if s.have = len(list) > 0; s.have {
		s.newest, s.oldest = list[len(list)-1], list[0].Position.LSN
	}
	return nil
}

// complete is the newest snapshot; zero: none is known.
func (s *snapshotter) complete() snapshot.Manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

func (s *snapshotter) newestLSN() cdc.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest.Position.LSN
}

// noteBreak tells that only a snapshot at or above lsn leads on.
func (s *snapshotter) noteBreak(lsn cdc.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = max(s.broken, lsn)
}

// begin tells that a term has begun, from a break record at lsn if that is not
// 0: replicas may wait for a snapshot.
func (s *snapshotter) begin(lsn cdc.LSN) {
	s.noteBreak(lsn)
	s.lookAgain()
}

// lastBreak is the LSN of the last break record at or above from, 0 for none.
func lastBreak(ctx context.Context, log *wal.Log, from cdc.LSN) (last cdc.LSN, err error) {
	end := log.Durable()
	from = max(from, log.First())
	if from == 0 || from > end {
		return 0, nil
	}
	r, err := log.Reader(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }() // reading only
	for lsn := from; lsn <= end; lsn++ {
		_, h, err := r.Next(ctx)
		if err != nil {
			return last, err
		}
		if h.Kind == cdc.Break {
			last = h.LSN
		}
	}
	return last, nil
}

// due reports whether a snapshot should be made now.
func (s *snapshotter) due(log *wal.Log) bool {
	now := s.p.o.Clock()
	tail := log.Tail()
	s.mu.Lock()
	defer s.mu.Unlock()
	if tail.Position.LSN == 0 || now.Before(s.retryAt) {
		return false
	}
	grown := tail.Boundary.Bytes - min(tail.Boundary.Bytes, s.newest.Totals.Bytes)
	o := s.p.o.Snapshot
	switch {
	case !s.have, s.newest.Position.LSN < s.broken:
		return true
	case s.readBack.isDamaged(s.newest.ID):
		return true
	case s.newest.Position.LSN+1 < log.First(), s.demand.open(now, s.newest):
		return true
	case s.crowded && s.newest.Position.LSN < s.p.published():
		return true
	case grown == 0:
		return false
	}
	return int64(grown) >= o.AfterBytes || ageOf(s.newest, now) >= o.interval()
}

// ageOf is how long ago a snapshot was made. One that is still to come was made
// before somebody set the clock back, nobody knows when.
func ageOf(m snapshot.Manifest, now time.Time) time.Duration {
	if m.CreatedAt.After(now) {
		return math.MaxInt64
	}
	return now.Sub(m.CreatedAt)
}

// interval is the age at which a snapshot is followed by the next one. The stream
// is trimmed below the oldest that is kept.
func (o SnapshotOptions) interval() time.Duration {
	if o.StreamAge > 0 {
		return min(o.Interval, o.StreamAge/time.Duration(max(o.Keep, 1)))
	}
	return o.Interval
}

// lookAtStream notes where the stream begins, what it holds, and whether it is four
// fifths full: then a snapshot lets it be trimmed before it refuses records.
func (s *snapshotter) lookAtStream(ctx context.Context) {
	s.looked = s.p.o.Clock()
	state, err := s.p.o.Stream.State(ctx)
	if err != nil {
		return // the shipper reports it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.demand.bytes, s.demand.oldest = state.Bytes, state.FirstTime
	s.crowded = state.MaxBytes > 0 && state.Bytes > uint64(state.MaxBytes)/5*4
	if s.demand.first = 0; state.Exists {
		s.demand.first = state.First
	}
}

// Snapshot makes a snapshot now and returns when it is complete and what it makes
// superfluous is gone, as far as it can go yet.
func (p *Pipeline) Snapshot(ctx context.Context) (snapshot.Manifest, error) {
	done := make(chan made, 1)
	select {
	case p.snapshots.requests <- done:
	case <-ctx.Done():
		return snapshot.Manifest{}, context.Cause(ctx)
	}
	select {
	case made := <-done:
		return made.snapshot, made.err
	case <-ctx.Done():
		return snapshot.Manifest{}, context.Cause(ctx)
	}
}

// made is what came of making a snapshot.
type made struct {
	snapshot snapshot.Manifest
	err      error
}

// make freezes the source and copies it into the store.
func (s *snapshotter) make(ctx context.Context) (m snapshot.Manifest, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.setCancel(cancel)
	defer s.setCancel(nil)
	frozen, err := s.freeze(ctx)
	if err != nil {
		return m, err
	}
	defer func() { _ = frozen.Close() }() // a read transaction: nothing to lose
	at, began := frozen.Boundary.Source, s.p.o.Clock()
	m, err = snapshot.Make(ctx, s.p.o.Snapshots, frozen, snapshot.Manifest{
		Database: s.p.o.Name, Node: s.p.o.Node, Position: frozen.At, Term: frozen.Boundary.Term, Totals: snapshot.TotalsOf(frozen.Boundary), Source: &at,
		Tables: frozen.tableSums(),
	}, s.options())
	if err != nil {
		return m, errors.Join(err, context.Cause(ctx))
	}
	s.mu.Lock()
	s.newest, s.have, s.percent = m, true, snapshot.Progress{}
	s.demand.met()
	s.mu.Unlock()
	s.p.changed.notify()
	s.p.o.Logger.Info("snapshot made", "lsn", m.Position.LSN, "bytes", m.Size(), "stored_bytes", m.StoredSize(), "took", s.p.o.Clock().Sub(began))
	return m, nil
}

// errNoTerm means that no capture was there to freeze the source, or that it had other
// things to do.
var errNoTerm = errors.New("nothing captures the source at the moment, or it is busy")

// freezePatience bounds how long a turn is spent on waiting for a term.
const freezePatience = 10 * time.Second

func (s *snapshotter) freeze(ctx context.Context) (*Frozen, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, freezePatience, errNoTerm)
	defer cancel()
	return s.p.freeze(ctx)
}

func (s *snapshotter) options() snapshot.Options {
	said := progressLog{what: "making a snapshot", clock: s.p.o.Clock, logger: s.p.o.Logger}
	return snapshot.Options{
		Codec: s.p.o.Snapshot.Codec, ChunkBytes: s.p.o.Snapshot.ChunkBytes, Clock: storeClock{now: s.p.o.Clock},
		Progress: func(p snapshot.Progress) {
			said.note(p)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.percent = p
		},
	}
}

// A storeClock is the pipeline's clock for package snapshot.
type storeClock struct {
	clock.System
	now func() time.Time
}

// Now implements snapshot.Clock.
func (c storeClock) Now() time.Time { return c.now() }

func (s *snapshotter) setCancel(cancel context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel = cancel
}

// interrupt ends the making of a snapshot, if one is being made.
func (s *snapshotter) interrupt(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel(why)
	}
}

// reading reports whether a snapshot holds a pin.
func (s *snapshotter) reading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cancel != nil
}

// busy reports whether a snapshot is being made, or restored by a replica.
func (s *snapshotter) busy() bool { return s.reading() || s.needs.restoring(s.p.o.Clock()) }

func (s *snapshotter) report(err error) {
	s.p.status.trouble(troubleSnapshot, err)
	if err == nil {
		return
	}
	s.p.o.Logger.Warn("snapshot failed; it is tried again", "err", err, "after", snapshotBackOff)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retryAt = s.p.o.Clock().Add(snapshotBackOff)
	s.percent = snapshot.Progress{}
}

// resting is an error as long as a failed snapshot is not to be tried again: each
// try reads the database and fills the store before it fails.
func (s *snapshotter) resting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p.o.Clock().Before(s.retryAt) {
		return errors.New("a new snapshot would make room; the last try failed, and the next one is due after a pause")
	}
	return nil
}

// freeze gives a frozen state of the source.
func (p *Pipeline) freeze(ctx context.Context) (f *Frozen, err error) {
	err = p.ask(ctx, func(c *capture) error {
		var err error
		f, err = c.freeze()
		return err
	})
	return f, err
}
