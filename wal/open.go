package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

// Open opens the change log in dir, which it creates if need be. It verifies
// the headers of all segments and the whole of the last one, cuts off the torn
// end of a write that no Sync had covered, and returns with all that is left
// durable. The caller makes sure that no other process writes the log.
//
// Damage of what was durable gives ErrDamaged and changes nothing; a format of a
// newer version gives cdc.ErrVersion.
func Open(dir string, o Options) (*Log, error) {
	l := &Log{dir: dir, opts: o.withDefaults()}
	l.state.history = newHistory(cdc.Tail{Next: 1})
	if err := l.opts.FS.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("wal: open: %w", err)
	}
	segments, err := listSegments(l.opts.FS, dir)
	if err != nil {
		return nil, err
	}
	if segments, err = l.dropUnborn(segments); err != nil {
		return nil, err
	}
	if err := linked(segments); err != nil {
		return nil, err
	}
	v := &view{segments: segments, changed: make(chan struct{})}
	l.current.Store(v)
	if v.last() == nil {
		return l, nil
	}
	if err := l.openLast(v); err != nil {
		if l.state.file != nil {
			err = errors.Join(err, l.state.file.Close())
		}
		return nil, err
	}
	return l, nil
}

// addBase notes the boundary that a history is continued from.
func (l *Log) addBase(t cdc.Tail) {
	if t.Position.LSN != 0 {
		l.bounds.add(t.Position.LSN, &t.Boundary)
	}
}

// listSegments reads the headers of the segments in dir. A segment whose
// header says nothing has a zero base.Next.
func listSegments(fs durable.FS, dir string) ([]*segment, error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: open: %w", err)
	}
	var segments []*segment
	for _, name := range names { // sorted, and so by LSN
		first, ok := parseName(name)
		if !ok {
			continue
		}
		s := &segment{first: first, path: filepath.Join(dir, name)}
		if err := s.readHeader(fs); err != nil {
			return nil, err
		}
		segments = append(segments, s)
	}
	return segments, nil
}

// readHeader reads the header and the size of a segment. A file that was begun
// and never finished leaves base.Next zero.
func (s *segment) readHeader(fs durable.FS) error {
	f, err := fs.Open(s.path, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("wal: open: %w", err)
	}
	defer f.Close() // nothing was written
	if s.end, err = f.Size(); err != nil {
		return fmt.Errorf("wal: open: %w", err)
	}
	header := make([]byte, min(s.end, headerSize))
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(len(header))), header); err != nil {
		return s.damaged(0, err)
	}
	if s.end <= headerSize && (s.end < headerSize || allZero(header)) {
		return nil
	}
	if err := parseHeader(header, s); err != nil {
		return s.damaged(0, err)
	}
	return nil
}

// dropUnborn removes a last segment whose creation a crash cut short: it never
// had a record, since a header is durable before the first one is written.
func (l *Log) dropUnborn(segments []*segment) ([]*segment, error) {
	for i, s := range segments {
		if s.base.Next != 0 {
			continue
		}
		if i != len(segments)-1 {
			return nil, s.damaged(0, fmt.Errorf("%w: no segment header", cdc.ErrCorrupt))
		}
		l.opts.Logger.Warn("change log: removed a segment that was begun and never used", "file", s.path, "bytes", s.end)
		if err := l.opts.FS.Remove(s.path); err != nil {
			return nil, fmt.Errorf("wal: open: %w", err)
		}
		if err := l.opts.FS.SyncDir(l.dir); err != nil {
			return nil, fmt.Errorf("wal: open: %w", err)
		}
		return segments[:i], nil
	}
	return segments, nil
}

// linked checks that no segment is missing between two others.
func linked(segments []*segment) error {
	for i := 1; i < len(segments); i++ {
		s, before := segments[i], segments[i-1]
		if s.previous != before.first {
			return s.damaged(0, fmt.Errorf("%w: it follows segment %d, which is missing after %d", cdc.ErrCorrupt, s.previous, before.first))
		}
	}
	return nil
}

// openLast scans and repairs the last segment of v, and makes it durable.
func (l *Log) openLast(v *view) error {
	seg, s := v.last(), &l.state
	file, err := l.opts.FS.Open(seg.path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("wal: open: %w", err)
	}
	s.file = file
	s.history = newHistory(seg.base)
	l.addBase(seg.base)
	s.written, s.cut = headerSize, headerSize
	proven, err := l.scan(seg)
	if err != nil {
		return err
	}
	if torn := seg.end - s.written; torn > 0 {
		l.opts.Logger.Warn("change log: cut off the torn end of a write that was never confirmed",
			"file", seg.path, "offset", s.written, "bytes", torn)
		if err := file.Truncate(s.written); err != nil {
			return fmt.Errorf("wal: open: truncate %s to %d bytes: %w", seg.path, s.written, err)
		}
	}
	if err := rewrite(file, proven, s.written); err != nil {
		return fmt.Errorf("wal: open: %s: %w", seg.path, err)
	}
	if err := l.opts.FS.SyncDir(l.dir); err != nil {
		return fmt.Errorf("wal: open: %w", err)
	}
	s.synced = s.written
	tail := &s.history.tail
	v.durable, v.end, v.boundary = tail.Next-1, s.written, tail.Position.LSN
	return nil
}

