package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is wrapped by the error of [LockDir] and [LockAs] when somebody has the lock already.
var ErrLocked = errors.New("another replicator")

// A Lock is held until Close or until the process ends, however it ends.
type Lock struct{ file *os.File }

// LockDir takes the lock of a directory, dir/lock, without waiting. The
// file holds the process id of its owner for people and is never removed: to
// remove it would let two owners in.
func LockDir(dir string) (*Lock, error) { return LockAs(dir, "lock") }

// LockAs is LockDir with another name of the file, for one of several uses that a
// directory may have at a time.
func LockAs(dir, name string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("durable: lock directory: %w", err)
	}
	if err := take(f, dir); err != nil {
		_ = f.Close() // the lock was not taken: err says why
		return nil, err
	}
	return &Lock{file: f}, nil
}

func take(f *os.File, dir string) error {
	var err error
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w (pid %s) uses %s; stop it or choose another directory", ErrLocked, owner(f), dir)
	}
	if err != nil {
		return fmt.Errorf("durable: lock %s: %w", f.Name(), err)
	}
	// The id is for people: on a full disk the owner does without.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return nil
}

// owner reads the process id that the holder wrote, or "unknown" while it has
// not written it yet.
func owner(f *os.File) string {
	var b [20]byte
	n, _ := f.ReadAt(b[:], 0)
	pid := strings.TrimSpace(string(b[:n]))
	if _, err := strconv.Atoi(pid); err != nil {
		return "unknown"
	}
	return pid
}

// Close releases the lock. To close the file would not be enough: a child that
// another goroutine is just about to start shares it for a moment.
func (l *Lock) Close() error {
	return errors.Join(unix.Flock(int(l.file.Fd()), unix.LOCK_UN), l.file.Close())
}
