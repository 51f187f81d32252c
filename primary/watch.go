package primary

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A watcher tells when a file was written to. It watches the inode and opens
// no descriptor of the file. The zero value is blind: it never tells.
type watcher struct {
	watches *watches
	id      int32         // inotify's watch descriptor
	wake    chan struct{} // has room for one
}

// longest is the longest pause between two looks at the file, which is set where
// set is not 0. One that is blind looks more often.
func (w *watcher) longest(set time.Duration) time.Duration {
	if set == 0 {
		set = lastNap
	}
	if w.watches == nil {
		return min(set, blindNap)
	}
	return set
}

func (w *watcher) close() error {
	if w.watches == nil {
		return nil
	}
	return w.watches.remove(w)
}

// watches are all watchers of a process. They share one inotify instance, of
// which Linux gives a user 128 by default; it lives while there is a watcher.
// The zero value is ready. Safe for concurrent use.
type watches struct {
	mu      sync.Mutex
	inotify *os.File
	byID    map[int32]*watcher
}

// add watches the file at path.
func (s *watches) add(path string) (*watcher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inotify == nil {
		fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("inotify: %w; raise fs.inotify.max_user_instances", err)
		}
		s.inotify, s.byID = os.NewFile(uintptr(fd), "inotify"), map[int32]*watcher{}
		go s.read(s.inotify)
	}
	w := &watcher{watches: s, wake: make(chan struct{}, 1)}
	err := s.control(func(fd int) error {
		id, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY)
		w.id = int32(id)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w; raise fs.inotify.max_user_watches", path, err), s.closeIdle())
	}
	s.byID[w.id] = w
	return w, nil
}

func (s *watches) remove(w *watcher) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, w.id)
	err := s.control(func(fd int) error {
		_, err := unix.InotifyRmWatch(fd, uint32(w.id))
		return err
	})
	if errors.Is(err, unix.EINVAL) { // the file is gone, and the watch with it
		err = nil
	}
	return errors.Join(err, s.closeIdle())
}

// control calls f with the descriptor, without taking it out of the runtime's
// poller as Fd would.
func (s *watches) control(f func(fd int) error) error {
	raw, err := s.inotify.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	return errors.Join(raw.Control(func(fd uintptr) { inner = f(int(fd)) }), inner)
}

// closeIdle closes the instance, which ends its reader, when nothing is watched.
// The caller holds mu.
func (s *watches) closeIdle() error {
	if len(s.byID) > 0 {
		return nil
	}
	err := s.inotify.Close()
	s.inotify = nil
	return err
}

// read passes events on until the instance is closed.
func (s *watches) read(inotify *os.File) {
	var buf [16 << 10]byte
	for {
		n, err := inotify.Read(buf[:])
		if err != nil {
			return
		}
		s.pass(buf[:n])
		nap(hearEvery)
	}
}

// hearEvery is the least time between two looks at the events. An event that waits
// takes in those of the same file that follow it; with nothing waiting, each write of
// a program would wake a thread of ours, at the cost of that program. Whoever was
// woken looks again and again for longer than this.
const hearEvery = 500 * time.Microsecond

// pass wakes whoever watches the files of some events, as read from inotify.
func (s *watches) pass(events []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		id := int32(binary.NativeEndian.Uint32(events))
		name := binary.NativeEndian.Uint32(events[12:])
		if w := s.byID[id]; w != nil {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
		events = events[min(unix.SizeofInotifyEvent+int(name), len(events)):]
	}
}
