package primary

import (
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// around returns when the loop of the capture has looked after the pin twice.
func (b *bench) around() {
	b.t.Helper()
	for range 2 {
		noError(b.t, b.p.ask(b.ctx, func(*capture) error { return nil }))
	}
}

// TestFailedCheckpoints: a checkpoint that the disk does not let through ends no term
// and drops no pin; one that finds the file malformed does.
func TestFailedCheckpoints(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   int
		passes bool
	}{
		{"busy", 5, true}, {"no memory", 7, true}, {"read-only", 8, true}, {"input/output error", 10, true},
		{"full", 13, true}, {"malformed", 11, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable)
			b.edit = func(o *Options) { o.Capture.RepinFrames, o.Capture.TurnoverBytes = 1, 1<<16 }
			b.start()
			first := b.sync()
			b.awaitSnapshot(first.LSN)
			failures := 0
			var works func() error
			noError(t, b.p.ask(b.ctx, func(c2 *capture) error {
				works = c2.src.checkpoint
				c2.src.checkpoint = func() error {
					failures++
					return &sqlite.Error{Op: "checkpoint", Code: c.code, Extended: c.code, Message: "told to fail"}
				}
				return nil
			}))
			write := func() cdc.Position {
				for range 20 {
					b.exec("INSERT INTO t(v) VALUES(randomblob(9000))")
				}
				return b.sync()
			}
			at := write()
			if !c.passes {
				at = write() // by the next term, whose checkpoints work
				if at.Epoch == first.Epoch {
					t.Error("the term went on")
				}
				return
			}
			b.around()
			s := b.p.Status()
			if at.Epoch != first.Epoch || !strings.Contains(s.Error, "told to fail") || s.State != StateStreaming {
				t.Errorf("epoch %d, status %+v", at.Epoch, s)
			}
			var pinned int
			noError(t, b.p.ask(b.ctx, func(c2 *capture) error {
				pinned, c2.src.checkpoint = c2.follower.pinned, works
				return nil
			}))
			if failures == 0 || pinned < 0 {
				t.Errorf("%d checkpoints failed, pin %d", failures, pinned)
			}
			at = write()
			b.around()
			if s := b.p.Status(); at.Epoch != first.Epoch || s.Error != "" {
				t.Errorf("healed: epoch %d, status %+v", at.Epoch, s)
			}
			if n := b.inserted(); n != 40 || b.has(cdc.Break) {
				t.Errorf("%d rows captured of 40, records %v", n, b.kinds())
			}
		})
	}
}
