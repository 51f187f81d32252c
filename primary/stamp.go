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

// errPastSQLite means that the database file was written to by something that is no
// SQLite: a copy over it, which keeps the inode, say. No frame tells of it.
var errPastSQLite = errors.New("the database file was written to by other means than SQLite")

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

// A sighting is what the database file was like while no checkpoint wrote to it.
type sighting struct {
	stamp  fileStamp
	copied backfill
	sound  *soundness // the snapshots that were complete then
}

// sight looks whether the database file was written to since it was last seen, and not by
// a checkpoint, which tells of itself before it writes: then a doubt is raised. It is no
// more than that, since to touch a file makes it so; an inspection finds out. A write that
// comes together with a checkpoint is for the inspections alone to find.
func (c *capture) sight() (fileStamp, error) {
	before, sound := c.src.backfill(), c.complete()
	stamp, err := stampOf(c.src.db)
	if err != nil {
		return stamp, err
	}
	checkpointing, err := c.src.heldByOther(lockCheckpoint) // all that SQLite before 3.11 tells
	if err != nil {
		return stamp, err
	}
	now := sighting{stamp, c.src.backfill(), sound}
	if checkpointing || now.copied != before || !now.copied.rests() {
		return stamp, nil
	}
	if last := c.seen; last != nil && last.copied == now.copied && last.stamp != stamp {
		if c.doubts.standing() == nil {
			c.logger.Warn("the database file was written to by other means than SQLite; it is inspected", "path", c.src.path)
		}
		_ = c.doubts.raise(errPastSQLite, last.sound) // the next look notes what this cannot
	}
	c.seen = &now
	return stamp, nil
}

// lookPastSQLite notes a doubt in the database file. As long as rows cannot be compared
// with their hashes, which are not all known yet, it ends the term.
func (c *capture) lookPastSQLite() error {
	_, err := c.sight()
	err = errors.Join(err, c.doubts.note())
	if c.doubts.standing() != nil && c.sums.known < len(c.sums.tables) {
		return errPastSQLite
	}
	if text := fmt.Sprint(err); err != nil && text != c.upkeep.unnoted {
		c.upkeep.unnoted = text
		c.logger.Error("a doubt in the database file is in memory alone; it is noted as soon as the disk allows", "err", err)
	}
	return nil
}

// complete tells which snapshots are complete at this moment. Those that are older than
// the term are: no snapshot outlives the term in which it is begun.
func (c *capture) complete() *soundness {
	s := &soundness{Below: c.began}
	if c.newest != nil {
		if m := c.newest(); m.Position.LSN >= s.Below {
			s.Below, s.ID = m.Position.LSN, m.ID
		}
	}
	return s
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
// next term knows less, and nothing is lost. Where there is a doubt, that is what the
// next term has to know.
func (c *capture) leave() {
	stamp, err := c.sight()
	if c.encoder == nil || c.unsynced || c.doubts.standing() != nil {
		return
	}
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
