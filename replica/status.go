package replica

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A State says what a replica is doing, in one word.
type State string

// The states.
const (
	Starting   State = "starting"
	Waiting    State = "waiting"     // for a snapshot that does not exist yet
	Restoring  State = "restoring"   // a snapshot, into a new file or, as a difference, into the live one
	CatchingUp State = "catching_up" // applying what the source did a while ago
	Streaming  State = "streaming"   // applying what the source does
	Offline    State = "offline"     // cut off from the stream, the primary or its own file; trying again
	DiskFull   State = "disk_full"   // trying again
	Diverged   State = "diverged"    // the file is not equal to the source
	Failed     State = "failed"      // only a person can help; see Status.Error
)

// catchUpRecords is the number of pending records from which a streaming replica
// counts as catching up again.
const catchUpRecords = 1000

// Status describes a replica at one moment. It feeds the status endpoint, the
// metrics and the tests.
type Status struct {
	Database  string    `json:"database"`
	State     State     `json:"state"`
	Since     time.Time `json:"since"`
	Applied   Mark      `json:"applied"`
	Needs     cdc.LSN   `json:"needs"` // the stream must keep what follows it, and the snapshot there while it is restored
	Source    Source    `json:"source"`
	Lag       Lag       `json:"lag"`
	Progress  *Progress `json:"progress,omitempty"` // of a restore, or of catching up
	Error     *Trouble  `json:"error,omitempty"`    // the last one; it may be over
	Counters  Counters  `json:"counters"`
	LeftOff   []LeftOff `json:"left_off_indexes,omitempty"`
	SQLiteWAL int64     `json:"sqlite_wal_bytes"` // of the replica's own file, after the last commit

	Verification *Verification `json:"verification,omitempty"` // nil without Apply.VerifyRows
}

// Source is the primary as its last heartbeat described it.
type Source struct {
	Position  cdc.Position `json:"position"`
	Captured  cdc.LSN      `json:"captured"`
	Durable   cdc.LSN      `json:"durable"`
	Published cdc.LSN      `json:"published"`
	HeardAt   *time.Time   `json:"heard_at"` // null: never
}

// Trouble is an error and when it occurred.
type Trouble struct {
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// Counters count since the start of the process.
type Counters struct {
	Transactions uint64 `json:"transactions"` // applied
	Changes      uint64 `json:"changes"`      // rows changed
	Records      uint64 `json:"records"`      // applied
	Commits      uint64 `json:"commits"`      // SQLite transactions
	Swaps        uint64 `json:"swaps"`        // SQLite transactions that a UNIQUE conflict made us do again
	Reseeds      uint64 `json:"reseeds"`
	Divergences  uint64 `json:"divergences"`
	Mismatches   uint64 `json:"row_hash_mismatches"` // divergences that only the hash of a table has shown
	StrayWrites  uint64 `json:"stray_writes"`
}

// A board holds what Status shows. Safe for concurrent use.
type board struct {
	clock Clock
	log   *slog.Logger

	mu      sync.Mutex
	s       Status
	started time.Time
	heard   *Heartbeat
	even    time.Time     // primary's clock: nothing was pending here, as of this heartbeat
	trail   trail         // of what is pending, by the replica's clock
	retried time.Time     // since when a replica that was stuck tries again; zero: it does not, or is not
	cut     time.Time     // since when the stream is out of reach; zero: it is not
	attempt time.Time     // when the running attempt to consume it began; zero: none runs
	told    time.Time     // when progress was logged last
	wrong   bool          // the file is known to differ from the source
	unequal string        // table that the last comparison found to differ; "": none has
	changed chan struct{} // closed at the next change of Applied or wrong; nil: nobody waits
}

func newBoard(database string, clock Clock, log *slog.Logger) *board {
	now := clock.Now()
	return &board{clock: clock, log: log, started: now, s: Status{Database: database, State: Starting, Since: now}}
}

// set changes the state and logs it.
func (b *board) set(to State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.move(to)
}

// stuck reports whether the file could not be written. That is so until a commit succeeds,
// or until a heartbeat says that there is nothing to commit.
func (b *board) stuck() bool { return b.s.State == DiskFull || b.s.State == Offline }

// goesOn notes that records are taken up again.
func (b *board) goesOn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stuck() {
		b.retried = b.clock.Now()
		return
	}
	b.move(CatchingUp)
}

func (b *board) move(to State) {
	from := b.s.State
	if from == to {
		return
	}
	b.s.State, b.s.Since, b.s.Progress = to, b.clock.Now(), nil
	level := slog.LevelInfo
	if to == Diverged || to == Failed || to == DiskFull {
		level = slog.LevelError
	}
	b.log.Log(context.Background(), level, "replica is "+string(to), "lsn", b.s.Applied.LSN, "was", from)
}

// trouble notes an error, and reports whether it is the one noted last.
func (b *board) trouble(err error) (again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.retried = time.Time{}
	text := err.Error()
	again = b.s.Error != nil && b.s.Error.Text == text
	b.s.Error = &Trouble{Text: text, At: b.clock.Now()}
	return again
}

