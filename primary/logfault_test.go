package primary

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
	"github.com/sqlite-replicator/replicator/wal"
)

// A told is what a change log says: the rows of table t after its last whole
// transaction, and the last break record.
type told struct {
	rows   map[int64]string
	broken cdc.LSN
	last   cdc.LSN
}

// toldBy reads a change log as a replica does that crosses breaks.
func toldBy(t *testing.T, log *wal.Log) told {
	t.Helper()
	x := told{rows: map[int64]string{}, last: log.Last()}
	v := cdc.NewVerifier(cdc.Position{})
	var d cdc.Decoder
	open := maps.Clone(x.rows) // of a transaction that has not ended
	for lsn := log.First(); lsn <= log.Durable(); lsn++ {
		b, err := log.Record(lsn)
		noError(t, err)
		rec, err := v.Verify(append([]byte(nil), b...), true)
		noError(t, err)
		if rec.Kind == cdc.EpochStart || rec.Kind == cdc.Break {
			open = maps.Clone(x.rows)
		}
		if rec.Kind == cdc.Break {
			x.broken = lsn
		}
		change := changesOf(open)
		noError(t, d.Decode(rec, func(c *cdc.Change) error {
			if c.Op == cdc.OpEnd {
				x.rows = maps.Clone(open)
			}
			return change(c)
		}))
	}
	return x
}

// changesOf makes changes of a table with one column besides its rowid in rows.
func changesOf(rows map[int64]string) func(*cdc.Change) error {
	return func(c *cdc.Change) error {
		switch c.Op {
		case cdc.OpDelete:
			delete(rows, c.Rowid)
		case cdc.OpInsert, cdc.OpUpdate:
			values, err := sqlitefile.Record(nil, c.New)
			if err != nil {
				return err
			}
			rows[c.Rowid] = string(values[1].Bytes)
		}
		return nil
	}
}

// rowsOf are those that SQLite reads.
func rowsOf(t *testing.T, c *sqlite.Conn) map[int64]string {
	t.Helper()
	rows := map[int64]string{}
	noError(t, c.Query("SELECT id, v FROM t", nil, func(r sqlite.Row) error {
		rows[r.Int(0)] = r.Text(1)
		return nil
	}))
	return rows
}

// A logTrial is a source whose change log is on a disk that fails.
type logTrial struct {
	t      *testing.T
	path   string
	app    *sqlite.Conn
	states map[int]string // databases to begin a resync from, by their number of rows; nil: none
}

func newLogTrial(t *testing.T) *logTrial {
	t.Helper()
	path := makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
	x := &logTrial{t: t, path: path, app: openApp(t, path), states: map[int]string{}}
	x.exec("PRAGMA wal_autocheckpoint=0")
	return x
}

func (x *logTrial) exec(sql string) {
	x.t.Helper()
	noError(x.t, x.app.Exec(sql))
}

// large is a transaction of several records.
func (x *logTrial) large(tag string) {
	x.t.Helper()
	x.exec(fmt.Sprintf("BEGIN; DELETE FROM t WHERE id%%7=3; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<1200) INSERT INTO t(v) SELECT '%s '||hex(randomblob(600)) FROM n; COMMIT", tag))
}

// reset makes the SQLite WAL start over, which leaves doubt, and keeps the database
// as it is now for a resync.
func (x *logTrial) reset() {
	x.t.Helper()
	x.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	to := filepath.Join(x.t.TempDir(), "state.db")
	noError(x.t, copyFile(x.path, to))
	x.states[len(rowsOf(x.t, x.app))] = to
}

// segmentOfTrials is small, so that a transaction needs several.
const segmentOfTrials = 16 << 10

// read reads the change log in fs.
func (x *logTrial) read(fs *durable.Mem) told {
	x.t.Helper()
	log, err := wal.Open("/log", wal.Options{FS: fs, SegmentBytes: segmentOfTrials})
	noError(x.t, err)
	defer func() { noError(x.t, log.Close()) }()
	return toldBy(x.t, log)
}

// state is what a resync may begin from: the database that the change log in fs has
// come to; "" where none was kept.
func (x *logTrial) state(fs *durable.Mem) string { return x.states[len(x.read(fs).rows)] }

// term runs one over the change log in fs: it captures what there is, after what
// meanwhile does.
func (x *logTrial) term(fs *durable.Mem, dir, state string, meanwhile func()) (err error) {
	x.t.Helper()
	log, err := wal.Open("/log", wal.Options{FS: fs, SegmentBytes: segmentOfTrials})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	src, err := openSource(x.path)
	noError(x.t, err)
	defer func() { err = errors.Join(err, src.close()) }()
	setup := captureSetup{dir: dir, options: testCaptureOptions(), clock: time.Now, logger: slog.New(slog.DiscardHandler)}
	if state != "" {
		setup.rebuild = func(context.Context, cdc.Position) (string, error) {
			to := filepath.Join(dir, "resync.db")
			return to, copyFile(state, to)
		}
	}
	c, err := newCapture(x.t.Context(), src, log, setup)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	meanwhile()
	_, err = c.poll()
	return err
}

// missed leaves doubt, and frames in the SQLite WAL at which a term could resume that
// took the present for what was captured.
func missed(x *logTrial) {
	x.large("down")
	x.reset()
	x.exec("INSERT INTO t(v) VALUES('down')")
}

