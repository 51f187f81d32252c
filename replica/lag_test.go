package replica

import (
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A quietBoard is a board of a replica that has applied LSN 10, and hears.
type quietBoard struct {
	*board
	t     *testing.T
	clock *setClock
}

func newQuietBoard(t *testing.T) *quietBoard {
	clock := &setClock{testTime}
	b := &quietBoard{board: newBoard("app", clock, Options{}.logger()), t: t, clock: clock}
	b.set(CatchingUp)
	b.apply(10)
	return b
}

func (b *quietBoard) apply(lsn cdc.LSN) {
	b.applied(Mark{Position: b.at(lsn), Transactions: uint64(lsn), CapturedAt: b.clock.now}, func(*Status) {})
}

func (*quietBoard) at(lsn cdc.LSN) cdc.Position {
	return cdc.Position{Lineage: cdc.ID{1}, Epoch: 1, LSN: lsn}
}

// hears takes h a second later, from a primary whose clock is off by h.Offset.
func (b *quietBoard) hears(h Heartbeat) {
	b.clock.now = b.clock.now.Add(time.Second)
	h.Position, h.Transactions = b.at(h.Published), uint64(h.Captured)
	h.SentAt, h.ReceivedAt = b.clock.now.Add(h.Offset), b.clock.now
	b.hear(h)
}

// is checks the state, and the lag in seconds; below 0: it is not known.
func (b *quietBoard) is(what string, state State, seconds float64) {
	b.t.Helper()
	s := b.status()
	switch {
	case s.State != state:
		b.t.Errorf("%s: it is %s since %v, want %s", what, s.State, s.Since, state)
	case seconds < 0 && (s.Lag.Seconds != nil || s.Lag.Since == nil):
		b.t.Errorf("%s: the lag is %+v, want unknown", what, s.Lag)
	case seconds >= 0 && (s.Lag.Seconds == nil || *s.Lag.Seconds != seconds):
		b.t.Errorf("%s: the lag is %+v, want %v s", what, s.Lag, seconds)
	}
}

// TestLagOfWhatCannotBePublished: NATS carries heartbeats, and its JetStream takes nothing.
func TestLagOfWhatCannotBePublished(t *testing.T) {
	b := newQuietBoard(t)
	b.hears(Heartbeat{State: "streaming", Published: 10, Captured: 10})
	b.is("even", Streaming, 0)
	for i := range cdc.LSN(20) {
		b.hears(Heartbeat{State: "offline", Published: 10, Captured: 11 + i})
		if i == 3 {
			b.is("for three seconds", Streaming, 4)
		}
	}
	b.is("for twenty seconds", Offline, 20)
	if s := b.status(); s.Lag.Transactions != 20 || s.Error == nil || s.Error.Text != "the primary is offline; its status says why" {
		t.Errorf("status %+v, error %+v", s, s.Error)
	}
	b.hears(Heartbeat{State: "streaming", Published: 30, Captured: 30})
	b.is("published", Streaming, 21)
	b.apply(30)
	b.is("applied", Streaming, 0)
}

// TestPublishedIsNotKnownYet: a primary that has just started knows what it has
// captured, and not what of it is published.
func TestPublishedIsNotKnownYet(t *testing.T) {
	b := newQuietBoard(t)
	b.clock.now = b.clock.now.Add(time.Hour)
	b.hears(Heartbeat{State: "streaming", Captured: 100_000})
	b.is("far behind", CatchingUp, 3601)
	b.apply(100_000)
	b.is("as far as was captured", CatchingUp, 0)
	b.hears(Heartbeat{State: "streaming", Captured: 100_000})
	b.is("the stream may go on otherwise", CatchingUp, 1)
	b.hears(Heartbeat{State: "streaming", Captured: 100_000, Published: 100_000})
	b.is("known", Streaming, 0)
}

// TestNothingIsCaptured: what is committed then, nobody knows.
func TestNothingIsCaptured(t *testing.T) {
	for _, c := range []struct {
		primary string
		want    State
	}{
		{"failed", Offline}, {"disk_full", Offline}, {"resyncing", Offline}, {"starting", Offline},
		{"streaming", Streaming}, // it is busy with a transaction of many rows
		{"", Streaming},
	} {
		b := newQuietBoard(t)
		level := b.clock.now.Add(time.Second)
		for i := range 7 {
			b.hears(Heartbeat{State: c.primary, Published: 10, Captured: 10, Level: time.Duration(i) * time.Second})
			if i == 4 {
				b.is(c.primary+" for four seconds", Streaming, 0)
			}
		}
		b.is(c.primary+" for six seconds", c.want, -1)
		if s := b.status(); !s.Lag.Since.Equal(level) || c.want == Offline && !s.Since.Equal(level) {
			t.Errorf("%s: since %v, the lag since %v; want %v", c.primary, s.Since, s.Lag.Since, level)
		}
		b.hears(Heartbeat{State: "streaming", Published: 10, Captured: 10})
		b.is("captured again", Streaming, 0)
	}
}

// TestEpochOfAnotherEnd: the primary has lost the end of its history, and writes
// another one. What was applied of the old one is not even with it.
func TestEpochOfAnotherEnd(t *testing.T) {
	b := newQuietBoard(t)
	b.clock.now = b.clock.now.Add(time.Second)
	at := b.at(9)
	at.Epoch = 2
	b.hear(Heartbeat{Position: at, Captured: 9, Published: 9, SentAt: b.clock.now, ReceivedAt: b.clock.now})
	b.is("an LSN above it", CatchingUp, 1)
}

// TestClockSetBackWhileBehind: the age of what is pending does not hang on a clock that
// somebody sets.
func TestClockSetBackWhileBehind(t *testing.T) {
	b := newQuietBoard(t)
	for range 60 {
		b.hears(Heartbeat{Published: 90, Captured: 90})
	}
	b.is("before", CatchingUp, 60)
	for i := range cdc.LSN(1800) {
		b.hears(Heartbeat{Published: 90 + i, Captured: 90 + i, Offset: -time.Hour})
	}
	b.is("half an hour", CatchingUp, 1859)
	b.apply(1000) // the next one was heard of 889 s ago
	if s := b.status(); *s.Lag.Seconds < 880 || *s.Lag.Seconds > 889 {
		t.Errorf("half of it is applied, and the lag is %v s", *s.Lag.Seconds)
	}
	if n := len(b.trail.heard); n > maxSightings {
		t.Errorf("%d sightings are kept", n)
	}
	b.apply(1889)
	b.is("all of it is applied", Streaming, 0)
}

// TestLagWithoutAFile: while the first snapshot is restored, or the file is gone, what is
// missing has no age.
func TestLagWithoutAFile(t *testing.T) {
	clock := &setClock{testTime}
	b := &quietBoard{board: newBoard("app", clock, Options{}.logger()), t: t, clock: clock}
	b.hears(Heartbeat{State: "streaming", Published: 5, Captured: 5})
	b.is("no file yet", Starting, -1)
	b.set(CatchingUp)
	b.apply(5)
	b.is("restored", Streaming, 0)
	b.absent()
	b.is("removed", Starting, -1)
}
