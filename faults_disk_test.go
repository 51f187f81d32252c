package replicator_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/wal"
)

// A disk is a small file system of its own.
type disk struct {
	t       *testing.T
	ballast string
}

// newDisk mounts one at dir.
func newDisk(t *testing.T, dir string, size int) *disk {
	t.Helper()
	d, err := mountDisk(t, dir, size)
	if err != nil {
		t.Skipf("a small file system cannot be mounted here, which takes root: %v", err)
	}
	return d
}

func mountDisk(t *testing.T, dir string, size int) (*disk, error) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return &disk{t, filepath.Join(dir, "ballast")}, nil
}

// fill leaves no byte.
func (d *disk) fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.ballast, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	for len(b) > 0 {
		n, err := f.Write(b)
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.ENOSPC) {
			d.t.Fatal(err)
		}
		if n == 0 {
			b = b[:len(b)/2]
		}
	}
	if err := f.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) free() {
	d.t.Helper()
	if err := os.Remove(d.ballast); err != nil {
		d.t.Fatal(err)
	}
}

// TestPrimaryDiskFull: the application goes on, and its SQLite WAL does not grow
// without end although nothing can be captured.
func TestPrimaryDiskFull(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 121)
	p.tuning.capture.MaxSQLiteWAL = 8 << 20
	p.tuning.changeLog.SegmentBytes = 1 << 20
	d := newDisk(t, p.data, 48<<20)
	f := p.begin()
	p.app.begin()
	d.fill()
	p.primaryIs(primary.StateDiskFull)
	if s := p.pipeline.Status(); !strings.Contains(s.Error, "no space left") {
		p.fail("the error is %q", s.Error)
	}
	p.app.end()
	p.app.do(300)
	info, err := os.Stat(p.source + "-wal")
	p.must(err)
	if info.Size() > 4*p.tuning.capture.MaxSQLiteWAL {
		p.fail("the SQLite WAL has %d bytes", info.Size())
	}
	steady := 0
	p.soon("disk_full is said all the time", patience, func() bool {
		if s := p.pipeline.Status().State; s != primary.StateDiskFull {
			p.fail("the primary says %s while the disk is full", s)
		}
		steady++
		return steady > 300
	})
	d.free()
	p.soon("the primary streams", patience, func() bool { return p.pipeline.Status().State == primary.StateStreaming })
	p.healed(f)
}

// TestReplicaDiskFull: while it is applied to, and while it is restored.
func TestReplicaDiskFull(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 122)
	d := newDisk(t, p.copies, 64<<20)
	f := p.begin()
	d.fill()
	p.app.do(200)
	f.is(replica.DiskFull)
	late := p.follow("later")
	late.is(replica.DiskFull)
	d.free()
	p.healed(f, late)
}

// TestNATSDiskFull: of a NATS server that no longer can store, and not always says
// so, nothing is left when there is room again.
func TestNATSDiskFull(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 123)
	d := newDisk(t, p.store, 64<<20)
	f := p.begin()
	d.fill()
	p.app.do(100)
	p.primaryIs(primary.StateOffline)
	p.app.do(100)
	d.free()
	p.healed(f)
}

// segments of the primary's change log, the oldest first.
func (p *plant) segments() []string {
	p.t.Helper()
	entries, err := os.ReadDir(filepath.Join(p.data, "log"))
	p.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join(p.data, "log", e.Name()))
	}
	slices.Sort(names)
	if len(names) < 3 {
		p.fail("want at least three segments, have %q", names)
	}
	return names
}

func (p *plant) flip(path string, at func(size int64) int64) {
	p.t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	p.must(err)
	info, err := f.Stat()
	p.must(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at(info.Size()))
	p.must(err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b, at(info.Size()))
	p.must(errors.Join(err, f.Close()))
}

func middle(size int64) int64 { return size / 2 }

