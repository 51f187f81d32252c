package primary

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
)

// errPastSQLite means that the database file was changed by something that is no
// SQLite: a copy over it, which keeps the inode, say. No frame tells of it.
var errPastSQLite = errors.New("the database file was changed by other means than SQLite")

// A fileStamp tells whether a file was written to. Checkpoints do that, too: it is
// never more than a reason to look.
type fileStamp struct {
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
}

func stampOf(f *os.File) (fileStamp, error) {
	info, err := f.Stat()
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{Size: info.Size(), Modified: info.ModTime().UTC()}, nil
}

// A leaving is what a term writes about the source when it ends. The next one
// believes it where it goes on from the same record.
type leaving struct {
	LSN    cdc.LSN   `json:"lsn"`
	Hash   cdc.Hash  `json:"hash"`
	Source fileStamp `json:"source"`
}

const (
	leavingFile  = "source.json"
	leavingLimit = 4096 // bytes
)

// leave writes what the database file was like when the term ended. Without it the
// next term knows less, and nothing is lost.
func (c *capture) leave() {
	if c.encoder == nil || c.unsynced {
		return
	}
	stamp, err := stampOf(c.src.db)
	if err == nil {
		var b []byte
		at := c.encoder.Position()
		if b, err = json.Marshal(leaving{at.LSN, at.Hash, stamp}); err == nil {
			err = durable.WriteFile(durable.OS{}, filepath.Join(c.dir, leavingFile), b)
		}
	}
	if err != nil {
		c.logger.Warn("the state of the database file is not noted", "err", err)
		return
	}
	if c.orderly {
		if err := c.save(stamp); err != nil {
			c.logger.Info("the map of the database's pages is not saved; the next start reads the database", "err", err)
		}
	}
}

// untouched reports, as an error that wraps errUnproved, that the database file was
// written to since the term that ended at a position. A checkpoint may have done it.
func (c *capture) untouched(at cdc.Position) error {
	b, err := durable.ReadFile(durable.OS{}, filepath.Join(c.dir, leavingFile), leavingLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var l leaving
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil || l.LSN != at.LSN || l.Hash != at.Hash { // of another term, which crashed
		return nil
	}
	now, err := stampOf(c.src.db)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnproved, err)
	}
	if now != l.Source {
		return fmt.Errorf("%w: the database file was written to meanwhile", errUnproved)
	}
	return nil
}
