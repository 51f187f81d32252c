package primary

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

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
