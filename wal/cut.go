package wal

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sqlite-replicator/replicator/cdc"
)

// Cut removes the records above after from the change log in dir, which nobody
// may have open: its owner has found that another end of the history counts. It
// works from the end, each step durable, so that a crash leaves a log that is
// too long and otherwise whole. With after 0 nothing is left.
func Cut(dir string, after cdc.LSN, o Options) error {
	o = o.withDefaults()
	segments, err := listSegments(o.FS, dir)
	if err != nil {
		return err
	}
	for len(segments) > 0 {
		last := segments[len(segments)-1]
		if last.first <= after && last.base.Next != 0 {
			return last.truncate(after, o)
		}
		if err := o.FS.Remove(last.path); err != nil {
			return fmt.Errorf("wal: cut above LSN %d: %w", after, err)
		}
		if err := o.FS.SyncDir(dir); err != nil {
			return fmt.Errorf("wal: cut above LSN %d: %w", after, err)
		}
		segments = segments[:len(segments)-1]
	}
	return nil
}

// truncate removes what lies above after from the file of a last segment.
func (s *segment) truncate(after cdc.LSN, o Options) (err error) {
	file, err := o.FS.Open(s.path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("wal: cut above LSN %d: %w", after, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	c := cursor{file: file, offset: headerSize}
	for {
		rec, h, err := c.next(s.end)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.damaged(c.offset, err)
		}
		if h.LSN <= after {
			continue
		}
		if err := file.Truncate(c.offset - int64(len(rec))); err != nil {
			return fmt.Errorf("wal: cut above LSN %d: %w", after, err)
		}
		if err := file.Sync(); err != nil {
			return fmt.Errorf("wal: cut above LSN %d: %w", after, err)
		}
		return nil
	}
}
