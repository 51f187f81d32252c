package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/wal"
)

// A natsStream is a real stream as a primary wants it.
type natsStream struct{ *stream.Stream }

func (s natsStream) State(ctx context.Context) (StreamState, error) {
	i, err := s.Info(ctx)
	return StreamState{Exists: i.Exists, First: i.First, Last: i.Last, Messages: i.Messages, Bytes: i.Bytes, MaxBytes: i.MaxBytes}, err
}

// onNATS lets the bench ship to an embedded server.
func (b *bench) onNATS() natsStream {
	b.t.Helper()
	logger := b.options().Logger
	server, err := stream.NewServer(stream.ServerOptions{Name: "test", Dir: b.t.TempDir(), Logger: logger})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	if err := server.WaitReady(b.ctx); err != nil {
		b.t.Fatal(err)
	}
	conn, err := stream.Connect(b.ctx, stream.Options{Server: server, Name: "test", Logger: logger})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Error(err)
		}
	})
	s := natsStream{conn.Stream("app", stream.StreamConfig{})}
	before := b.edit
	b.edit = func(o *Options) {
		if before != nil {
			before(o)
		}
		o.Stream = s
	}
	return s
}

// lostBench has published rows in several segments and was stopped.
func lostBench(t *testing.T, keep int) (*bench, natsStream) {
	t.Helper()
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.ChangeLog.SegmentBytes, o.Snapshot.Keep = 4<<10, keep }
	s := b.onNATS()
	b.start()
	b.awaitSnapshot(1)
	b.write(12)
	b.end()
	b.start() // another term
	b.write(12)
	b.end()
	return b, s
}

// write captures n transactions.
func (b *bench) write(n int) {
	b.t.Helper()
	for range n {
		b.exec("INSERT INTO t(v) VALUES(randomblob(500))")
		b.sync()
	}
}

func (b *bench) segments() []string {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.dir, "log", "*.log"))
	if err != nil || len(files) == 0 {
		b.t.Fatalf("segments %q, %v", files, err)
	}
	return files
}

// cutLog removes what lies above lsn from the change log.
func (b *bench) cutLog(lsn cdc.LSN) {
	b.t.Helper()
	if err := wal.Cut(filepath.Join(b.dir, "log"), lsn, wal.Options{}); err != nil {
		b.t.Fatal(err)
	}
}

// records are those of the stream.
func (b *bench) records(s Stream) (recs [][]byte) {
	b.t.Helper()
	state, err := s.State(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for lsn := state.First; lsn <= state.Last; lsn++ {
		rec, err := s.Get(b.ctx, lsn)
		if err != nil {
			b.t.Fatal(err)
		}
		recs = append(recs, rec)
	}
	return recs
}

// chained checks that the whole change log is one history without a break, and
// that the stream ends as it does. It gives the positions.
func (b *bench) chained(s Stream) map[cdc.LSN]cdc.Position {
	b.t.Helper()
	at := map[cdc.LSN]cdc.Position{}
	r, err := wal.OpenReader(filepath.Join(b.dir, "log"), 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	var v *cdc.Verifier
	var last []byte
	for {
		rec, h, err := r.Next()
		if err != nil {
			break
		}
		if v == nil {
			if h.LSN != 1 {
				b.t.Fatalf("the change log begins at %d", h.LSN)
			}
			v = cdc.NewVerifier(cdc.Position{})
		}
		if _, err := v.Verify(rec, false); err != nil {
			b.t.Fatal(err)
		}
		last, at[h.LSN] = slices.Clone(rec), v.Position()
	}
	recs := b.records(s)
	if string(recs[len(recs)-1]) != string(last) {
		b.t.Errorf("the stream ends otherwise than the change log")
	}
	return at
}

// TestTailTakenBack: a change log that lost its end gets it back from the stream,
// whole, and the history goes on without a break.
func TestTailTakenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(b *bench)
	}{
		{"one record", func(b *bench) { b.cutLog(25) }},
		{"the last term", func(b *bench) { b.cutLog(10) }},
		{"the last segment", func(b *bench) {
			s := b.segments()
			if err := os.Remove(s[len(s)-1]); err != nil {
				b.t.Fatal(err)
			}
		}},
		{"everything", func(b *bench) { b.cutLog(0) }},
		{"the end of a record", func(b *bench) {
			s := b.segments()
			info, err := os.Stat(s[len(s)-1])
			if err == nil {
				err = os.Truncate(s[len(s)-1], info.Size()-100)
			}
			if err != nil {
				b.t.Fatal(err)
			}
		}},
	} {
		for _, wrote := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the application wrote %t", c.name, wrote), func(t *testing.T) {
				b, s := lostBench(t, 2)
				before := b.records(s)
				c.lose(b)
				if wrote {
					b.exec("INSERT INTO t(v) VALUES('meanwhile')")
				}
				b.start()
				b.sync()
				b.write(3)
				after := b.records(s)
				if len(after) < len(before) || !slices.EqualFunc(before, after[:len(before)], func(a, b []byte) bool { return string(a) == string(b) }) {
					t.Errorf("the stream held %d records, now %d", len(before), len(after))
				}
				b.chained(s)
				rows, err := b.app.QueryInt("SELECT count(*) FROM t")
				if err != nil || b.inserted() != int(rows) {
					t.Errorf("%d inserts published, %d rows, %v", b.inserted(), rows, err)
				}
			})
		}
	}
}

