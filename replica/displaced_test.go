package replica

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A gate is a clock that keeps the replica from looking at its file until the gate
// is opened, so that what a test does to several files is one thing.
type gate struct {
	fastClock
	open chan struct{}
}

func (c gate) Sleep(ctx context.Context, d time.Duration) error {
	if d == watchEvery {
		select {
		case <-c.open:
		case <-ctx.Done():
		}
	}
	return c.fastClock.Sleep(ctx, d)
}

// even starts a replica and waits until it is where the source is. look lets it look
// at its file, and waits until it has noticed that this is displaced.
func (g *rig) even() (look func()) {
	clock := gate{open: make(chan struct{})}
	g.o.Clock = clock
	departed := g.reaches(Starting) // which is no news at the start
	g.start()
	g.step("INSERT INTO t VALUES('even')")
	g.equal()
	return func() {
		close(clock.open)
		g.until(departed)
	}
}

// unlink removes the replica's files with the suffixes.
func (g *rig) unlink(suffixes ...string) {
	for _, s := range suffixes {
		must(g.t, os.Remove(g.o.Path+s))
	}
}

func TestFileDeleted(t *testing.T) {
	t.Run("while nothing comes", func(t *testing.T) {
		g := newRig(t, "CREATE TABLE t(a)")
		look := g.even()
		g.unlink("", "-wal", "-shm")
		look()
		g.equal()
		if s := g.r.Status(); s.Counters.Divergences+s.Counters.StrayWrites != 0 {
			t.Errorf("counters %+v", s.Counters)
		}
	})
	t.Run("while records come", func(t *testing.T) {
		g := newRig(t, "CREATE TABLE t(a)")
		g.even()
		g.unlink("") // its SQLite WAL must not get into the next one
		g.step("INSERT INTO t VALUES('more')")
		g.equal()
	})
	t.Run("after the replica has stopped applying", func(t *testing.T) {
		g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,1)")
		g.o.Apply.OnDivergence = Stop
		g.start()
		g.wait()
		must(t, ignoreCanceled(g.stop()))
		g.scribble("DELETE FROM t")
		stopped := make(chan struct{})
		g.on("replica stopped applying", func() { close(stopped) })
		g.step("UPDATE t SET b=2")
		g.run()
		g.until(stopped)
		g.unlink("")
		g.equal()
	})
}

// A file of somebody else in the place of the replica's is not touched, and the
// replica begins anew when it is gone.
func TestFileReplacedByAForeignOne(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	failed := g.reaches(Failed)
	g.start()
	g.step("CREATE TABLE u(a)") // every page of the replica is in its SQLite WAL, which stays where it is
	g.equal()
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	c, err := sqlite.Open(foreign, sqlite.Options{Create: true})
	must(t, err)
	must(t, errors.Join(c.Exec("CREATE TABLE precious(a)"), c.Close()))
	before, err := os.ReadFile(foreign)
	must(t, err)

	must(t, os.Rename(foreign, g.o.Path))
	g.until(failed)
	lsn := g.step("INSERT INTO t VALUES(2)")
	if s := g.r.Status(); !strings.Contains(s.Error.Text, "move it away") || s.Applied.LSN != 0 {
		t.Errorf("status %+v, error %+v", s, s.Error)
	}
	after, err := os.ReadFile(g.o.Path)
	must(t, err)
	if string(before) != string(after) {
		t.Error("the foreign file was changed")
	}
	must(t, os.Rename(g.o.Path, foreign))
	g.waitFor(lsn)
	g.equal()
}

// A copy of the replica, put back in its place, goes on from where it was.
func TestFileReplacedByAReplica(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	look := g.even()
	old := filepath.Join(t.TempDir(), "old.db")
	c, err := sqlite.Open(g.o.Path, sqlite.Options{})
	must(t, err)
	must(t, errors.Join(c.Exec("VACUUM INTO '"+old+"'"), c.Close())) // which is not in WAL mode
	g.step("INSERT INTO t VALUES(2)")
	g.equal()
	g.snaps.list = nil // must not be needed
	must(t, os.Rename(old, g.o.Path))
	look()
	g.equal()
	g.step("INSERT INTO t VALUES(3)")
	g.equal()
	if s := g.r.Status(); s.Counters.Reseeds != 0 {
		t.Errorf("counters %+v", s.Counters)
	}
}

// Without its SQLite WAL a database may lack what was committed last.
func TestSQLiteWALDeleted(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	look := g.even()
	g.unlink("-wal", "-shm")
	look()
	g.equal()
	if s := g.r.Status(); s.Counters.Reseeds != 1 {
		t.Errorf("counters %+v", s.Counters)
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.MkdirAll(in("real/deep"), 0o755))
	must(t, os.WriteFile(in("real/file"), nil, 0o600))
	for name, to := range map[string]string{
		"dir": "real/deep", "file": "real/file", "dangling": "dir/../none", "absolute": in("real/none"), "chain": "dangling", "loop": "loop",
	} {
		must(t, os.Symlink(to, in(name)))
	}
	for name, want := range map[string]string{
		"real/file": "real/file", "file": "real/file", "dir/x": "real/deep/x", "dangling": "real/none",
		"absolute": "real/none", "chain": "real/none", "no/such/dir": "no/such/dir", "dir/no/dir": "real/deep/no/dir", "loop": "",
	} {
		got, err := resolve(in(name))
		if want == "" {
			if err == nil {
				t.Errorf("%s gives %s", name, got)
			}
			continue
		}
		if err != nil || got != in(want) {
			t.Errorf("%s gives %s, %v; want %s", name, got, err, in(want))
		}
	}
}

// Two daemons on one file are two, whatever path they were given.
func TestSecondDaemonThroughALinkIsRefused(t *testing.T) {
	for _, first := range []bool{true, false} { // before there is a file; after
		g := newRig(t, "CREATE TABLE t(a)")
		o := g.o
		o.Path = filepath.Join(t.TempDir(), "link.db")
		must(t, os.Symlink(g.o.Path, o.Path))
		if first {
			g.o, o = o, g.o
		}
		g.start()
		g.equal()
		r, err := New(o)
		must(t, err)
		if err := r.Run(g.ctx); !errors.Is(err, durable.ErrLocked) {
			t.Errorf("Run: %v", err)
		}
		g.step("INSERT INTO t VALUES(1)")
		g.equal()
		if info, err := os.Lstat(g.o.Path); err != nil || first && info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("the link was replaced: %v, %v", info, err)
		}
	}
}

// A link that leads elsewhere is not followed: the lock is that of another file.
func TestLinkMoved(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	real := g.o.Path
	g.o.Path = filepath.Join(t.TempDir(), "link.db")
	must(t, os.Symlink(real, g.o.Path))
	failed := g.reaches(Failed)
	g.start()
	g.equal()
	must(t, os.Remove(g.o.Path))
	g.until(failed)
	if s := g.r.Status(); !strings.Contains(s.Error.Text, "no longer leads to") {
		t.Errorf("error %+v", s.Error)
	}
	must(t, os.Symlink(real, g.o.Path))
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
}
