package sqlite

import (
	"errors"
	"testing"
)

func TestTakeSum(t *testing.T) {
	c, _ := openTest(t, Options{RowSums: true})
	mustExec(t, c, "CREATE TABLE t(a); CREATE TABLE w(k TEXT PRIMARY KEY COLLATE NOCASE, v) WITHOUT ROWID; INSERT INTO w VALUES('a',1)")
	before := sumOf(t, c, "w")
	row, w := targetOf(t, c, "t"), targetOf(t, c, "w")
	apply(t, c, Change{Op: Insert, Table: row, Rowid: 5, New: encodeRecord(text("x"))},
		Change{Op: Update, Table: w, Old: encodeRecord(text("A"), 1), New: encodeRecord(text("A"), 2)})
	if got, want := row.TakeSum(), sumOf(t, c, "t"); got != want || got == [2]uint64{} {
		t.Errorf("insert: %x, the table has %x", got, want)
	}
	if got, now := w.TakeSum(), sumOf(t, c, "w"); [2]uint64{before[0] + got[0], before[1] + got[1]} != now {
		t.Errorf("update: %x lead from %x to %x", got, before, now)
	}
	if got := w.TakeSum(); got != [2]uint64{} {
		t.Errorf("a sum was given twice: %x", got)
	}
	missing := []Change{
		{Op: Delete, Table: row, Rowid: 7},
		{Op: Update, Table: row, Rowid: 7, Old: encodeRecord(1), New: encodeRecord(2)},
		{Op: Delete, Table: w, Old: encodeRecord(text("b"))},
	}
	for _, ch := range missing {
		if _, err := c.Apply([]Change{ch}); !errors.Is(err, ErrDiverged) {
			t.Errorf("%v of a missing row: %v", ch.Op, err)
		}
	}
	if a, b := row.TakeSum(), w.TakeSum(); a != b || a != [2]uint64{} {
		t.Errorf("changes that failed have sums %x, %x", a, b)
	}
	c.ResetTargets()
	if got := row.TakeSum(); got != [2]uint64{} {
		t.Errorf("a closed target has the sum %x", got)
	}
}

// A replica reaches the rowid of a table whose columns have taken its names by
// renaming one of them for a moment. The sums are those of the true names.
func TestSumWithoutRowidName(t *testing.T) {
	c, _ := openTest(t, Options{RowSums: true})
	mustExec(t, c, "CREATE TABLE t(rowid, _rowid_, oid); INSERT INTO t VALUES(1,2,3)")
	before := sumOf(t, c, "t")
	mustExec(t, c, "ALTER TABLE t RENAME COLUMN oid TO _replicator_oid")
	target := targetOf(t, c, "t")
	apply(t, c, Change{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(1, 2, 3), New: encodeRecord(1, 2, 4)})
	change := target.TakeSum()
	mustExec(t, c, "ALTER TABLE t RENAME COLUMN _replicator_oid TO oid")
	if now := sumOf(t, c, "t"); now != [2]uint64{before[0] + change[0], before[1] + change[1]} || now == before {
		t.Errorf("%x lead from %x to %x", change, before, now)
	}
}
