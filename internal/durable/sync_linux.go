package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync leaves out the time stamps, which saves a journal commit for each
// group of records. It does cover the size.
func datasync(f *os.File) error {
	err := withDescriptor(f, func(fd int) error {
		for {
			if err := unix.Fdatasync(fd); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	if err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func withDescriptor(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var derr error
	err = conn.Control(func(fd uintptr) { derr = do(int(fd)) })
	return errors.Join(err, derr)
}
