package primary

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

func TestInspectionFindsAWrongSum(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		c.sums.tables["t4"].sum[1]--
		return nil
	}))
	noError(t, b.p.summer.inspect(b.ctx))
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().Sums.Mismatches == 1 && len(b.sums()) == 4 }))
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
	if b.has(cdc.Break) {
		t.Error("a wrong sum broke the history")
	}
}

// A wrong map is dealt with like missed changes. Without a way to rebuild the last
// state that is a break.
func TestInspectionFindsAWrongMap(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	noError(t, b.p.summer.inspect(b.ctx))
	b.exec("INSERT INTO t1 VALUES(1,1,1)") // or there would be nothing to inspect
	b.sync()
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		c.decoder.pages.set(c.decoder.schema.roots()[1], chainNext, 1)
		return nil
	}))
	noError(t, b.p.summer.inspect(b.ctx))
	if s := b.p.Status().Sums; s.Inspections != 2 || s.MapMismatches != 1 || s.Mismatches != 0 {
		t.Errorf("found %+v", s)
	}
	b.sync()
	if !b.has(cdc.Break) {
		t.Errorf("the records are %v", b.kinds())
	}
	b.known()
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
}

// A state that cannot be read says nothing against what is believed of it.
func TestInspectionOfAnUnreadableState(t *testing.T) {
	b := newBench(t, sumTables)
	c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	in, err := c.beginInspection(0)
	noError(t, err)
	defer in.job.frozen.Close()
	l, err := newLayouts()
	noError(t, err)
	defer l.Close()
	failure := errors.New("bad sector")
	n := 0
	mismatch, err := in.belief.compare(&pacedPages{in.job.frozen.view, func() error {
		if n++; n > 3 {
			return failure
		}
		return nil
	}}, in.job.frozen.view.pages, &pageMap{}, l)
	if mismatch != nil || !errors.Is(err, failure) {
		t.Errorf("mismatch %v, error %v", mismatch, err)
	}
}

func TestInspectionIsInterrupted(t *testing.T) {
	b := newBench(t, sumTables)
	c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	in, err := c.beginInspection(0)
	noError(t, err)
	defer in.job.frozen.Close()
	ctx, cancel := context.WithCancelCause(b.ctx)
	cancel(errSumSpace)
	s := b.summer()
	if mismatch, err := s.inspectMap(ctx, in); mismatch != nil || !errors.Is(err, errSumSpace) {
		t.Errorf("mismatch %v, error %v", mismatch, err)
	}
}

// TestInspectionOfALargeMap: it takes turns with the rows, and neither is left out,
// though nothing is written between them.
func TestInspectionOfALargeMap(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	b.p.summer.whole = 1
	inspect := func(want uint64) {
		t.Helper()
		noError(t, b.p.summer.inspect(b.ctx))
		if n := b.p.Status().Sums.Inspections; n != want {
			t.Fatalf("%d inspections, want %d", n, want)
		}
	}
	inspect(1)
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		c.sums.tables["t4"].sum[1]--
		return nil
	}))
	inspect(2)
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().Sums.Mismatches == 1 && len(b.sums()) == 4 }))
	inspect(2) // nothing is new since both
	b.exec("INSERT INTO t1 VALUES(1,1,1)")
	b.sync()
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		c.decoder.pages.set(c.decoder.schema.roots()[1], chainNext, 1)
		return nil
	}))
	inspect(3)
	if s := b.p.Status().Sums; s.MapMismatches != 1 {
		t.Errorf("found %+v", s)
	}
}
