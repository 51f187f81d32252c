package wal

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
)

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, nil, dir, 4<<10)
	w := newWriter(l, 1)
	must(t, w.epoch())
	for i := range 100 {
		must(t, w.commit(i*37%900))
	}
	must(t, w.commit(2<<20)) // five records
	must(t, l.Sync())
	tail := l.Tail()
	last := l.Last()
	if err := readAll(l, w.out, 1, last); err != nil {
		t.Fatal(err)
	}
	must(t, l.Close())

	l = open(t, nil, dir, 4<<10)
	if err := readAll(l, w.out, 1, last); err != nil {
		t.Fatal(err)
	}
	got := l.Tail()
	if got.Position != tail.Position || got.Next != tail.Next {
		t.Errorf("tail after reopening is %v, was %v", got, tail)
	}
	if d := cmp.Diff(tail.Boundary, got.Boundary); d != "" {
		t.Error(d)
	}
	w.resume(l, 2)
	must(t, w.epoch())
	must(t, w.commit(10))
	must(t, l.Sync())
	if err := readAll(l, w.out, 1, l.Last()); err != nil {
		t.Fatal(err)
	}
}

func TestAppendRefuses(t *testing.T) {
	l := open(t, nil, t.TempDir(), 0)
	w := newWriter(l, 5)
	must(t, w.epoch())
	must(t, w.commit(10))
	must(t, l.Sync())
	rec := w.out[2]
	r, err := cdc.Decode(rec)
	must(t, err)
	if err := l.Append(rec, r.Head, r.Boundary); !errors.Is(err, cdc.ErrGap) {
		t.Errorf("a record twice: %v", err)
	}
	next := r.Head
	next.LSN = 3
	if err := l.Append(rec, next, r.Boundary); !errors.Is(err, cdc.ErrFork) {
		t.Errorf("a record with another's hash: %v", err)
	}
	next.Epoch = 4
	if err := l.Append(rec, next, r.Boundary); !errors.Is(err, cdc.ErrFork) {
		t.Errorf("a record of an older epoch: %v", err)
	}
	must(t, w.commit(10))
	must(t, l.Sync())
	if err := readAll(l, w.out, 1, 3); err != nil {
		t.Error(err)
	}
}
