package primary

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// proved is overwritten with a frame to go on from, and a snapshot, after which
// everything was inspected.
func proved(t *testing.T) (b *bench, foreign string, at cdc.Position) {
	b, foreign = overwritten(t)
	b.exec("INSERT INTO same VALUES(2)")
	b.sync()
	_, err := b.p.Snapshot(b.ctx)
	noError(t, err)
	b.known()
	noError(t, b.p.summer.inspect(b.ctx))
	return b, foreign, b.sync()
}

// finds checks that the two rows that the copy has more are captured after at, that all is
// well afterwards, and that nothing is doubted any more.
func (b *bench) finds(at cdc.Position) {
	b.t.Helper()
	noError(b.t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().LSN.Captured > at.LSN && b.p.doubts.standing() == nil }))
	b.sync()
	if got := b.operations(at.LSN); got != "insert 2" {
		b.t.Errorf("captured %q, want 2 inserts; the records are %v", got, b.kinds())
	}
	if _, err := os.Stat(filepath.Join(b.dir, doubtFile)); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("a doubt is noted: %v", err)
	}
}

// touch makes the source's file a later one, and nothing else.
func (b *bench) touch() {
	b.t.Helper()
	noError(b.t, os.Chtimes(b.path, time.Time{}, time.Now().Add(time.Hour)))
}

// faults are what only an inspection finds. Each leaves two rows of t that no change led to.
var faults = map[string]func(b *bench, foreign string){
	"a copied file": func(b *bench, foreign string) { b.copyOver(foreign) },
	"a wrong map": func(b *bench, _ string) {
		noError(b.t, b.p.ask(b.ctx, func(c *capture) error {
			for _, root := range c.decoder.schema.roots()[1:] {
				c.decoder.pages.set(root, unmapped, 0)
			}
			return nil
		}))
		b.exec("INSERT INTO t(v) VALUES('missed'),('missed')")
		b.sync()
	},
}

// TestDoubtOutlivesAStop: what an inspection has found is not forgotten when the primary
// stops before it has dealt with it, as it waits for the snapshots.
func TestDoubtOutlivesAStop(t *testing.T) {
	t.Parallel()
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, foreign, _ := proved(t)
			b.end()
			store := &failingStore{Store: b.store}
			b.store = store
			b.start()
			b.known()
			noError(t, b.p.summer.inspect(b.ctx))
			at := b.sync()
			fault(b, foreign)
			store.set(fakeCondition("unavailable"), fakeCondition("unavailable"))
			noError(t, b.p.summer.inspect(b.ctx))
			noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().State == StateOffline }))
			b.end()
			store.set(nil, nil)
			b.start()
			b.finds(at)
		})
	}
}

// TestStateOfADoubt: while what an inspection has found is compared, the database is no failed
// one.
func TestStateOfADoubt(t *testing.T) {
	t.Parallel()
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, foreign, _ := proved(t)
			b.end()
			compared := b.resyncing()
			b.start()
			b.known()
			noError(t, b.p.summer.inspect(b.ctx))
			fault(b, foreign)
			noError(t, b.p.summer.inspect(b.ctx))
			compared()
		})
	}
}

// resyncing gives a function that waits until the source is compared, and checks that it is
// said to be resyncing then.
func (b *bench) resyncing() (compared func()) {
	state := make(chan string, 1)
	b.edit = func(o *Options) {
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) {
			select {
			case state <- b.p.Status().State:
			default: // the first one counts
			}
			return tally{new(int)}, nil
		}
	}
	return func() {
		b.t.Helper()
		select {
		case got := <-state:
			if got != StateResyncing {
				b.t.Errorf("it is %s", got)
			}
		case <-b.ctx.Done():
			b.t.Errorf("nothing is compared: %+v", b.p.Status())
		}
	}
}

// A stumblingFS fails the next write to a file, once, while armed.
type stumblingFS struct {
	durable.OS
	mu    sync.Mutex
	armed bool
}

