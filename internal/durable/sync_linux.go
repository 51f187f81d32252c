package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync leaves out the time stamps, which saves a journal commit for each
// group of records. It does cover the size.
func datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = conn.Control(func(fd uintptr) {
		for {
			if serr = unix.Fdatasync(int(fd)); !errors.Is(serr, unix.EINTR) {
				return
			}
		}
	})
	if err = errors.Join(err, serr); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}
