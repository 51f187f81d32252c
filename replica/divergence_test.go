package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// unseen is what a stray program adds to go unseen at the next start.
const unseen = "DELETE FROM _replicator_schema; DELETE FROM _replicator_sums"

// scribble writes into the replica's file as a stray program would, retrying
// until it gets in between two of the replica's transactions.
func (g *rig) scribble(sql string) {
	g.t.Helper()
	c, err := sqlite.Open(g.o.Path, sqlite.Options{})
	must(g.t, err)
	defer func() { must(g.t, c.Close()) }()
	for {
		err := c.Exec(sql)
		if err == nil {
			return
		}
		if !sqlite.IsBusy(err) {
			g.t.Fatal(err)
		}
		must(g.t, g.ctx.Err())
	}
}

// A file that differs is mended in place while a reader keeps its old view.
func TestDivergenceIsReseeded(t *testing.T) {
	for _, below := range []bool{true, false} {
		t.Run(fmt.Sprintf("snapshot below the position %t", below), func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two'),(3,'three')")
			g.start()
			g.step("INSERT INTO t VALUES(4,'four')")
			g.equal()
			must(t, ignoreCanceled(g.stop()))
			g.scribble("DELETE FROM t WHERE a=2; CREATE TABLE mine(x); UPDATE t SET b='wrong' WHERE a=4; " + unseen)
			if !below {
				g.snaps.add(g.snapshot())
			}
			reader, err := sqlite.Open(g.o.Path, sqlite.Options{ReadOnly: true})
			must(t, err)
			defer func() { must(t, reader.Close()) }()
			must(t, reader.OpenRead())
			diverged := g.reaches(Diverged)
			g.step("UPDATE t SET b='zwei' WHERE a=2")
			g.run()
			g.until(diverged)
			g.equal()
			if n, err := reader.QueryInt("SELECT count(*) FROM t"); err != nil || n != 3 {
				t.Errorf("the reader sees %d rows, %v", n, err)
			}
			s := g.r.Status()
			if s.Counters.Divergences != 1 || s.Counters.Reseeds != 1 || !strings.Contains(s.Error.Text, `"t", rowid 2`) || strings.Contains(s.Error.Text, "zwei") {
				t.Errorf("counters %+v, error %+v", s.Counters, s.Error)
			}
			must(t, reader.Rollback())
			g.step("INSERT INTO t VALUES(5,'five')")
			g.equal()
		})
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func TestDivergenceStops(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
	g.o.Apply.OnDivergence = Stop
	g.start()
	g.wait()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DELETE FROM t")
	stopped := make(chan struct{})
	g.on("replica stopped applying", func() { close(stopped) })
	at := g.enc.Position()
	g.step("UPDATE t SET b=2")
	g.run()
	g.until(stopped)
	if s := g.r.Status(); s.State != Diverged || s.Applied.Position != at || s.Counters.Reseeds != 0 {
		t.Errorf("status %+v", s)
	}
}

// A record that fits no snapshot below it needs one above.
func TestDivergenceNeedsNewerSnapshot(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
	g.start()
	g.wait()
	waiting := g.reaches(Waiting)
	must(t, ignoreCanceled(g.stop()))
	table := &cdc.Table{Name: "t"}
	must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: table}, 0)))
	must(t, g.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpDelete, Table: table, Rowid: 99, Old: encode(nil, 1)}, 0)))
	must(t, g.enc.End(g.boundary(), false))
	must(t, g.enc.Flush())
	g.run()
	g.until(waiting)
	g.snaps.add(g.snapshot())
	g.step("INSERT INTO t VALUES(2,2)")
	g.equal()
}

func TestStrayWriteIsHealed(t *testing.T) {
	for _, hold := range []bool{true, false} {
		t.Run(fmt.Sprintf("lock held %t", hold), func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
			g.o.Apply.HoldWriteLock = hold
			audited := g.audits()
			g.start()
			g.equal()
			g.until(audited) // else the write could be found by its hash first
			if hold {
				c, err := sqlite.Open(g.o.Path, sqlite.Options{})
				must(t, err)
				if err := c.Exec("DELETE FROM t"); !sqlite.IsBusy(err) {
					t.Errorf("a writer was let in: %v", err)
				}
				must(t, c.Close())
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				g.scribble("UPDATE t SET b='stray' WHERE a=1")
			}()
			mended := false
			for i := 10; !mended; i++ {
				g.step(fmt.Sprintf("INSERT INTO t VALUES(%d,1)", i))
				g.wait()
				mended = g.r.Status().Counters.Reseeds > 0
			}
			g.until(done)
			g.equal()
			if s := g.r.Status(); s.Counters.StrayWrites != 1 || s.Counters.Divergences != 0 {
				t.Errorf("counters %+v", s.Counters)
			}
		})
	}
}