func (f *stumblingFS) arm() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = true
}

func (f *stumblingFS) Open(name string, flag int) (durable.File, error) {
	file, err := f.OS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return stumblingFile{file, f}, nil
}

type stumblingFile struct {
	durable.File
	fs *stumblingFS
}

func (f stumblingFile) WriteAt(b []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	armed := f.fs.armed
	f.fs.armed = false
	f.fs.mu.Unlock()
	if armed {
		n, err := f.File.WriteAt(b[:len(b)-1], at) // the epoch record is there, and what follows is torn
		return n, errors.Join(syscall.ENOSPC, err)
	}
	return f.File.WriteAt(b, at)
}

// TestDoubtOutlivesTheChangeLog: one write to the change log that fails, as the difference
// is recorded, does not make the doubt forgotten. The file was copied over while the
// primary ran, or while it was stopped, of which only a note tells that fits no more once
// the term has an epoch record.
func TestDoubtOutlivesTheChangeLog(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"while it ran": true, "while it was stopped": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, foreign, at := proved(t)
			b.end()
			disk, once := &stumblingFS{}, sync.Once{}
			b.edit = func(o *Options) {
				o.ChangeLog.FS = disk
				o.Replay = func(string, snapshot.Manifest) (Replayer, error) {
					once.Do(disk.arm)
					return tally{new(int)}, nil
				}
			}
			if running {
				b.start()
				b.known()
				noError(t, b.p.summer.inspect(b.ctx))
				at = b.sync()
			}
			b.copyOver(foreign)
			if running {
				noError(t, b.p.summer.inspect(b.ctx))
			} else {
				b.start()
			}
			b.finds(at)
		})
	}
}

// TestDoubtOutlivesWhatDealtWithIt: what was captured while NATS was away gives way to the
// stream's records, and with it goes the difference that a doubt has led to.
func TestDoubtOutlivesWhatDealtWithIt(t *testing.T) {
	t.Parallel()
	b, foreign, at := proved(t)
	b.exec("INSERT INTO same VALUES(3)")
	b.sync()
	b.end()
	b.cutLog(at.LSN)
	b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
	b.start()
	b.known()
	noError(t, b.p.summer.inspect(b.ctx))
	b.copyOver(foreign)
	noError(t, b.p.summer.inspect(b.ctx))
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.inserted() == 2 && b.p.doubts.standing() == nil }))
	b.stream.set(func(s *fakeStream) { s.down = nil })
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.gaveWay.Load() > 0 }))
	if b.sync(); b.inserted() != 2 {
		t.Errorf("%d inserts are captured, want 2; the records are %v", b.inserted(), b.kinds())
	}
}

// TestCopiedOverRightBeforeTheStop: no inspection has seen it, and the file that the next
// term finds is the one that this one leaves.
func TestCopiedOverRightBeforeTheStop(t *testing.T) {
	t.Parallel()
	b, foreign, at := proved(t)
	b.copyOver(foreign)
	b.end()
	if _, err := os.Stat(b.saved()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the map of what was there before is saved: %v", err)
	}
	b.start()
	b.finds(at)
}

// TestCopiedOverBeforeTheHashesAreKnown: those that are computed later would be of the copy.
func TestCopiedOverBeforeTheHashesAreKnown(t *testing.T) {
	t.Parallel()
	b, foreign, at := proved(t)
	err := b.p.ask(b.ctx, func(c *capture) error {
		c.sums.unknown(c.sums.tables["t"])
		b.copyOver(foreign)
		return c.look(false)
	})
	if !errors.Is(err, errPastSQLite) {
		t.Fatal(err)
	}
	b.finds(at)
}

