package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

const small = 4 << 10 // bytes of a segment in these tests

// A trial writes a change log on a disk that fails, and knows what must be left.
type trial struct {
	fs    *durable.Mem
	w     *writer
	acked cdc.LSN // what a Sync has confirmed
	epoch cdc.Epoch
}

func newTrial(fs *durable.Mem) (*trial, error) {
	x := &trial{fs: fs}
	x.w = &writer{out: map[cdc.LSN][]byte{}}
	return x, x.open()
}

// open opens the log and begins a term.
func (x *trial) open() error {
	l, err := Open("/log", Options{FS: x.fs, SegmentBytes: small})
	if err != nil {
		return err
	}
	x.epoch++
	x.w.resume(l, x.epoch)
	x.w.log = l
	return x.w.epoch()
}

// steps is what a primary may do to its log.
var steps = []func(x *trial) error{
	func(x *trial) error { return x.w.commit(10) },
	func(x *trial) error { return x.w.commit(700) },
	func(x *trial) error { return x.w.commit(1 << 20) },
	func(x *trial) error { return errors.Join(x.w.parts(2), x.w.end()) },
	func(x *trial) error { return x.sync() },
	func(x *trial) error { return x.sync() },
	func(x *trial) error { return errors.Join(x.w.parts(1), x.sync(), x.w.end()) },
	func(x *trial) error { return x.w.log.Trim(x.acked) },
	(*trial).abandon,
	(*trial).reopen,
}

func (x *trial) sync() error {
	last := x.w.log.Last()
	err := x.w.log.Sync()
	if err == nil {
		x.acked = max(x.acked, last)
	}
	return err
}

// abandon leaves a transaction unfinished and cuts it off.
func (x *trial) abandon() error {
	if err := errors.Join(x.w.parts(2), x.sync()); err != nil {
		return err
	}
	boundary := x.w.log.Tail().Position.LSN
	x.acked = min(x.acked, boundary) // from here on they may be gone
	if err := x.w.log.CutTail(); err != nil {
		return err
	}
	x.acked = boundary
	for lsn := range x.w.out {
		if lsn > boundary {
			delete(x.w.out, lsn)
		}
	}
	x.epoch++
	x.w.resume(x.w.log, x.epoch)
	return x.w.epoch()
}

func (x *trial) reopen() error {
	last := x.w.log.Last()
	if err := x.w.log.Close(); err != nil {
		return err
	}
	x.acked = last
	return x.open()
}

// check opens the log in fs as it is and holds it against what was appended.
func (x *trial) check(fs *durable.Mem) error {
	l, err := Open("/log", Options{FS: fs, SegmentBytes: small})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer l.Close()
	if l.Durable() < x.acked {
		return fmt.Errorf("the log ends at %d, but %d was confirmed", l.Durable(), x.acked)
	}
	if l.Durable() != l.Last() {
		return fmt.Errorf("durable %d, last %d after open", l.Durable(), l.Last())
	}
	from := max(l.First(), 1)
	if err := readAll(l, x.w.out, from, l.Last()); err != nil {
		return fmt.Errorf("read from %d: %w", from, err)
	}
	// It goes on from there, and what it says is durable survives all the same.
	next := &writer{out: map[cdc.LSN][]byte{}}
	for lsn, rec := range x.w.out {
		if lsn <= l.Last() {
			next.out[lsn] = rec
		}
	}
	next.resume(l, x.epoch+100)
	if err := errors.Join(next.epoch(), next.commit(100), l.Sync()); err != nil {
		return fmt.Errorf("go on: %w", err)
	}
	last := l.Last()
	if l, err = Open("/log", Options{FS: fs.Crash(nil), SegmentBytes: small}); err != nil {
		return fmt.Errorf("open after a second crash: %w", err)
	}
	defer l.Close()
	return readAll(l, next.out, from, last)
}