// TestTailTakenBackFromATrimmedStream: of a change log that is gone the stream
// has what follows the oldest snapshot.
func TestTailTakenBackFromATrimmedStream(t *testing.T) {
	for _, between := range []int{0, 5} { // the boundaries after the snapshot: none, and some
		t.Run(fmt.Sprint(between), func(t *testing.T) {
			b, s := lostBench(t, 1)
			b.start()
			b.sync()
			m, err := b.p.Snapshot(b.ctx)
			if err != nil {
				t.Fatal(err)
			}
			trimmed := func() bool {
				state, err := s.State(b.ctx)
				return err == nil && state.First == m.Position.LSN
			}
			for !trimmed() {
				if b.ctx.Err() != nil {
					t.Fatalf("the stream is not trimmed: %+v", b.p.Status())
				}
				if m, err = b.p.Snapshot(b.ctx); err != nil {
					t.Fatal(err)
				}
			}
			b.write(between)
			b.end()
			b.cutLog(0)
			b.start()
			b.sync()
			b.write(3)
			v := cdc.NewVerifier(m.Position)
			for i, rec := range b.records(s)[1:] {
				if _, err := v.Verify(rec, false); err != nil {
					t.Fatalf("record %d after the snapshot: %v", i+1, err)
				}
			}
			if got := b.captured(); got[0].LSN != m.Position.LSN+1 || got[len(got)-1].LSN != v.Position().LSN {
				t.Errorf("the change log has %d to %d, the stream ends at %d", got[0].LSN, got[len(got)-1].LSN, v.Position().LSN)
			}
		})
	}
}

// emptyLog gives a pipeline that was stopped, a stream of its that begins at a snapshot, and
// a change log without a record.
func emptyLog(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.Snapshot.Keep = 1 }
	b.start()
	b.write(3)
	if at := b.snapshot(); b.streamFirst() != at {
		t.Fatalf("the stream begins at %d, the snapshot is at %d", b.streamFirst(), at)
	}
	b.write(3)
	b.end()
	b.cutLog(0)
	return b
}

// TestTakingBackIsCutShort: a crash after the change log was given where to go on from, and
// before it had a record of what it had lost.
func TestTakingBackIsCutShort(t *testing.T) {
	b := emptyLog(t)
	log, last := openLog(t, b), b.stream.last
	state, err := b.stream.State(b.ctx)
	noError(t, err)
	lost, err := b.reconciler(log).recovery.find(b.ctx, log, state)
	noError(t, err)
	noError(t, errors.Join(log.Adopt(lost.base), log.Close()))
	b.start()
	b.sync()
	if got := b.captured(); got[0].LSN != lost.base.Next || got[len(got)-1].LSN <= last {
		t.Errorf("the change log has %d to %d, it had lost %d to %d", got[0].LSN, got[len(got)-1].LSN, lost.base.Next, last)
	}
}

// TestForkRightBeforeTheStream: what was captured over the gap ends where the stream, which
// was trimmed, begins, and is no beginning of it.
func TestForkRightBeforeTheStream(t *testing.T) {
	b := emptyLog(t)
	first, last := b.streamFirst(), b.stream.last
	log, term := openLog(t, b), cdc.ID{7}
	noError(t, b.reconciler(log).recovery.terms.begin(term, 1))
	tail := log.Tail()
	tail.Boundary.Lineage = cdc.ID{8}
	e := cdc.NewEncoder(tail, 1, term, log.Append)
	for e.Position().LSN+1 < first {
		noError(t, e.Epoch(cdc.Boundary{}))
	}
	noError(t, log.Close())
	b.start()
	b.sync()
	if got := b.captured(); got[0].LSN != first+1 || got[len(got)-1].LSN <= last {
		t.Errorf("the change log has %d to %d, the stream had %d to %d", got[0].LSN, got[len(got)-1].LSN, first, last)
	}
}

