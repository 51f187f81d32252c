package primary

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// heldFrom is how many times as long as it needs to be the SQLite WAL is when a reader
// in its way is worth a warning: a report that takes some seconds is none.
const heldFrom = 4

// A HeldWAL says that a read transaction of another connection keeps the SQLite WAL from
// starting over: it grows with every write until that transaction ends.
type HeldWAL struct {
	Since     time.Time `json:"since"` // when it was first in the way
	Bytes     int64     `json:"bytes"` // of the SQLite WAL by now
	Processes []int     `json:"processes,omitempty"`
}

// String is the warning.
func (h *HeldWAL) String() string {
	who := ""
	if len(h.Processes) > 0 {
		who = fmt.Sprintf(" (process %s)", strings.Trim(strings.ReplaceAll(fmt.Sprint(h.Processes), " ", ", "), "[]"))
	}
	return fmt.Sprintf("the SQLite WAL has %d bytes and grows: another connection%s keeps a read transaction open since %s or longer, so that it cannot start over; end that transaction",
		h.Bytes, who, h.Since.UTC().Format(time.RFC3339))
}

// noteReader raises and clears the warning about a reader; size is that of the SQLite
// WAL in bytes.
func (c *capture) noteReader(size int64) error {
	u, f := &c.upkeep, c.follower
	if f.heldSince.IsZero() || size < min(heldFrom*c.options.TurnoverBytes, c.options.MaxSQLiteWAL) {
		if u.reader != nil {
			c.logger.Info("the SQLite WAL can start over again", "bytes", size, "held_since", u.reader.Since)
		}
		u.reader = nil
		return nil
	}
	processes, err := c.src.readers()
	if err != nil {
		return err
	}
	news := u.reader == nil
	u.reader = &HeldWAL{Since: f.heldSince, Bytes: size, Processes: processes}
	if past := size > c.options.MaxSQLiteWAL; news || past && !u.alarmed {
		u.alarmed = past
		c.logger.Warn(u.reader.String(), "max_sqlite_wal", c.options.MaxSQLiteWAL)
	}
	return nil
}

// Locks that a reader holds while it needs frames of the SQLite WAL: all but lock 0.
const (
	firstReader = 124
	lastReader  = 127
)

// readers are the other processes that read from the SQLite WAL, sorted. POSIX shows
// none of this process, and a container may hide the number of one outside.
func (s *source) readers() (pids []int, err error) {
	for at := int64(firstReader); at <= lastReader; at++ {
		pid, held, err := s.holder(at)
		if err != nil {
			return nil, err
		}
		if held && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}
