package sqlite

import (
	"os"
	"testing"
)

func checkpoint(t testing.TB, c *Conn, m CheckpointMode) Checkpoint {
	t.Helper()
	p, err := c.Checkpoint(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCheckpointMarks(t *testing.T) {
	c, path := openTest(t, Options{})
	ctl := reopen(t, path, Options{})
	mustExec(t, c, "CREATE TABLE t(a)")
	p := checkpoint(t, ctl, Noop)
	if p.Busy || !p.HasWAL || p.Frames == 0 || p.Backfilled != 0 {
		t.Errorf("after a write: %+v", p)
	}
	frames := p.Frames
	if p = checkpoint(t, ctl, Passive); p.Busy || p.Frames != frames || p.Backfilled != frames {
		t.Errorf("after passive: %+v, want %d frames backfilled", p, frames)
	}
	if p = checkpoint(t, ctl, Noop); p.Frames != frames || p.Backfilled != frames {
		t.Errorf("noop after passive: %+v", p)
	}
	if p = checkpoint(t, ctl, Truncate); p.Busy || p.Frames != 0 {
		t.Errorf("after truncate: %+v", p)
	}
}

func TestCheckpointNoopInsideTransaction(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a)")
	must(t, c.OpenRead())
	for _, m := range []CheckpointMode{Noop, Passive, Truncate} {
		if p := checkpoint(t, c, m); !p.Busy || p.HasWAL {
			t.Errorf("mode %d inside a read transaction: %+v", m, p)
		}
	}
	must(t, c.Rollback())
	if p := checkpoint(t, c, Noop); p.Busy || !p.HasWAL {
		t.Errorf("after the transaction: %+v", p)
	}
}

func TestCheckpointWithoutWAL(t *testing.T) {
	c := reopen(t, t.TempDir()+"/rollback.db", Options{Create: true})
	mustExec(t, c, "CREATE TABLE t(a)")
	if p := checkpoint(t, c, Noop); p.HasWAL || p.Busy {
		t.Errorf("rollback journal: %+v", p)
	}
}

func TestPinStopsTruncate(t *testing.T) {
	c, path := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	pin := reopen(t, path, Options{})
	must(t, pin.OpenRead())
	mustExec(t, c, "INSERT INTO t VALUES(2)")
	p := checkpoint(t, c, Truncate)
	if !p.Busy || p.Backfilled >= p.Frames {
		t.Errorf("truncate under a pin: %+v", p)
	}
	if n := mustInt(t, pin, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("the pin sees %d rows, want 1", n)
	}
	must(t, pin.Rollback())
	if p = checkpoint(t, c, Truncate); p.Busy || p.Frames != 0 {
		t.Errorf("truncate after the pin: %+v", p)
	}
}

func TestCloseKeepsSQLiteWAL(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
		kept bool
	}{
		{"default", Options{}, true},
		{"checkpoint on close", Options{CheckpointOnClose: true}, false},
		{"plain", Options{Plain: true}, false},
	} {
		c, path := openTest(t, tt.o)
		mustExec(t, c, "CREATE TABLE t(a)")
		must(t, c.Close())
		_, err := os.Stat(path + "-wal")
		if kept := err == nil; kept != tt.kept {
			t.Errorf("%s: -wal kept is %v", tt.name, kept)
		}
	}
}

func BenchmarkCheckpointNoop(b *testing.B) {
	c, path := openTest(b, Options{})
	mustExec(b, c, "CREATE TABLE t(a)")
	ctl := reopen(b, path, Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ctl.Checkpoint(Noop); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBeginCommit(b *testing.B) {
	c, _ := openTest(b, Options{})
	b.ReportAllocs()
	for b.Loop() {
		if err := c.OpenRead(); err != nil {
			b.Fatal(err)
		}
		if err := c.Rollback(); err != nil {
			b.Fatal(err)
		}
	}
}
