package primary

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWatchersShareAnInstance: each hears of its own file, until it is closed, and
// the instance goes with the last.
func TestWatchersShareAnInstance(t *testing.T) {
	var s watches
	dir := t.TempDir()
	var files []*os.File
	var ws []*watcher
	for i := range 200 { // more than a user may have instances
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := s.add(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		files, ws = append(files, f), append(ws, w)
	}
	for _, i := range []int{7, 199} {
		if _, err := files[i].Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		<-ws[i].wake
	}
	for i, w := range ws {
		if len(w.wake) > 0 {
			t.Errorf("watcher %d woke without a write", i)
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}
	if s.inotify != nil {
		t.Error("the instance outlives the last watcher")
	}
	w, err := s.add(files[0].Name()) // and comes back
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files[0].Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-w.wake
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// TestDeaf: a notice that never comes costs one poll interval and no change.
func TestDeaf(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { o.Capture.PollInterval = time.Millisecond }
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	silent := filepath.Join(t.TempDir(), "silent")
	if err := os.WriteFile(silent, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	watch := p.watch
	p.watch = func(string) (*watcher, error) { return watch(silent) }
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	before, err := p.Sync(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.exec("INSERT INTO t(v) VALUES(1)")
	if err := p.changed.wait(b.ctx, func() bool { return p.published() > before.LSN }); err != nil {
		t.Errorf("%v: %+v", err, p.Status())
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLongestPause(t *testing.T) {
	blind, seeing := &watcher{}, &watcher{watches: &watches{}}
	for _, c := range []struct {
		w         *watcher
		set, want time.Duration
	}{
		{seeing, 0, lastNap}, {seeing, time.Second, time.Second}, {seeing, time.Millisecond, time.Millisecond},
		{blind, 0, blindNap}, {blind, time.Second, blindNap}, {blind, time.Millisecond, time.Millisecond},
	} {
		if got := c.w.longest(c.set); got != c.want {
			t.Errorf("set to %s, blind %t: %s, want %s", c.set, c.w == blind, got, c.want)
		}
	}
}

// TestBlind: the capture works where the machine has no inotify instance left.
func TestBlind(t *testing.T) {
	b := newBench(t, oneTable)
	p, err := New(b.options())
	if err != nil {
		t.Fatal(err)
	}
	p.watch = func(string) (*watcher, error) { return nil, unix.EMFILE }
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	before, err := p.Sync(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.exec("INSERT INTO t(v) VALUES(1)")
	if err := p.changed.wait(b.ctx, func() bool { return p.published() > before.LSN }); err != nil {
		t.Errorf("%v: %+v", err, p.Status())
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
