package primary

import (
	"context"
	"errors"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// trim deletes, once after each new snapshot, old snapshots and then what no
// kept snapshot needs of the stream. What fails is tried again at the next tick.
func (s *snapshotter) trim(ctx context.Context) {
	now := s.p.o.Clock()
	if !s.untrimmed && s.held && now.Sub(s.trimmed) >= holdLook {
		s.untrimmed = true
	}
	if !s.untrimmed || !s.p.ours() || s.p.published() == 0 { // an empty stream proves nothing
		return
	}
	s.mu.Lock()
	lineage, newest := s.newest.Position.Lineage, s.newest.ID
	s.mu.Unlock()
	s.held, s.trimmed = false, now
	_, oldest, err := snapshot.Retain(ctx, s.p.o.Snapshots, snapshot.Retention{
		Keep: s.p.o.Snapshot.Keep, Hold: s.needs.snapshots(now, lineage, &s.held),
		Drop: func(m snapshot.Manifest) (bool, error) {
			if !s.p.ours() { // any more
				return false, errUncompared
			}
			ours, err := s.p.recovery().isOurs(s.log, m)
			return !ours || m.ID != newest && s.readBack.isDamaged(m.ID), err
		},
	})
	// A snapshot that cannot be read is left alone, and changes nothing for the others.
	done := err == nil || oldest > 0 && !errors.Is(err, snapshot.ErrLeft)
	if oldest > 0 {
		purged, failed := s.purge(ctx, oldest)
		done, err = done && purged, errors.Join(err, failed)
	}
	s.untrimmed = !done
	if err != nil && ctx.Err() == nil {
		s.p.o.Logger.Debug("trimming failed; it is tried again", "err", err)
	}
}

// purge trims the stream below the oldest snapshot and what replicas hold within
// the bounds or, where it is nearly full, below the newest. It is done when all
// that is to go was published, and so is gone.
func (s *snapshotter) purge(ctx context.Context, oldest cdc.LSN) (done bool, err error) {
	s.lookAtStream(ctx)
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
	if !s.p.ours() { // any more
		return false, nil
	}
	err = s.p.o.Stream.PurgeBelow(ctx, min(keep, published))
	return err == nil && keep <= published, err
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
	published, most := s.p.published(), s.p.o.ChangeLog.MaxBytes
	for _, below := range []cdc.LSN{min(oldest, s.readBack.below(), s.acked.before(s.p.o.Clock())), min(newest, published)} {
		if err := log.Trim(below); err != nil {
			return err
		}
		if most <= 0 || log.Size() <= most {
			return nil
		}
	}
	// Until snapshots and stream are known, nothing seems to be needed less than the rest,
	// and a resync may wait for both.
	if known := s.recalled && published > 0; !known && log.Size() <= s.unknown {
		return nil
	}
	first := log.First()
	err := log.Trim(log.Durable())
	if now := log.First(); now != first {
		s.p.o.Logger.Warn("the change log is past change_log.max_size and has given up records that were not published, or that no snapshot has; "+
			"replicas take up a new snapshot", "max_size", most, "first_lsn", now, "was", first)
	}
	return err
}

// unknownBound is the size up to which a change log gives up nothing before stream and snapshots
// are known: a quarter of its bound more than the bound, or than it had at the start. What an
// earlier run left costs no disk that is not gone already.
func unknownBound(log *wal.Log, most int64) int64 { return max(log.Size(), most) + most/4 }

// makeRoom names a snapshot that lets a full stream go on when what it stands in for is
// removed, and makes a new one where what is published needs all that the stream holds. One
// that is above all that is published is for a transaction that is larger than the stream.
func (s *snapshotter) makeRoom(ctx context.Context) (cdc.LSN, error) {
	published := s.p.published()
	state, err := s.p.o.Stream.State(ctx)
	if err != nil || !state.Exists { // NATS has no room for a stream: no snapshot helps
		return 0, err
	}
	if newest := s.newestLSN(); newest > state.First && newest <= published {
		return newest, nil
	}
	if err := s.resting(); err != nil {
		return 0, err
	}
	m, err := s.p.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	return m.Position.LSN, nil
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
