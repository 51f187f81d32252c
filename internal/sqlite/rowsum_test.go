package sqlite

import (
	"errors"
	"strings"
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

// Rows whose rowids follow each other are read back together, whatever comes between
// them in the batch.
func TestSumOfRuns(t *testing.T) {
	insert := func(to *Target, rowids ...int64) (all []Change) {
		for _, id := range rowids {
			all = append(all, Change{Op: Insert, Table: to, Rowid: id, New: encodeRecord(id, text("x"))})
		}
		return all
	}
	update := func(to *Target, id int64) []Change {
		return []Change{{Op: Update, Table: to, Rowid: id, Old: encodeRecord(id, text("x")), New: encodeRecord(id, text("y"))}}
	}
	tests := map[string]func(a, b *Target) [][]Change{
		"one run":  func(a, _ *Target) [][]Change { return [][]Change{insert(a, 1, 2, 3)} },
		"gaps":     func(a, _ *Target) [][]Change { return [][]Change{insert(a, 1, 2, 4, 5, 3, 9, 8, 7)} },
		"the ends": func(a, _ *Target) [][]Change { return [][]Change{insert(a, 1<<63-2, 1<<63-1, -1<<63, -1<<63+1, -1, 0)} },
		"two tables": func(a, b *Target) [][]Change {
			return [][]Change{append(insert(a, 1), append(insert(b, 1, 2), insert(a, 2)...)...)}
		},
		"two batches": func(a, _ *Target) [][]Change { return [][]Change{insert(a, 1, 2), insert(a, 3, 4)} },
		"an update": func(a, _ *Target) [][]Change {
			return [][]Change{append(insert(a, 1, 2), append(update(a, 1), insert(a, 3)...)...)}
		},
		"a delete": func(a, _ *Target) [][]Change {
			return [][]Change{append(insert(a, 1, 2), append([]Change{{Op: Delete, Table: a, Rowid: 2}}, insert(a, 2, 3)...)...)}
		},
		"a shorter row": func(a, _ *Target) [][]Change {
			return [][]Change{append(insert(a, 1), Change{Op: Insert, Table: a, Rowid: 2, New: encodeRecord(5)})}
		},
	}
	for name, batches := range tests {
		t.Run(name, func(t *testing.T) {
			c, _ := openTest(t, Options{RowSums: true})
			mustExec(t, c, "CREATE TABLE a(v, w DEFAULT 7); CREATE TABLE b(v, w)")
			a, b := targetOf(t, c, "a"), targetOf(t, c, "b")
			for _, batch := range batches(a, b) {
				apply(t, c, batch...)
			}
			for _, target := range []*Target{a, b} {
				if got, want := target.TakeSum(), sumOf(t, c, target.Table().Name); got != want {
					t.Errorf("%s: %x, the table has %x", target.Table().Name, got, want)
				}
			}
		})
	}
}

// What is in the file counts, not what was written: here a trigger stands for whatever
// makes them differ.
func TestSumIsOfTheFile(t *testing.T) {
	c, _ := openTest(t, Options{RowSums: true, Triggers: true})
	mustExec(t, c, `CREATE TABLE changed(v); CREATE TRIGGER c AFTER INSERT ON changed WHEN new.v=2 BEGIN UPDATE changed SET v=9 WHERE rowid=new.rowid; END;
		CREATE TABLE lost(v); CREATE TRIGGER l AFTER INSERT ON lost WHEN new.v=2 BEGIN DELETE FROM lost WHERE rowid=new.rowid; END`)
	three := func(to *Target) (all []Change) {
		for id := range int64(3) {
			all = append(all, Change{Op: Insert, Table: to, Rowid: 10 + id, New: encodeRecord(id + 1)})
		}
		return all
	}
	changed, lost := targetOf(t, c, "changed"), targetOf(t, c, "lost")
	apply(t, c, three(changed)...)
	if got, want := changed.TakeSum(), sumOf(t, c, "changed"); got != want {
		t.Errorf("%x, the table has %x", got, want)
	}
	must(t, c.Begin())
	if n, err := c.Apply(three(lost)); n != 0 || !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), `"lost", rowid 10`) {
		t.Errorf("%d applied, %v", n, err)
	}
	must(t, c.Rollback())
	lost.TakeSum()
	// Nothing of a batch that failed is left to the next one.
	fails := []Change{{Op: Insert, Table: changed, Rowid: 50, New: encodeRecord(5)}, {Op: Delete, Table: changed, Rowid: 99}}
	must(t, c.Begin())
	if _, err := c.Apply(fails); !errors.Is(err, ErrDiverged) {
		t.Errorf("delete of a missing row: %v", err)
	}
	must(t, c.Rollback())
	changed.TakeSum()
	before := sumOf(t, c, "changed")
	apply(t, c, Change{Op: Insert, Table: changed, Rowid: 51, New: encodeRecord(6)})
	if got, now := changed.TakeSum(), sumOf(t, c, "changed"); [2]uint64{before[0] + got[0], before[1] + got[1]} != now {
		t.Errorf("%x lead from %x to %x", got, before, now)
	}
}
