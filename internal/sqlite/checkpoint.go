package sqlite

// #include "conn.h"
import "C"

// A CheckpointMode is the work that Conn.Checkpoint may do
// (https://www.sqlite.org/c3ref/c_checkpoint_full.html).
type CheckpointMode int

const (
	Noop     CheckpointMode = iota - 1 // only read the marks
	Passive                            // copy what no reader stands in the way of
	Full                               // wait for writers, then copy everything
	Restart                            // Full, then wait for readers so that the next writer starts over
	Truncate                           // Restart, then truncate the file
)

// A Checkpoint is the state of the SQLite WAL as the wal-index shows it.
type Checkpoint struct {
	Busy       bool   // a lock was missing or the wal-index torn; the marks may be 0
	Frames     uint32 // mxFrame: valid frames in the SQLite WAL
	Backfilled uint32 // nBackfill: frames already in the database file
	HasWAL     bool   // the marks were read: the database is in WAL mode
}

// Checkpoint runs a checkpoint of the main database in mode m and reports the
// marks after it. That it could not run, or not to its end, is Busy and no error.
//
// Noop reads the marks in about a microsecond and takes no lock that stops anyone.
// Inside any transaction of c, a read transaction too, SQLite refuses every mode,
// Noop as well (SQLITE_LOCKED), which shows as Busy without marks: who pins with
// one connection needs another for this. Only Full, Restart and Truncate wait,
// for as long as Options.BusyTimeout.
func (c *Conn) Checkpoint(m CheckpointMode) (Checkpoint, error) {
	if c.db == nil {
		return Checkpoint{}, ErrClosed
	}
	got := C.rq_checkpoint(c.db, C.int(m))
	var p Checkpoint
	if got.frames >= 0 && got.backfilled >= 0 {
		p = Checkpoint{Frames: uint32(got.frames), Backfilled: uint32(got.backfilled), HasWAL: true}
	}
	switch got.rc & 0xff {
	case C.SQLITE_OK:
		return p, nil
	case C.SQLITE_BUSY, C.SQLITE_LOCKED:
		p.Busy = true
		return p, nil
	}
	return Checkpoint{}, c.fail("checkpoint", got.rc)
}