// TestTailLostWhileNATSIsAway: what was captured over the gap gives way to what
// the stream has, and so does its snapshot. Its rows follow.
func TestTailLostWhileNATSIsAway(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) {
		o.ChangeLog.SegmentBytes = 4 << 10
		o.Snapshot.Keep = 100
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return noReplay{}, nil }
	}
	b.start()
	b.awaitSnapshot(1)
	b.write(12)
	if _, err := b.p.Snapshot(b.ctx); err != nil { // where the stream ends
		t.Fatal(err)
	}
	b.end()
	before := b.records(b.stream)
	b.cutLog(7)
	b.stream.set(func(s *fakeStream) { s.down = fakeCondition("unavailable") })
	b.exec("INSERT INTO t(v) VALUES(1),(2)")
	b.start()
	if _, err := b.p.Snapshot(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.exec("INSERT INTO t(v) VALUES(3)")
	b.stream.set(func(s *fakeStream) { s.down = nil })
	if err := b.p.changed.wait(b.ctx, func() bool { return b.p.published() > cdc.LSN(len(before)) }); err != nil {
		t.Fatalf("%v: %+v", err, b.p.Status())
	}
	b.sync()
	after := b.records(b.stream)
	if !slices.EqualFunc(before, after[:len(before)], func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Error("the stream's records were replaced")
	}
	at := b.chained(b.stream)
	if b.inserted() != 15 {
		t.Errorf("%d inserts published, 15 rows", b.inserted())
	}
	var list []snapshot.Manifest
	stale := func(m snapshot.Manifest) bool { return m.Position != at[m.Position.LSN] }
	err := b.p.changed.wait(b.ctx, func() bool {
		var err error
		list, err = snapshot.List(b.ctx, b.store)
		return err == nil && !slices.ContainsFunc(list, stale)
	})
	if err != nil || len(list) < 2 {
		t.Errorf("%d snapshots are left, some of them of what gave way: %v", len(list), err)
	}
}

// TestTailLostAndSomebodyElsePublished: nothing is taken back, nothing is
// overwritten.
func TestTailLostAndSomebodyElsePublished(t *testing.T) {
	for _, c := range []struct {
		name string
		keep cdc.LSN // of the change log
	}{{"one record lost", 25}, {"all lost", 0}, {"nothing lost", 100}} {
		t.Run(c.name, func(t *testing.T) {
			b, s := lostBench(t, 2)
			heir := newBench(t, oneTable)
			heir.edit = func(o *Options) { o.Stream, o.Snapshots, o.Node = s, b.store, "heir" }
			if err := os.CopyFS(heir.dir, os.DirFS(b.dir)); err != nil {
				t.Fatal(err)
			}
			heir.start()
			heir.sync()
			heir.end()
			before := b.records(s)
			b.cutLog(c.keep)
			log := b.segmentBytes()
			b.start()
			if err := b.await(); !errors.Is(err, ErrFenced) || b.p.Status().State != StateFenced {
				t.Errorf("Run returned %v, state %s", err, b.p.Status().State)
			}
			if after := b.records(s); !slices.EqualFunc(before, after, func(a, b []byte) bool { return string(a) == string(b) }) {
				t.Error("the stream has changed")
			}
			if got := b.segmentBytes(); !bytes.HasPrefix(got, log) { // its own epoch record may follow
				t.Error("the change log was rewritten")
			}
		})
	}
}

// segmentBytes is the change log as it is on the disk.
func (b *bench) segmentBytes() (all []byte) {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.dir, "log", "*.log"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, text...)
	}
	return all
}

// TestCopyTakesNothingBack: a copy of a data directory under the name of another
// node does not know the terms in it, and one that is older than a term not that.
func TestCopyTakesNothingBack(t *testing.T) {
	b, s := lostBench(t, 2)
	for _, c := range []struct {
		node  string
		edit  func(*termBook)
		fence bool
	}{
		{"test", func(*termBook) {}, false},
		{"another", func(*termBook) {}, true},
		{"test", func(t *termBook) { t.Terms = t.Terms[:1] }, true},
	} {
		twin := newBench(t, oneTable)
		twin.edit = func(o *Options) { o.Stream, o.Snapshots, o.Node = s, b.store, c.node }
		if err := os.CopyFS(twin.dir, os.DirFS(b.dir)); err != nil {
			t.Fatal(err)
		}
		known, err := openTerms(twin.dir, "test", twin.options().Logger)
		if err != nil {
			t.Fatal(err)
		}
		c.edit(&known.book)
		if err := known.begin(cdc.ID{1}, 9); err != nil {
			t.Fatal(err)
		}
		twin.cutLog(10)
		log, err := wal.Open(filepath.Join(twin.dir, "log"), wal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := New(twin.options())
		if err != nil {
			t.Fatal(err)
		}
		if p.terms, err = openTerms(twin.dir, c.node, twin.options().Logger); err != nil {
			t.Fatal(err)
		}
		state, err := s.State(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		lost, err := p.recovery().find(b.ctx, log, state)
		if err != nil || (lost == nil) != c.fence {
			t.Errorf("as node %s: %+v, %v", c.node, lost, err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
}
