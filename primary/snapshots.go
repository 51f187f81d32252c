package primary

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
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
	crowdedEvery    = 5 * time.Second // between two looks at where the stream begins and how full it is
	snapshotBackOff = 15 * time.Second
)

// A snapshotter makes, retains and trims below the snapshots of one pipeline.
type snapshotter struct {
	p        *Pipeline
	requests chan chan error
	wake     chan struct{} // has room for one: look at once whether a snapshot is due

	mu       sync.Mutex
	cancel   context.CancelCauseFunc // of the one being made
	newest   snapshot.Manifest
	oldest   cdc.LSN
	have     bool
	broken   cdc.LSN // the last break record known
	retryAt  time.Time
	recalled bool // what an earlier run left is known; Run's own
	// forgotten is set when the snapshots may be gone and must be looked at again.
	forgotten atomic.Bool
	// untrimmed is true from a new snapshot until everything below was trimmed;
	// Run's own.
	untrimmed bool
	crowded   bool      // the stream is nearly full
	looked    time.Time // at the stream
	acked     ackHistory
	percent   snapshot.Progress
	demand    demand
	readBack  reverifier
	needs     needs
	held      bool      // the last trim left what a replica holds; Run's own
	trimmed   time.Time // when that was
}

func newSnapshotter(p *Pipeline) *snapshotter {
	return &snapshotter{needs: needs{most: p.o.Snapshot.MaxHeld}, p: p, requests: make(chan chan error), wake: make(chan struct{}, 1), acked: ackHistory{keep: p.o.ChangeLog.RetainFor}, readBack: reverifier{p: p}}
}

// Run makes a snapshot whenever one is due or asked for, and trims.
func (s *snapshotter) Run(ctx context.Context, log *wal.Log) error {
	s.recalled = false
	var readers sync.WaitGroup
	defer readers.Wait()
	tick := time.NewTicker(dueEvery)
	defer tick.Stop()
	for {
		var asked chan error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case asked = <-s.requests:
		case <-s.wake:
		case <-tick.C:
		}
		if asked == nil {
			due, err := s.tick(ctx, log)
			if err != nil {
				return fmt.Errorf("%w: %w", errLog, err)
			}
			s.considerReadingBack(ctx, &readers, log)
			if !due {
				continue
			}
		}
		err := s.make(ctx)
		if asked != nil {
			asked <- err
		}
		if ctx.Err() != nil { // which is why it ended, and no failure
			return ctx.Err()
		}
		s.report(err)
		s.untrimmed = s.untrimmed || err == nil
		s.trim(ctx)
	}
}

// tick trims, and reports whether a snapshot is due. Its error is the change
// log's.
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
	s.lookAtStream(ctx)
	s.untrimmed = s.untrimmed || s.readBack.foundDamage()
	s.trim(ctx)
	return s.due(log), nil
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
	if err := s.refresh(ctx, log.Tail().Position.Lineage); err != nil {
		s.p.status.trouble(troubleSnapshot, err)
		return false, nil
	}
	s.p.status.trouble(troubleSnapshot, nil)
	broken, err := lastBreak(ctx, log, s.newestLSN()+1)
	if err != nil {
		return false, err
	}
	s.noteBreak(broken)
	return true, nil
}

// forget makes the next tick look at what snapshots there are.
func (s *snapshotter) forget() { s.forgotten.Store(true) }

