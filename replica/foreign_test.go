package replica

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

func TestForeignFileIsRefused(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"database": func(path string) error {
			c, err := sqlite.Open(path, sqlite.Options{Create: true})
			if err != nil {
				return err
			}
			return errors.Join(c.Exec("CREATE TABLE precious(a)"), c.Close())
		},
		"text": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("not a database", 100)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a)")
			g.snaps.add(g.snapshot())
			must(t, make(g.o.Path))
			before, err := os.ReadFile(g.o.Path)
			must(t, err)
			r, err := New(g.o)
			must(t, err)
			if err := r.Run(g.ctx); err == nil || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("Run: %v", err)
			}
			after, err := os.ReadFile(g.o.Path)
			must(t, err)
			if string(before) != string(after) {
				t.Error("the file was changed")
			}
		})
	}
}

// Beside other databases it is a state, until the file is moved away.
func TestForeignFileBesideOthers(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	g.o.Only = false
	g.snaps.add(g.snapshot())
	must(t, os.WriteFile(g.o.Path, []byte(strings.Repeat("not a database", 100)), 0o600))
	failed := g.reaches(Failed)
	g.run()
	g.until(failed)
	if err := g.r.Status().Error; err == nil || !strings.Contains(err.Text, "move it away") {
		t.Errorf("the error is %+v", err)
	}
	must(t, os.Remove(g.o.Path))
	g.equal()
}

// A shell that looks before there is a replica leaves a file of 0 bytes.
func TestEmptyFileIsNone(t *testing.T) {
	touch := func(g *rig) { must(t, os.WriteFile(g.o.Path, nil, 0o640)) }
	t.Run("before the start", func(t *testing.T) {
		g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
		touch(g)
		g.start()
		g.equal()
		if info, err := os.Stat(g.o.Path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%v, %v: the permissions of the file are lost", info, err)
		}
	})
	t.Run("while waiting", func(t *testing.T) {
		g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
		waiting := g.reaches(Waiting)
		g.run()
		g.until(waiting)
		touch(g)
		g.snaps.add(g.snapshot())
		g.equal()
	})
}

// What somebody puts there while the snapshot is on its way is refused like what
// was there before.
func TestForeignFileDuringRestore(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	snap := g.snapshot()
	restore, precious := snap.Restore, []byte(strings.Repeat("not a database", 100))
	snap.Restore = func(ctx context.Context, path string, progress func(int64)) error {
		return errors.Join(restore(ctx, path, progress), os.WriteFile(g.o.Path, precious, 0o600))
	}
	g.snaps.add(snap)
	r, err := New(g.o)
	must(t, err)
	if err := r.Run(g.ctx); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("Run: %v", err)
	}
	if after, err := os.ReadFile(g.o.Path); err != nil || string(after) != string(precious) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.wait()
	r, err := New(g.o)
	must(t, err)
	if err := r.Run(g.ctx); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("Run: %v", err)
	}
	g.step("INSERT INTO t VALUES(1)")
	g.equal()
}
