package wal

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

func TestCutTail(t *testing.T) {
	for _, synced := range []bool{false, true} {
		fs := durable.NewMem()
		l := open(t, fs, "/log", small)
		w := newWriter(l, 1)
		must(t, errors.Join(w.epoch(), w.commit(100)))
		before := l.Tail()
		must(t, l.CutTail()) // nothing to cut
		must(t, errors.Join(l.Sync(), w.parts(3)))
		if synced {
			must(t, l.Sync())
		}
		r, err := l.Reader(2)
		must(t, err)
		defer r.Close()
		inside := l.Tail()
		if !inside.Inside() || inside.Next != 6 {
			t.Fatalf("tail of a log inside a transaction: next %d", inside.Next)
		}
		must(t, l.CutTail())
		if got := l.Tail(); got.Inside() || got.Next != before.Next || got.Position != before.Position {
			t.Errorf("synced %t: tail after CutTail %v, next %d; want %v, next %d", synced, got.Position, got.Next, before.Position, before.Next)
		}
		if _, _, err := r.Next(t.Context()); !errors.Is(err, ErrCut) {
			t.Errorf("a reader from before CutTail: %v", err)
		}
		w.resume(l, 2)
		must(t, errors.Join(w.epoch(), w.commit(5), l.Sync()))
		if err := readAll(l, w.out, 1, 4); err != nil {
			t.Error(err)
		}
		must(t, l.Close())
		l = open(t, fs, "/log", small)
		if err := readAll(l, w.out, 1, 4); err != nil {
			t.Errorf("after reopening: %v", err)
		}
	}
}

// An unfinished transaction of which something was published stays, and the
// epoch record of the next term aborts it.
func TestUnfinishedTransactionStays(t *testing.T) {
	fs := durable.NewMem()
	l := open(t, fs, "/log", small)
	w := newWriter(l, 1)
	must(t, errors.Join(w.epoch(), w.commit(100), w.parts(3), l.Sync()))
	l = open(t, fs.Crash(nil), "/log", small)
	if tail := l.Tail(); tail.Next != 6 || tail.Position.LSN != 2 || !tail.Inside() {
		t.Fatalf("tail %v, next %d", tail.Position, tail.Next)
	}
	w.resume(l, 2)
	must(t, errors.Join(w.epoch(), w.commit(5), l.Sync()))
	if err := readAll(l, w.out, 1, 7); err != nil {
		t.Error(err)
	}
}

func TestAdopt(t *testing.T) {
	old := open(t, durable.NewMem(), "/log", small)
	w := newWriter(old, 1)
	must(t, errors.Join(w.epoch(), w.commit(100), w.commit(100), old.Sync()))
	tail := old.Tail()

	fs := durable.NewMem()
	l := open(t, fs, "/log", small)
	must(t, l.Adopt(tail))
	if l.First() != 0 || l.Last() != 3 || l.Durable() != 3 {
		t.Errorf("first %d, last %d, durable %d; want 0, 3, 3", l.First(), l.Last(), l.Durable())
	}
	if err := l.Adopt(tail); err == nil {
		t.Error("a log was adopted twice")
	}
	l = open(t, fs.Crash(nil), "/log", small)
	got := l.Tail()
	if got.Position != tail.Position || got.Next != tail.Next || got.Chain.Prev() != tail.Chain.Prev() {
		t.Errorf("tail %v, next %d after reopening; want %v, %d", got.Position, got.Next, tail.Position, tail.Next)
	}
	if d := cmp.Diff(tail.Boundary, got.Boundary); d != "" {
		t.Error(d)
	}
	if _, err := l.Reader(3); !errors.Is(err, ErrTrimmed) {
		t.Errorf("read below what was adopted: %v", err)
	}
	w.resume(l, 2)
	must(t, errors.Join(w.epoch(), w.commit(5), l.Sync()))
	if l.First() != 4 {
		t.Errorf("first %d, want 4", l.First())
	}
	v := cdc.NewVerifier(tail.Position)
	for lsn := cdc.LSN(4); lsn <= 5; lsn++ {
		rec, err := l.Record(lsn)
		must(t, err)
		if _, err := v.Verify(rec, false); err != nil {
			t.Error(err)
		}
	}
	if lag, err := l.Lag(3); err != nil || lag.Transactions != 1 {
		t.Errorf("lag behind what was adopted: %+v, %v", lag, err)
	}
}

