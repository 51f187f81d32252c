package primary

import (
	"testing"
	"time"
)

// TestLevelStopsWithTheCapture: what is committed while nothing is captured is not
// covered by what Reach says.
func TestLevelStopsWithTheCapture(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.sync()
	until := func(what string, is func(Reach) bool) {
		t.Helper()
		for !is(b.p.Reach()) {
			nap(time.Millisecond)
			if b.ctx.Err() != nil {
				t.Fatalf("%s: %+v", what, b.p.Reach())
			}
		}
	}
	began := time.Now()
	until("it captures", func(r Reach) bool { return r.Level.After(began) })
	b.exec("CREATE TABLE _replicator_x(v)")
	until("a reserved name", func(r Reach) bool { return r.State == StateFailed })
	committed := time.Now()
	b.exec("DROP TABLE _replicator_x; INSERT INTO t(v) VALUES(1)")
	until("captured again", func(r Reach) bool {
		if r.State == StateFailed && r.Level.After(committed) {
			t.Fatalf("nothing is captured: %+v", r)
		}
		return r.Level.After(committed)
	})
	if at := b.p.Reach().Position; at.LSN < 3 { // its break record is the third
		t.Errorf("captured up to %v", at)
	}
}
