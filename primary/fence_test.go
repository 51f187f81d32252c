package primary

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/wal"
)

// TestGreaterEpochFences: whoever has seen a greater epoch of this history has
// heard another primary.
func TestGreaterEpochFences(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	at := b.sync()
	seen := at
	b.p.Heard("replica-1", seen) // its own
	seen.Lineage[0]++
	seen.Epoch += 7
	b.p.Heard("replica-1", seen) // of another history
	b.p.Heard("replica-1", cdc.Position{})
	b.exec("INSERT INTO t(v) VALUES(1)")
	at = b.sync()
	seen = at
	seen.Epoch++
	b.p.Heard("replica-1", seen)
	err := b.await()
	if !errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), "replica-1") {
		t.Errorf("Run returned %v", err)
	}
	if s := b.p.Status(); s.State != StateFenced || !strings.Contains(s.Error, "epoch 2") {
		t.Errorf("state %s: %s", s.State, s.Error)
	}
	if b.stream.last != at.LSN {
		t.Errorf("the stream ends at %d, synced %v", b.stream.last, at)
	}
}

// TestReportsSayNothingBeforeTheStream: a change log that lost its last term is
// below its own epoch until it has looked at the stream.
func TestReportsSayNothingBeforeTheStream(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.write(3)
	b.end()
	b.start()
	b.write(3)
	seen := b.sync()
	b.end()
	b.cutLog(2)
	b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
	b.start()
	if _, err := b.p.Snapshot(b.ctx); err != nil { // it captures
		t.Fatal(err)
	}
	seen.Epoch++ // of a term that it began and lost
	b.p.Heard("replica-1", seen)
	b.stream.set(func(s *fakeStream) { s.down = nil })
	if at := b.sync(); at.LSN <= seen.LSN {
		t.Errorf("at %v, the stream was at %v", at, seen)
	}
}

// TestFirstRecordOfATermFencesNobody: a replica may report it before the status
// of the primary tells of the term.
func TestFirstRecordOfATermFencesNobody(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	seen := b.sync()
	b.end()
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	log, err := wal.Open(filepath.Join(b.dir, "log"), wal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := &shipper{log: log}
	s.epoch.set(seen.Epoch)
	p.ship.Store(s)
	p.Heard("replica-1", seen)
	if len(p.fences) != 0 {
		t.Errorf("fenced: %v", <-p.fences)
	}
	seen.Epoch++
	if p.Heard("replica-1", seen); len(p.fences) != 1 {
		t.Error("not fenced")
	}
}

// TestPublishedEpoch follows the acknowledgements, not what was sent.
func TestPublishedEpoch(t *testing.T) {
	var e publishedEpoch
	e.set(3)
	for _, h := range []cdc.Head{{LSN: 7, Epoch: 3}, {LSN: 8, Epoch: 4}, {LSN: 9, Epoch: 4}, {LSN: 10, Epoch: 5}} {
		e.sent(h)
	}
	if e.acked(7); e.get() != 3 {
		t.Errorf("at 7: epoch %d", e.get())
	}
	if e.acked(9); e.get() != 4 {
		t.Errorf("at 9: epoch %d", e.get())
	}
	if e.acked(10); e.get() != 5 {
		t.Errorf("at 10: epoch %d", e.get())
	}
}
