package wal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

// Sentinels; the errors that wrap them name the file, the offset or the LSN.
var (
	// ErrDamaged means that bytes which were durable are not what was written.
	ErrDamaged = errors.New("wal: change log is damaged")
	// ErrFailed means that a write or a sync failed, or that the log is closed.
	// It stays so: what is on the disk is known only after another Open.
	ErrFailed = errors.New("wal: change log has failed")
	// ErrTrimmed means that a record was already deleted by Trim.
	ErrTrimmed = errors.New("wal: record is no longer in the change log")
	// ErrCut means that CutTail removed what a reader had read or was to read.
	ErrCut = errors.New("wal: records were cut off")
)

const (
	defaultSegment = 64 << 20
	// flushAt bounds, in bytes, what Append keeps in memory.
	flushAt = 1 << 20
)

// Options of a change log. The zero value is usable.
type Options struct {
	FS           durable.FS   // nil: the operating system's
	SegmentBytes int64        // size from which a segment is followed by another at the next boundary; 0: 64 MiB
	Logger       *slog.Logger // nil: none
	// NoSync makes Sync hand the records to the operating system and not wait for
	// the disk, except at the end of a segment and at Close. They outlive the
	// process, but a power failure may take the last of them, though they counted
	// as durable.
	NoSync bool
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = durable.OS{}
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = defaultSegment
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Log is an open change log. One goroutine, the owner, appends; Sync, Trim
// and everything that reads may be called concurrently with it.
type Log struct {
	dir  string
	opts Options

	trim    sync.Mutex // guards doomed; before mu
	doomed  *segment   // that Trim has taken out of the view and not yet deleted
	sync    sync.Mutex // at most one file sync at a time: an error is reported once; before mu
	mu      sync.Mutex // guards state
	state   state
	bounds  boundaries
	current atomic.Pointer[view]
}

// The state of the last segment and of what is on its way into it.
type state struct {
	history history
	file    durable.File // of the last segment; nil when there is none
	buf     []byte       // follows what is written
	written int64        // bytes of the file
	cut     int64        // offset after the last boundary
	synced  int64        // bytes of the file that the last sync covered
	marked  int64        // what of them the last sync mark says; it is due when this is less
	err     error        // ErrFailed, for good
}

// A view is what readers see: immutable but for changed, which is closed when
// the next view takes its place.
type view struct {
	segments []*segment // ascending; never changed in place
	durable  cdc.LSN    // last durable record
	end      int64      // durable bytes of the last segment
	boundary cdc.LSN    // last durable boundary
	cuts     int        // number of CutTails
	err      error      // why no further view will come
	changed  chan struct{}
}

func (v *view) last() *segment {
	if len(v.segments) == 0 {
		return nil
	}
	return v.segments[len(v.segments)-1]
}

// publish replaces the view by one that edit has changed. The caller holds mu.
func (l *Log) publish(edit func(v *view)) {
	old := l.current.Load()
	v := *old
	v.changed = make(chan struct{})
	edit(&v)
	l.current.Store(&v)
	close(old.changed)
}

// fail makes err the end of this log. The caller holds mu.
func (l *Log) fail(err error) error {
	if l.state.err == nil {
		l.state.err = fmt.Errorf("%w: %w", ErrFailed, err)
		l.publish(func(v *view) { v.err = l.state.err })
	}
	return l.state.err
}

// Append adds the record rec, whose head and boundary are h and b, as the
// Encoder emits them; rec may be reused after the call. The record must follow
// the last one. It is not durable, and no reader sees it, before Sync. After an
// error that is not ErrFailed nothing has changed.
func (l *Log) Append(rec []byte, h cdc.Head, b *cdc.Boundary) error {
	if err := l.roll(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.state
	if s.err != nil {
		return s.err
	}
	if len(rec) != h.Length {
		return fmt.Errorf("wal: append record %d: it has %d bytes, its head says %d", h.LSN, len(rec), h.Length)
	}
	if err := s.history.follows(h, b); err != nil {
		return fmt.Errorf("wal: append: %w", err)
	}
	if s.marked < s.synced {
		s.addMark()
	}
	l.current.Load().last().index.add(h.LSN, s.written+int64(len(s.buf)))
	s.buf = append(s.buf, rec...)
	s.history.add(rec, h, b)
	if b != nil {
		s.cut = s.written + int64(len(s.buf))
		l.bounds.add(h.LSN, b)
	}
	if len(s.buf) < flushAt {
		return nil
	}
	return l.flush()
}

func (s *state) addMark() {
	s.buf = appendMark(s.buf, s.written+int64(len(s.buf)), s.synced)
	s.marked = s.synced
}

// flush writes the buffer. The caller holds mu.
func (l *Log) flush() error {
	s := &l.state
	if s.err != nil || len(s.buf) == 0 {
		return s.err
	}
	if _, err := s.file.WriteAt(s.buf, s.written); err != nil {
		return l.fail(fmt.Errorf("write %s at offset %d: %w", l.current.Load().last().path, s.written, err))
	}
	s.written += int64(len(s.buf))
	s.buf = s.buf[:0]
	return nil
}

// Sync returns when every record that was appended before the call is durable.
// Concurrent calls share one sync of the file. After an error the log has
// failed. See also Options.NoSync.
func (l *Log) Sync() error {
	l.sync.Lock()
	defer l.sync.Unlock()
	return l.syncLocked(!l.opts.NoSync)
}

// syncLocked is Sync for a caller that holds l.sync. Without wait it leaves the
// file to the operating system, and no sync mark will say otherwise.
func (l *Log) syncLocked(wait bool) error {
	l.mu.Lock()
	err := l.flush()
	s := &l.state
	file, end, tail := s.file, s.written, s.history.tail.Next-1
	boundary := s.history.tail.Position.LSN
	seen, synced := l.current.Load(), s.synced
	l.mu.Unlock()
	if err != nil || file == nil || seen.durable == tail && (!wait || synced == end) {
		return err
	}

	if wait {
		err = file.Sync()
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return l.fail(fmt.Errorf("sync %s: %w", seen.last().path, err))
	}
	if s.err != nil {
		return s.err
	}
	if wait {
		s.synced = end
	}
	l.publish(func(v *view) { v.durable, v.end, v.boundary = tail, end, boundary })
	return nil
}

// roll begins a new segment when the next record needs one.
func (l *Log) roll() error {
	l.mu.Lock()
	due := l.state.err == nil && l.rollDue()
	l.mu.Unlock()
	if !due {
		return nil
	}
	l.sync.Lock()
	defer l.sync.Unlock()
	if err := l.syncLocked(true); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newSegment()
}

func (l *Log) rollDue() bool {
	s := &l.state
	if s.file == nil {
		return true
	}
	empty := l.current.Load().last().first == s.history.tail.Next
	return !empty && !s.history.inside() && s.written+int64(len(s.buf)) >= l.opts.SegmentBytes
}

// newSegment makes a new last segment; the one before it is synced. The caller
// holds sync and mu.
func (l *Log) newSegment() error {
	s, v := &l.state, l.current.Load()
	seg := &segment{first: s.history.tail.Next, base: s.history.copy()}
	seg.path = segmentPath(l.dir, seg.first)
	if last := v.last(); last != nil {
		seg.previous = last.first
	}
	header, err := appendHeader(seg)
	if err != nil {
		return l.fail(fmt.Errorf("begin %s: %w", seg.path, err))
	}
	file, err := createSynced(l.opts.FS, l.dir, seg.path, header)
	if err != nil {
		return l.fail(fmt.Errorf("begin %s: %w", seg.path, err))
	}
	old := s.file
	if last := v.last(); last != nil {
		last.end = s.written
	}
	s.file, s.written, s.cut, s.synced, s.marked = file, headerSize, headerSize, headerSize, headerSize
	l.publish(func(v *view) {
		v.segments = append(v.segments[:len(v.segments):len(v.segments)], seg)
		v.end = headerSize
	})
	if old == nil {
		return nil
	}
	if err := old.Close(); err != nil {
		return l.fail(fmt.Errorf("close %s: %w", v.last().path, err))
	}
	return nil
}

// createSynced makes a file that is durable, entry and content.
func createSynced(fs durable.FS, dir, path string, content []byte) (durable.File, error) {
	f, err := fs.Open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		if err = f.Sync(); err == nil {
			err = fs.SyncDir(dir)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Tail is the end of the change log: where an Encoder goes on. In an empty log
// Position is zero and Next is 1.
func (l *Log) Tail() cdc.Tail {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.history.copy()
}

// First is the LSN of the oldest record, or 0 when there is none.
func (l *Log) First() cdc.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.current.Load()
	if len(v.segments) == 0 || v.segments[0].first == l.state.history.tail.Next {
		return 0
	}
	return v.segments[0].first
}

// Last is the LSN of the last record that was appended, or the one after which
// an empty log begins.
func (l *Log) Last() cdc.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.history.tail.Next - 1
}

// Durable is the last LSN that Sync has covered.
func (l *Log) Durable() cdc.LSN { return l.current.Load().durable }

// Size is the bytes of all segments, including what is not written yet.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := l.state.written + int64(len(l.state.buf))
	if segments := l.current.Load().segments; len(segments) > 0 {
		for _, s := range segments[:len(segments)-1] {
			size += s.end
		}
	}
	return size
}

// Adopt lets an empty log continue the history that ends at t, because the
// stream or a snapshot has it and this log does not. It is durable when Adopt
// returns. A tail inside a transaction gives cdc.ErrInside: adopt the boundary
// before it and append the parts.
func (l *Log) Adopt(t cdc.Tail) error {
	l.sync.Lock()
	defer l.sync.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.state
	switch {
	case s.err != nil:
		return s.err
	case s.file != nil:
		return fmt.Errorf("wal: adopt LSN %d: the change log in %s is not empty", t.Next, l.dir)
	case t.Inside():
		return fmt.Errorf("wal: adopt LSN %d: %w", t.Next, cdc.ErrInside)
	case t.Next == 0 || t.Position.LSN != 0 && t.Next != t.Position.LSN+1:
		return fmt.Errorf("wal: adopt LSN %d after position %s: not the next", t.Next, t.Position)
	}
	s.history = newHistory(t)
	s.history.tail.Boundary.Tables = nil
	if err := l.newSegment(); err != nil {
		return err
	}
	l.addBase(t)
	l.publish(func(v *view) { v.durable, v.boundary = t.Next-1, t.Position.LSN })
	return nil
}

// CutTail removes the records after the last boundary: the owner knows that
// none of them was published. Readers that were made before it get ErrCut.
func (l *Log) CutTail() error {
	l.sync.Lock()
	defer l.sync.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.state
	if s.err != nil || !s.history.inside() {
		return s.err
	}
	seg := l.current.Load().last()
	if keep := s.cut - s.written; keep >= 0 {
		s.buf = s.buf[:keep]
	} else {
		s.buf = s.buf[:0]
		if err := s.file.Truncate(s.cut); err != nil {
			return l.fail(fmt.Errorf("truncate %s to %d bytes: %w", seg.path, s.cut, err))
		}
		s.written = s.cut
	}
	if err := l.flush(); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync %s: %w", seg.path, err))
	}
	seg.index.cut(s.cut)
	s.history.back()
	s.synced, s.marked = s.written, 0 // the last mark may have gone with the parts
	tail := &s.history.tail
	l.publish(func(v *view) {
		v.durable, v.end, v.boundary = tail.Next-1, s.written, tail.Position.LSN
		v.cuts++
	})
	return nil
}

// Close syncs what was appended and closes the log. Readers get ErrFailed once
// they have read everything that is durable.
func (l *Log) Close() error {
	l.sync.Lock()
	defer l.sync.Unlock()
	err := l.seal()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state.file != nil {
		err = errors.Join(err, l.state.file.Close())
		l.state.file = nil
	}
	_ = l.fail(errors.New("closed")) // for good is what a closed log is
	return err
}

// seal syncs, and proves it by a last mark, so that after a clean end every
// byte of the log is known to have been durable.
func (l *Log) seal() error {
	if err := l.syncLocked(true); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.state
	if s.file == nil || s.marked >= s.synced {
		return nil
	}
	s.addMark()
	if err := l.flush(); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync %s: %w", l.current.Load().last().path, err))
	}
	return nil
}
