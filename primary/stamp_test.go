package primary

import (
	"os/exec"
	"testing"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// copyOver puts another database over the source as cp does: the inode stays, and no
// frame tells of it. It is a process of its own, since to close a descriptor of the
// source here would drop the locks.
func (b *bench) copyOver(from string) {
	b.t.Helper()
	if out, err := exec.CommandContext(b.ctx, "cp", from, b.path).CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// overwritten starts over a source of which everything is in the database file, and
// makes another database that has two rows more.
func overwritten(t *testing.T) (b *bench, foreign string) {
	b = newBench(t, oneTable+"; CREATE TABLE same(a); INSERT INTO same VALUES(1); INSERT INTO t(v) VALUES(1),(2)")
	b.edit = func(o *Options) {
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return tally{new(int)}, nil } // of epochs alone
	}
	foreign = b.path + ".foreign"
	b.exec("PRAGMA wal_checkpoint(TRUNCATE); VACUUM INTO '" + foreign + "'")
	if out, err := exec.CommandContext(b.ctx, "sqlite3", foreign, "PRAGMA journal_mode=WAL; INSERT INTO t(v) VALUES('foreign'),('foreign')").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b.start()
	at := b.sync()
	b.awaitSnapshot(at.LSN)
	return b, foreign
}

// TestCopiedOverWhileItRuns: the inspection looks though nothing was captured.
func TestCopiedOverWhileItRuns(t *testing.T) {
	b, foreign := overwritten(t)
	b.known()
	noError(t, b.p.summer.inspect(b.ctx))
	before := b.sync()
	noError(t, b.p.summer.inspect(b.ctx))
	if n := b.p.Status().Sums.Inspections; n != 1 {
		t.Fatalf("%d inspections of what had not changed", n)
	}
	b.copyOver(foreign)
	noError(t, b.p.summer.inspect(b.ctx))
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().LSN.Captured > before.LSN+1 }))
	b.sync()
	if got := b.operations(before.LSN); got != "insert 2" {
		t.Errorf("captured %q, want 2 inserts", got)
	}
}

// TestCopiedOverWhileStopped: the restart proof looks at the file, too. One that
// nobody wrote to goes on as ever.
func TestCopiedOverWhileStopped(t *testing.T) {
	b, foreign := overwritten(t)
	b.exec("INSERT INTO same VALUES(2)") // there is a frame to go on from
	before := b.sync()
	if _, err := b.p.Snapshot(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.end()
	b.start()
	if at := b.sync(); at.LSN != before.LSN+1 {
		t.Fatalf("nothing happened, and the records go from %d to %d", before.LSN, at.LSN)
	}
	b.end()
	b.copyOver(foreign)
	b.start()
	b.sync()
	if got := b.operations(before.LSN); got != "insert 2" {
		t.Errorf("captured %q, want 2 inserts", got)
	}
}