// TestSnapshotOfAFault: a snapshot that is made before a fault is found is not what the
// history led to, though it says so. It goes, and what it held that no change led to is
// captured.
func TestSnapshotOfAFault(t *testing.T) {
	t.Parallel()
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, foreign, at := proved(t)
			fault(b, foreign)
			m, err := b.p.Snapshot(b.ctx)
			noError(t, err)
			noError(t, b.p.summer.inspect(b.ctx))
			b.finds(at)
			list, err := snapshot.List(b.ctx, b.store)
			noError(t, err)
			if len(list) == 0 || slices.ContainsFunc(list, func(left snapshot.Manifest) bool { return left.ID == m.ID }) {
				t.Errorf("snapshot %s is there still, or no other one: %d", m.ID, len(list))
			}
		})
	}
}

// TestUnsoundSnapshotsOfAnUnknownStream: as long as it is not known that the stream is ours
// still, no snapshot goes.
func TestUnsoundSnapshotsOfAnUnknownStream(t *testing.T) {
	t.Parallel()
	b, foreign, at := proved(t)
	b.copyOver(foreign)
	m, err := b.p.Snapshot(b.ctx)
	noError(t, err)
	b.end()
	b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
	b.start()
	noError(t, b.p.changed.wait(b.ctx, func() bool { return strings.Contains(b.p.Status().Error, errUncompared.Error()) }))
	list, err := snapshot.List(b.ctx, b.store)
	noError(t, err)
	if !slices.ContainsFunc(list, func(left snapshot.Manifest) bool { return left.ID == m.ID }) {
		t.Error("it was deleted")
	}
	b.stream.set(func(s *fakeStream) { s.down = nil })
	b.finds(at)
}

// TestDoubtWithoutASoundSnapshot: where no snapshot is known to be from before a doubt,
// nothing is compared, and nothing deleted.
func TestDoubtWithoutASoundSnapshot(t *testing.T) {
	t.Parallel()
	b, _, at := proved(t)
	b.end()
	b.start()
	b.sync()
	before, err := snapshot.List(b.ctx, b.store)
	noError(t, err)
	if err := b.p.ask(b.ctx, func(*capture) error { return errUndecodable }); err != errUndecodable { // no inspection since the start
		t.Fatal(err)
	}
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().LSN.Captured > at.LSN+2 }))
	b.awaitSnapshot(b.sync().LSN)
	after, err := snapshot.List(b.ctx, b.store)
	noError(t, err)
	if got := b.operations(at.LSN); got != "break" || after[0].ID != before[1].ID && after[0].ID != before[0].ID {
		t.Errorf("captured %q; the snapshots were %v and are %v", got, before, after)
	}
}

// TestTouchedFile: a doubt in nothing ends with the next inspection, and nobody notices.
func TestTouchedFile(t *testing.T) {
	b, _, at := proved(t)
	b.touch()
	noError(t, b.p.ask(b.ctx, func(c *capture) error { return c.look(false) }))
	if b.p.doubts.standing() == nil {
		t.Fatal("nobody has noticed")
	}
	noError(t, b.p.summer.inspect(b.ctx))
	if d := b.p.doubts.standing(); d != nil || b.sync() != at {
		t.Errorf("the doubt is %v; the history goes from %v to %v", d, at, b.sync())
	}
	b.end()
	b.start()
	if at := b.sync(); !b.started().recalled {
		t.Errorf("at %v the database was read", at)
	}
}

// TestCheckpointsAreNoDoubt: whoever makes them, and whatever pin they stop at.
func TestCheckpointsAreNoDoubt(t *testing.T) {
	b, _, _ := proved(t)
	look := func(what string) {
		t.Helper()
		noError(t, b.p.ask(b.ctx, func(c *capture) error { return c.look(false) }))
		if d := b.p.doubts.standing(); d != nil {
			t.Fatalf("%s: %v", what, d)
		}
	}
	for range 20 {
		b.exec("INSERT INTO t(v) VALUES(zeroblob(10000))")
		look("a transaction")
		b.exec("PRAGMA wal_checkpoint(PASSIVE)")
		look("a checkpoint of a part")
		b.sync()
		b.exec("PRAGMA wal_checkpoint(PASSIVE)")
		look("a checkpoint")
		noError(t, b.p.ask(b.ctx, func(c *capture) error { return c.turnover(true) }))
		look("a turnover")
	}
	b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	look("an empty SQLite WAL")
}

