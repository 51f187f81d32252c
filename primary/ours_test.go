package primary

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// TestSnapshotIsOurs: a snapshot is told by its hash, wherever it is in the change log, and
// below that by its term.
func TestSnapshotIsOurs(t *testing.T) {
	dir := t.TempDir()
	log, err := wal.Open(dir, wal.Options{SegmentBytes: 1})
	noError(t, err)
	defer log.Close()
	noted, err := openTerms(t.TempDir(), "test", testLogger())
	noError(t, err)
	r := &recovery{terms: noted}
	ours := map[cdc.LSN]snapshot.Manifest{}
	var e *cdc.Encoder
	note := func(err error) {
		t.Helper()
		noError(t, errors.Join(err, log.Sync()))
		ours[e.Position().LSN] = snapshot.Manifest{Position: e.Position(), Term: e.Last().Term}
	}
	begin := func(term cdc.ID) {
		t.Helper()
		tail := log.Tail()
		tail.Boundary.Lineage = cdc.ID{1}
		noError(t, noted.begin(term, tail.Position.Epoch+1))
		e = cdc.NewEncoder(tail, tail.Position.Epoch+1, term, log.Append)
		note(e.Epoch(cdc.Boundary{}))
	}
	begin(cdc.ID{2})
	for range 3 {
		note(e.End(cdc.Boundary{}, true))
	}
	begin(cdc.ID{3})
	note(e.Break(cdc.Boundary{}, "a test"))
	note(e.End(cdc.Boundary{}, true))
	tail := e.Position()

	check := func(name string, m snapshot.Manifest, want bool) {
		t.Helper()
		if got, err := r.isOurs(log, m); err != nil || got != want {
			t.Errorf("%s at %v in a change log from %d to %d: %t, %v, want %t", name, m.Position, log.First(), log.Last(), got, err, want)
		}
	}
	all := func() {
		t.Helper()
		for lsn := cdc.LSN(1); lsn <= tail.LSN; lsn++ {
			check("ours", ours[lsn], true)
			fork := ours[lsn]
			fork.Position.Hash, fork.Term = cdc.Hash{9}, cdc.ID{9}
			check("a fork's", fork, false)
			other := ours[lsn]
			other.Position.Lineage = cdc.ID{9}
			check("another lineage's", other, false)
		}
		check("above the end", snapshot.Manifest{Position: cdc.Position{Lineage: tail.Lineage, Epoch: tail.Epoch, LSN: tail.LSN + 1, Hash: tail.Hash}}, false)
	}
	all()
	noError(t, e.End(cdc.Boundary{}, true)) // one that is not durable yet
	all()
	noError(t, log.Sync())
	ours[tail.LSN+1], tail = snapshot.Manifest{Position: e.Position(), Term: e.Last().Term}, e.Position()
	all()
	for _, below := range []cdc.LSN{3, tail.LSN} {
		noError(t, log.Trim(below))
		if log.First() != below {
			t.Fatalf("the change log begins at %d", log.First())
		}
		all()
	}
	last, err := filepath.Glob(filepath.Join(dir, "*.log"))
	noError(t, err)
	noError(t, os.Truncate(last[0], 100))
	if _, err := log.Record(tail.LSN); !errors.Is(err, wal.ErrDamaged) {
		t.Fatalf("the change log is not damaged: %v", err)
	}
	all()
}

// deadFork gives a primary that was away while an heir went on from a copy of its data
// directory, until the heir was gone for good. It has found the stream foreign; the heir's
// snapshots are the only ones.
func deadFork(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, oneTable)
	b.start()
	b.write(3)
	b.snapshot()
	b.end()
	heir := newBench(t, oneTable)
	heir.stream, heir.store = b.stream, b.store
	heir.edit = func(o *Options) { o.Node = "heir" }
	noError(t, os.CopyFS(heir.dir, os.DirFS(b.dir)))
	heir.start()
	heir.write(20)
	heir.snapshot()
	heir.write(3)
	heir.snapshot()
	heir.end()
	b.start()
	if err := b.await(); !errors.Is(err, ErrFenced) {
		t.Fatalf("Run returned %v", err)
	}
	if ours, others := b.owners(); ours > 0 || others == 0 {
		t.Fatalf("%d snapshots of ours and %d of the heir are left", ours, others)
	}
	return b
}

