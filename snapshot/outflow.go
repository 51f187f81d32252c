package snapshot

import (
	"sync"
	"sync/atomic"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// outflowBytes is how much of a restored file may be on its way to the disk.
const outflowBytes = 16 << 20

// An outflow writes a file from one end of the page cache to the other: what is
// written goes to the disk at once, and out of memory when it is there. So the sync
// at the end has little left to do, a restore of any size takes the same few pages
// again and again, and what other programs have in memory stays there. Whoever
// reads the file first, reads what is on the disk.
//
// write may be called concurrently.
type outflow struct {
	file   durable.File
	pusher durable.Pusher // nil: the file cannot
	failed atomic.Bool    // the disk has lost something that was written

	mu    sync.Mutex
	going []extent // oldest first
	bytes int64    // of going
}

// An extent is a part of a file.
type extent struct{ at, n int64 }

func newOutflow(file durable.File) *outflow {
	pusher, _ := file.(durable.Pusher)
	return &outflow{file: file, pusher: pusher}
}

func (o *outflow) write(b []byte, at int64) error {
	if _, err := o.file.WriteAt(b, at); err != nil || o.pusher == nil {
		return err
	}
	e := extent{at, int64(len(b))}
	if err := o.pusher.Push(e.at, e.n); err != nil {
		o.failed.Store(true)
		return err
	}
	for _, e := range o.add(e) {
		if err := o.pusher.Settle(e.at, e.n); err != nil {
			o.failed.Store(true)
			return err
		}
	}
	return nil
}

// add notes what is on its way, and returns what must have arrived before more is
// written.
func (o *outflow) add(e extent) (due []extent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.going, o.bytes = append(o.going, e), o.bytes+e.n
	for o.bytes > outflowBytes {
		o.bytes -= o.going[0].n
		due, o.going = append(due, o.going[0]), o.going[1:]
	}
	return due
}
