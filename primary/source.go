package primary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// Errors that say what state a source is in.
var (
	// errAbsent: the file is missing or empty; it may come.
	errAbsent = errors.New("no database there yet")
	// errReplaced: the path leads to other files than the ones that are open.
	errReplaced = errors.New("database file was replaced")
	// ErrNotDatabase: the file can never be a source as it is.
	ErrNotDatabase = errors.New("not a SQLite database")
	// errLocked: another connection does not let go of a lock.
	errLocked = errors.New("database is locked by another program")
	// errExclusive: another connection keeps every other one out.
	errExclusive = fmt.Errorf("%w exclusively", errLocked)
	// errNotWAL: the database cannot be in WAL mode.
	errNotWAL = errors.New("cannot be set to WAL")
)

// A fileID names an inode.
type fileID struct{ device, inode uint64 }

func statID(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// A source owns every descriptor and connection of one database in this
// process; nothing else in the process may open a path of it. POSIX drops all
// locks of a process on a file when any descriptor of it is closed, so the
// descriptors here close only after the last connection.
//
// A connection inside a transaction cannot checkpoint, hence the roles.
type source struct {
	name string // as configured; may lead to path through symbolic links
	path string // SQLite keeps -wal and -shm beside this one
	id   fileID // of the database file
	shm  fileID
	wal  fileID

	control *sqlite.Conn    // reads the marks, checkpoints
	helper  *sqlite.Conn    // takes the write lock; waits for nothing
	pins    [2]*sqlite.Conn // hold read transactions, in turn
	db      *os.File        // the database file, read only
	log     *os.File        // the -wal file, read only
	index   *os.File        // the -shm file, read only, for its locks
	mapped  []byte          // the start of the -shm file

	cacheBytes int // of page images that a view of it keeps
	mapBytes   int // of its page map that are kept in memory

	checkpoint func() error // PASSIVE; tests make it fail
}

// lockPatience is how long the first access waits for a writer, or for an
// application that checkpoints, before it says that the database is locked.
const lockPatience = 5 * time.Second

// openSource opens the database at path and sets its journal mode to WAL.
func openSource(path string) (_ *source, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0:
		return nil, fmt.Errorf("%s: %w", path, errAbsent)
	case err != nil:
		return nil, fmt.Errorf("source database: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: %w; set path to a database file", path, ErrNotDatabase)
	}
	s := &source{name: path, cacheBytes: mostCache, mapBytes: mapsInAll}
	s.checkpoint = func() error {
		_, err := s.control.Checkpoint(sqlite.Passive)
		return err
	}
	if s.path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, fmt.Errorf("source database: %w", err)
	}
	path = s.path
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.connect(); err != nil {
		if sqlite.IsBusy(err) { // not even to read
			err = fmt.Errorf("%w: %w", errExclusive, err)
		}
		return nil, explainOpen(path, err)
	}
	if s.db, err = os.Open(path); err != nil {
		return nil, fmt.Errorf("source database: %w", err)
	}
	if s.log, err = os.Open(path + "-wal"); err != nil {
		return nil, fmt.Errorf("SQLite WAL of the source database: %w", err)
	}
	if s.index, err = os.Open(path + "-shm"); err != nil {
		return nil, fmt.Errorf("wal-index of the source database: %w", err)
	}
	if s.mapped, err = unix.Mmap(int(s.index.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the wal-index of the source database: %w", err)
	}
	return s, s.identify()
}

