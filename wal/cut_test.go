package wal

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

// threeSegments is a closed change log of 24 records in some segments, one
// transaction of several records among them.
func threeSegments(t *testing.T) (*durable.Mem, *writer) {
	t.Helper()
	fs := durable.NewMem()
	l := open(t, fs, "/log", small)
	w := newWriter(l, 1)
	must(t, w.epoch())
	for range 10 {
		must(t, w.commit(700))
	}
	must(t, errors.Join(w.parts(3), w.end()))
	for l.Last() < 24 {
		must(t, w.commit(700))
		must(t, l.Sync())
	}
	if n := len(l.current.Load().segments); n < 3 {
		t.Fatalf("%d segments", n)
	}
	must(t, l.Close())
	return fs, w
}

// TestCut: what is below stays, and the history goes on from there.
func TestCut(t *testing.T) {
	for after := range cdc.LSN(26) {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			fs, w := threeSegments(t)
			must(t, Cut("/log", after, Options{FS: fs}))
			l := open(t, fs.Crash(nil), "/log", small)
			if want := min(after, 24); l.Last() != want {
				t.Fatalf("the log ends at %d, want %d", l.Last(), want)
			}
			must(t, readAll(l, w.out, 1, l.Last()))
			w.resume(l, 2)
			must(t, w.epoch())
			must(t, w.commit(10))
			must(t, l.Sync())
			must(t, readAll(l, w.out, 1, l.Last()))
		})
	}
}

// TestCutFails: at whatever call it ends, a log is left, and the next try gets
// through.
func TestCutFails(t *testing.T) {
	for fail := 1; ; fail++ {
		fs, w := threeSegments(t)
		calls := 0
		fs.Inject(func(durable.Call) durable.Fault {
			if calls++; calls == fail {
				return durable.Fault{Err: syscall.EIO}
			}
			return durable.Fault{}
		})
		err := Cut("/log", 3, Options{FS: fs})
		fs.Inject(nil)
		if err == nil {
			if fail < 5 {
				t.Fatalf("%d calls", calls)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) || errors.Is(err, io.EOF) {
			t.Errorf("call %d: %v", fail, err)
		}
		after := fs.Crash(nil)
		l := open(t, after, "/log", small)
		if l.Last() < 3 {
			t.Errorf("call %d: the log ends at %d", fail, l.Last())
		}
		must(t, readAll(l, w.out, 1, l.Last()))
		must(t, l.Close())
		must(t, Cut("/log", 3, Options{FS: after}))
		l = open(t, after, "/log", small)
		must(t, readAll(l, w.out, 1, 3))
	}
}
