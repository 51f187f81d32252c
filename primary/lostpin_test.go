package primary

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// TestTurnoverGivesUpAsAnotherCheckpointEnds: between the last look at the marks and the new
// pin another program's checkpoint ends. The pin stands at lock 0, and a writer may start
// over: what a snapshot reads then must not be frames of the old generation.
func TestTurnoverGivesUpAsAnotherCheckpointEnds(t *testing.T) {
	path := makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE w (id INTEGER PRIMARY KEY, seq INTEGER, pad BLOB);"+
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO w SELECT i, 0, zeroblob(1000) FROM n")
	log := newMemoryLog(func(*cdc.Change) error { return nil })
	c := startCapture(t, path, log, testCaptureOptions())
	app, err := sqlite.Open(path, sqlite.Options{BusyTimeout: time.Second})
	noError(t, err)
	defer func() { noError(t, app.Close()) }()
	for i := range 3 {
		noError(t, app.Exec(fmt.Sprintf("UPDATE w SET seq=%d", i+1)))
	}
	_, err = c.poll()
	noError(t, err)
	f := c.follower
	checkpoint, calls := c.src.checkpoint, 0
	c.src.checkpoint = func() error { return nil } // busy: another one is under way
	f.stallLimit = 0
	f.clock = func() time.Time {
		if calls++; calls == 3 { // checkpointAll gives up, and the other one ends
			m, err := app.Checkpoint(sqlite.Passive)
			noError(t, err)
			if m.Frames != m.Backfilled {
				t.Fatalf("nothing is tested: %+v", m)
			}
		}
		return time.Unix(int64(calls), 0)
	}
	noError(t, f.turnoverLocked())
	c.src.checkpoint, f.clock = checkpoint, time.Now
	if f.stats.Unfinished != 1 || !f.settled || !f.heldSince.IsZero() {
		t.Errorf("unfinished %d, settled %t, a reader holds it since %v", f.stats.Unfinished, f.settled, f.heldSince)
	}
	log.sync = func() error { // a writer starts over, while a freeze waits for its fsync
		log.sync = nil
		return app.Exec("UPDATE w SET seq=100 WHERE id%2=0")
	}
	frozen, err := c.freeze()
	noError(t, err)
	defer func() { noError(t, frozen.Close()) }()
	to := filepath.Join(t.TempDir(), "copy.db")
	noError(t, copyPages(frozen, to))
	copied, err := sqlite.Open(to, sqlite.Options{})
	noError(t, err)
	defer func() { noError(t, copied.Close()) }()
	const states = "SELECT group_concat(n||' rows at '||seq, ', ') FROM (SELECT seq, count(*) n FROM w GROUP BY seq)"
	want, err := frozen.Conn().QueryText(states)
	noError(t, err)
	if got, err := copied.QueryText(states); err != nil || got != want {
		t.Errorf("the snapshot holds %s, the frozen state %s; %v", got, want, err)
	}
}

// TestGenerationUnderThePin: the SQLite WAL starts over although frames were in it that
// nobody has seen checkpointed. So the pin was lost, and a change with it. The pin may move
// before the new generation has a frame.
func TestGenerationUnderThePin(t *testing.T) {
	for name, between := range map[string]func(*follower) error{
		"a frame at once": func(*follower) error { return nil },
		"a pin before it": (*follower).repin,
	} {
		t.Run(name, func(t *testing.T) {
			path := makeSource(t, "PRAGMA journal_mode=WAL; CREATE TABLE w (id INTEGER PRIMARY KEY, seq INTEGER); INSERT INTO w VALUES(1,0),(2,0)")
			log := newMemoryLog(func(*cdc.Change) error { return nil })
			c := startCapture(t, path, log, testCaptureOptions())
			app, err := sqlite.Open(path, sqlite.Options{BusyTimeout: time.Second})
			noError(t, err)
			defer func() { noError(t, app.Close()) }()
			noError(t, app.Exec("UPDATE w SET seq=1 WHERE id=1"))
			_, err = c.poll()
			noError(t, err)
			f := c.follower
			if f.settled || f.view.frames.count == 0 {
				t.Fatal("no frames in the view: nothing is tested")
			}
			noError(t, c.src.pins[f.pinned].Rollback()) // the lock is lost
			noError(t, app.Exec("UPDATE w SET seq=2 WHERE id=2"))
			_, err = app.Checkpoint(sqlite.Truncate)
			noError(t, err)
			err = between(f)
			noError(t, app.Exec("UPDATE w SET seq=3 WHERE id=1"))
			if err == nil {
				_, err = c.poll()
			}
			if !errors.Is(err, errLost) {
				t.Errorf("a change is lost, and the term goes on: %v", err)
			}
		})
	}
}
