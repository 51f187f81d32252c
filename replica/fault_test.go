package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A fault makes a statement fail for a reason of the moment, the nth further on than the
// one before; 0: none. When all succeeds and spent says so, none is left.
type fault struct {
	name  string
	put   func(t *testing.T, c *sqlite.Conn, n int)
	spent func(c *sqlite.Conn) bool
}

var faults = []fault{
	{"interrupt", func(_ *testing.T, c *sqlite.Conn, n int) { c.InterruptAt(n) },
		func(c *sqlite.Conn) bool { due := c.InterruptDue(); c.InterruptAt(0); return due }},
	{"full disk", func(t *testing.T, c *sqlite.Conn, n int) {
		pages, err := c.QueryInt("PRAGMA page_count")
		must(t, err)
		if n == 0 {
			pages = 1 << 20
		}
		must(t, c.Exec(fmt.Sprintf("PRAGMA max_page_count=%d", pages+int64(n*(n-1)/2))))
	}, func(*sqlite.Conn) bool { return true }},
}

// A faultyWrite changes the replica's file in one SQLite transaction.
type faultyWrite struct {
	name, setup string
	steps       []string // transactions of the source; the last may span records
}

var faultyWrites = []faultyWrite{
	{"rows", "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE, v); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t(u) VALUES(1),(2),(3)", []string{
		"INSERT INTO t(u, v) VALUES(9, zeroblob(9000)); INSERT INTO w VALUES(1,1),(2,2)",
		"UPDATE t SET v=u; DELETE FROM t WHERE u=2; UPDATE w SET k=-k; PRAGMA user_version=7",
	}},
	{"rows that swap", "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE, v); INSERT INTO t(u) VALUES(1),(2),(3)", []string{
		"INSERT INTO t(u, v) VALUES(9, 1)",
		"UPDATE t SET u=-u; UPDATE t SET u=4+u WHERE u>-4; CREATE INDEX tv ON t(v)",
		"ALTER TABLE t ADD COLUMN more", "UPDATE t SET more=u",
	}},
	{"tables and indexes made", "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t SELECT value, zeroblob(300) FROM " + series(1, 40), []string{
		"INSERT INTO t VALUES(100, 1); CREATE TABLE n(x UNIQUE); INSERT INTO n VALUES(1)",
		"INSERT INTO t VALUES(101, 1); CREATE INDEX tb ON t(b)",
		"INSERT INTO t VALUES(102, 1)",
	}},
	{"tables and indexes dropped", "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX tb ON t(b); CREATE TABLE d(x UNIQUE); CREATE TABLE e(x); CREATE INDEX ex ON e(x); CREATE TABLE s(x); CREATE INDEX sx ON s(x); INSERT INTO s VALUES(1); ANALYZE", []string{
		"INSERT INTO t VALUES(1, 1); DROP INDEX tb",
		"INSERT INTO t VALUES(2, 2); DROP TABLE d",
		"INSERT INTO t VALUES(3, 3); DROP TABLE e; DROP TABLE s",
	}},
	{"schema edited", "CREATE TABLE p(id INTEGER PRIMARY KEY, a UNIQUE, b); CREATE INDEX pb ON p(b); CREATE VIEW v AS SELECT a FROM p; INSERT INTO p VALUES(1,1,1),(2,2,2)", []string{
		"INSERT INTO p VALUES(3,3,3); ALTER TABLE p RENAME TO q; CREATE TRIGGER tr AFTER INSERT ON q BEGIN SELECT 1; END",
		"ALTER TABLE q RENAME COLUMN b TO c; INSERT INTO q VALUES(4,4,4)",
		"DROP INDEX pb; ALTER TABLE q DROP COLUMN c; DROP VIEW v; CREATE VIEW v AS SELECT 2",
	}},
	{"names of the rowid taken", "CREATE TABLE o(rowid, oid, _rowid_); CREATE TABLE t(a)", []string{"INSERT INTO t VALUES(1)", "CREATE TABLE n(x); INSERT INTO t VALUES(2)"}},
	{"spans records", "CREATE TABLE t(a INTEGER PRIMARY KEY, u UNIQUE, b); INSERT INTO t VALUES(1,1,1),(2,2,2)", []string{
		"DELETE FROM t WHERE a=1; CREATE TABLE n(x); UPDATE t SET u=1; INSERT INTO t VALUES(3, 2, zeroblob(700000)); INSERT INTO n VALUES(zeroblob(700000)); CREATE INDEX tu ON t(u,a)",
	}},
}

