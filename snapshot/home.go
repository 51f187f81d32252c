package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// A home remembers on which file system a store is. A nil *home remembers nothing.
// Its methods may be called concurrently.
type home struct {
	dir    string // of the store
	note   string // file in which it is written
	device func(dir string) (uint64, error)

	mu    sync.Mutex
	known *homeNote // as the file has it; nil: not read yet, or there is none
	read  bool
}

// A homeNote is the content of the note.
type homeNote struct {
	Dir    string `json:"dir"`
	Device uint64 `json:"device"` // st_dev
}

// noteLimit is far more bytes than a note has.
const noteLimit = 64 << 10

// check fails if the store is empty and on another file system than it was: what is
// there is the place where it should be mounted. One that has moved there with its
// objects is taken up.
func (h *home) check(names func() ([]string, error)) error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	here, err := h.look()
	if err != nil || h.known == nil || *h.known == here {
		return err
	}
	list, err := names()
	if err != nil {
		return err
	}
	if h.known.Dir == here.Dir && len(list) == 0 {
		return fmt.Errorf("snapshot: %s is empty and not on the file system that snapshots were stored on; mount that, or, if they are lost, remove %s: %w",
			h.dir, h.note, syscall.ENODEV)
	}
	return nil
}

// keep writes the note after something was stored, where it has changed.
func (h *home) keep() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	here, err := h.look()
	if err != nil || h.known != nil && *h.known == here {
		return err
	}
	b, err := json.Marshal(here)
	if err == nil {
		err = durable.WriteFile(durable.OS{}, h.note, b)
	}
	if err != nil {
		return fmt.Errorf("snapshot: note where the store is: %w", err)
	}
	h.known = &here
	return nil
}

// look reads the note, once, and gives what it should say.
func (h *home) look() (here homeNote, err error) {
	if !h.read {
		b, err := durable.ReadFile(durable.OS{}, h.note, noteLimit)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, durable.ErrTooLong): // too long to be one
		case err != nil:
			return here, fmt.Errorf("snapshot: note of where the store is: %w; if it cannot be read again, remove it", err)
		default:
			var n homeNote
			if json.Unmarshal(b, &n) == nil { // else as if there were none
				h.known = &n
			}
		}
		h.read = true
	}
	here.Dir = h.dir
	here.Device, err = h.device(h.dir)
	return here, err
}

// deviceOf names the file system of dir, or of where dir would be made.
func deviceOf(dir string) (uint64, error) {
	for {
		info, err := os.Stat(dir)
		if up := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && up != dir {
			dir = up
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("snapshot: %w", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, nil
		}
		return uint64(st.Dev), nil
	}
}
