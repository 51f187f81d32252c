package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// statement draws SQL over a handful of names, so that statements meet. What
// SQLite refuses is as good as not drawn.
func statement(t *rapid.T) string {
	table := fmt.Sprintf("t%d", rapid.IntRange(0, 2).Draw(t, "table"))
	n := rapid.IntRange(1, 9).Draw(t, "n")
	m := rapid.IntRange(1, 40).Draw(t, "m")
	texts := []string{
		"CREATE TABLE %[1]s(id INTEGER PRIMARY KEY, a, b UNIQUE)",
		"CREATE TABLE %[1]s(id INTEGER PRIMARY KEY AUTOINCREMENT, a DEFAULT %[2]d, b UNIQUE)",
		"CREATE TABLE %[1]s(a, b UNIQUE, c REAL)",
		"CREATE TABLE %[1]s(b, a, PRIMARY KEY(b)) WITHOUT ROWID",
		"DROP TABLE %[1]s",
		"ALTER TABLE %[1]s RENAME TO t%[2]d",
		"ALTER TABLE %[1]s RENAME TO t0", // swaps need a third name
		"ALTER TABLE %[1]s ADD COLUMN x%[2]d DEFAULT %[3]d",
		"ALTER TABLE %[1]s DROP COLUMN x%[2]d",
		"ALTER TABLE %[1]s RENAME COLUMN a TO a%[2]d",
		"ALTER TABLE %[1]s RENAME COLUMN a%[2]d TO a",
		"CREATE INDEX i%[2]d ON %[1]s(a, b)",
		"CREATE UNIQUE INDEX i%[2]d ON %[1]s(b DESC) WHERE b>%[3]d",
		"CREATE INDEX i%[2]d ON %[1]s(a||b)",
		"DROP INDEX i%[2]d",
		"CREATE VIEW v%[2]d AS SELECT * FROM %[1]s",
		"DROP VIEW v%[2]d",
		"CREATE TRIGGER r%[2]d AFTER INSERT ON %[1]s BEGIN UPDATE %[1]s SET a='trigger' WHERE b=%[3]d; END",
		"DROP TRIGGER r%[2]d",
		"ANALYZE",
		"PRAGMA user_version=%[3]d",
		"DELETE FROM %[1]s WHERE b%%%[2]d=0",
		"DELETE FROM %[1]s",
		"UPDATE OR REPLACE %[1]s SET b=b+%[2]d",
		"UPDATE OR REPLACE %[1]s SET b=%[3]d-b",
		"UPDATE OR IGNORE %[1]s SET id=id+%[3]d WHERE id%%2=0",
		"UPDATE %[1]s SET b=-b; UPDATE %[1]s SET b=b+(SELECT max(-b)+min(-b) FROM %[1]s)",
		"UPDATE %[1]s SET a=hex(zeroblob(%[3]d))",
	}
	for range 8 { // most statements insert
		texts = append(texts, "INSERT OR IGNORE INTO %[1]s(a,b) SELECT 'v'||value, value*%[2]d FROM "+series(1, 30)+" WHERE value<%[3]d")
	}
	return fmt.Sprintf(rapid.SampledFrom(texts).Draw(t, "sql"), table, n, m)
}

// Whatever a database goes through, and however its transactions are cut into
// records and groups, the replica has the same rows and the same schema.
func TestReplicaEqualsSource(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "")
		must(t, err)
		s := newSourceAt(t, filepath.Join(dir, "source.db"), "CREATE TABLE t0(id INTEGER PRIMARY KEY, a, b UNIQUE)")
		defer func() { must(t, s.c.Close()) }()
		snap := s.snapshot()
		path := filepath.Join(dir, "replica.db")
		must(t, snap.Restore(context.Background(), path, func(int64) {}))
		f, err := OpenFile(path, FileOptions{At: snap.At})
		must(t, err)
		applied := int(snap.At.LSN)
		for range rapid.IntRange(1, 12).Draw(rt, "transactions") {
			s.exec("BEGIN")
			for range rapid.IntRange(1, 5).Draw(rt, "statements") {
				sql := statement(rt)
				if err := s.c.Exec(sql); err == nil {
					rt.Log(sql)
				}
			}
			s.exec("COMMIT")
			s.emit()
			if rapid.IntRange(0, 2).Draw(rt, "flush") > 0 {
				must(t, s.enc.Flush())
			}
			if rapid.IntRange(0, 3).Draw(rt, "commit") == 0 {
				must(t, f.commit(context.Background()))
			}
			for _, rec := range s.log.all()[applied:] {
				applied++
				if err := f.Apply(rec); err != nil {
					rt.Fatal(err)
				}
			}
		}
		must(t, s.enc.Flush())
		for _, rec := range s.log.all()[applied:] {
			if err := f.Apply(rec); err != nil {
				rt.Fatal(err)
			}
		}
		if err := f.Finish(false); err != nil {
			rt.Fatal(err)
		}
		equalFiles(rt, s.c, path)
		must(t, os.RemoveAll(dir))
	})
}

// Any bytes: an error of package cdc, never a change.
func FuzzFileApply(f *testing.F) {
	s := newSource(f, "CREATE TABLE t(a UNIQUE)")
	snap := s.snapshot()
	s.step("INSERT INTO t VALUES(1)")
	s.step("UPDATE t SET a=2; CREATE INDEX i ON t(a)")
	for _, rec := range s.log.all() {
		f.Add(rec, false)
		f.Add(rec, true)
	}
	f.Fuzz(func(t *testing.T, rec []byte, repair bool) {
		if repair && len(rec) > 8 {
			rec = asVersion(rec, rec[8])
		}
		path := filepath.Join(t.TempDir(), "replica.db")
		must(t, snap.Restore(context.Background(), path, func(int64) {}))
		file, err := OpenFile(path, FileOptions{At: snap.At})
		must(t, err)
		defer func() { must(t, file.Close()) }()
		var d *Divergence
		if err := file.Apply(rec); err != nil && !refused(err) && !errors.As(err, &d) {
			t.Error(err)
		}
		if at := file.a.mark.Position; at != snap.At.Position {
			t.Errorf("at %v", at)
		}
	})
}