// owners counts the snapshots that this node made, and others.
func (b *bench) owners() (ours, others int) {
	b.t.Helper()
	list, err := snapshot.List(b.ctx, b.store)
	noError(b.t, err)
	for _, m := range list {
		if m.Node == "test" {
			ours++
		} else {
			others++
		}
	}
	return ours, others
}

// TestSnapshotsOfADeadFork: where the fence says so the stream is deleted, and the other
// primary's snapshots, of the same lineage and of greater LSNs, are left. They stand in for
// none of ours, and nobody shall take them up.
func TestSnapshotsOfADeadFork(t *testing.T) {
	for _, broken := range []bool{false, true} {
		b := deadFork(t)
		b.stream.set(func(s *fakeStream) { s.exists, s.first, s.last = false, 0, 0; clear(s.records) }) // nats stream rm
		if broken {
			b.exec("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t(v) VALUES(1)")
		}
		b.start()
		at := b.sync()
		ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
		defer cancel()
		err := b.p.changed.wait(ctx, func() bool {
			ours, others := b.owners()
			return ours > 0 && others == 0 && b.p.Status().State == StateStreaming
		})
		if ours, others := b.owners(); err != nil || b.has(cdc.Break) != broken {
			t.Errorf("broken %t, want %t: %d snapshots of ours and %d others at %v: %v, status %+v", b.has(cdc.Break), broken, ours, others, at, err, b.p.Status())
		}
		b.end()
	}
}

// filePages is a snapshot.Source over a file in memory.
type filePages []byte

func (f filePages) PageSize() int { return 4096 }
func (f filePages) Pages() uint32 { return uint32(len(f) / 4096) }
func (f filePages) ReadPages(_ context.Context, first uint32, dst []byte) (int, error) {
	return copy(dst, f[int(first-1)*4096:]) / 4096, nil
}

// TestResyncBesideADeadFork: another primary's snapshot where the change log ends is not
// what the source was there.
func TestResyncBesideADeadFork(t *testing.T) {
	b := newBench(t, oneTable)
	replayed := 0
	b.edit = func(o *Options) {
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return tally{&replayed}, nil }
	}
	b.start()
	own := b.awaitSnapshot(b.sync().LSN)
	b.exec("CREATE TABLE other(a)") // which the count of records does not make
	b.sync()
	b.end()
	log := openLog(t, b)
	tail := log.Tail().Position
	noError(t, log.Close())
	path := filepath.Join(t.TempDir(), "copy.db")
	noError(t, snapshot.Restore(b.ctx, b.store, own, path, snapshot.Options{}))
	file, err := os.ReadFile(path)
	noError(t, err)
	at := tail
	at.Hash = cdc.Hash{9}
	_, err = snapshot.Make(b.ctx, b.store, filePages(file), snapshot.Manifest{Database: "app", Node: "heir", Position: at, Term: cdc.ID{9}}, snapshot.Options{})
	noError(t, err)
	b.reconnect() // which leaves doubt
	b.start()
	b.sync()
	if want := int(tail.LSN - own.Position.LSN); replayed != want || want == 0 || b.has(cdc.Break) {
		t.Errorf("%d records were replayed, want %d; break %t", replayed, want, b.has(cdc.Break))
	}
}

// TestBreakThatGaveWay: a break that was captured while NATS was away is none any more
// once the stream's records have taken its place, and asks for no snapshot.
func TestBreakThatGaveWay(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.ChangeLog.SegmentBytes = 4 << 10 }
	b.start()
	b.awaitSnapshot(1)
	b.write(12)
	b.end()
	b.cutLog(7)
	b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
	b.exec("INSERT INTO t(v) VALUES(1),(2)")
	b.start()
	for range 30 {
		b.exec("INSERT INTO t(v) VALUES(1)")
		_, err := b.p.reach(b.ctx)
		noError(t, err)
	}
	_ = b.p.ask(b.ctx, func(*capture) error { return errUndecodable }) // another term, and another break
	_, err := b.p.reach(b.ctx)
	noError(t, err)
	gaveWay := b.p.Status().LSN.Captured
	b.stream.set(func(s *fakeStream) { s.down = nil })
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	err = b.p.changed.wait(ctx, func() bool { return b.p.published() > 13 && b.p.Status().State == StateStreaming })
	if s := b.p.Status(); err != nil || s.LSN.Captured >= gaveWay || s.Snapshot.Newest >= gaveWay {
		t.Errorf("after captures up to %d gave way: %v, status %+v", gaveWay, err, s)
	}
}