func (s *source) connect() error {
	var err error
	if s.control, err = sqlite.Open(s.path, sqlite.Options{BusyTimeout: lockPatience, Lean: true}); err != nil {
		return err
	}
	mode, err := s.control.QueryText("PRAGMA journal_mode")
	if err != nil {
		return err
	}
	if !strings.EqualFold(mode, "wal") {
		if mode, err = s.control.QueryText("PRAGMA journal_mode=WAL"); err != nil {
			return err
		}
	}
	if !strings.EqualFold(mode, "wal") {
		return fmt.Errorf("journal mode is %q and %w", mode, errNotWAL)
	}
	if s.helper, err = sqlite.Open(s.path, sqlite.Options{Lean: true}); err != nil {
		return err
	}
	for i := range s.pins {
		if s.pins[i], err = sqlite.Open(s.path, sqlite.Options{BusyTimeout: lockPatience, Lean: true}); err != nil {
			return err
		}
	}
	// The first read makes SQLite create -wal and -shm.
	if err := s.pins[0].OpenRead(); err != nil {
		return err
	}
	return s.pins[0].Rollback()
}

// explainOpen says what a failed first access means to the user.
func explainOpen(path string, err error) error {
	switch {
	case sqlite.IsNotADatabase(err):
		return fmt.Errorf("%s: %w (or it is encrypted): set path to an unencrypted SQLite 3 file: %w", path, ErrNotDatabase, err)
	case errors.Is(err, errExclusive):
		return fmt.Errorf("%s: end its locking_mode=EXCLUSIVE, then start again: %w", path, err)
	case sqlite.IsBusy(err):
		return fmt.Errorf("%s: %w; end its open transaction: %w", path, errLocked, err)
	case sqlite.IsCantOpen(err), sqlite.IsReadOnly(err):
		return fmt.Errorf("%s: the file and its directory must be writable for this user, SQLite keeps -wal and -shm beside it: %w", path, err)
	}
	return fmt.Errorf("source database %s: %w", path, err)
}

// identify notes which inodes are open.
func (s *source) identify() (err error) {
	if s.id, err = statID(s.path); err != nil {
		return err
	}
	if s.wal, err = statID(s.path + "-wal"); err != nil {
		return err
	}
	s.shm, err = statID(s.path + "-shm")
	return err
}

// unmoved checks that the three paths still lead to the open files: unlinking
// or replacing one is invisible to reads.
func (s *source) unmoved() error {
	for _, f := range []struct {
		path string
		want fileID
	}{{s.name, s.id}, {s.path + "-wal", s.wal}, {s.path + "-shm", s.shm}} {
		got, err := statID(f.path)
		if err != nil || got != f.want {
			return fmt.Errorf("%s: %w", f.path, errReplaced)
		}
	}
	return nil
}

// marks reads mxFrame and nBackfill. A torn wal-index header is retried, for a
// bounded time: only a writer that dies leaves one, until the next recovers it.
func (s *source) marks() (sqlite.Checkpoint, error) {
	for try := 0; ; try++ {
		m, err := s.control.Checkpoint(sqlite.Noop)
		if err != nil {
			return m, fmt.Errorf("%s: read the wal-index: %w", s.path, err)
		}
		if m.HasWAL {
			return m, nil
		}
		if !m.Busy {
			return m, fmt.Errorf("%s: no longer in WAL mode", s.path)
		}
		if try >= maxMarkTries {
			return m, fmt.Errorf("%s: the wal-index stays unreadable", s.path)
		}
		nap(50 * time.Microsecond)
	}
}

// A glance is what the wal-index says of the SQLite WAL: its header, twice, which
// every commit changes, and how much is checkpointed
// (https://www.sqlite.org/walformat.html, §2.1 and 2.2).
type glance [2*glanceHeader + 4]byte

const (
	glanceHeader = 48 // bytes
	glanceInit   = 12 // byte of the header that is 1 where it is valid
	glanceSalt   = 32 // byte of the header where the salts are

	glanceAttempted = 128 // byte of -shm where nBackfillAttempted is
)

// glance takes no system call, and may be torn.
func (s *source) glance() (g glance) {
	copy(g[:], s.mapped)
	return g
}

// whole reports whether g is of one moment.
func (g *glance) whole() bool {
	return g[glanceInit] == 1 && bytes.Equal(g[:glanceHeader], g[glanceHeader:2*glanceHeader])
}

