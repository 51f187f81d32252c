package replica

import (
	"sync"
	"testing"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// A restore waits while others have the memory, says so, and keeps the snapshot that it
// is about to restore from being trimmed.
func TestRestoreTakesItsTurn(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	g.o.Turns = snapshot.NewTurns(1)
	done, err := g.o.Turns.Take(g.ctx, 1, nil)
	must(t, err)
	waits := make(chan struct{})
	g.on("a restore waits for its turn", sync.OnceFunc(func() { close(waits) }))
	g.start()
	<-waits
	s := g.r.Status()
	if s.State != Restoring || s.Needs != 1 || s.Progress == nil || s.Progress.Waits == "" || s.Progress.Done != 0 {
		t.Errorf("while it waits: %+v, %+v", s, s.Progress)
	}
	done()
	g.equal()
	if s := g.r.Status(); s.Progress != nil && s.Progress.Waits != "" {
		t.Errorf("afterwards: %+v", s.Progress)
	}
}

// A stop does not wait for a turn.
func TestStopWhileARestoreWaits(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.o.Turns = snapshot.NewTurns(1)
	done, err := g.o.Turns.Take(g.ctx, 1, nil)
	must(t, err)
	waits := make(chan struct{})
	g.on("a restore waits", sync.OnceFunc(func() { close(waits) }))
	g.start()
	<-waits
	must(t, ignoreCanceled(g.stop()))
	done()
	again, err := g.o.Turns.Take(g.ctx, 1, func(string) { t.Error("a turn was kept") })
	must(t, err)
	again()
}
