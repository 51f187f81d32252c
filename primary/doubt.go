package primary

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A doubt says that the source may not be what the history leads to. It is noted on disk
// before anything is done about it, and gone when the history has dealt with it: neither
// a stop nor a crash in between forgets what cannot be found again.
type doubt struct {
	Why string `json:"why"`
	// Sound are the snapshots that are not part of the doubt; nil: all.
	Sound *soundness `json:"sound,omitempty"`
}

func (d *doubt) Error() string { return d.Why }

// A soundness tells snapshots that were complete at some moment from later ones, which
// may have been read from a file that no history explains. LSNs alone would not do: an
// idle source has many at one. The zero value includes none.
type soundness struct {
	Below cdc.LSN `json:"below"` // those of lesser LSNs are sound,
	ID    string  `json:"id"`    // and this one at Below; empty: none
}

func (s *soundness) includes(m snapshot.Manifest) bool {
	return s == nil || m.Position.LSN < s.Below || m.Position.LSN == s.Below && m.ID == s.ID
}

// narrower is the one that includes fewer snapshots.
func narrower(a, b *soundness) *soundness {
	switch {
	case a == nil:
		return b
	case b == nil, a.Below < b.Below, a.Below == b.Below && a.ID <= b.ID:
		return a
	}
	return b
}

const (
	doubtFile  = "doubt.json"
	doubtLimit = 64 << 10 // bytes that such a file may have
	doubtWords = 2000     // bytes of an explanation that are noted
)

// Doubts hold at most one doubt, which stands for all of them. With no path they are in
// memory alone. Safe for concurrent use.
type doubts struct {
	to     durable.FS
	path   string
	logger *slog.Logger

	mu    sync.Mutex
	now   *doubt // nil: none. Each that is raised is another one, whatever it says.
	noted bool   // now is on disk
}

// newDoubts are noted in dir.
func newDoubts(to durable.FS, dir string, logger *slog.Logger) *doubts {
	return &doubts{to: to, path: filepath.Join(dir, doubtFile), logger: logger}
}

// recall takes up the doubt that an earlier process has left. A file that cannot be
// understood is a doubt, in every snapshot.
func (d *doubts) recall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := durable.ReadFile(d.to, d.path, doubtLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	left := &doubt{}
	if err == nil {
		if err = json.Unmarshal(b, left); err == nil && left.Why == "" {
			err = errors.New("it says nothing")
		}
	}
	if err != nil {
		left = &doubt{Why: fmt.Sprintf("there was a doubt, and what it was cannot be read: %v", err), Sound: &soundness{}}
	}
	d.now, d.noted = left, true
}

// standing is the doubt that the next term has to deal with; nil: none.
func (d *doubts) standing() *doubt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// raise adds a doubt. After an error it is in memory alone: no term begins before note
// succeeds.
func (d *doubts) raise(why error, sound *soundness) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := &doubt{Why: strings.ToValidUTF8(why.Error()[:min(len(why.Error()), doubtWords)], ""), Sound: sound}
	if d.now != nil {
		next.Why, next.Sound = d.now.Why, narrower(d.now.Sound, sound)
		d.noted = d.noted && next.Sound == d.now.Sound
	} else {
		d.noted = false
	}
	d.now = next
	return d.write()
}

// note writes what could not be written when it was raised.
func (d *doubts) note() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write()
}

func (d *doubts) write() error {
	if d.now == nil || d.noted || d.path == "" {
		return nil
	}
	b, err := json.Marshal(d.now)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.to, d.path, b); err != nil {
		// A full disk may have room for a name still. An empty file is a doubt, too.
		if d.mark() != nil {
			return fmt.Errorf("note a doubt: %w", err)
		}
	}
	d.noted = true
	return nil
}

// mark leaves an empty file.
func (d *doubts) mark() error {
	f, err := d.to.Open(d.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), d.to.SyncDir(filepath.Dir(d.path)))
}

// settle tells that a doubt is dealt with, durably. One that was raised since stays.
func (d *doubts) settle(dealt *doubt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dealt == nil || d.now != dealt {
		return
	}
	d.now = nil
	if d.path == "" {
		return
	}
	err := d.to.Remove(d.path)
	if err == nil {
		err = d.to.SyncDir(filepath.Dir(d.path))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.logger.Warn("a doubt that is dealt with stays noted; the next start compares once more", "err", err)
	}
}
