package wal

import (
	"errors"
	"fmt"
	"os"

	"github.com/sqlite-replicator/replicator/cdc"
)

// Trim deletes the segments all of whose records lie below an LSN. It never
// deletes the segment with the newest durable boundary. Segments go one by one
// from the oldest, each durably, so that no crash leaves a gap. A failed call
// may have deleted some of them; the next one goes on.
func (l *Log) Trim(below cdc.LSN) error {
	l.trim.Lock()
	defer l.trim.Unlock()
	for {
		if l.doomed == nil {
			var err error
			if l.doomed, err = l.takeOldest(below); err != nil || l.doomed == nil {
				return err
			}
		}
		if err := l.opts.FS.Remove(l.doomed.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("wal: trim below LSN %d: %w", below, err)
		}
		if err := l.opts.FS.SyncDir(l.dir); err != nil {
			return fmt.Errorf("wal: trim below LSN %d: %w", below, err)
		}
		l.doomed = nil
	}
}

// Disposable reports whether Trim would delete anything.
func (l *Log) Disposable(below cdc.LSN) bool {
	v := l.current.Load()
	return len(v.segments) > 1 && v.segments[1].first <= min(below, v.boundary)
}

// takeOldest takes the oldest segment out of the view, if it may go.
func (l *Log) takeOldest(below cdc.LSN) (*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.err != nil || !l.Disposable(below) {
		return nil, l.state.err
	}
	v := l.current.Load()
	l.publish(func(v *view) { v.segments = v.segments[1:] })
	return v.segments[0], nil
}
