package primary

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// The four cases of a restart, and what of them can be proved.
func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name   string
		down   func(b *bench) // while the pipeline is down
		broken bool
	}{
		{"nothing happened", func(b *bench) {}, false},
		{"frames added", func(b *bench) { b.exec("INSERT INTO t(v) VALUES(3)"); b.exec("INSERT INTO t(v) VALUES(4)") }, false},
		{"frames added and checkpointed", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(PASSIVE)")
		}, true},
		// Only the database file itself can tell: SQLite has forgotten the checkpoint.
		{"another page checkpointed, then every process died", func(b *bench) {
			b.exec("INSERT INTO u(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(PASSIVE)")
			b.dieAndRecover()
		}, true},
		// The page's image as of the position is in the SQLite WAL.
		{"the same page checkpointed, then every process died", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(PASSIVE)")
			b.dieAndRecover()
		}, false},
		{"frames added, then every process died", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.dieAndRecover()
		}, false},
		{"started over", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(RESTART)")
			b.exec("INSERT INTO t(v) VALUES(4)")
		}, true},
		{"truncated", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable+"; CREATE TABLE u(id INTEGER PRIMARY KEY, v)")
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
			b.start()
			b.sync()
			b.exec("INSERT INTO t(v) VALUES(1),(2)")
			b.sync()
			b.end()
			c.down(b)
			b.start()
			at := b.sync()
			if got := b.has(cdc.Break); got != c.broken {
				t.Fatalf("break record: %t, want %t", got, c.broken)
			}
			if at.Epoch != 2 {
				t.Errorf("second term has epoch %d", at.Epoch)
			}
			rows, err := b.app.QueryInt("SELECT count(*) FROM t")
			if err != nil {
				t.Fatal(err)
			}
			if !c.broken {
				if b.inserted() != int(rows) {
					t.Errorf("%d inserts published, %d rows", b.inserted(), rows)
				}
				return
			}
			if m := b.awaitSnapshot(at.LSN); m.Position.LSN < at.LSN {
				t.Errorf("snapshot at %d after a break at %d", m.Position.LSN, at.LSN)
			}
		})
	}
}

// TestResync repeats what cannot be proved, with a snapshot at hand: what was
// missed follows as one transaction, and nothing is broken.
func TestResync(t *testing.T) {
	many := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO t(v) SELECT i FROM n"
	for _, c := range []struct {
		name string
		down func(b *bench)
		want string // the changes of the resync, counted by operation
	}{
		{"the last connection closed", func(b *bench) { b.reconnect() }, ""},
		{"written, closed and written", func(b *bench) {
			b.exec("INSERT INTO t(v) VALUES(3)")
			b.reconnect()
			b.exec("UPDATE t SET v=10 WHERE id=1; DELETE FROM t WHERE id=2")
		}, "delete 1 insert 1 update 1"},
		{"another generation", func(b *bench) {
			b.exec(many)
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
			b.exec("CREATE TABLE w(x); INSERT INTO w VALUES(1)")
		}, "insert 501 schema 1"},
		{"vacuumed", func(b *bench) { b.exec("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)") }, ""},
		{"replaced by a backup", func(b *bench) {
			b.exec("DELETE FROM t WHERE id=1; VACUUM INTO '" + b.path + ".backup'")
			if err := b.app.Close(); err != nil {
				b.t.Fatal(err)
			}
			if err := os.Rename(b.path+".backup", b.path); err != nil {
				b.t.Fatal(err)
			}
			b.connect()
		}, "delete 1"},
		{"lost its last commit in a power failure", func(b *bench) {
			if err := b.app.Close(); err != nil {
				b.t.Fatal(err)
			}
			if err := errors.Join(copyFile(b.path+".before", b.path), os.RemoveAll(b.path+"-wal"), os.RemoveAll(b.path+"-shm")); err != nil {
				b.t.Fatal(err)
			}
			b.connect()
		}, "delete 2"},
		{"page size changed", func(b *bench) {
			b.exec("PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=WAL")
		}, "break"},
		{"a large part written", func(b *bench) {
			b.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60) INSERT INTO t(v) SELECT zeroblob(1000000) FROM n")
			b.reconnect()
		}, "insert 60"},
		{"too large a part written", func(b *bench) {
			b.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<80) INSERT INTO t(v) SELECT zeroblob(1000000) FROM n")
			b.reconnect()
		}, "break"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, oneTable)
			b.exec("PRAGMA wal_checkpoint(TRUNCATE)")
			if err := copyFile(b.path, b.path+".before"); err != nil {
				t.Fatal(err)
			}
			b.edit = func(o *Options) {
				o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return noReplay{}, nil }
			}
			b.start()
			b.sync()
			b.exec("INSERT INTO t(v) VALUES(1),(2)")
			before := b.sync()
			if _, err := b.p.Snapshot(b.ctx); err != nil {
				t.Fatal(err)
			}
			b.end()
			c.down(b)
			b.start()
			b.sync()
			if got := b.operations(before.LSN); got != c.want {
				t.Errorf("captured %q, want %q", got, c.want)
			}
			b.exec("INSERT INTO t(v) VALUES(99)")
			b.sync()
		})
	}
}

