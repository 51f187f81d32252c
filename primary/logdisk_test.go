package primary

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// A witness stands before a stream and sees to it that a power failure just now would
// leave each record that is published in the change log.
type witness struct {
	*fakeStream
	t     *testing.T
	dir   string
	fs    *durable.Mem
	count int
}

func (w *witness) Publish(ctx context.Context, after cdc.LSN, next func(context.Context) ([]byte, cdc.LSN, error), acked func(cdc.LSN)) error {
	return w.fakeStream.Publish(ctx, after, func(ctx context.Context) ([]byte, cdc.LSN, error) {
		rec, lsn, err := next(ctx)
		if err == nil {
			w.count++
			w.proves(rec, lsn)
		}
		return rec, lsn, err
	}, acked)
}

func (w *witness) proves(rec []byte, lsn cdc.LSN) {
	log, err := wal.Open(filepath.Join(w.dir, "log"), wal.Options{FS: w.fs.Crash(nil)})
	if err != nil {
		w.t.Errorf("record %d is published, and after a power failure: %v", lsn, err)
		return
	}
	defer func() { _ = log.Close() }() // of an image
	if got, err := log.Record(lsn); err != nil || !bytes.Equal(got, rec) {
		w.t.Errorf("record %d is published, and a power failure would take it: %v", lsn, err)
	}
}

// rows is what a replica of the stream would hold.
func (w *witness) rows() map[int64]string {
	recs, err := w.all()
	noError(w.t, err)
	rows := map[int64]string{}
	var d cdc.Decoder
	for _, r := range recs {
		noError(w.t, d.Decode(r, changesOf(rows)))
	}
	return rows
}

// TestChangeLogDiskInTrouble: a running primary whose change log's disk fails at a call,
// or fails although it happened, says so, believes nothing but what another opening
// reads back, and goes on by itself. Nothing is published that could still be lost.
func TestChangeLogDiskInTrouble(t *testing.T) {
	for _, c := range []struct {
		name, op string
		fault    durable.Fault
		state    string
	}{
		{"fsync fails", "sync", durable.Fault{Err: syscall.EIO}, StateFailed},
		{"fsync fails although it happened", "sync", durable.Fault{Err: syscall.EIO, Happened: true}, StateFailed},
		{"write fails", "write", durable.Fault{Err: syscall.EIO}, StateFailed},
		{"write fails although it happened", "write", durable.Fault{Err: syscall.EIO, Happened: true}, StateFailed},
		{"no space after a short write", "write", durable.Fault{Err: syscall.ENOSPC, Wrote: 77}, StateDiskFull},
		{"no space for a segment", "create", durable.Fault{Err: syscall.ENOSPC}, StateDiskFull},
		{"a segment's entry is not synced", "syncdir", durable.Fault{Err: syscall.EIO}, StateFailed},
		{"a segment's entry is synced and an error given", "syncdir", durable.Fault{Err: syscall.EIO, Happened: true}, StateFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
			fs := durable.NewMem()
			w := &witness{fakeStream: b.stream, t: t, dir: b.dir, fs: fs}
			b.edit = func(o *Options) {
				o.Stream, o.ChangeLog.FS, o.ChangeLog.SegmentBytes = w, fs, 4<<10
				o.Capture.TurnoverBytes = 1 << 30 // started over while there is no pin it would need a resync
			}
			b.start()
			snap := b.awaitSnapshot(b.sync().LSN)
			write := func() { b.exec("INSERT INTO t(v) VALUES(hex(randomblob(500)))") }
			write()
			before := b.sync()

			calm, strike := context.WithCancel(b.ctx)
			defer strike()
			reopened, heal := make(chan struct{}), make(chan struct{})
			var first, next sync.Once
			fs.Inject(func(call durable.Call) (f durable.Fault) {
				switch call.Op {
				case c.op:
					first.Do(func() { f = c.fault; strike() })
				case "mkdir": // the next opening: until then what has happened is the state
					next.Do(func() { close(reopened) })
					select {
					case <-heal:
					case <-b.ctx.Done():
					}
				}
				return f
			})
			for calm.Err() == nil {
				write()
				_, _ = b.p.Sync(calm) // ends as the fault strikes
			}
			select {
			case <-reopened:
			case <-b.ctx.Done():
				t.Fatalf("the change log is not opened again: %+v", b.p.Status())
			}
			if s := b.p.Status(); s.State != c.state || !strings.Contains(s.Error, c.fault.Err.Error()) {
				t.Errorf("it is %s and says %q", s.State, s.Error)
			}
			fs.Inject(nil)
			close(heal)
			write()
			at := b.sync()
			b.awaitSnapshot(snap.Position.LSN) // each opening of the change log asks what there is
			if s := b.p.Status(); s.State != StateStreaming || s.Error != "" {
				t.Errorf("healed: %+v", s)
			}
			if got, want := w.rows(), rowsOf(t, b.app); !maps.Equal(got, want) {
				t.Errorf("%d rows published, %d in the database", len(got), len(want))
			}
			// Two epochs, and transactions before and after, which may share a record.
			if at.Epoch == before.Epoch || w.count < 4 {
				t.Errorf("epoch %d after %d, %d records published: nothing was tested", at.Epoch, before.Epoch, w.count)
			}
		})
	}
}

