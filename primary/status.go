package primary

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// States of a pipeline, one word each.
const (
	StateStarting     = "starting"
	StateWaiting      = "waiting"      // for the database file
	StateSnapshotting = "snapshotting" // the snapshot that replicas need is being made
	StateStreaming    = "streaming"
	StateResyncing    = "resyncing" // changes may have been missed
	StateOffline      = "offline"   // NATS does not answer; the change log goes on, unless it must first be known what was missed
	StateDiskFull     = "disk_full"
	StateFenced       = "fenced"
	StateFailed       = "failed"
)

// A Status is what a pipeline says of itself. Metrics and tests use it, too.
type Status struct {
	Name      string          `json:"name"`
	Path      string          `json:"path"`
	State     string          `json:"state"`
	Since     time.Time       `json:"since"`
	Error     string          `json:"error,omitempty"`
	LSN       LSNs            `json:"lsn"`
	Position  cdc.Position    `json:"position"` // captured
	Totals    snapshot.Totals `json:"totals"`   // at Position
	Level     time.Time       `json:"level_at"` // what was committed before is captured; the start, while that has never been so
	Snapshot  SnapshotStatus  `json:"snapshot"`
	Capture   CaptureStatus   `json:"capture"`
	Sums      SumStatus       `json:"row_set_hashes"`
	ChangeLog ChangeLogStatus `json:"change_log"`
	Reports   ReportStatus    `json:"bug_reports"`
	Audits    int             `json:"audits"` // comparisons with replicas, each of which holds a pin
}

// LSNs say how far each step has come.
type LSNs struct {
	Captured  cdc.LSN `json:"captured"`
	Durable   cdc.LSN `json:"durable"`
	Published cdc.LSN `json:"published"`
	// Epoch is that of the last record published, 0 while it is not known. The
	// epoch of Position may never be published, as another primary may be first.
	Epoch cdc.Epoch `json:"published_epoch"`
}

// A SnapshotStatus describes the snapshots of a database.
type SnapshotStatus struct {
	Newest  cdc.LSN            `json:"newest_lsn"`
	Oldest  cdc.LSN            `json:"oldest_lsn"`
	Made    time.Time          `json:"made_at,omitzero"`
	Bytes   int64              `json:"bytes"`
	Stored  int64              `json:"stored_bytes"`
	Working *snapshot.Progress `json:"progress,omitempty"`
}

// A CaptureStatus describes what the capture does to the source.
type CaptureStatus struct {
	SQLiteWALBytes int64          `json:"sqlite_wal_bytes"`
	Generations    uint64         `json:"generations"`
	Repins         uint64         `json:"repins"`
	Turnovers      uint64         `json:"turnovers"`
	Unfinished     uint64         `json:"turnovers_unfinished"`
	Yields         uint64         `json:"yields"`
	Stalls         StallHistogram `json:"stalls"` // of writers, by turnovers
	SpilledBytes   int64          `json:"spilled_bytes"`
	Held           *HeldWAL       `json:"sqlite_wal_held,omitempty"` // by a reader; nil: by none
}

// A ChangeLogStatus describes the change log on disk.
type ChangeLogStatus struct {
	First cdc.LSN `json:"first_lsn"`
	Bytes int64   `json:"bytes"`
}

// A trouble is what one part of the pipeline waits for.
type trouble int

const (
	troubleCapture trouble = iota
	troubleShip
	troubleSnapshot
	troubleLog
	troubleCheckpoint
	troubles // their number
)

// A statusBoard is where the parts of a pipeline note how they are.
type statusBoard struct {
	mu      sync.Mutex
	clock   func() time.Time
	started bool
	errs    [troubles]error
	state   string
	why     error     // of state; nil: nothing is wrong
	needs   bool      // a snapshot
	since   time.Time // when state began
	level   time.Time // when all that was committed was captured last; before that has ever been, the start

	position cdc.Position
	totals   snapshot.Totals
	capture  CaptureStatus
	sums     SumStatus
	log      *wal.Log
}

func (b *statusBoard) init(clock func() time.Time) {
	b.clock, b.state, b.since = clock, StateStarting, clock()
	b.level = b.since
}

// trouble notes what a part waits for; nil when it works.
func (b *statusBoard) trouble(t trouble, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs[t] = err
	if t == troubleCapture && err != nil { // and so is our own pin
		b.capture.Held = nil
	}
	if t == troubleCapture && err == nil {
		b.started = true
	}
	b.judge()
}

// judge derives the state from what is known. It runs when that changes, whether anybody
// looks or not, so that a state begins when it begins. The caller holds the lock.
func (b *statusBoard) judge() {
	state, why := b.word(b.needs)
	if state != b.state {
		b.state, b.since = state, b.clock()
	}
	b.why = why
}

// needing notes whether a snapshot is needed.
func (b *statusBoard) needing(snapshot bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.needs = snapshot
	b.judge()
}

func (b *statusBoard) durable(log *wal.Log) {
	tail := log.Tail()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.started = false
	b.log, b.position, b.totals = log, tail.Position, snapshot.TotalsOf(tail.Boundary)
	b.judge()
}