// TestResyncWithoutRoom: where the state at the last boundary finds no room on the disk,
// a break and a new snapshot take the place of the difference.
func TestResyncWithoutRoom(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) {
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return nil, syscall.ENOSPC }
	}
	b.start()
	b.exec("INSERT INTO t(v) VALUES(1)")
	before := b.sync()
	if _, err := b.p.Snapshot(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.end()
	b.exec("INSERT INTO t(v) VALUES(2)")
	b.reconnect()
	b.start()
	at := b.sync()
	if got := b.operations(before.LSN); got != "break" {
		t.Errorf("captured %q", got)
	}
	b.awaitSnapshot(at.LSN)
	if left, err := filepath.Glob(b.p.rebuilt() + "*"); err != nil || len(left) > 0 {
		t.Errorf("%q is left behind, %v", left, err)
	}
}

// TestSorterStopsAtItsBound: what is too much is not spilled to the last byte.
func TestSorterStopsAtItsBound(t *testing.T) {
	s := newSorter(t.TempDir(), 4<<10)
	defer func() { noError(t, s.close()) }()
	s.most = 20 << 10
	table := &cdc.Table{Name: "t"}
	var err error
	n := int64(0)
	for ; err == nil && n < 100; n++ {
		err = s.change(&cdc.Change{Op: cdc.OpInsert, Table: table, Rowid: n, New: make([]byte, 1000)})
	}
	if err == nil || n != 22 || s.held+s.onDisk > s.most+1100 {
		t.Errorf("after %d changes %d bytes are collected: %v", n, s.held+s.onDisk, err)
	}
	s.reset()
	s.most = 0
	for n := range int64(100) {
		noError(t, s.change(&cdc.Change{Op: cdc.OpInsert, Table: table, Rowid: n, New: make([]byte, 1000)}))
	}
}

// noReplay stands for a snapshot that is at the last position already.
type noReplay struct{}

func (noReplay) Apply([]byte) error { return errors.New("nothing should be replayed") }
func (noReplay) Finish() error      { return nil }
func (noReplay) Close() error       { return nil }

// reconnect closes the last connection, which checkpoints and deletes the SQLite
// WAL, and opens another.
func (b *bench) reconnect() {
	b.t.Helper()
	if err := b.app.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.connect()
}

// operations counts what was captured after lsn.
func (b *bench) operations(lsn cdc.LSN) string {
	b.t.Helper()
	count := map[string]int{}
	var d cdc.Decoder
	for _, r := range b.captured() {
		if r.Kind == cdc.Break {
			return "break"
		}
		err := d.Decode(r, func(c *cdc.Change) error {
			if r.LSN > lsn && c.Op != cdc.OpTable && c.Op != cdc.OpEnd {
				count[c.Op.String()]++
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	var words []string
	for _, op := range slices.Sorted(maps.Keys(count)) {
		words = append(words, fmt.Sprintf("%s %d", op, count[op]))
	}
	return strings.Join(words, " ")
}

// dieAndRecover leaves database and SQLite WAL as they are and makes the next
// connection recover, which forgets what was checkpointed.
func (b *bench) dieAndRecover() {
	b.t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(b.path+suffix, b.path+".kept"+suffix); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.app.Close(); err != nil {
		b.t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} { // the same inode, as after a kill
		if err := copyFile(b.path+".kept"+suffix, b.path+suffix); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(b.dir, leavingFile)); err != nil { // the primary died, too
		b.t.Fatal(err)
	}
	if err := os.Remove(b.path + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	b.connect()
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
