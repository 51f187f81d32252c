package wal

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

func TestReaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, durable.NewMem(), "/log", small)
		w := newWriter(l, 1)
		r, err := l.Reader(1)
		must(t, err)
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		type result struct {
			lsn cdc.LSN
			err error
		}
		results := make(chan result, 100)
		follow := func(ctx context.Context) {
			for {
				_, h, err := r.Next(ctx)
				results <- result{h.LSN, err}
				if err != nil {
					return
				}
			}
		}
		go follow(ctx)

		must(t, errors.Join(w.epoch(), w.commit(10)))
		synctest.Wait()
		if n := len(results); n != 0 {
			t.Fatalf("%d records were read before they were durable", n)
		}
		must(t, l.Sync())
		synctest.Wait()
		for _, want := range []cdc.LSN{1, 2} {
			if got := <-results; got.err != nil || got.lsn != want {
				t.Fatalf("got record %d, %v; want %d", got.lsn, got.err, want)
			}
		}

		cancel()
		if got := <-results; !errors.Is(got.err, context.Canceled) {
			t.Fatalf("after cancel: %v", got.err)
		}
		go follow(t.Context())
		must(t, errors.Join(w.commit(10), l.Close()))
		if got := <-results; got.err != nil || got.lsn != 3 {
			t.Fatalf("got record %d, %v; want 3", got.lsn, got.err)
		}
		if got := <-results; !errors.Is(got.err, ErrFailed) {
			t.Fatalf("after Close: %v", got.err)
		}
	})
}