// A rottenFS cannot read the records of one file.
type rottenFS struct {
	durable.OS
	name string
}

func (f *rottenFS) Open(name string, flag int) (durable.File, error) {
	file, err := f.OS.Open(name, flag)
	if err == nil && name == f.name {
		file = rottenFile{file}
	}
	return file, err
}

type rottenFile struct{ durable.File }

func (f rottenFile) ReadAt(b []byte, at int64) (int, error) {
	const sector = 512 // the header of a segment is in the first
	if at+int64(len(b)) > sector {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(b, at)
}

// TestChangeLogHasABadSector: what is published and was trimmed nowhere yet may be needed by
// a resync alone. A snapshot takes its place, wherever in it the disk fails.
func TestChangeLogHasABadSector(t *testing.T) {
	for _, later := range []int{0, 2} { // segments after the one that has what follows the snapshot
		b := newBench(t, oneTable)
		disk := &rottenFS{}
		b.edit = func(o *Options) { o.ChangeLog.FS, o.ChangeLog.SegmentBytes = disk, 2<<10 }
		b.start()
		b.write(2)
		at := b.snapshot()
		b.write(20)
		b.end()
		segments := b.segments()
		for i, name := range segments {
			if filepath.Base(name) <= fmt.Sprintf("%020d.log", uint64(at)+1) {
				disk.name = segments[i+later]
			}
		}
		b.start()
		before := b.sync()
		if m := b.awaitSnapshot(before.LSN); m.Position.Epoch != before.Epoch {
			t.Errorf("the snapshot is at %v, it began at %v", m.Position, before)
		}
		if now := b.sync(); now != before {
			t.Errorf("it began at %v and is at %v", before, now)
		}
		b.end()
	}
}

// TestResyncBesideABadSector: a bad sector does not keep a source waiting that has to be compared.
// A snapshot above it leads on, and where there is none, a break does.
func TestResyncBesideABadSector(t *testing.T) {
	for name, above := range map[string]bool{"below the newest snapshot": true, "above it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, oneTable)
			disk := &rottenFS{}
			b.edit = func(o *Options) {
				o.ChangeLog.FS, o.ChangeLog.SegmentBytes, o.Snapshot.Keep = disk, 2<<10, 9
				o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return noReplay{}, nil }
			}
			b.start()
			b.write(2)
			b.snapshot()
			b.write(20)
			if above {
				b.snapshot()
			}
			b.end()
			segments := b.segments()
			disk.name = segments[len(segments)/2]
			b.reconnect() // which leaves doubt
			b.start()
			b.sync()
			if got := b.has(cdc.Break); got == above {
				t.Errorf("a break: %t", got)
			}
			b.end()
		})
	}
}