// refresh notes what snapshots there are of this history.
func (s *snapshotter) refresh(ctx context.Context, lineage cdc.ID) error {
	list, err := snapshot.List(ctx, s.p.o.Snapshots)
	if err != nil && list == nil {
		return err
	}
	list = slices.DeleteFunc(list, func(m snapshot.Manifest) bool { return m.Position.Lineage != lineage })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest, s.oldest = snapshot.Manifest{}, 0
	if s.have = len(list) > 0; s.have {
		s.newest, s.oldest = list[len(list)-1], list[0].Position.LSN
	}
	return nil
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
	case !s.have, s.newest.Position.LSN < s.broken, s.newest.Position.Lineage != tail.Position.Lineage:
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

// lookAtStream notes where the stream begins, and whether it is four fifths
// full: then a snapshot lets it be trimmed before it refuses records.
func (s *snapshotter) lookAtStream(ctx context.Context) {
	now := s.p.o.Clock()
	if now.Sub(s.looked) < crowdedEvery {
		return
	}
	s.looked = now
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

// Snapshot makes a snapshot now and returns when it is complete.
func (p *Pipeline) Snapshot(ctx context.Context) (snapshot.Manifest, error) {
	done := make(chan error, 1)
	select {
	case p.snapshots.requests <- done:
	case <-ctx.Done():
		return snapshot.Manifest{}, context.Cause(ctx)
	}
	select {
	case err := <-done:
		p.snapshots.mu.Lock()
		defer p.snapshots.mu.Unlock()
		return p.snapshots.newest, err
	case <-ctx.Done():
		return snapshot.Manifest{}, context.Cause(ctx)
	}
}

// make freezes the source and copies it into the store.
func (s *snapshotter) make(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.setCancel(cancel)
	defer s.setCancel(nil)
	frozen, err := s.p.freeze(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = frozen.Close() }() // a read transaction: nothing to lose
	at, began := frozen.Boundary.Source, s.p.o.Clock()
	m, err := snapshot.Make(ctx, s.p.o.Snapshots, frozen, snapshot.Manifest{
		Database: s.p.o.Name, Node: s.p.o.Node, Position: frozen.At, Totals: snapshot.TotalsOf(frozen.Boundary), Source: &at,
		Tables: frozen.tableSums(),
	}, s.options())
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	s.mu.Lock()
	s.newest, s.have, s.percent = m, true, snapshot.Progress{}
	s.demand.met()
	s.mu.Unlock()
	s.p.changed.notify()
	s.p.o.Logger.Info("snapshot made", "lsn", m.Position.LSN, "bytes", m.Size(), "stored_bytes", m.StoredSize(), "took", s.p.o.Clock().Sub(began))
	return nil
}

func (s *snapshotter) options() snapshot.Options {
	said := progressLog{what: "making a snapshot", clock: s.p.o.Clock, logger: s.p.o.Logger}
	return snapshot.Options{
		Codec: s.p.o.Snapshot.Codec, ChunkBytes: s.p.o.Snapshot.ChunkBytes, Clock: storeClock(s.p.o.Clock),
		Progress: func(p snapshot.Progress) {
			said.note(p)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.percent = p
		},
	}
}

// A storeClock is the pipeline's clock for package snapshot.
type storeClock func() time.Time

// Now implements snapshot.Clock.
func (c storeClock) Now() time.Time { return c() }

// Sleep implements snapshot.Clock.
func (storeClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

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

// trim deletes, once after each new snapshot, old snapshots and then what no
// kept snapshot needs of the stream. What fails is tried again at the next tick.
func (s *snapshotter) trim(ctx context.Context) {
	now := s.p.o.Clock()
	if !s.untrimmed && s.held && now.Sub(s.trimmed) >= holdLook {
		s.untrimmed = true
	}
	if !s.untrimmed || s.p.published() == 0 { // until then another primary may own stream and snapshots
		return
	}
	s.mu.Lock()
	lineage, newest := s.newest.Position.Lineage, s.newest.ID
	s.mu.Unlock()
	s.held, s.trimmed = false, now
	_, oldest, err := snapshot.Retain(ctx, s.p.o.Snapshots, snapshot.Retention{
		Keep: s.p.o.Snapshot.Keep, Hold: s.needs.snapshots(now, lineage, &s.held),
		Drop: func(m snapshot.Manifest) bool {
			return m.Position.Lineage != lineage || m.ID != newest && s.readBack.isDamaged(m.ID)
		},
	})
	if err == nil && oldest > 0 {
		err = s.purge(ctx, oldest)
	}
	s.untrimmed = err != nil
	if err != nil && ctx.Err() == nil {
		s.p.o.Logger.Debug("trimming failed; it is tried again", "err", err)
	}
}

// purge trims the stream below the oldest snapshot and what replicas hold within
// the bounds or, where it is nearly full, below the newest.
func (s *snapshotter) purge(ctx context.Context, oldest cdc.LSN) error {
	s.mu.Lock()
	s.oldest = oldest
	keep := oldest
	now, o := s.p.o.Clock(), s.p.o.Snapshot
	old := o.StreamAge > 0 && !s.demand.oldest.IsZero() && now.Sub(s.demand.oldest) > o.StreamAge
	switch {
	case s.crowded:
		keep, s.crowded = s.newest.Position.LSN, false
	case !old && s.demand.bytes <= uint64(o.MaxHeld):
		keep = s.needs.lowest(now, oldest)
		s.held = s.held || keep < oldest
	}
	s.mu.Unlock()
	published := s.p.published()
	if published == 0 {
		return nil
	}
	return s.p.o.Stream.PurgeBelow(ctx, min(keep, published))
}

// trimLog deletes segments of the change log that are not needed to rebuild the
// stream: below the oldest snapshot, which was read back, and acknowledged long
// enough ago to be durable on the other side. A change log past its bound keeps less, and in the
// end gives up what waits to be published: then the stream goes on above it and
// replicas take up a snapshot.
func (s *snapshotter) trimLog(log *wal.Log) error {
	s.mu.Lock()
	oldest, newest := s.oldest, s.newest.Position.LSN
	s.mu.Unlock()
	defer s.p.changed.notify()
	for _, below := range []cdc.LSN{min(oldest, s.readBack.below(), s.acked.before(s.p.o.Clock())), min(newest, s.p.published()), log.Durable()} {
		if err := log.Trim(below); err != nil {
			return err
		}
		if max := s.p.o.ChangeLog.MaxBytes; max <= 0 || log.Size() <= max {
			return nil
		}
	}
	return nil
}

// makeRoom frees space in a full stream: it keeps only what the newest snapshot
// needs, and makes a new snapshot when that is not enough. When one transaction
// is larger than the stream, the stream goes on above the snapshot.
func (s *snapshotter) makeRoom(ctx context.Context) error {
	stream, published := s.p.o.Stream, s.p.published()
	state, err := stream.State(ctx)
	if err != nil {
		return err
	}
	if newest := s.newestLSN(); newest > state.First && newest <= published {
		return stream.PurgeBelow(ctx, newest)
	}
	if err := s.resting(); err != nil {
		return err
	}
	m, err := s.p.Snapshot(ctx)
	if err != nil {
		return err
	}
	at := m.Position.LSN
	if at <= published {
		return stream.PurgeBelow(ctx, at)
	}
	s.p.o.Logger.Warn("the stream is too small for what waits to be published; replicas take up a new snapshot", "lsn", at)
	return stream.PurgeThrough(ctx, at)
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

// An ackHistory remembers what had been acknowledged a while ago.
type ackHistory struct {
	keep  time.Duration
	marks []ackMark // oldest first
}

type ackMark struct {
	at  time.Time
	lsn cdc.LSN
}

// note adds a mark, at most 60 for the time that is kept.
func (a *ackHistory) note(now time.Time, lsn cdc.LSN) {
	if n := len(a.marks); n > 0 && now.Sub(a.marks[n-1].at) < a.keep/60 {
		return
	}
	a.marks = append(a.marks, ackMark{now, lsn})
	for len(a.marks) > 1 && now.Sub(a.marks[1].at) >= a.keep {
		a.marks = a.marks[1:]
	}
}

// before is the last LSN known to have been acknowledged for long enough.
func (a *ackHistory) before(now time.Time) cdc.LSN {
	if len(a.marks) == 0 || now.Sub(a.marks[0].at) < a.keep {
		return 0
	}
	return a.marks[0].lsn
}
