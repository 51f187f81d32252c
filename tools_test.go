package replicator_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// The tests in this file are about the tools that the other ones stand on.

// TestWorkloadReplays: a seed is a reproduction only if it gives the same
// database each time.
func TestWorkloadReplays(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for i := range 2 {
		path := filepath.Join(dir, fmt.Sprint(i))
		w := spawn(t, "workload", path, "7")
		for range 2 {
			if _, err := w.do("150"); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.wait(); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	compare(t, paths[0], paths[1], "")
}

// TestComparisonSees that it does: each change of a copy must be noticed, and
// named.
func TestComparisonSees(t *testing.T) {
	const original = `
CREATE TABLE t(id INTEGER PRIMARY KEY, v, r REAL, s TEXT); CREATE TABLE plain(x); CREATE TABLE k(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIRTUAL TABLE fts1 USING fts5(a); CREATE INDEX i ON t(v); CREATE VIEW view1 AS SELECT * FROM t;
INSERT INTO t VALUES(1, 0.0, 1, 'a'),(2, 1, 2.5, 'b'),(3, x'61', 3, 'c'),(4, zeroblob(100000), 4, 'd'); INSERT INTO plain VALUES(1),(2);
INSERT INTO k VALUES('a',1),('b',2); INSERT INTO auto DEFAULT VALUES; INSERT INTO fts1 VALUES('w1 w2')`
	for _, test := range []struct{ sql, want string }{
		{"UPDATE t SET v=-0.0 WHERE id=1", `table "t"`},
		{"UPDATE t SET v=1.0 WHERE id=2", `table "t"`},
		{"UPDATE t SET v='a' WHERE id=3", `table "t"`},
		{"UPDATE t SET v=zeroblob(99999)||x'01' WHERE id=4", `table "t"`},
		{"UPDATE plain SET rowid=7 WHERE x=2", `table "plain"`},
		{"UPDATE k SET v=NULL WHERE k='b'", `table "k"`},
		{"DELETE FROM k WHERE k='a'", `table "k"`},
		{"UPDATE sqlite_sequence SET seq=9", `table "sqlite_sequence"`},
		{"INSERT INTO fts1 VALUES('w1')", `match fts1`},
		{"DROP INDEX i", "schema"},
		{"DROP VIEW view1", "schema"},
		{"ALTER TABLE t RENAME COLUMN s TO z", "schema"},
		{"PRAGMA user_version=3", "user_version"},
		{"PRAGMA application_id=3", "application_id"},
	} {
		dir := t.TempDir()
		var facts []string
		for _, sql := range []string{original, original + ";" + test.sql} {
			path := filepath.Join(dir, fmt.Sprint(len(facts)))
			if err := script(path, sql); err != nil {
				t.Fatal(err)
			}
			if err := playInspect([]string{path, path + ".facts"}); err != nil {
				t.Fatal(err)
			}
			facts = append(facts, path+".facts")
		}
		if got := difference(t, facts[0], facts[1]); !strings.Contains(got, test.want) {
			t.Errorf("%s: the difference is %q, want one of %s", test.sql, got, test.want)
		}
		if got := difference(t, facts[0], facts[0]); got != "" {
			t.Errorf("a database differs from itself: %s", got)
		}
	}
}

func script(path, sql string) error {
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, Create: true})
	if err != nil {
		return err
	}
	return errors.Join(c.Exec(sql), c.Close())
}