// attempting notes that the stream is being consumed, which is as good as being
// reached once it has lasted a while.
func (b *board) attempting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempt = b.clock.Now()
}

// lost notes that the stream could not be consumed.
func (b *board) lost(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	b.s.Error = &Trouble{Text: err.Error(), At: now}
	if b.cut.IsZero() || !b.unreachable(now) {
		b.cut = now
		b.log.Warn("stream out of reach; trying again", "err", err)
	}
	b.attempt = time.Time{}
}

// reached notes that a record came.
func (b *board) reached() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.cut.IsZero() {
		b.cut = time.Time{}
		b.log.Info("stream is back")
	}
}

func (b *board) unreachable(now time.Time) bool {
	return !b.cut.IsZero() && (b.attempt.IsZero() || now.Sub(b.attempt) < silence)
}

// foreign reports whether the primary speaks of another lineage than the file's.
func (b *board) foreign() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.elsewhere()
}

func (b *board) elsewhere() bool {
	return b.heard != nil && b.heard.Position.LSN != 0 && b.s.Applied.LSN != 0 && b.heard.Position.Lineage != b.s.Applied.Lineage
}

// standing is change, and why nothing that is applied counts, in words; "": it does.
func (b *board) standing() (changed <-chan struct{}, at Mark, but string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.elsewhere():
		but = ", of another history than the primary's"
	case b.wrong:
		but = ", in a file that differs from the source"
	}
	changed, at = b.next()
	return changed, at, but
}

// leadsOn reports whether the primary may have come by a position. One that owns the stream
// and is heard at present has not where it speaks of another lineage, or has not captured
// so much: who left a snapshot there is another primary, which is gone. While none is
// heard, any snapshot is better than none.
func (b *board) leadsOn(at cdc.Position) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent(b.clock.Now()) || b.heard.Position.LSN == 0 {
		return true
	}
	return b.heard.Position.Lineage == at.Lineage && at.LSN <= b.heard.Captured
}

// untilForeign calls stop when the primary speaks of another lineage than the
// file's, unless ctx ends before.
func (b *board) untilForeign(ctx context.Context, stop func()) {
	for {
		changed, _ := b.change()
		if b.foreign() {
			stop()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// needs notes which snapshot is being restored. The mark that is shown next ends it: until
// then what follows the snapshot must not be trimmed.
func (b *board) needs(lsn cdc.LSN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Needs = lsn
}

func (b *board) count(f func(*Counters)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.s.Counters)
}

// applied publishes a new mark and wakes who waits for one.
func (b *board) applied(m Mark, f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Applied, b.s.Needs = m, 0
	f(&b.s)
	b.judge()
	b.wake()
}

// wake wakes who waits for a change.
func (b *board) wake() {
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// absent notes that the file is not there: nothing is applied.
func (b *board) absent() {
	b.applied(Mark{}, func(s *Status) {
		s.LeftOff, s.SQLiteWAL, b.even = nil, 0, time.Time{}
		b.move(Starting)
	})
}

// change gives a channel that is closed at the next change of the position.
func (b *board) change() (<-chan struct{}, Mark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next()
}

func (b *board) next() (<-chan struct{}, Mark) {
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed, b.s.Applied
}

// status describes the replica now.
func (b *board) status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.s
	if s.Needs == 0 {
		s.Needs = s.Applied.LSN
	}
	now := b.clock.Now()
	if s.State == Streaming || s.State == CatchingUp {
		if since, because := b.cutOff(now); !since.IsZero() {
			s.State, s.Since = Offline, since
			if because != "" {
				s.Error = &Trouble{Text: because, At: since}
			}
		}
	}
	s.Lag = b.lag(now)
	return s
}

// Status describes the replica at this moment. It may be called concurrently.
func (r *Replica) Status() Status {
	s := r.board.status()
	s.Verification = r.sums.status()
	return s
}

// Heard takes a heartbeat of the primary. It may be called concurrently.
func (r *Replica) Heard(h Heartbeat) { r.board.hear(h) }

// Changed gives a channel that is closed when the position changes next. It may
// be called concurrently.
func (r *Replica) Changed() <-chan struct{} {
	c, _ := r.board.change()
	return c
}

// WaitFor returns once everything up to want's LSN is applied, in its epoch or a later
// one (0: any) of its lineage (zero: any), with the position; or with the error of ctx
// and the position so far. want's hash is not looked at. Nothing that is applied counts
// while the primary speaks of another history, as after its data directory was lost, or
// while the file is known to differ. It may be called concurrently.
func (r *Replica) WaitFor(ctx context.Context, want cdc.Position) (cdc.Position, error) {
	for {
		changed, at, but := r.board.standing()
		if at.LSN >= max(want.LSN, 1) && at.Epoch >= want.Epoch && (at.Lineage == want.Lineage || want.Lineage == cdc.ID{}) && but == "" {
			return at.Position, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return at.Position, fmt.Errorf("wait for LSN %d of %s: applied up to %d in epoch %d%s: %w", want.LSN, r.o.Database, at.LSN, at.Epoch, but, context.Cause(ctx))
		}
	}
}