// TestChangeLogDamaged: what was durable and is not what was written is never
// passed on. The primary says which file it is, or does without it.
func TestChangeLogDamaged(t *testing.T) {
	for _, c := range []struct {
		name     string
		ends     bool // the primary
		taken    bool // what is lost is taken back from the stream
		replaced bool // a snapshot is made, which needs nothing of what cannot be read
		damage   func(p *plant, segments []string)
	}{
		{"byte in an old segment", false, false, true, func(p *plant, s []string) { p.flip(s[len(s)-2], middle) }},
		{"byte in the last segment", true, false, false, func(p *plant, s []string) { p.flip(s[len(s)-1], middle) }},
		{"last segment cut short", false, true, false, func(p *plant, s []string) { p.must(os.Truncate(s[len(s)-1], 5000)) }},
		{"segment deleted", true, false, false, func(p *plant, s []string) { p.must(os.Remove(s[1])) }},
		{"last segment deleted", false, true, false, func(p *plant, s []string) { p.must(os.Remove(s[len(s)-1])) }},
		{"all deleted", true, false, false, func(p *plant, s []string) { p.must(os.RemoveAll(p.data)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 124)
			p.tuning.changeLog.SegmentBytes = 30 << 10
			f := p.begin()
			for range 6 {
				p.app.do(15)
				p.even(f)
			}
			s, before := p.segments(), p.pipeline.Status().LSN.Durable
			p.stopPrimary()
			c.damage(p, s)
			p.app.do(10)
			p.startPrimary()
			p.app.do(10)
			ended := false
			p.soon("the primary ends or streams", patience, func() bool {
				select {
				case <-p.running.ended:
					ended = true
				default:
				}
				return ended || p.pipeline.Status().State == primary.StateStreaming
			})
			if ended {
				err := p.running.err
				t.Log(err)
				if !errors.Is(err, wal.ErrDamaged) && !errors.Is(err, primary.ErrFenced) {
					p.fail("the primary ended with %v", err)
				}
				// The way out: begin a new history.
				p.must(os.RemoveAll(p.data))
				p.must(p.connect("operator", p.url).Stream("app", p.stream).Delete(p.ctx))
				p.startPrimary()
			}
			if c.ends && !ended {
				p.fail("the primary goes on")
			}
			p.healed(f)
			if c.replaced {
				p.soon("a newer snapshot", patience, func() bool { return p.pipeline.Status().Snapshot.Newest >= before })
			}
			if c.taken && (ended || f.Status().Counters.Reseeds != 0) {
				p.fail("the primary ended: %t", ended)
			}
		})
	}
}

// TestLeftovers: what a crash leaves in the directories is in nobody's way.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 125)
	f := p.begin()
	p.stopPrimary()
	f.stop()
	p.app.do(20)
	junk := []byte(strings.Repeat("left over ", 1000))
	for _, dir := range []string{p.data, f.path + ".replicator"} {
		for _, base := range []string{"resync.db", "restore.db"} {
			for _, suffix := range []string{"", "-wal", "-shm", "-journal", ".partial"} {
				p.must(os.WriteFile(filepath.Join(dir, base+suffix), junk, 0o600))
			}
		}
	}
	p.must(os.Remove(f.path))
	p.startPrimary()
	f.start()
	p.healed(f)
	if _, err := os.Stat(filepath.Join(p.data, "resync.db")); !errors.Is(err, os.ErrNotExist) {
		p.fail("resync.db stays for ever: %v", err)
	}
}

// TestReplicaFileDamaged: the replica mends its file or says what to do; what it
// then shows is right.
func TestReplicaFileDamaged(t *testing.T) {
	sql := func(text string) func(*plant, *follower) {
		return func(p *plant, f *follower) { shell(p.t, f.path, text) }
	}
	for _, c := range []struct {
		name   string
		mends  bool // by itself
		damage func(p *plant, f *follower)
	}{
		{"deleted", true, func(p *plant, f *follower) { p.must(os.Remove(f.path)) }},
		{"emptied", true, func(p *plant, f *follower) { p.must(os.Truncate(f.path, 0)) }},
		{"cut short", false, func(p *plant, f *follower) { p.must(os.Truncate(f.path, 8192)) }},
		{"header destroyed", false, func(p *plant, f *follower) { p.flip(f.path, func(int64) int64 { return 3 }) }},
		{"position table dropped", false, sql("DROP TABLE _replicator_position")},
		{"position deleted", false, sql("DELETE FROM _replicator_position")},
		{"position unreadable", false, sql("UPDATE _replicator_position SET hash='none'")},
		{"position of another history", true, sql("UPDATE _replicator_position SET hash=replace(hash, '1', '2')")},
		{"position moved back", true, sql("UPDATE _replicator_position SET lsn=lsn-1")},
		{"position moved forward", true, sql("UPDATE _replicator_position SET lsn=lsn+3")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 126)
			f := p.begin()
			f.stop()
			c.damage(p, f)
			p.app.do(30)
			at, err := p.pipeline.Sync(p.ctx)
			p.must(err)
			p.clock.advance(longAgo)
			f.start()
			mended := f.outcome(at)
			if mended != c.mends {
				p.fail("mended by itself: %t, want %t", mended, c.mends)
			}
			p.healed(f)
		})
	}
}

// outcome waits until the replica has reached a position, or has said that a
// person must do something. Then that is done.
func (f *follower) outcome(at cdc.Position) (mended bool) {
	p := f.p
	p.t.Helper()
	over := false
	p.soon(f.name+" mends its file or says why not", patience, func() bool {
		select {
		case <-f.run.ended:
			over = true
		default:
		}
		s := f.Status()
		over = over || s.State == replica.Failed
		return over || s.Applied.LSN >= at.LSN && s.Applied.Lineage == at.Lineage
	})
	if !over {
		return true
	}
	s := f.Status()
	p.t.Log(s.Error)
	if s.State != replica.Failed || s.Error == nil || !strings.Contains(s.Error.Text, f.path) || !strings.Contains(s.Error.Text, "move it away") && !strings.Contains(s.Error.Text, "remove the file") {
		p.fail("the error says not which file it is and what to do")
	}
	_ = f.run.stop() // it may have ended with that error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		p.must(os.RemoveAll(f.path + suffix))
	}
	f.start()
	return false
}
