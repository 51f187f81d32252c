package replica

import (
	"fmt"
	"slices"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// silence is how long the path from the source, the capture included, may bring
// nothing until it counts as dead, and lag as unknown.
const silence = 5 * time.Second

// A Heartbeat is what the primary says of itself every second or so, through the
// whole path but not stored.
type Heartbeat struct {
	State     string       // of the primary, one word; "": not known
	Position  cdc.Position // of the last boundary published
	Captured  cdc.LSN
	Durable   cdc.LSN
	Published cdc.LSN // 0: not known yet

	Transactions uint64 // total at Captured
	Bytes        uint64 // total at Captured

	SentAt     time.Time     // primary's clock
	Level      time.Duration // how long before SentAt all that was committed was captured
	ReceivedAt time.Time     // replica's clock
	Offset     time.Duration // primary's clock minus the replica's, as measured
}

// pending is up to where there is something to apply: what is captured counts,
// whether it could be published or not.
func (h *Heartbeat) pending() cdc.LSN { return max(h.Captured, h.Published) }

// level is when, by the replica's clock, nothing can have been committed without
// being captured.
func (h *Heartbeat) level() time.Time { return h.ReceivedAt.Add(-h.Level) }

// works reports whether the primary captures and publishes, as far as it says.
func (h *Heartbeat) works() bool {
	return h.State == "" || h.State == "streaming" || h.State == "snapshotting"
}

// Lag is how far the replica is behind the primary. Transactions and Bytes count
// from the last heartbeat.
type Lag struct {
	Transactions uint64 `json:"transactions"`
	Bytes        uint64 `json:"bytes"` // of operations, before compression
	// Seconds is 0 when nothing is pending, else at least the age of the oldest
	// transaction not yet applied. It is null while nobody can know, which is so
	// since Since: a replica that is cut off, or whose primary does not capture,
	// never says 0.
	Seconds *float64   `json:"seconds"`
	Since   *time.Time `json:"since,omitempty"`
}

// A trail says since when something is pending, by the clock of the replica alone.
type trail struct {
	lineage cdc.ID
	heard   []sighting // ascending; none of them is applied
}

// A sighting is the first heartbeat that spoke of an LSN.
type sighting struct {
	at  time.Time
	lsn cdc.LSN
}

// maxSightings bounds a trail; beyond it every second one goes, and what it stood
// for is taken for younger.
const maxSightings = 512

// note takes what a heartbeat says.
func (t *trail) note(lineage cdc.ID, s sighting) {
	if t.lineage != lineage {
		*t = trail{lineage: lineage}
	}
	for len(t.heard) > 0 && t.heard[len(t.heard)-1].lsn > s.lsn { // what was captured gave way
		t.heard = t.heard[:len(t.heard)-1]
	}
	if n := len(t.heard); n > 0 && t.heard[n-1].lsn == s.lsn {
		return
	}
	t.heard = append(t.heard, s)
	if len(t.heard) > maxSightings {
		i := 0 // the first stays: it is the one that counts
		t.heard = slices.DeleteFunc(t.heard, func(sighting) bool { i++; return i%2 == 0 })
	}
}

// applied forgets what is applied.
func (t *trail) applied(at cdc.Position) {
	for at.Lineage == t.lineage && len(t.heard) > 0 && t.heard[0].lsn <= at.LSN {
		t.heard = t.heard[1:]
	}
}

// age is how long the oldest that is pending has been so, at least.
func (t *trail) age(now time.Time) time.Duration {
	if len(t.heard) == 0 {
		return 0
	}
	return now.Sub(t.heard[0].at)
}

// hear takes a heartbeat.
func (b *board) hear(h Heartbeat) {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.heard == nil || b.heard.Position != h.Position || b.heard.Published != h.Published
	b.heard = &h
	b.s.Source = Source{Position: h.Position, Captured: h.Captured, Durable: h.Durable, Published: h.Published, HeardAt: &h.ReceivedAt}
	b.trail.note(h.Position.Lineage, sighting{h.ReceivedAt, h.pending()})
	b.judge()
	if news { // what is applied may count only now
		b.wake()
	}
}

// behind reports whether something is pending, as far as the last heartbeat knows.
// What is published counts for that only once the primary has compared the stream
// with its own history; an epoch that is not reached is that of another end of it.
func (b *board) behind() bool {
	at, h := b.s.Applied, b.heard
	return h.Published == 0 || at.LSN < h.pending() || at.Lineage != h.Position.Lineage || at.Epoch < h.Position.Epoch
}

// judge notes that nothing is pending, as far as the last heartbeat knows.
func (b *board) judge() {
	b.trail.applied(b.s.Applied.Position)
	if b.heard == nil || b.behind() {
		return
	}
	b.even = b.heard.SentAt
	free := b.stuck() && !b.retried.IsZero() && b.heard.ReceivedAt.After(b.retried)
	if b.s.State == CatchingUp || free {
		b.move(Streaming)
	}
}

// silent reports whether no heartbeat comes.
func (b *board) silent(now time.Time) bool {
	return b.heard == nil || now.Sub(b.heard.ReceivedAt) > silence
}

// cutOff tells since when the replica does not get what the source does, and why if
// the primary is to blame; zero: it gets it.
func (b *board) cutOff(now time.Time) (since time.Time, because string) {
	h := b.heard
	switch {
	case b.unreachable(now):
		return b.cut, ""
	case h == nil:
		return time.Time{}, ""
	case b.silent(now):
		return h.ReceivedAt, ""
	case h.works():
		return time.Time{}, ""
	}
	because = fmt.Sprintf("the primary is %s; its status says why", h.State)
	if now.Sub(h.level()) > silence {
		return h.level(), because
	}
	if b.s.Applied.LSN >= h.Published && b.trail.age(now) > silence {
		return b.trail.heard[0].at, because
	}
	return time.Time{}, ""
}

func (b *board) lag(now time.Time) Lag {
	if b.heard == nil {
		return Lag{Since: &b.started}
	}
	l := Lag{Transactions: above(b.heard.Transactions, b.s.Applied.Transactions), Bytes: above(b.heard.Bytes, b.s.Applied.Bytes)}
	if level := b.heard.level(); now.Sub(level) > silence {
		l.Since = &level
		return l
	}
	if b.s.Applied.LSN == 0 { // nothing here is of any age yet
		l.Since = &b.started
		return l
	}
	var seconds float64
	if b.behind() {
		// The oldest transaction that is missing is younger than the last one
		// applied, and than the last heartbeat that left nothing to apply.
		oldest := b.s.Applied.CapturedAt
		if b.even.After(oldest) {
			oldest = b.even
		}
		// Those are times by a clock that somebody may have set since.
		seconds = max(now.Add(b.heard.Offset).Sub(oldest), b.trail.age(now), 0).Seconds()
	}
	l.Seconds = &seconds
	return l
}

func above(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
