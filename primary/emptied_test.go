package primary

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// TestEmptiedStreamOfAnotherPrimary: a transaction that is larger than the stream leaves
// it empty, with a snapshot where it ends. A primary that was away, and whose change log
// has other records there, finds nothing to compare with but that snapshot.
func TestEmptiedStreamOfAnotherPrimary(t *testing.T) {
	for _, c := range []struct {
		name    string
		trimmed bool // the change log of the one that was away begins above the stream's end
		terms   int  // of the heir, which writes in the last; 0: there is no heir
	}{{"fork", false, 2}, {"fork below the change log", true, 2}, {"fork in the same epoch", true, 1}, {"no fork", false, 0}, {"no fork below the change log", true, 0}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable)
			b.start()
			b.awaitSnapshot(b.sync().LSN)
			b.end()
			heir := newBench(t, oneTable)
			heir.stream, heir.store = b.stream, b.store
			heir.edit = func(o *Options) { o.Node = "heir" }
			noError(t, os.CopyFS(heir.dir, os.DirFS(b.dir)))

			b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
			if c.trimmed {
				b.edit = func(o *Options) { o.ChangeLog.MaxBytes, o.ChangeLog.SegmentBytes = 1<<20, 64<<10 }
			}
			b.start()
			for n := 0; n < 40 || c.trimmed && b.p.Status().ChangeLog.First < 20; n++ { // captured, and heard by nobody
				b.exec("INSERT INTO t(v) VALUES(randomblob(100000))")
				_, err := b.p.reach(b.ctx)
				noError(t, err)
			}
			last := b.p.Status().LSN.Durable
			b.end()
			b.stream.set(func(s *fakeStream) { s.down, s.limit = nil, 256<<10 })

			at := b.stream.last
			if c.terms > 0 {
				for range c.terms {
					if heir.stop != nil {
						heir.end()
					}
					heir.start()
					heir.sync()
				}
				heir.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t(v) SELECT randomblob(700) FROM n")
				at = heir.sync().LSN
				heir.end()
			} else {
				noError(t, b.stream.PurgeThrough(b.ctx, at, at))
			}
			state, err := b.stream.State(b.ctx)
			noError(t, err)
			if state.Messages != 0 || state.Last != at || last <= at {
				t.Fatalf("the stream holds %+v, the heir is at %d, the change log of the other ends at %d: nothing is tested", state, at, last)
			}
			b.stream.set(func(s *fakeStream) { s.limit = 0 })
			b.start()
			if c.terms == 0 {
				if got := b.sync(); b.stream.last != got.LSN {
					t.Errorf("synced %v, the stream ends at %d", got, b.stream.last)
				}
				return
			}
			if err := b.await(); !errors.Is(err, ErrFenced) {
				t.Errorf("Run returned %v", err)
			}
			if after, err := b.stream.State(b.ctx); err != nil || after.Last != at {
				t.Errorf("the stream went on from %d to %d, %v", at, after.Last, err)
			}
		})
	}
}

