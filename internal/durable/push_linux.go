package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Push implements Pusher.
func (f osFile) Push(offset, n int64) error {
	return f.syncRange(offset, n, unix.SYNC_FILE_RANGE_WRITE)
}

// Settle implements Pusher.
func (f osFile) Settle(offset, n int64) error {
	err := f.syncRange(offset, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	if err != nil {
		return err
	}
	return withDescriptor(f.File, func(fd int) error {
		_ = unix.Fadvise(fd, offset, n, unix.FADV_DONTNEED) // advice
		return nil
	})
}

func (f osFile) syncRange(offset, n int64, flags int) error {
	err := withDescriptor(f.File, func(fd int) error {
		for {
			if err := unix.SyncFileRange(fd, offset, n, flags); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // some sandboxes have no such call: the sync at the end does it all
	}
	if err != nil {
		return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
	}
	return nil
}