// captured notes how far c has come, with all that was committed before level, and
// reports whether that is news.
func (b *statusBoard) captured(c *capture, level time.Time) bool {
	at, f := c.encoder.Position(), c.follower
	b.mu.Lock()
	defer b.mu.Unlock()
	b.level = level
	news := (b.capture.Held == nil) != (c.upkeep.reader == nil)
	b.capture = CaptureStatus{
		SQLiteWALBytes: int64(f.position().Frame) * int64(f.view.pageSize),
		Generations:    f.stats.Generations, Repins: f.stats.Repins, Turnovers: f.stats.Turnovers,
		Unfinished: f.stats.Unfinished, Yields: f.stats.Yields, Stalls: f.stats.Stalls, SpilledBytes: c.sorter.spilled(),
		Held: c.upkeep.reader,
	}
	sums := SumStatus{Tables: len(c.sums.tables), Known: c.sums.known, Damage: c.sums.damage()}
	if at == b.position && sums == b.sums && !news {
		return false
	}
	b.sums = sums
	b.position, b.totals = at, snapshot.TotalsOf(c.encoder.Last())
	return true
}

func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || sqlite.IsFull(err)
}

// word derives the state from the troubles and tells which error explains it.
// The caller holds the lock.
func (b *statusBoard) word(needSnapshot bool) (string, error) {
	ship, capture, log := b.errs[troubleShip], b.errs[troubleCapture], b.errs[troubleLog]
	switch {
	case errors.Is(ship, ErrFenced):
		return StateFenced, ship
	case isDiskFull(log), isDiskFull(capture):
		return StateDiskFull, errors.Join(log, capture)
	case log != nil:
		return StateFailed, log
	case errors.Is(capture, errAwaited):
		return StateOffline, capture
	case errors.Is(capture, errAbsent):
		return StateWaiting, capture
	case errors.Is(capture, errReservedName): // until it goes
		return StateFailed, capture
	case errors.Is(capture, errLost), errors.Is(capture, errReplaced), errors.Is(capture, errMissed),
		errors.Is(capture, errPastSQLite), errors.Is(capture, errUndecodable), errors.Is(capture, errHeaderChanged):
		return StateResyncing, capture
	case capture != nil:
		return StateFailed, capture
	case !b.started:
		return StateStarting, nil
	case ship != nil:
		return StateOffline, ship
	case needSnapshot:
		return StateSnapshotting, cmp.Or(b.errs[troubleCheckpoint], b.errs[troubleSnapshot])
	}
	return StateStreaming, cmp.Or(b.errs[troubleCheckpoint], b.errs[troubleSnapshot])
}

// A Reach is how far a pipeline has come.
type Reach struct {
	State    string
	LSN      LSNs
	Position cdc.Position    // captured
	Totals   snapshot.Totals // at Position
	Level    time.Time       // what was committed before is captured; the start, while that has never been so
}

// Reach is the part of Status that is asked for all the time.
func (p *Pipeline) Reach() Reach {
	shipped := p.shippedLSN()
	p.status.mu.Lock()
	defer p.status.mu.Unlock()
	return p.status.reach(shipped)
}

// shippedLSN is what the shipper knows.
func (p *Pipeline) shippedLSN() (l LSNs) {
	l.Published = p.published()
	if ship := p.ship.Load(); ship != nil {
		l.Epoch = ship.epoch.get()
	}
	return l
}

// reach completes what the shipper knows. The caller holds the lock.
func (b *statusBoard) reach(l LSNs) Reach {
	l.Captured = b.position.LSN
	if b.log != nil {
		l.Durable = b.log.Durable()
	}
	return Reach{State: b.state, LSN: l, Position: b.position, Totals: b.totals, Level: b.level}
}

// Status is a copy of the present state.
func (p *Pipeline) Status() Status {
	s := Status{Name: p.o.Name, Path: p.o.Path, LSN: p.shippedLSN(), Audits: p.audits.reading()}
	p.status.needing(p.snapshots.status(&s.Snapshot))
	s.Reports = p.reports.state()
	b := &p.status
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.why != nil {
		s.Error = b.why.Error()
	}
	s.State, s.Since = b.state, b.since
	r := b.reach(s.LSN)
	s.LSN, s.Position, s.Totals, s.Level, s.Capture = r.LSN, r.Position, r.Totals, r.Level, b.capture
	s.Sums = p.summer.state(b.sums)
	if s.Error == "" {
		s.Error = s.Sums.Damage
	}
	if b.log != nil {
		s.ChangeLog = ChangeLogStatus{First: b.log.First(), Bytes: b.log.Size()}
	}
	return s
}

// status fills in what there is and reports whether replicas wait for a
// snapshot.
func (s *snapshotter) status(out *SnapshotStatus) (needed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*out = SnapshotStatus{Newest: s.newest.Position.LSN, Oldest: s.oldest, Made: s.newest.CreatedAt, Bytes: s.newest.Size(), Stored: s.newest.StoredSize()}
	if s.percent.Total > 0 || s.percent.Waits != "" {
		progress := s.percent
		out.Working = &progress
	}
	return !s.have || s.newest.Position.LSN < s.broken
}