// TestStreamBelowTheChangeLog: what lies below the change log cannot be compared byte by
// byte, but its epoch and its term tell whose it is.
func TestStreamBelowTheChangeLog(t *testing.T) {
	for _, c := range []struct {
		name   string
		epochs cdc.Epoch // of the stream's last record, after that of the last in common
		own    bool      // its term began here
		fenced bool
	}{
		{"our own", 1, true, false},
		{"another primary's", 1, false, true},
		{"of an epoch that we are in only now", 4, true, true},
	} {
		b := newBench(t, oneTable)
		b.start()
		b.sync()
		b.end()
		log, own := openLog(t, b), cdc.ID{7}
		tail := log.Tail()
		noted, err := openTerms(b.dir, "test", testLogger())
		noError(t, err)
		if c.own {
			noError(t, noted.begin(own, tail.Position.Epoch+c.epochs))
		}
		e := cdc.NewEncoder(tail, tail.Position.Epoch+c.epochs, own, func(rec []byte, h cdc.Head, _ *cdc.Boundary) error { return b.stream.add(rec, h.LSN) })
		noError(t, e.Epoch(cdc.Boundary{}))
		trimmed := trimmedLog(t, log)
		now := cdc.NewEncoder(trimmed.Tail(), tail.Position.Epoch+4, cdc.ID{8}, trimmed.Append)
		noError(t, errors.Join(now.Epoch(cdc.Boundary{}), trimmed.Sync()))
		if trimmed.First() <= tail.Next || trimmed.First() == trimmed.Last() {
			t.Fatalf("the change log holds %d to %d", trimmed.First(), trimmed.Last())
		}
		s := &shipper{stream: b.stream, log: trimmed, logger: testLogger(), recovery: &recovery{stream: b.stream, snapshots: b.store, terms: noted}}
		if _, err := s.reconcile(b.ctx); errors.Is(err, ErrFenced) != c.fenced || err != nil && !c.fenced {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// reconciler is the shipper of b's change log, which is open.
func (b *bench) reconciler(log *wal.Log) *shipper {
	b.t.Helper()
	noted, err := openTerms(b.dir, "test", testLogger())
	noError(b.t, err)
	return &shipper{stream: b.stream, log: log, logger: testLogger(), recovery: &recovery{stream: b.stream, snapshots: b.store, terms: noted}}
}

// TestUnreadableLastRecord: a last record that NATS counts and cannot read proves nothing, and
// is asked for again. Of one that somebody has removed the one before tells.
func TestUnreadableLastRecord(t *testing.T) {
	for _, trimmed := range []bool{false, true} { // the change log begins above the stream's end
		for _, foreign := range []bool{false, true} {
			for _, removed := range []bool{false, true} {
				b := newBench(t, oneTable)
				b.start()
				b.write(3)
				b.end()
				log, last := openLog(t, b), b.stream.last
				if foreign {
					b.stream.last -= 2
					tail := log.Tail()
					tail.Next = last - 1
					e := cdc.NewEncoder(tail, tail.Position.Epoch, cdc.ID{9}, func(rec []byte, h cdc.Head, _ *cdc.Boundary) error { return b.stream.add(rec, h.LSN) })
					noError(t, errors.Join(e.Epoch(cdc.Boundary{}), e.Epoch(cdc.Boundary{})))
				}
				if trimmed {
					log = trimmedLog(t, log)
				}
				if removed {
					delete(b.stream.records, last)
				} else {
					b.stream.unread = last
				}
				s := b.reconciler(log)
				if !removed {
					if after, err := s.reconcile(b.ctx); err == nil || errors.Is(err, ErrFenced) || b.stream.last != last {
						t.Errorf("trimmed %t, foreign %t: after %d, %v; the stream ends at %d and ended at %d", trimmed, foreign, after, err, b.stream.last, last)
					}
					b.stream.unread = 0
				}
				if after, err := s.reconcile(b.ctx); errors.Is(err, ErrFenced) != foreign || !foreign && (err != nil || after < last) {
					t.Errorf("trimmed %t, foreign %t, removed %t: after %d, %v", trimmed, foreign, removed, after, err)
				}
			}
		}
	}
}

// A hookedFS calls hook once, before it opens a file.
type hookedFS struct {
	durable.OS
	hook func()
}

func (f *hookedFS) Open(name string, flag int) (durable.File, error) {
	if hook := f.hook; hook != nil {
		f.hook = nil
		hook()
	}
	return f.OS.Open(name, flag)
}

// TestTrimmedWhileCompared: the change log may be trimmed beyond the end of a stream of ours
// without a record while the snapshot there is compared with it.
func TestTrimmedWhileCompared(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.write(3)
	at := b.snapshot()
	b.end()
	disk := &hookedFS{}
	log, err := wal.Open(filepath.Join(b.dir, "log"), wal.Options{SegmentBytes: 1, FS: disk})
	noError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	term, tail := cdc.ID{7}, log.Tail()
	s := b.reconciler(log)
	noError(t, s.recovery.terms.begin(term, tail.Position.Epoch+1))
	e := cdc.NewEncoder(tail, tail.Position.Epoch+1, term, log.Append)
	for range 3 {
		noError(t, errors.Join(e.Epoch(cdc.Boundary{Source: tail.Boundary.Source}), log.Sync()))
	}
	noError(t, b.stream.PurgeThrough(b.ctx, b.stream.last, at))
	disk.hook = func() { noError(t, log.Trim(log.Durable())) }
	for try := range 2 {
		if after, err := s.reconcile(b.ctx); err != nil || after < at {
			t.Errorf("try %d: after %d, %v; the stream was emptied at %d", try, after, err, at)
		}
	}
	if log.First() <= at {
		t.Errorf("the change log begins at %d: nothing is tested", log.First())
	}
}

// TestEmptiedStreamAtANewerSnapshot: whose a snapshot is that a later version has made cannot
// be told. One that is damaged tells nothing, as if it were not there.
func TestEmptiedStreamAtANewerSnapshot(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.write(3)
	m, err := b.p.Snapshot(b.ctx)
	noError(t, err)
	b.end()
	s, at := b.reconciler(openLog(t, b)), b.stream.last
	noError(t, b.stream.PurgeThrough(b.ctx, at, at))
	for _, c := range []struct {
		manifest string
		want     error
	}{{`{"format":99}`, snapshot.ErrVersion}, {"torn", nil}} {
		noError(t, b.store.Put(b.ctx, m.ID+"/manifest.json", []byte(c.manifest)))
		if _, err := s.reconcile(b.ctx); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.manifest, err, c.want)
		}
	}
}
