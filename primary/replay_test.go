package primary

import (
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A keeper is a Replayer that looks at the records when it has them all.
type keeper struct {
	t    *testing.T
	next cdc.LSN
	kept [][]byte
}

func (k *keeper) Apply(rec []byte) error {
	k.kept = append(k.kept, rec)
	return nil
}

func (k *keeper) Finish() error {
	for _, rec := range k.kept {
		r, err := cdc.Decode(rec)
		if err != nil || r.LSN != k.next {
			k.t.Errorf("record %d became record %d, %v", k.next, r.LSN, err)
		}
		k.next++
	}
	return nil
}

func (k *keeper) Close() error { return nil }

// TestReplayedRecordsStay: a Replayer keeps records until it commits, longer than
// the change log's reader does.
func TestReplayedRecordsStay(t *testing.T) {
	b := newBench(t, oneTable)
	k := &keeper{t: t}
	b.edit = func(o *Options) {
		o.Replay = func(_ string, m snapshot.Manifest) (Replayer, error) {
			k.next = m.Position.LSN + 1
			return k, nil
		}
	}
	b.start()
	b.sync()
	if _, err := b.p.Snapshot(b.ctx); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b.exec("INSERT INTO t(v) VALUES(randomblob(300000))")
		b.sync()
	}
	b.end()
	b.reconnect() // which leaves doubt
	b.start()
	b.sync()
	if len(k.kept) < 5 {
		t.Errorf("%d records were replayed, want the 5 after the snapshot", len(k.kept))
	}
}

// TestReplayWaitsForNobody: what a term that failed had appended last is replayed,
// although nobody made it durable, which is what readers wait for.
func TestReplayWaitsForNobody(t *testing.T) {
	b := newBench(t, oneTable)
	b.start()
	b.awaitSnapshot(b.sync().LSN)
	b.end()
	log := openLog(t, b)
	tail := log.Tail()
	term, err := cdc.NewID(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := cdc.NewEncoder(tail, tail.Position.Epoch+1, term, log.Append)
	if err := e.Epoch(cdc.Boundary{Source: tail.Boundary.Source}); err != nil {
		t.Fatal(err)
	}
	if log.Durable() == log.Last() {
		t.Fatal("the last record is durable already")
	}
	k := &keeper{t: t}
	b.edit = func(o *Options) {
		o.Replay = func(_ string, m snapshot.Manifest) (Replayer, error) {
			k.next = m.Position.LSN + 1
			return k, nil
		}
	}
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.rebuilder(log)(b.ctx, log.Tail().Position); err != nil || len(k.kept) != 1 {
		t.Errorf("%d records were replayed, %v; want 1", len(k.kept), err)
	}
}

// spoil damages every chunk of a snapshot.
func (b *bench) spoil(m snapshot.Manifest) {
	b.t.Helper()
	names, err := b.store.List(b.ctx, m.ID+"/chunk")
	if err != nil || len(names) == 0 {
		b.t.Fatalf("%d chunks of %s, %v", len(names), m.ID, err)
	}
	for _, name := range names {
		if err := b.store.Put(b.ctx, name, []byte("damaged")); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestResyncFromAnOlderSnapshot: a newest snapshot that is damaged costs records to
// replay, no break, and makes place for another one. Only when every one is damaged
// the history breaks.
func TestResyncFromAnOlderSnapshot(t *testing.T) {
	for damaged, broken := range map[int]bool{1: false, 2: true} {
		b := newBench(t, oneTable)
		replayed := 0
		b.edit = func(o *Options) {
			o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return tally{&replayed}, nil }
		}
		b.start()
		list := []snapshot.Manifest{b.awaitSnapshot(b.sync().LSN)}
		b.exec("CREATE TABLE other(a)") // which the count of records does not make
		b.sync()
		m, err := b.p.Snapshot(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
		b.end()
		for _, m := range list[2-damaged:] {
			b.spoil(m)
		}
		b.reconnect() // which leaves doubt
		b.start()
		b.sync()
		if got := b.has(cdc.Break); got != broken {
			t.Errorf("%d damaged: break %t, want %t", damaged, got, broken)
		}
		if want := int(list[1].Position.LSN - list[0].Position.LSN); !broken && replayed < want {
			t.Errorf("%d records were replayed, want at least %d", replayed, want)
		}
		if m := b.awaitSnapshot(list[1].Position.LSN + 1); m.ID == list[1].ID {
			t.Error("no snapshot took the place of the damaged one")
		}
		b.end()
	}
}

// A tally is a Replayer that counts what it is given.
type tally struct{ n *int }

func (c tally) Apply([]byte) error { *c.n++; return nil }
func (tally) Finish() error        { return nil }
func (tally) Close() error         { return nil }