// scan walks the whole of seg and leaves the state after its last valid record.
// proven is how much of the file is known to have been synced, less the mark
// that says so.
func (l *Log) scan(seg *segment) (proven int64, err error) {
	s := &l.state
	c := cursor{file: s.file, offset: headerSize}
	for {
		rec, h, err := c.next(seg.end)
		if err != nil {
			s.written, s.marked = c.offset, c.synced
			if c.synced == c.offset-markSize { // the mark of a clean end: no need for another
				s.marked = c.offset
			}
			return c.synced, l.judge(seg, err)
		}
		if err := l.accept(seg, rec, h, c.offset-int64(len(rec))); err != nil {
			return 0, err
		}
	}
}

// accept takes a valid record at offset as the next of the history.
func (l *Log) accept(seg *segment, rec []byte, h cdc.Head, offset int64) error {
	s := &l.state
	decoded, err := cdc.DecodeBoundary(rec)
	if err == nil {
		err = s.history.follows(h, decoded.Boundary)
	}
	if err != nil {
		// Its checksum is right, so it was not torn.
		return seg.damaged(offset, fmt.Errorf("%w: %w", cdc.ErrCorrupt, err))
	}
	s.history.add(rec, h, decoded.Boundary)
	seg.index.add(h.LSN, offset)
	s.written = offset + int64(len(rec))
	if decoded.Boundary != nil {
		s.cut = s.written
		l.bounds.add(h.LSN, decoded.Boundary)
	}
	return nil
}

// judge decides what ended the scan of seg at s.written: its end, or bytes that
// are the torn end of an unfinished write (nil), or damage. A sync mark that
// covers them proves damage. Without one they may be torn, sectors missing in
// any order, but then something is missing: a sector is zero, or the file ends
// within the record.
func (l *Log) judge(seg *segment, cause error) error {
	if errors.Is(cause, io.EOF) {
		return nil
	}
	s := &l.state
	damage := seg.damaged(s.written, cause)
	if errors.Is(cause, cdc.ErrVersion) || !errors.Is(cause, cdc.ErrCorrupt) {
		return damage
	}
	covered, err := findMark(s.file, s.written, seg.end)
	if err != nil {
		return seg.damaged(s.written, err)
	}
	if covered {
		return damage
	}
	b := make([]byte, min(cdc.MaxRecord, seg.end-s.written))
	if _, err := io.ReadFull(io.NewSectionReader(s.file, s.written, int64(len(b))), b); err != nil {
		return seg.damaged(s.written, err)
	}
	if hasHole(b, s.written) || endsWithin(b, s.history.tail.Next) {
		return nil
	}
	return damage
}

// findMark reports whether a sync mark between from and end covers from.
func findMark(f durable.File, from, end int64) (bool, error) {
	c := cursor{file: f, offset: from}
	for c.offset < end {
		b, err := c.peek(readAhead, end)
		if err != nil {
			return false, err
		}
		i := bytes.Index(b, []byte(markMagic))
		if i < 0 {
			c.offset += int64(max(len(b)-len(markMagic)+1, 1))
			continue
		}
		c.offset += int64(i)
		if b, err = c.peek(markSize, end); err != nil {
			return false, err
		}
		if synced, ok := parseMark(b, c.offset); ok && synced > from {
			return true, nil
		}
		c.offset++
	}
	return false, nil
}

// endsWithin reports whether b, the last bytes of a file, are the beginning of
// record lsn and no more. A head whose length alone is damaged looks like that
// too, but then the rest of the record, or a whole later one, is there.
func endsWithin(b []byte, lsn cdc.LSN) bool {
	if len(b) < cdc.HeaderSize {
		return true
	}
	h, err := cdc.ParseHead(b)
	if err != nil || h.LSN != lsn || h.Length <= len(b) {
		return false
	}
	for i := cdc.HeaderSize; i+cdc.HeaderSize <= len(b); i++ {
		later, err := cdc.ParseHead(b[i:])
		if err != nil || later.LSN <= lsn || later.Length > len(b)-i {
			continue
		}
		if _, err := cdc.Check(b[i : i+later.Length]); err == nil {
			return false
		}
	}
	whole := bytes.Clone(b)
	binary.LittleEndian.PutUint32(whole, uint32(len(b)))
	_, err = cdc.Check(whole)
	return err != nil
}

// sectorSize is the least that a disk writes at once.
const sectorSize = 512

// hasHole reports whether a sector of b, which begins at offset at of the file,
// is all zero as far as b has it.
func hasHole(b []byte, at int64) bool {
	for len(b) > 0 {
		n := min(int(sectorSize-at%sectorSize), len(b))
		if allZero(b[:n]) {
			return true
		}
		b, at = b[n:], at+int64(n)
	}
	return false
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// rewrite writes the bytes from offset from to end once more and syncs them: a
// sync that failed before may have left them in the page cache and nowhere
// else, marked clean, and a mere sync would then report success.
func rewrite(f durable.File, from, end int64) error {
	buf := make([]byte, min(readAhead, end-from))
	for from < end {
		b := buf[:min(int64(len(buf)), end-from)]
		if _, err := io.ReadFull(io.NewSectionReader(f, from, int64(len(b))), b); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return f.Sync()
}
