package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

// A FileReader reads the files of a change log that another process may be
// writing. It changes nothing. What it gives may not be durable yet, and after
// a crash of that process may be cut off. It is used by one goroutine.
type FileReader struct {
	fs     durable.FS
	dir    string
	next   cdc.LSN // 0: the first there is
	seg    *segment
	sealed bool // seg has a successor and grows no more
	cur    cursor
	limit  int64
}

// OpenReader reads the change log in dir from record from on, or from the first
// one when from is 0.
func OpenReader(dir string, from cdc.LSN) (*FileReader, error) {
	return newFileReader(durable.OS{}, dir, from)
}

func newFileReader(fs durable.FS, dir string, from cdc.LSN) (*FileReader, error) {
	if _, err := fs.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("wal: read change log: %w", err)
	}
	return &FileReader{fs: fs, dir: dir, next: from}, nil
}

// LastIn is the LSN of the last record of the change log in dir, which another
// process may be writing, and 0 when there is none. It reads the newest segment.
func LastIn(dir string) (last cdc.LSN, err error) {
	r, err := OpenReader(dir, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all, err := r.list()
	if err != nil || len(all) == 0 {
		return 0, err
	}
	r.next = all[len(all)-1]
	for {
		if _, _, err := r.Next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return r.next - 1, err
		}
	}
}

// Next returns the next record; rec is valid until the following call. At the
// end, which a record that is not wholly written does not pass, it gives
// io.EOF; a later call looks again. Other errors wrap ErrTrimmed, ErrDamaged,
// ErrCut or cdc.ErrVersion, or are those of the file system.
func (r *FileReader) Next() (rec []byte, h cdc.Head, err error) {
	for {
		if r.seg == nil {
			if err := r.enter(); err != nil {
				return nil, cdc.Head{}, err
			}
		}
		rec, h, err := r.cur.next(r.limit)
		if err == nil && h.LSN != r.next {
			return nil, cdc.Head{}, r.seg.damaged(r.cur.offset-int64(len(rec)),
				fmt.Errorf("%w: record %d where %d is due", cdc.ErrCorrupt, h.LSN, r.next))
		}
		if err == nil {
			r.next++
			return rec, h, nil
		}
		if err := r.again(err); err != nil {
			return nil, cdc.Head{}, err
		}
	}
}

// again decides what cause, where a record should be, means: nil to try again,
// or the error of Next.
func (r *FileReader) again(cause error) error {
	if !ends(cause) {
		return r.seg.damaged(r.cur.offset, cause)
	}
	grown, err := r.grown()
	if grown || err != nil {
		return err
	}
	if r.sealed {
		if !errors.Is(cause, io.EOF) {
			return r.seg.damaged(r.cur.offset, cause)
		}
		return r.Close() // and enter the next
	}
	later, err := r.later()
	if err != nil {
		return err
	}
	r.cur.forget() // what was half written may be whole the next time
	if later {
		r.sealed = true // but it may have grown before that: look once more
		return nil
	}
	if covered, err := findMark(r.cur.file, r.cur.offset, r.limit); err != nil || covered {
		return errors.Join(err, r.seg.damaged(r.cur.offset, cause))
	}
	return io.EOF
}

// ends reports whether err may be what the end of a growing file looks like.
func ends(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, cdc.ErrCorrupt) && !errors.Is(err, cdc.ErrVersion)
}

// grown looks whether the segment has become longer.
func (r *FileReader) grown() (bool, error) {
	size, err := r.cur.file.Size()
	if err != nil {
		return false, fmt.Errorf("wal: read %s: %w", r.seg.path, err)
	}
	if size < r.cur.offset {
		return false, fmt.Errorf("%w: %s was cut to %d bytes before LSN %d", ErrCut, r.seg.path, size, r.next)
	}
	grown := size > r.limit
	if r.limit = size; grown {
		r.cur.forget()
	}
	return grown, nil
}

// later reports whether there is a segment after the one being read.
func (r *FileReader) later() (bool, error) {
	all, err := r.list()
	return len(all) > 0 && all[len(all)-1] > r.seg.first, err
}

func (r *FileReader) list() ([]cdc.LSN, error) {
	names, err := r.fs.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("wal: read change log: %w", err)
	}
	var all []cdc.LSN
	for _, name := range names {
		if first, ok := parseName(name); ok {
			all = append(all, first)
		}
	}
	return all, nil
}

// enter opens the segment of record r.next and moves there. io.EOF means that
// there is none yet.
func (r *FileReader) enter() error {
	all, err := r.list()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return io.EOF
	}
	if r.next == 0 {
		r.next = all[0]
	}
	if r.next < all[0] {
		return fmt.Errorf("%w: LSN %d, the first one is %d", ErrTrimmed, r.next, all[0])
	}
	i := len(all) - 1
	for all[i] > r.next {
		i--
	}
	seg := &segment{first: all[i], path: segmentPath(r.dir, all[i])}
	last := i == len(all)-1
	if err := seg.readHeader(r.fs); err != nil {
		if errors.Is(err, os.ErrNotExist) { // it was there a moment ago
			err = fmt.Errorf("%w: LSN %d: %w", ErrTrimmed, r.next, err)
		}
		return err
	}
	if seg.base.Next == 0 { // being made
		if last {
			return io.EOF
		}
		return seg.damaged(0, fmt.Errorf("%w: no segment header", cdc.ErrCorrupt))
	}
	file, err := r.fs.Open(seg.path, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("wal: read: %w", err)
	}
	c := cursor{file: file, offset: headerSize}
	if err := c.skipTo(seg, seg.first, r.next, seg.end); err != nil {
		cerr := file.Close()
		if last && ends(err) && cerr == nil {
			return io.EOF
		}
		return errors.Join(seg.broken(c.offset, err), cerr)
	}
	r.seg, r.cur, r.limit, r.sealed = seg, c, seg.end, !last
	return nil
}

// File is the path of the segment that the last record came from.
func (r *FileReader) File() string {
	if r.seg == nil {
		return filepath.Clean(r.dir)
	}
	return r.seg.path
}

// Close releases the open file. A later Next opens it again.
func (r *FileReader) Close() error {
	if r.seg == nil {
		return nil
	}
	r.seg, r.sealed = nil, false
	return r.cur.file.Close()
}