// A blow is what a call of the file system meets, and what is left of the file
// system after the process has died of it.
type blow struct {
	name  string
	fault durable.Fault
	left  func(fs *durable.Mem, r *rand.Rand) *durable.Mem
}

// shortWrite is the name of the blow that lets half of a write through.
const shortWrite = "no space after a half"

var blows = []blow{
	{"failed", durable.Fault{Err: syscall.EIO}, func(fs *durable.Mem, _ *rand.Rand) *durable.Mem { return fs }},
	{"failed although it happened", durable.Fault{Err: syscall.EIO, Happened: true}, func(fs *durable.Mem, _ *rand.Rand) *durable.Mem { return fs }},
	{shortWrite, durable.Fault{Err: syscall.ENOSPC}, func(fs *durable.Mem, _ *rand.Rand) *durable.Mem { return fs }},
	{"power failure", durable.Fault{Err: syscall.EIO}, func(fs *durable.Mem, r *rand.Rand) *durable.Mem { return fs.Crash(r.IntN) }},
	{"power failure just after it", durable.Fault{Err: syscall.EIO, Happened: true}, func(fs *durable.Mem, r *rand.Rand) *durable.Mem { return fs.Crash(r.IntN) }},
}

// An interruption is a term that fails, and what happens before, while and after it runs.
type interruption struct {
	name                     string
	down, meanwhile, between func(*logTrial)
	breaks                   bool // there is no state to compare with
}

// TestChangeLogFailsAtEveryCall: whatever call of the change log's disk fails, or fails
// although it happened, while a term begins and captures, the next one goes on so that
// nothing is missing and nothing is there twice: after an exact resume, inside the
// records of what was missed, and before a break record.
func TestChangeLogFailsAtEveryCall(t *testing.T) {
	nothing := func(*logTrial) {}
	write := func(x *logTrial) { x.large("during") }
	all := blows
	if testing.Short() {
		all = blows[:3]
	}
	for _, c := range []interruption{
		{"a transaction", nothing, write, nothing, false},
		{"a transaction, then the SQLite WAL starts over", nothing, write, (*logTrial).reset, false},
		{"a resync", missed, nothing, nothing, false},
		{"a break", missed, nothing, nothing, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			for _, b := range all {
				calls := 0
				for reached := true; reached; {
					calls++
					reached = c.failAt(t, b, calls, r)
				}
				if calls < 10 {
					t.Errorf("%s: only %d calls were made", b.name, calls)
				}
			}
		})
	}
}

// failAt strikes at one call of the term, if there are so many.
func (c interruption) failAt(t *testing.T, b blow, at int, r *rand.Rand) (reached bool) {
	t.Helper()
	x := newLogTrial(t)
	fs, dir := durable.NewMem(), t.TempDir()
	x.begin(fs, dir)
	before := x.read(fs)
	c.down(x)
	if c.breaks {
		x.states = nil
	}
	state := x.state(fs)
	fs.Inject(b.at(at, &reached))
	err := x.term(fs, dir, state, func() { c.meanwhile(x) })
	fs.Inject(nil)
	if reached == (err == nil) {
		t.Fatalf("%s at call %d, which came: %t: %v", b.name, at, reached, err)
	}
	if !reached {
		return false
	}
	fs = b.left(fs, r)
	c.between(x)
	noError(t, os.RemoveAll(filepath.Join(dir, "resync.db")))
	if err := x.term(fs, dir, x.state(fs), func() { x.exec("INSERT INTO t(v) VALUES('after')") }); err != nil {
		t.Fatalf("%s at call %d: the next term: %v", b.name, at, err)
	}
	after := x.read(fs.Crash(nil))
	want := rowsOf(t, x.app)
	switch {
	case c.breaks && after.broken <= before.last:
		t.Fatalf("%s at call %d: no break although changes were missed", b.name, at)
	case !c.breaks && (!maps.Equal(want, after.rows) || after.broken != 0):
		t.Fatalf("%s at call %d: %d rows in the database, %d in the change log, break at %d", b.name, at, len(want), len(after.rows), after.broken)
	}
	return true
}

// begin brings the change log in fs to five rows, in two terms.
func (x *logTrial) begin(fs *durable.Mem, dir string) {
	x.t.Helper()
	noError(x.t, x.term(fs, dir, "", func() { x.exec("INSERT INTO t(v) VALUES('one'),('two'),('three')") }))
	x.reset()
	noError(x.t, x.term(fs, dir, x.state(fs), func() { x.exec("INSERT INTO t(v) VALUES('four'),('five')") }))
	to := filepath.Join(x.t.TempDir(), "state.db")
	x.exec("VACUUM INTO '" + to + "'")
	x.states[5] = to
}

// at strikes at one call that changes something, and says so.
func (b blow) at(n int, reached *bool) func(durable.Call) durable.Fault {
	calls := 0
	return func(call durable.Call) durable.Fault {
		if call.Op == "read" || call.Op == "readdir" {
			return durable.Fault{}
		}
		if calls++; calls != n {
			return durable.Fault{}
		}
		*reached = true
		f := b.fault
		if b.name == shortWrite {
			f.Wrote = call.Size / 2
		}
		return f
	}
}
