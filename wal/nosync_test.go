package wal

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// TestNoSync: records survive the process and cost no sync of the disk. A power
// failure takes the last of them, and what is left is a log.
func TestNoSync(t *testing.T) {
	fs := durable.NewMem()
	syncs := 0
	fs.Inject(func(c durable.Call) durable.Fault {
		if c.Op == "sync" && strings.HasSuffix(c.Name, suffix) {
			syncs++
		}
		return durable.Fault{}
	})
	l, err := Open("/log", Options{FS: fs, SegmentBytes: small, NoSync: true})
	must(t, err)
	w := newWriter(l, 1)
	must(t, w.epoch())
	for range 40 {
		must(t, w.commit(700))
		must(t, l.Sync())
		if l.Durable() != l.Last() {
			t.Fatalf("readers see up to %d of %d", l.Durable(), l.Last())
		}
	}
	rolled := l.current.Load().last().first
	if segments := len(l.current.Load().segments); syncs > 2*segments || segments < 3 {
		t.Errorf("%d syncs for %d segments", syncs, segments)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		after := fs.Crash(random.IntN)
		l, err := Open("/log", Options{FS: after, SegmentBytes: small})
		must(t, err)
		if l.Last() < rolled-1 {
			t.Errorf("the log ends at %d, a segment that was complete at %d", l.Last(), rolled-1)
		}
		must(t, readAll(l, w.out, 1, l.Last()))
		must(t, l.Close())
	}
	killed, err := Open("/log", Options{FS: fs, SegmentBytes: small}) // nobody closed it
	must(t, err)
	must(t, readAll(killed, w.out, 1, l.Last()))
	must(t, killed.Close())
}

// TestNoSyncEnds: what is closed in order is on the disk.
func TestNoSyncEnds(t *testing.T) {
	fs := durable.NewMem()
	l, err := Open("/log", Options{FS: fs, NoSync: true})
	must(t, err)
	w := newWriter(l, 1)
	must(t, w.epoch())
	must(t, w.commit(700))
	must(t, l.Sync())
	must(t, l.Close())
	after, err := Open("/log", Options{FS: fs.Crash(nil)})
	must(t, err)
	must(t, readAll(after, w.out, 1, 2))
	must(t, after.Close())
}
