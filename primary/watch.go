package primary

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher tells when a file was written to. It watches the inode and opens
// no descriptor of the file. The zero value is blind: it never tells.
type watcher struct {
	inotify *os.File
	wake    chan struct{} // has room for one
}

// longest is the longest pause between two looks at the file.
func (w *watcher) longest() time.Duration {
	if w.inotify == nil {
		return blindNap
	}
	return lastNap
}

func watch(path string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w; raise fs.inotify.max_user_instances", err)
	}
	w := &watcher{inotify: os.NewFile(uintptr(fd), "inotify"), wake: make(chan struct{}, 1)}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		_ = w.inotify.Close() // nothing was watched
		return nil, fmt.Errorf("watch %s: %w; raise fs.inotify.max_user_watches", path, err)
	}
	return w, nil
}

// run passes events on until close.
func (w *watcher) run() {
	if w.inotify == nil {
		return
	}
	var buf [4096]byte
	for {
		if _, err := w.inotify.Read(buf[:]); err != nil {
			return
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) close() error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Close()
}