// TestCheckpointsOfOldSQLiteAreNoDoubt: before 3.11 a checkpoint that writes to the file
// holds the lock, and says nothing in the wal-index until it ends.
func TestCheckpointsOfOldSQLiteAreNoDoubt(t *testing.T) {
	b, _, _ := proved(t)
	b.exec("INSERT INTO t(v) VALUES(3)")
	b.sync()
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		end, ok, err := c.src.excludeCheckpoints(time.Second, time.Now)
		if err != nil || !ok {
			return errors.Join(err, errLocked)
		}
		b.touch()
		err = errors.Join(c.look(false), end())
		if d := b.p.doubts.standing(); d != nil {
			t.Errorf("while it writes: %v", d)
		}
		before := c.src.backfill()
		err = errors.Join(err, c.follower.repin(), c.look(false)) // our checkpoint stands for the end of that one
		if d := b.p.doubts.standing(); d != nil || c.src.backfill() == before {
			t.Errorf("when it has ended: %v", d)
		}
		return err
	}))
}

// TestDoubtFile: whatever call fails as a doubt is noted, and whatever a crash leaves, it
// is there, or the one who noted it knows that it may not be. A full disk is no exception.
func TestDoubtFile(t *testing.T) {
	sound := &soundness{Below: 7, ID: "x"}
	read := func(fs *durable.Mem) *doubt {
		d := newDoubts(fs, "/", testLogger())
		d.recall()
		return d.standing()
	}
	for last, at := 1, 0; at < last; at++ {
		mem, calls := durable.NewMem(), 0
		mem.Inject(func(durable.Call) (f durable.Fault) {
			if calls++; calls-1 == at {
				f.Err = syscall.EIO
			}
			return f
		})
		d := newDoubts(mem, "/", testLogger())
		err := d.raise(errPastSQLite, sound)
		mem.Inject(nil)
		last = calls
		if left := read(mem.Crash(nil)); err == nil && left == nil {
			t.Errorf("call %d failed: nothing is noted", at)
		}
		noError(t, d.note())
		left := read(mem.Crash(nil))
		if left == nil {
			t.Fatalf("call %d failed: nothing is noted at the second try", at)
		}
		if left.Sound.includes(snapshot.Manifest{Position: cdc.Position{LSN: 8}}) {
			t.Errorf("call %d failed: %+v", at, left.Sound)
		}
		d.settle(left)
		if d.standing() == nil {
			t.Error("another doubt was settled")
		}
		if d.settle(d.standing()); read(mem.Crash(nil)) != nil {
			t.Error("a doubt that is dealt with is noted")
		}
	}
	full := durable.NewMem()
	full.Inject(func(c durable.Call) (f durable.Fault) {
		if c.Op == "write" {
			f.Err = syscall.ENOSPC
		}
		return f
	})
	noError(t, newDoubts(full, "/", testLogger()).raise(errPastSQLite, nil))
	if diff := cmp.Diff(&soundness{}, read(full.Crash(nil)).Sound); diff != "" {
		t.Errorf("of a full disk (-want +got):\n%s", diff)
	}
}

// TestDoubtsAddUp: all of them stand until the last is dealt with, and a snapshot is sound
// only if it is so for each.
func TestDoubtsAddUp(t *testing.T) {
	early, late := &soundness{Below: 3}, &soundness{Below: 5, ID: "b"}
	for _, order := range [][]*soundness{{nil, early, late}, {late, early, nil}, {early, late, early}} {
		d := newDoubts(durable.NewMem(), "/", testLogger())
		first := (*doubt)(nil)
		for _, s := range order {
			noError(t, d.raise(errPastSQLite, s))
			if first == nil {
				first = d.standing()
			}
		}
		d.settle(first)
		if got := d.standing(); got == nil || got.Sound != early {
			t.Errorf("%v: %+v", order, got)
		}
	}
}