// What was confirmed is there after a power failure before any call of the file
// system, and again after one during the repair.
func TestCrashAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		script := rapid.SliceOfN(rapid.IntRange(0, len(steps)-1), 1, 8).Draw(t, "script")
		at := rapid.IntRange(0, 120).Draw(t, "at")
		x, err := newTrial(durable.NewMem())
		must(t, err)
		calls := 0
		x.fs.Inject(func(c durable.Call) durable.Fault {
			if calls++; calls != at {
				return durable.Fault{}
			}
			image := x.fs.Crash(rng.IntN)
			again := crashDuring(image, rng)
			for _, fs := range []*durable.Mem{x.fs.Crash(nil), image, again} {
				if err := x.check(fs); err != nil {
					t.Fatalf("crash before %s %s: %v", c.Op, c.Name, err)
				}
			}
			return durable.Fault{}
		})
		for _, i := range script {
			must(t, steps[i](x))
		}
		x.fs.Inject(nil)
		must(t, x.check(x.fs.Crash(rng.IntN)))
	})
}

// crashDuring gives what a power failure during the repair of image leaves.
func crashDuring(image *durable.Mem, rng *rand.Rand) *durable.Mem {
	image = image.Crash(nil) // a copy: nothing in it is unsynced
	at, calls := rng.IntN(12), 0
	var out *durable.Mem
	image.Inject(func(durable.Call) durable.Fault {
		if calls++; calls == at {
			out = image.Crash(rng.IntN)
		}
		return durable.Fault{}
	})
	l, err := Open("/log", Options{FS: image, SegmentBytes: small})
	image.Inject(nil)
	if err == nil {
		_ = l.Close() // the image is from before
	}
	if out == nil {
		out = image.Crash(rng.IntN)
	}
	return out
}

// A call fails, or fails although it happened. Then the log has failed for good;
// what was confirmed is there after the process opens it again, and also
// after a power failure before or after that.
func TestFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		script := rapid.SliceOfN(rapid.IntRange(0, len(steps)-1), 1, 8).Draw(t, "script")
		at := rapid.IntRange(1, 60).Draw(t, "at")
		fault := durable.Fault{
			Err:      rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC}).Draw(t, "err"),
			Happened: rapid.Bool().Draw(t, "happened"),
		}
		x, err := newTrial(durable.NewMem())
		must(t, err)
		calls := 0
		x.fs.Inject(func(c durable.Call) durable.Fault {
			if calls++; calls != at {
				return durable.Fault{}
			}
			f := fault
			f.Wrote = c.Size / 3
			return f
		})
		err = nil
		trimmed := false
		for _, i := range script {
			if err = steps[i](x); err != nil {
				trimmed = i == 7
				break
			}
		}
		x.fs.Inject(nil)
		if err == nil {
			return
		}
		if !errors.Is(err, fault.Err) {
			t.Fatalf("an injected %v gives %v", fault.Err, err)
		}
		if again := x.w.log.Sync(); !trimmed && !errors.Is(again, ErrFailed) {
			t.Fatalf("sync after %v: %v", err, again)
		}
		must(t, x.check(x.fs.Crash(rng.IntN)))
		_ = x.w.log.Close() // reports the failure once more
		if n := x.fs.OpenFiles(); n != 0 {
			t.Fatalf("%d files are left open", n)
		}
		must(t, x.check(x.fs))
	})
}

// A power failure during Trim never leaves a gap.
func TestCrashInTrim(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		x, err := newTrial(durable.NewMem())
		must(t, err)
		for range 60 {
			must(t, x.w.commit(700))
		}
		must(t, x.sync())
		x.fs.Inject(func(c durable.Call) durable.Fault {
			must(t, x.check(x.fs.Crash(rng.IntN)))
			return durable.Fault{}
		})
		must(t, x.w.log.Trim(50))
		x.fs.Inject(nil)
		if first := x.w.log.First(); first < 30 {
			t.Fatalf("First is %d after Trim(50)", first)
		}
	}
}