// TestAnyStatementFails: whichever statement fails, the file is in the state before all
// of it, or after, with the position that belongs to it, and the next try goes on from there.
func TestAnyStatementFails(t *testing.T) {
	for _, w := range faultyWrites {
		for _, f := range faults {
			t.Run(w.name+", "+f.name, func(t *testing.T) {
				dir := t.TempDir()
				s := newSource(t, w.setup)
				base := claimed(t, dir, s.snapshot())
				before := content(t, s.c)
				from := s.mark()
				for _, sql := range w.steps {
					s.step(sql)
				}
				after, to := content(t, s.c), s.mark()
				records := s.log.all()[from.LSN:]
				a, tries := reopened(t, dir, base), 1
				for ; ; tries++ {
					f.put(t, a.guard.conn, tries)
					err := applyAll(a, records)
					spent := f.spent(a.guard.conn)
					var d *Divergence
					if errors.As(err, &d) {
						t.Fatalf("try %d: %v", tries, err)
					}
					if err != nil {
						must(t, a.rollback())
						f.put(t, a.guard.conn, 0)
						found(t, a, tries, before, from)
						continue // in the same file, and with what the applier remembers of it
					}
					found(t, a, tries, after, to)
					must(t, a.guard.close())
					if spent {
						break
					}
					a = reopened(t, dir, base)
				}
				if f.name == "interrupt" && tries < 20 {
					t.Errorf("%d tries: hardly anything failed", tries)
				}
			})
		}
	}
}

// claimed is the content of a replica's file that begins at a snapshot.
func claimed(t *testing.T, dir string, snap Snapshot) []byte {
	t.Helper()
	path := filepath.Join(dir, "base.db")
	must(t, snap.Restore(t.Context(), path, func(int64) {}))
	must(t, claimFile(path, snap.At, fastClock{}))
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// reopened is a replica's file whose row-set hashes are kept, without a daemon.
func reopened(t *testing.T, dir string, file []byte) *applier {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, "replica.db"), file, 0o600))
	return opened(t, dir)
}

func opened(t *testing.T, dir string) *applier {
	t.Helper()
	path := filepath.Join(dir, "replica.db")
	g, err := openGuard(path, guardOptions{checkpointBytes: 64 << 20, rowSums: true, hold: true})
	must(t, err)
	a, err := newApplier(g, dir, fastClock{}.Now)
	must(t, err)
	must(t, a.w.prove(newRowSums()))
	return a
}

func applyAll(a *applier, records [][]byte) error {
	for _, rec := range records {
		if err := a.add(context.Background(), rec); err != nil {
			return err
		}
	}
	return a.commit(context.Background())
}

// found compares the file with what it should hold.
func found(t *testing.T, a *applier, try int, want contents, at Mark) {
	t.Helper()
	c, err := sqlite.Open(a.guard.path, sqlite.Options{ReadOnly: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	m, _, err := readPosition(c)
	must(t, err)
	if m.LSN != at.LSN || a.mark.Position != (cdc.Position{Lineage: at.Lineage, Epoch: at.Epoch, LSN: at.LSN, Hash: at.Hash}) {
		t.Fatalf("try %d: the file is at %d, want %d; the applier is at %s, want %s", try, m.LSN, at.LSN, a.mark.Position, at.Position)
	}
	if diff := cmp.Diff(want, content(t, c)); diff != "" {
		t.Fatalf("try %d: the file at %d differs (-want +got):\n%s", try, m.LSN, diff)
	}
}

// TestAnyStatementOfAReseedFails is the same for the transaction that makes a file equal to
// a snapshot.
func TestAnyStatementOfAReseedFails(t *testing.T) {
	dir := t.TempDir()
	s := newSource(t, "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, u UNIQUE); INSERT INTO t VALUES(1,1),(2,2); CREATE INDEX tu ON t(u); CREATE TABLE d(x); CREATE VIEW v AS SELECT 1")
	base := claimed(t, dir, s.snapshot())
	before, from := content(t, s.c), s.mark()
	s.step("UPDATE t SET u=-u; INSERT INTO t VALUES(9,9); DROP TABLE d; DROP INDEX tu; CREATE UNIQUE INDEX tu ON t(u)")
	s.step("CREATE TABLE n(x); INSERT INTO n VALUES(zeroblob(20000)); CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END; PRAGMA user_version=3")
	after, to := content(t, s.c), s.mark()
	snapshot := filepath.Join(dir, "snapshot.db")
	must(t, os.WriteFile(snapshot, claimed(t, dir, s.snapshot()), 0o600))
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			r, err := New(Options{Database: "app", Path: filepath.Join(dir, "replica.db"), Stream: s.log, Snapshots: &snapshots{}})
			must(t, err)
			r.a = reopened(t, dir, base)
			for try := 1; ; try++ {
				f.put(t, r.a.guard.conn, try)
				c := r.a.guard.conn
				err := r.adopt(t.Context(), snapshot, to)
				if spent := f.spent(c); err == nil && spent {
					break
				}
				if r.a == nil { // the next step opens the file again
					r.a = opened(t, dir)
				}
				must(t, r.a.rollback())
				f.put(t, r.a.guard.conn, 0)
				if r.a.mark.LSN == from.LSN {
					found(t, r.a, try, before, from)
					continue
				}
				found(t, r.a, try, after, to) // it was committed before the statement that failed
				must(t, r.a.guard.close())
				r.a = reopened(t, dir, base)
			}
			found(t, r.a, 0, after, to)
			must(t, r.a.guard.close())
		})
	}
}
