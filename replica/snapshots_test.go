package replica

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// pages is a snapshot.Source over a copy of a database file.
type pages struct {
	b    []byte
	size int
}

func (p pages) PageSize() int { return p.size }
func (p pages) Pages() uint32 { return uint32(len(p.b) / p.size) }
func (p pages) ReadPages(_ context.Context, first uint32, dst []byte) (int, error) {
	return copy(dst, p.b[int(first-1)*p.size:]) / p.size, nil
}

// store puts the source's state into a store of package snapshot.
func (s *source) store(to snapshot.Store) snapshot.Manifest {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "copy.db")
	snap := s.snapshot()
	must(s.t, snap.Restore(context.Background(), path, func(int64) {}))
	b, err := os.ReadFile(path)
	must(s.t, err)
	m := snapshot.Manifest{Database: "app", Node: "test", Position: snap.At.Position,
		Totals: snapshot.Totals{Transactions: snap.At.Transactions, Bytes: snap.At.Bytes, CapturedAt: snap.At.CapturedAt}}
	m, err = snapshot.Make(context.Background(), to, pages{b, 4096}, m, snapshot.Options{ChunkBytes: 4096})
	must(s.t, err)
	return m
}

func anywhere(cdc.Position) bool { return true }

// The newest snapshot is damaged: the one before it leads to the same end.
func TestDamagedSnapshotIsPassedOver(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	dir := t.TempDir()
	store := snapshot.NewDir(dir)
	g.store(store)
	g.step("INSERT INTO t VALUES(zeroblob(9000))")
	newest := g.store(store)
	damaged := 0
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Base(filepath.Dir(path)) != newest.ID {
			return err
		}
		if info, err := e.Info(); err == nil && info.Size() == int64(newest.Chunks[1].Stored) {
			damaged++
			return os.WriteFile(path, make([]byte, info.Size()), 0o600)
		}
		return nil
	}))
	if damaged == 0 {
		t.Fatal("no chunk found to damage")
	}
	g.o.Snapshots = FromStore(store, snapshot.Options{})
	g.run()
	g.equal()
	if s := g.r.Status(); s.Needs != g.enc.Position().LSN || s.Error == nil {
		t.Errorf("status %+v", s)
	}
	if _, err := g.o.Snapshots.Newest(g.ctx, newest.Position.LSN, anywhere); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("the damaged one: %v", err)
	}
	if snap, err := g.o.Snapshots.Newest(g.ctx, 0, anywhere); err != nil || snap.At.LSN != cdc.LSN(1) {
		t.Errorf("the one before: %+v, %v", snap, err)
	}
}

// TestSnapshotThePrimaryDoesNotHave: what another primary left above the end of the history,
// or of another one, is passed over while the primary is heard. While it is not, replicas
// start from what there is.
func TestSnapshotThePrimaryDoesNotHave(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	store := snapshot.NewDir(t.TempDir())
	below := g.store(store)
	g.step("INSERT INTO t VALUES(1)")
	at := g.enc.Position()
	g.step("INSERT INTO t VALUES(2)")
	above := g.store(store)
	other := newSource(t, "CREATE TABLE t(a)")
	for range 3 {
		other.step("INSERT INTO t VALUES(1)")
	}
	elsewhere := other.store(store)
	g.o.Snapshots = FromStore(store, snapshot.Options{})
	heard := func(at cdc.Position, captured cdc.LSN, ago time.Duration) *Heartbeat {
		return &Heartbeat{Position: at, Captured: captured, Published: at.LSN, ReceivedAt: time.Now().Add(-ago)}
	}
	for _, c := range []struct {
		name  string
		heard *Heartbeat
		want  snapshot.Manifest
	}{
		{"nobody heard", nil, elsewhere},
		{"not heard for long", heard(at, at.LSN, 2*silence), elsewhere},
		{"it does not know whose the stream is", heard(cdc.Position{Lineage: at.Lineage}, at.LSN, 0), elsewhere},
		{"it has captured less", heard(at, at.LSN, 0), below},
		{"it has published less", heard(at, above.Position.LSN, 0), above},
		{"of another lineage", heard(elsewhere.Position, elsewhere.Position.LSN, 0), elsewhere},
	} {
		r, err := New(g.o)
		must(t, err)
		if c.heard != nil {
			r.Heard(*c.heard)
		}
		if snap, err := r.newest(t.Context(), 0); err != nil || snap.At.Position != c.want.Position {
			t.Errorf("%s: %v, %v, want %v", c.name, snap.At.Position, err, c.want.Position)
		}
		_, err = r.newest(t.Context(), elsewhere.Position.LSN+1)
		if !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("%s: above all: %v", c.name, err)
		}
	}
}

// TestNeedLastsUntilTheMark: between the restore and the first look at the stream a report
// still names what must not be trimmed.
func TestNeedLastsUntilTheMark(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	var seen []cdc.LSN
	for _, line := range []string{"snapshot restored", "replica file open"} {
		g.on(line, func() { seen = append(seen, g.r.Status().Needs) })
	}
	g.start()
	g.wait()
	must(t, ignoreCanceled(g.stop()))
	at := g.enc.Position().LSN
	if !slices.Equal(seen, []cdc.LSN{at, at}) || g.r.Status().Needs != at {
		t.Errorf("needs %v and then %d, restored at %d", seen, g.r.Status().Needs, at)
	}
}

// Another text encoding needs another file.
func TestEncodingChangeReplacesFile(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	g.start()
	g.equal()
	must(t, ignoreCanceled(g.stop()))
	other := newSource(t, "PRAGMA encoding='UTF-16le'; CREATE TABLE t(a); INSERT INTO t VALUES('text')")
	other.restart() // so that the replica sees a fork
	g.snaps.add(other.snapshot())
	other.restart()
	g.source, g.o.Stream = other, other.log
	g.run()
	for g.r.Status().Applied.Lineage != other.mark().Lineage {
		select {
		case <-g.r.Changed():
		case <-g.ctx.Done():
			t.Fatalf("%+v", g.r.Status())
		}
	}
	g.equal()
}

func TestNoSnapshotIsSaidInOneLine(t *testing.T) {
	none := FromStore(snapshot.NewDir(t.TempDir()), snapshot.Options{})
	for min, want := range map[cdc.LSN]string{0: ErrNoSnapshot.Error(), 7: ErrNoSnapshot.Error() + " (at or above LSN 7)"} {
		if _, err := none.Newest(t.Context(), min, anywhere); !errors.Is(err, ErrNoSnapshot) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