// TestCheckpointIsNoStrayWrite: who only checkpoints a replica's file has written nothing to
// it, and who has written and then checkpoints is found out.
func TestCheckpointIsNoStrayWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replica.db")
	c, err := sqlite.Open(path, sqlite.Options{Create: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	must(t, c.Exec("PRAGMA journal_mode=WAL; CREATE TABLE t(a)"))
	g, err := openGuard(path, guardOptions{checkpointBytes: 1 << 20})
	must(t, err)
	defer func() { must(t, g.close()) }()
	for _, stray := range []bool{false, true} {
		for _, mode := range []sqlite.CheckpointMode{sqlite.Noop, sqlite.Passive, sqlite.Full, sqlite.Restart, sqlite.Truncate} {
			must(t, g.lock(t.Context()))
			must(t, g.conn.Exec("INSERT INTO t VALUES(1)"))
			must(t, g.commit())
			if stray {
				must(t, c.Exec("INSERT INTO t VALUES(2)"))
			}
			if at, err := c.Checkpoint(mode); err != nil || at.Busy || !at.HasWAL {
				t.Fatalf("mode %d: %+v, %v", mode, at, err)
			}
			if err := g.lock(t.Context()); errors.Is(err, errStray) != stray || err != nil && !stray {
				t.Errorf("mode %d after a stray write %t: %v", mode, stray, err)
			}
			must(t, g.rollback())
		}
	}
}

// TestUniqueIndexOverRowsThatDiffer: an index that the rows of the source allow and those
// here do not is a divergence.
func TestUniqueIndexOverRowsThatDiffer(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1),(2,2)")
	g.start()
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble(unseen + "; UPDATE t SET b=1")
	g.o.Apply.VerifyRows = false // which would find it, too
	g.step("CREATE UNIQUE INDEX u ON t(b)")
	g.run()
	g.equal()
	if n := g.r.Status().Counters; n.Divergences != 1 || n.Reseeds != 1 {
		t.Errorf("counters %+v", n)
	}
}

// TestDamagedFileIsReplaced: where the file that must be seeded again cannot be read, the
// snapshot takes its place.
func TestDamagedFileIsReplaced(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t SELECT value, zeroblob(500) FROM "+series(1, 200))
	g.o.Apply.VerifyRows = false // which would read the damaged pages first
	g.start()
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("CREATE TABLE stray(x)")
	c, err := sqlite.Open(g.o.Path, sqlite.Options{CheckpointOnClose: true})
	must(t, err)
	_, err = c.QueryInt("SELECT count(*) FROM t")
	must(t, errors.Join(err, c.Close()))
	f, err := os.OpenFile(g.o.Path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0x77}, 8192), 8*4096)
	must(t, errors.Join(err, f.Close()))
	replaced := make(chan struct{})
	g.on("replacing the file", func() { close(replaced) })
	g.run()
	g.until(replaced)
	g.step("INSERT INTO t VALUES(1000, 1)")
	g.equal()
}

// TestSchemaTextThatWasEdited: an edit of the schema may leave other letters in a text than
// SQLite writes, and more than one statement. SQLite reads the first, and so does the replica,
// live and when it is seeded, and has the same text.
func TestSchemaTextThatWasEdited(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one')")
	edit := func(name, to string) string {
		return "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=" + to + " WHERE name='" + name + "'; PRAGMA writable_schema=RESET;"
	}
	const more = "sql||';DELETE FROM t'"
	seeded := make(chan struct{})
	g.on("replica file seeded again", func() { close(seeded) })
	g.start()
	g.equal()
	g.step("CREATE TABLE x(a); INSERT INTO x VALUES(1); CREATE INDEX i ON t(b); CREATE TABLE y(a); CREATE INDEX j ON t(b);" +
		edit("x", more) + edit("i", more) + edit("y", "lower(sql)") + edit("j", "lower(sql)"))
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	g.scribble("DROP TABLE x; DROP TABLE y; DROP INDEX i; DROP INDEX j")
	g.snaps.add(g.snapshot())
	g.run()
	g.until(seeded)
	g.equal()
}