func TestAdoptRefuses(t *testing.T) {
	other := open(t, durable.NewMem(), "/log", small)
	w := newWriter(other, 1)
	must(t, errors.Join(w.epoch(), w.parts(2)))
	inside := other.Tail()
	gap := cdc.Tail{Position: cdc.Position{LSN: 7}, Next: 9}
	l := open(t, durable.NewMem(), "/log", small)
	for _, tail := range []cdc.Tail{inside, gap, {}} {
		if err := l.Adopt(tail); err == nil {
			t.Errorf("adopted %v, next %d", tail.Position, tail.Next)
		}
	}
	// After doubt: another number, no position, and a break record first.
	tail := cdc.Tail{Boundary: cdc.Boundary{Lineage: cdc.ID{1}, Transactions: 5}, Next: 100}
	must(t, l.Adopt(tail))
	w.resume(l, 3)
	must(t, errors.Join(w.enc.Break(w.boundary(), "the change log was lost"), w.commit(1), l.Sync()))
	b, err := l.Boundary(100)
	must(t, err)
	if b.Kind != cdc.Break || b.Boundary.Transactions != 5 {
		t.Errorf("%s record with %d transactions", b.Kind, b.Boundary.Transactions)
	}
}

func TestLag(t *testing.T) {
	fs := durable.NewMem()
	l := open(t, fs, "/log", small)
	w := newWriter(l, 1)
	must(t, w.epoch()) // LSN 1, captured at second 1
	for range 50 {
		must(t, w.commit(100)) // LSN n, captured at second n
	}
	must(t, w.parts(3)) // LSN 52, 53, 54
	must(t, w.end())    // LSN 55, captured at second 52
	must(t, l.Sync())

	check := func(l *Log) {
		t.Helper()
		last, err := l.Boundary(55)
		must(t, err)
		for _, applied := range []cdc.LSN{0, 1, 2, 30, 50, 51, 55, 99} {
			var want Lag
			if applied < 55 {
				from := &cdc.Boundary{}
				if applied > 0 {
					rec, err := l.Boundary(applied)
					must(t, err)
					from = rec.Boundary
				}
				oldest := max(applied+1, 1)
				if applied == 51 {
					oldest = 52
				}
				want = Lag{
					Transactions: last.Boundary.Transactions - from.Transactions,
					Bytes:        last.Boundary.Bytes - from.Bytes,
					Since:        captured.Add(time.Duration(oldest) * time.Second),
				}
			}
			got, err := l.Lag(applied)
			must(t, err)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("lag behind %d: %s", applied, d)
			}
		}
	}
	check(l)
	if rec, err := l.Boundary(52); err != nil || rec.LSN != 55 || rec.Body != nil {
		t.Errorf("first boundary from a part on: %d, %v", rec.LSN, err)
	}
	must(t, l.Close())
	l = open(t, fs, "/log", small) // now only the last segment's are in memory
	check(l)
	must(t, l.Trim(40))
	if _, err := l.Lag(1); !errors.Is(err, ErrTrimmed) {
		t.Errorf("lag behind a trimmed record: %v", err)
	}
}

// The ring keeps the newest boundaries and finds them once it has wrapped.
func TestBoundariesRing(t *testing.T) {
	var x boundaries
	const n = maxBounds + maxBounds/2
	for i := range cdc.LSN(n) {
		x.add(2*i+2, &cdc.Boundary{Transactions: uint64(i)})
	}
	for _, c := range []struct {
		lsn, want cdc.LSN
		ok        bool
	}{
		{1, 0, false}, {maxBounds, 0, false}, {maxBounds + 2, maxBounds + 2, true},
		{maxBounds + 3, maxBounds + 4, true}, {2*n - 1, 2 * n, true}, {2 * n, 2 * n, true}, {2*n + 1, 0, false},
	} {
		if b, ok := x.from(c.lsn); ok != c.ok || b.lsn != c.want {
			t.Errorf("from(%d) = %d, %t; want %d, %t", c.lsn, b.lsn, ok, c.want, c.ok)
		}
	}
}
