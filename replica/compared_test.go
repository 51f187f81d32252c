package replica

import (
	"context"
	"errors"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// view is one of the file as it is.
func (g *rig) view() *View {
	g.t.Helper()
	v, err := g.r.HoldAt(g.ctx, func(context.Context) (cdc.LSN, error) { return g.enc.Position().LSN, nil })
	must(g.t, err)
	g.t.Cleanup(func() { _ = v.Close() })
	return v
}

// TestComparedIsDivergence: what a comparison has found counts like what the replica
// finds by itself, and is mended on request, whatever the policy.
func TestComparedIsDivergence(t *testing.T) {
	for _, policy := range []Policy{Reseed, Stop} {
		t.Run(string(policy), func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two')")
			g.o.Apply.OnDivergence = policy
			diverged := g.reaches(Diverged)
			g.start()
			g.equal()
			must(t, ignoreCanceled(g.stop()))
			g.scribble("UPDATE t SET b='stray' WHERE a=1; " + unseen)
			g.run()
			view := g.view()
			if err := g.r.Repair(g.ctx); err != nil || g.r.Status().Counters.Reseeds != 0 {
				t.Errorf("nothing is known to be wrong: %v, %+v", err, g.r.Status().Counters)
			}
			g.r.Compared(view, []string{"t"})
			if policy == Stop {
				g.until(diverged)
				_, err := g.r.HoldAt(g.ctx, func(context.Context) (cdc.LSN, error) {
					t.Error("the primary was asked to freeze its state for nothing")
					return 0, nil
				})
				if s := g.r.Status(); !errors.Is(err, ErrDiverged) || s.State != Diverged || s.Counters.Reseeds != 0 {
					t.Errorf("%v; state %s, counters %+v", err, s.State, s.Counters)
				}
			}
			must(t, g.r.Repair(g.ctx))
			equalFiles(t, g.c, g.o.Path)
			if c := g.r.Status().Counters; c.Reseeds != 1 || c.Divergences != 1 {
				t.Errorf("counters %+v", c)
			}
			g.r.Compared(view, []string{"t"}) // of the file before
			if _, wrong := g.r.board.differing(); wrong {
				t.Error("what was found in a file that was seeded since counts")
			}
			g.step("INSERT INTO t VALUES(3,'three')")
			g.equal()
		})
	}
}

// TestComparedAgain: where the file differs again after it was made equal to a
// snapshot and the stream, only a newer snapshot helps.
func TestComparedAgain(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	waiting := g.reaches(Waiting)
	g.start()
	g.step("INSERT INTO t VALUES(1,1)")
	g.wait()
	for range 2 { // what was equal in between is another difference
		g.r.Compared(g.view(), []string{"t"})
		must(t, g.r.Repair(g.ctx))
		g.r.Compared(g.view(), nil)
	}
	g.r.Compared(g.view(), []string{"t"})
	must(t, g.r.Repair(g.ctx))
	select {
	case <-waiting:
		t.Fatal("a newer snapshot was waited for too early")
	default:
	}
	g.r.Compared(g.view(), []string{"t"})
	g.until(waiting)
	g.snaps.add(g.snapshot())
	must(t, g.r.Repair(g.ctx))
	g.step("INSERT INTO t VALUES(2,2)")
	g.equal()
	if c := g.r.Status().Counters; c.Reseeds != 4 {
		t.Errorf("counters %+v", c)
	}
}

// TestRepairGivesUp: who no longer waits leaves the replica as it is.
func TestRepairGivesUp(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	waiting := g.reaches(Waiting)
	g.start()
	g.wait()
	g.snaps.mu.Lock()
	g.snaps.list = nil
	g.snaps.mu.Unlock()
	g.r.Compared(g.view(), []string{"t"})
	g.until(waiting)
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	if err := g.r.Repair(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
