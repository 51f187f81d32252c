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
