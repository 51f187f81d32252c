package replica

import (
	"path/filepath"
	"testing"
)

// TestEpochAfterATransactionOfManyRecords: an epoch record ends what was never
// completed, and nothing else. The transaction before it is complete and not yet
// committed here, since both fit into one SQLite transaction.
func TestEpochAfterATransactionOfManyRecords(t *testing.T) {
	s := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	snap := s.snapshot()
	path := filepath.Join(t.TempDir(), "file.db")
	must(t, snap.Restore(t.Context(), path, func(int64) {}))
	f, err := OpenFile(path, FileOptions{At: snap.At})
	must(t, err)
	s.step("CREATE TABLE u(a); INSERT INTO u VALUES(1); INSERT INTO t VALUES(1, zeroblob(400000)), (2, zeroblob(400000)), (3, zeroblob(400000))")
	spanned := len(s.log.all())
	s.restart()
	s.step("INSERT INTO u VALUES(2); UPDATE t SET b='short' WHERE a=2")
	if spanned < 3 {
		t.Fatalf("the first transaction has %d records, want several", spanned)
	}
	for _, rec := range s.log.all()[snap.At.LSN:] {
		must(t, f.Apply(rec))
	}
	must(t, f.Finish(true))
	equalFiles(t, s.c, path)
}

// TestSchemaChangeOfAnAbortedTransaction: a schema change that stood at the end of the
// parts of a transaction goes with them. The source does not have it, or it comes again.
func TestSchemaChangeOfAnAbortedTransaction(t *testing.T) {
	for _, again := range []bool{false, true} {
		s := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE stays(x); INSERT INTO stays VALUES(1)")
		snap := s.snapshot()
		path := filepath.Join(t.TempDir(), "file.db")
		must(t, snap.Restore(t.Context(), path, func(int64) {}))
		f, err := OpenFile(path, FileOptions{At: snap.At})
		must(t, err)
		s.exec("BEGIN; DROP TABLE stays; CREATE TABLE n(x); INSERT INTO t VALUES(1, randomblob(1000000))")
		ops := s.ops()
		for _, op := range ops {
			must(t, s.enc.Op(op))
		}
		s.enc.Abandon()
		if len(s.log.all()) == int(snap.At.LSN) {
			t.Fatal("no part of the transaction was appended")
		}
		s.restart()
		if again {
			s.exec("COMMIT")
			for _, op := range ops {
				must(t, s.enc.Op(op))
			}
			must(t, s.enc.End(s.boundary(), false))
		} else {
			s.exec("ROLLBACK")
			s.read()
		}
		s.step("INSERT INTO t VALUES(2, 'next')")
		for _, rec := range s.log.all()[snap.At.LSN:] {
			must(t, f.Apply(rec))
		}
		must(t, f.Finish(true))
		equalFiles(t, s.c, path)
	}
}
