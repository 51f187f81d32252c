// Package durable is how replicator writes files that must survive a power
// failure, and the seam at which tests make the disk fail.
//
// [FS] names the few operations that the change log and the state files need;
// [OS] is the real thing and [Mem] one in memory, which can show what a power
// failure at any moment would leave and fail any call. [WriteFile] replaces a
// file whole or not at all. [Lock] keeps a second process out of a directory.
//
// The package knows nothing of what is in the files, keeps no state and starts
// no goroutine.
package durable

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A File is an open file. Reads and writes name their offset, so that a failed
// write leaves no doubt about where the next one goes. ReadAt and Sync may be
// called concurrently with everything but Close.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns when the content and the size are on stable storage. After
	// an error none of what was written since the last success may be there,
	// and a further Sync proves nothing about it: it must be written again.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
}

// A Pusher is a File that can write out parts of itself ahead of the Sync that
// makes all of it durable. Both calls are about when and where, never about
// whether: nothing is durable before Sync. After an error, as after one of Sync,
// what was written must be written again.
type Pusher interface {
	// Push starts to write a part to the disk and does not wait.
	Push(offset, n int64) error
	// Settle waits until a part is written and takes it out of the page cache.
	Settle(offset, n int64) error
}

// An FS creates, renames and removes files. Changes of a directory are durable
// after SyncDir. Errors wrap those of package os (os.ErrNotExist and so on).
// Safe for concurrent use.
type FS interface {
	// Open opens a file with the flags of [os.OpenFile].
	Open(name string, flag int) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// ReadDir lists the names in a directory, sorted.
	ReadDir(dir string) ([]string, error)
	// MkdirAll creates a directory and its parents, durably.
	MkdirAll(dir string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(dir string) error
}

// WriteFile replaces the file name by one with the given content: after a
// power failure there is the old file or the new one, and after WriteFile
// returned nil the new one. A failed call may leave name + ".tmp" behind, which
// the next call overwrites.
func WriteFile(fs FS, name string, content []byte) error {
	return Replace(fs, name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Replace is [WriteFile] for content that write gives bit by bit. It goes to the disk
// as it comes, so that a write that takes long is seen to do so.
func Replace(fs FS, name string, write func(io.Writer) error) error {
	tmp := name + ".tmp"
	if err := writeSynced(fs, tmp, write); err != nil {
		return fmt.Errorf("durable: write %s: %w", name, err)
	}
	if err := fs.Rename(tmp, name); err != nil {
		return fmt.Errorf("durable: write %s: %w", name, err)
	}
	if err := fs.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("durable: write %s: %w", name, err)
	}
	return nil
}

// writeChunk is how much of a file is written at once, in bytes.
const writeChunk = 1 << 20

func writeSynced(fs FS, name string, write func(io.Writer) error) (err error) {
	f, err := fs.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	w := bufio.NewWriterSize(&settled{file: f}, writeChunk)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync()
}

// A settled writes a file from its beginning. What was written before the last write
// is on its way to the disk, or there.
type settled struct {
	file File
	size int64
	last int64 // bytes of the last write
}

func (s *settled) Write(b []byte) (int, error) {
	if p, ok := s.file.(Pusher); ok && s.last > 0 {
		if err := p.Settle(s.size-s.last, s.last); err != nil {
			return 0, err
		}
	}
	n, err := s.file.WriteAt(b, s.size)
	s.size, s.last = s.size+int64(n), int64(n)
	return n, err
}

// ErrTooLong is wrapped by the error of [ReadFile] for a file over its limit.
var ErrTooLong = errors.New("longer than expected")

// ReadFile reads a whole file of at most limit bytes.
func ReadFile(fs FS, name string, limit int64) ([]byte, error) {
	f, err := fs.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("durable: read %s: %w", name, err)
	}
	defer f.Close() // nothing was written
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("durable: read %s: %w", name, err)
	}
	if size > limit {
		return nil, fmt.Errorf("durable: read %s: %w: it has %d bytes, at most %d are expected", name, ErrTooLong, size, limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), b); err != nil {
		return nil, fmt.Errorf("durable: read %s: %w", name, err)
	}
	return b, nil
}