// Readers of every kind, the writer, a syncer and Trim at once; -race watches.
func TestConcurrent(t *testing.T) {
	const total = 3000
	dir := t.TempDir()
	l := open(t, nil, dir, small)
	w := newWriter(l, 1)
	var out sync.Map // LSN to bytes
	enc := cdc.NewEncoder(l.Tail(), 1, cdc.ID{2}, func(rec []byte, h cdc.Head, b *cdc.Boundary) error {
		out.Store(h.LSN, string(rec))
		return l.Append(rec, h, b)
	})
	w.enc = enc
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { follow(t, l, &out, total) })
	}
	wg.Go(func() { followFiles(t, dir, &out, total) })
	step := make(chan struct{}, total)
	wg.Go(func() {
		for range step {
			if err := l.Sync(); err != nil {
				t.Error(err)
			}
			last := l.Durable()
			if _, err := l.Lag(last / 2); err != nil && !errors.Is(err, ErrTrimmed) {
				t.Error(err)
			}
			if last%50 == 0 {
				if err := l.Trim(last / 2); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := range total {
		if err := w.commit(i % 300); err != nil {
			t.Error(err)
			break
		}
		step <- struct{}{}
	}
	close(step)
	wg.Wait()
	if first := l.First(); first < total/4 {
		t.Errorf("First is %d after Trim(%d)", first, total/2)
	}
}

// follow reads until record total, and starts again at First when Trim was
// faster.
func follow(t *testing.T, l *Log, out *sync.Map, total cdc.LSN) {
	ctx := t.Context()
	r, err := l.Reader(1)
	if err != nil && !errors.Is(err, ErrTrimmed) {
		t.Error(err)
		return
	}
	for want := cdc.LSN(1); want <= total; {
		var rec []byte
		var h cdc.Head
		if err == nil {
			rec, h, err = r.Next(ctx)
		}
		if errors.Is(err, ErrTrimmed) {
			if r != nil {
				_ = r.Close()
			}
			want = l.First()
			r, err = l.Reader(want)
			continue
		}
		if bytes, _ := out.Load(want); err != nil || h.LSN != want || string(rec) != bytes {
			t.Errorf("record %d where %d is due, %v", h.LSN, want, err)
			break
		}
		want++
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func followFiles(t *testing.T, dir string, out *sync.Map, total cdc.LSN) {
	r, err := OpenReader(dir, 0)
	if err != nil {
		t.Error(err)
		return
	}
	for want := cdc.LSN(0); want < total; {
		rec, h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			continue
		case errors.Is(err, ErrTrimmed):
			_ = r.Close()
			want = 0
			if r, err = OpenReader(dir, 0); err != nil {
				t.Error(err)
				return
			}
			continue
		}
		if bytes, _ := out.Load(h.LSN); err != nil || want > 0 && h.LSN != want+1 || string(rec) != bytes {
			t.Errorf("record %d after %d, %v", h.LSN, want, err)
			break
		}
		want = h.LSN
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestReaderBounds(t *testing.T) {
	l := open(t, durable.NewMem(), "/log", small)
	w := newWriter(l, 1)
	if _, err := l.Reader(2); !errors.Is(err, ErrNone) {
		t.Errorf("read an empty log from 2: %v", err)
	}
	must(t, w.epoch())
	for range 100 {
		must(t, w.commit(200))
	}
	must(t, l.Sync())
	held, err := l.Reader(1)
	must(t, err)
	defer held.Close()
	if _, _, err := held.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := l.current.Load().segments[1].first
	must(t, l.Trim(50))
	if first := l.First(); first > 50 || first < 30 {
		t.Fatalf("First is %d after Trim(50)", first)
	}
	if _, err := l.Reader(l.First() - 1); !errors.Is(err, ErrTrimmed) {
		t.Errorf("read from a trimmed record: %v", err)
	}
	if _, err := l.Record(1); !errors.Is(err, ErrTrimmed) {
		t.Errorf("a trimmed record: %v", err)
	}
	// The open segment stays readable to its end.
	for lsn := cdc.LSN(2); lsn < second; lsn++ {
		if rec, _, err := held.Next(t.Context()); err != nil || string(rec) != string(w.out[lsn]) {
			t.Fatalf("record %d of a trimmed segment: %v", lsn, err)
		}
	}
	if _, h, err := held.Next(t.Context()); !errors.Is(err, ErrTrimmed) {
		t.Errorf("after the trimmed segment: record %d, %v", h.LSN, err)
	}
	for lsn := l.First(); lsn <= l.Last(); lsn++ {
		if rec, err := l.Record(lsn); err != nil || string(rec) != string(w.out[lsn]) {
			t.Errorf("Record(%d): %v", lsn, err)
		}
		if err := readAll(l, w.out, lsn, l.Last()); err != nil {
			t.Errorf("read from %d: %v", lsn, err)
		}
	}
	if _, err := l.Record(l.Last() + 1); !errors.Is(err, ErrNone) {
		t.Errorf("the record after the last: %v", err)
	}
}

func TestTrimKeepsTheNewestBoundary(t *testing.T) {
	l := open(t, durable.NewMem(), "/log", 1)
	w := newWriter(l, 1)
	must(t, errors.Join(w.epoch(), w.commit(1), w.commit(1), l.Sync()))
	must(t, w.commit(1)) // in a segment of its own, not durable
	if l.Disposable(1) || !l.Disposable(2) {
		t.Errorf("Disposable is %t below 1 and %t below 2, want false and true", l.Disposable(1), l.Disposable(2))
	}
	must(t, l.Trim(1000))
	if first := l.First(); first != 3 || l.Disposable(1000) {
		t.Errorf("First is %d, want 3, the newest durable boundary; more to trim: %t", first, l.Disposable(1000))
	}
}

func TestFileReader(t *testing.T) {
	dir := t.TempDir()
	r, err := OpenReader(dir, 0)
	must(t, err)
	defer r.Close()
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("an empty directory: %v", err)
	}
	last := func(want cdc.LSN) {
		t.Helper()
		if got, err := LastIn(dir); err != nil || got != want {
			t.Errorf("the last record is %d, %v; want %d", got, err, want)
		}
	}
	last(0)
	l := open(t, nil, dir, small)
	w := newWriter(l, 1)
	must(t, w.epoch())
	for range 40 {
		must(t, w.commit(200))
	}
	must(t, l.Sync())
	last(41)
	read := func(from, to cdc.LSN) {
		t.Helper()
		for lsn := from; lsn <= to; lsn++ {
			if rec, h, err := r.Next(); err != nil || h.LSN != lsn || string(rec) != string(w.out[lsn]) {
				t.Fatalf("record %d where %d is due, %v", h.LSN, lsn, err)
			}
		}
		if _, h, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("after record %d: record %d, %v", to, h.LSN, err)
		}
	}
	read(1, 41)
	must(t, errors.Join(w.commit(10), l.Sync()))
	read(42, 42)
	last(42)

	// A record that is half written is the end, until it is whole.
	path := r.File()
	must(t, errors.Join(w.commit(300), l.Close()))
	whole, err := os.ReadFile(path)
	must(t, err)
	for _, cut := range []int{1, 100, 330} {
		must(t, os.Truncate(path, int64(len(whole)-markSize-cut)))
		if _, h, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("without the last %d bytes: record %d, %v", cut, h.LSN, err)
		}
	}
	must(t, os.WriteFile(path, whole, 0o600))
	read(43, 43)

	if _, err := OpenReader(filepath.Join(dir, "none"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
	from, err := OpenReader(dir, 20)
	must(t, err)
	defer from.Close()
	if _, h, err := from.Next(); err != nil || h.LSN != 20 {
		t.Errorf("read from 20: record %d, %v", h.LSN, err)
	}
}