// A backfill is how far checkpoints have come, and may come before they say so again
// (nBackfill and nBackfillAttempted). SQLite sets the latter before it writes to the
// database file, and the former when all is written.
type backfill struct {
	salt            [8]byte // of the generation
	done, attempted uint32  // frames
}

// backfill takes no system call, and may be torn.
func (s *source) backfill() (b backfill) {
	g := s.mapped
	copy(b.salt[:], g[glanceSalt:])
	b.done, b.attempted = binary.NativeEndian.Uint32(g[2*glanceHeader:]), binary.NativeEndian.Uint32(g[glanceAttempted:])
	return b
}

// rests reports whether nothing has been written to the database file beyond what is
// done. SQLite before 3.11 did not say what it attempts.
func (b backfill) rests() bool { return b.attempted <= b.done }

// Bytes of -shm that SQLite locks (https://www.sqlite.org/walformat.html, §2.3).
const (
	lockWrite      = 120
	lockCheckpoint = 121
)

// checkpointWaits reports whether another program is inside a checkpoint and
// holds the write lock at the same time. Only FULL, RESTART and TRUNCATE do: they
// wait for readers, for the pin too, and keep every writer waiting meanwhile.
func (s *source) checkpointWaits() (bool, error) {
	for _, at := range []int64{lockCheckpoint, lockWrite} {
		held, err := s.heldByOther(at)
		if err != nil || !held {
			return false, err
		}
	}
	return true, nil
}

// heldByOther asks for a lock of -shm without taking it. POSIX shows a process
// only the locks of others.
func (s *source) heldByOther(at int64) (bool, error) {
	_, held, err := s.holder(at)
	return held, err
}

// holder is heldByOther with the number of one process that holds the lock, 0 if that
// cannot be seen.
func (s *source) holder(at int64) (pid int, held bool, err error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
	if err := unix.FcntlFlock(s.index.Fd(), unix.F_GETLK, &l); err != nil {
		return 0, false, fmt.Errorf("locks of %s: %w", s.index.Name(), err)
	}
	return int(l.Pid), l.Type != unix.F_UNLCK, nil
}

// excludeCheckpoints waits until nobody checkpoints and keeps it so until release:
// meanwhile nothing writes to the database file. ok is false when a checkpoint did
// not end in time. The lock belongs to the descriptor, so that those which SQLite
// holds in this process stay what they are; it also keeps out our own checkpoints.
func (s *source) excludeCheckpoints(patience time.Duration, clock func() time.Time) (release func() error, ok bool, err error) {
	l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: lockCheckpoint, Len: 1}
	for deadline := clock().Add(patience); ; nap(200 * time.Microsecond) {
		err := unix.FcntlFlock(s.index.Fd(), unix.F_OFD_SETLK, &l)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, false, fmt.Errorf("lock checkpoints of %s: %w", s.index.Name(), err)
		}
		if clock().After(deadline) {
			return nil, false, nil
		}
	}
	return func() error {
		l.Type = unix.F_UNLCK
		return unix.FcntlFlock(s.index.Fd(), unix.F_OFD_SETLK, &l)
	}, true, nil
}

// maxMarkTries bounds the tries to read the wal-index, 50 µs apart: 1 s.
const maxMarkTries = 20_000

// close releases everything, connections first.
func (s *source) close() error {
	var errs []error
	for _, c := range []*sqlite.Conn{s.helper, s.pins[0], s.pins[1], s.control} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if s.mapped != nil {
		errs = append(errs, unix.Munmap(s.mapped))
	}
	for _, f := range []*os.File{s.index, s.log, s.db} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// bootID names the machine's current boot, as long as it can be read.
func bootID() cdc.ID {
	var id cdc.ID
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return cdc.ID{}
	}
	if id.UnmarshalText([]byte(strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))) != nil {
		return cdc.ID{}
	}
	return id
}
