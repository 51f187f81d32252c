package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func targetOf(t testing.TB, c *Conn, name string) *Target {
	t.Helper()
	table, err := c.Table(name)
	must(t, err)
	target, err := c.Target(table)
	must(t, err)
	return target
}

// apply makes changes that must all succeed.
func apply(t testing.TB, c *Conn, changes ...Change) {
	t.Helper()
	n, err := c.Apply(changes)
	if err != nil || n != len(changes) {
		t.Fatalf("%d of %d changes: %v", n, len(changes), err)
	}
}

func TestApplyDiverged(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a, b); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t VALUES('secret', 1)")
	row, w := targetOf(t, c, "t"), targetOf(t, c, "w")
	ok := Change{Op: Update, Table: row, Rowid: 1, Old: encodeRecord(text("secret"), 1), New: encodeRecord(text("secret"), 2)}
	tests := []struct {
		name string
		ch   Change
		text string
	}{
		{"delete", Change{Op: Delete, Table: row, Rowid: 7}, `"t", rowid 7`},
		{"update", Change{Op: Update, Table: row, Rowid: 8, Old: encodeRecord(1, 2), New: encodeRecord(1, 3)}, `"t", rowid 8`},
		{"update of nothing", Change{Op: Update, Table: row, Rowid: 9, Old: encodeRecord(1, 2), New: encodeRecord(1, 2)}, `"t", rowid 9`},
		{"shorter", Change{Op: Update, Table: row, Rowid: 9, Old: encodeRecord(1, 2), New: encodeRecord(1)}, `"t", rowid 9`},
		{"key", Change{Op: Delete, Table: w, Old: encodeRecord(text("secret"), 2)}, `"w", key of 1 fields`},
		{"key update", Change{Op: Update, Table: w, Old: encodeRecord(text("secret"), 2), New: encodeRecord(text("secret"), 3)}, `"w"`},
	}
	for _, tt := range tests {
		must(t, c.Begin())
		n, err := c.Apply([]Change{ok, tt.ch, ok})
		if n != 1 || !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %d applied, %v", tt.name, n, err)
		}
		must(t, c.Rollback())
	}
}

func TestApplyConstraint(t *testing.T) {
	c, _ := openTest(t, Options{})
	// The tables' own conflict clauses must not replace or skip rows.
	mustExec(t, c, `CREATE TABLE t(a UNIQUE ON CONFLICT REPLACE, b NOT NULL ON CONFLICT IGNORE);
		INSERT INTO t VALUES(1, 1), (2, 2)`)
	target := targetOf(t, c, "t")
	swap := []Change{
		{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(1, 1), New: encodeRecord(1, 5)},
		{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(1, 5), New: encodeRecord(2, 5)},
		{Op: Update, Table: target, Rowid: 2, Old: encodeRecord(2, 2), New: encodeRecord(1, 2)},
	}
	must(t, c.Begin())
	mustExec(t, c, "SAVEPOINT s")
	n, err := c.Apply(swap)
	if n != 1 || !IsConstraint(err) || !IsUnique(err) || errors.Is(err, ErrDiverged) {
		t.Fatalf("%d applied, %v", n, err)
	}
	mustExec(t, c, "ROLLBACK TO s")
	apply(t, c, Change{Op: Delete, Table: target, Rowid: 1}, Change{Op: Delete, Table: target, Rowid: 2},
		Change{Op: Insert, Table: target, Rowid: 1, New: encodeRecord(2, 5)},
		Change{Op: Insert, Table: target, Rowid: 2, New: encodeRecord(1, 2)})
	n, err = c.Apply([]Change{{Op: Insert, Table: target, Rowid: 1, New: encodeRecord(9, 9)}})
	if n != 0 || !IsUnique(err) {
		t.Errorf("taken rowid: %d applied, %v", n, err)
	}
	n, err = c.Apply([]Change{{Op: Insert, Table: target, Rowid: 3, New: encodeRecord(9, nil)}})
	if n != 0 || !IsConstraint(err) || IsUnique(err) {
		t.Errorf("not null: %d applied, %v", n, err)
	}
	must(t, c.Commit())
	want := []string{"integer:1 integer:2 integer:2", "integer:2 integer:5 integer:1"}
	if diff := cmp.Diff(want, rows(t, c, target.Table())); diff != "" {
		t.Error(diff)
	}
}

func TestApplyFiresNothing(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE t(a CHECK(a>0) REFERENCES p(id)); CREATE TABLE log(x);
		CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO log VALUES(1); END;
		CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO log VALUES(2); END;
		CREATE TRIGGER d BEFORE DELETE ON t BEGIN SELECT RAISE(IGNORE); END`)
	target := targetOf(t, c, "t")
	apply(t, c, Change{Op: Insert, Table: target, Rowid: 1, New: encodeRecord(-1)},
		Change{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(-1), New: encodeRecord(-2)},
		Change{Op: Delete, Table: target, Rowid: 1, Old: encodeRecord(-2)})
	if n := mustInt(t, c, "SELECT (SELECT count(*) FROM log)+(SELECT count(*) FROM t)"); n != 0 {
		t.Errorf("%d rows left", n)
	}
}

func TestApplyKeyChangesCase(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE w(v, k TEXT, d, PRIMARY KEY(k COLLATE NOCASE, d DESC)) WITHOUT ROWID; INSERT INTO w VALUES(1,'a',2),(1,'b',2)`)
	w := targetOf(t, c, "w")
	apply(t, c, Change{Op: Update, Table: w, Old: encodeRecord(text("a"), 2, 1), New: encodeRecord(text("A"), 2, 1)},
		Change{Op: Delete, Table: w, Old: encodeRecord(text("B"), 2)})
	if diff := cmp.Diff([]string{"text:41 integer:2 integer:1"}, rows(t, c, w.Table())); diff != "" {
		t.Error(diff)
	}
}

func TestApplyRowidNames(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE a(rowid, b); CREATE TABLE b(rowid, _rowid_, oid, "i d" INTEGER PRIMARY KEY); CREATE TABLE c(rowid, _rowid_, oid);
		CREATE TABLE d(id INTEGER PRIMARY KEY)`)
	a, b, d := targetOf(t, c, "a"), targetOf(t, c, "b"), targetOf(t, c, "d")
	apply(t, c, Change{Op: Insert, Table: a, Rowid: 9, New: encodeRecord(1, 2)},
		Change{Op: Update, Table: a, Rowid: 9, Old: encodeRecord(1, 2), New: encodeRecord(3, 2)},
		Change{Op: Insert, Table: b, Rowid: 8, New: encodeRecord(1, 2, 3, nil)},
		Change{Op: Update, Table: b, Rowid: 8, Old: encodeRecord(1, 2, 3, nil), New: encodeRecord(1, 4, 3, nil)},
		Change{Op: Insert, Table: d, Rowid: 7, New: encodeRecord(nil)},
		Change{Op: Update, Table: d, Rowid: 7, Old: encodeRecord(nil), New: encodeRecord(nil)})
	for name, want := range map[*Target]string{
		a: "integer:3 integer:2 integer:9",
		b: "integer:1 integer:4 integer:3 integer:8 integer:8",
		d: "integer:7 integer:7",
	} {
		if diff := cmp.Diff([]string{want}, rows(t, c, name.Table())); diff != "" {
			t.Error(diff)
		}
	}
	table, err := c.Table("c")
	must(t, err)
	if _, err := c.Target(table); !errors.Is(err, ErrNoRowidName) {
		t.Errorf("no name left: %v", err)
	}
}

func TestApplyWideTable(t *testing.T) {
	const columns = 2000
	c, _ := openTest(t, Options{})
	var names []string
	old, now := make([]value, columns), make([]value, columns)
	for i := range columns {
		names = append(names, fmt.Sprint("c", i))
		old[i], now[i] = i, -i-2
	}
	mustExec(t, c, "CREATE TABLE t("+strings.Join(names, ",")+")")
	target := targetOf(t, c, "t")
	apply(t, c, Change{Op: Insert, Table: target, Rowid: 1, New: encodeRecord(old...)},
		Change{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(old...), New: encodeRecord(now...)})
	// More shapes than there are slots, each used twice.
	for range 2 {
		for i := range 3 * 64 {
			next := append([]value{}, now...)
			next[i*10] = text("x")
			apply(t, c, Change{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(now...), New: encodeRecord(next...)},
				Change{Op: Update, Table: target, Rowid: 1, Old: encodeRecord(next...), New: encodeRecord(now...)})
		}
	}
	if n := mustInt(t, c, "SELECT c1999 FROM t"); n != -2001 {
		t.Errorf("last column is %d", n)
	}
}

func TestApplyManyBatches(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a)")
	target := targetOf(t, c, "t")
	var changes []Change
	want := int64(0)
	for i := range 3*batchChanges + 1 { // copied, pinned and batch-filling records
		size := i % 300
		if i%100 == 0 {
			size = pinBytes * (i%300/100 + 1)
		}
		want += int64(size)
		changes = append(changes, Change{Op: Insert, Table: target, Rowid: int64(i), New: encodeRecord(make([]byte, size))})
	}
	must(t, c.Begin())
	apply(t, c, changes...)
	if got := mustInt(t, c, "SELECT sum(length(a)) FROM t"); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	for i := range changes {
		changes[i].Op, changes[i].New = Delete, nil
	}
	changes[2000].Rowid = -1
	if n, err := c.Apply(changes); n != 2000 || !errors.Is(err, ErrDiverged) {
		t.Errorf("%d applied, %v", n, err)
	}
	must(t, c.Rollback())
}

func TestApplyRefuses(t *testing.T) {
	c, path := openTest(t, Options{})
	other := reopen(t, path, Options{})
	mustExec(t, c, "CREATE TABLE t(a); CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID")
	row, w, foreign := targetOf(t, c, "t"), targetOf(t, c, "w"), targetOf(t, other, "t")
	one := encodeRecord(1)
	for name, ch := range map[string]Change{
		"no target":             {Op: Insert, New: one},
		"target of another":     {Op: Insert, Table: foreign, New: one},
		"no operation":          {Table: row, New: one},
		"unknown operation":     {Op: 9, Table: row, New: one},
		"insert of nothing":     {Op: Insert, Table: row},
		"insert with old":       {Op: Insert, Table: row, Old: one, New: one},
		"delete with new":       {Op: Delete, Table: row, New: one},
		"delete without key":    {Op: Delete, Table: w},
		"empty record":          {Op: Insert, Table: row, New: []byte{}},
		"surplus field":         {Op: Insert, Table: row, New: encodeRecord(1, 2)},
		"missing key":           {Op: Insert, Table: w, New: encodeRecord()},
		"reserved serial type":  {Op: Insert, Table: row, New: []byte{2, 10}},
		"value out of bounds":   {Op: Insert, Table: row, New: []byte{2, 6, 0, 0}},
		"header out of bounds":  {Op: Insert, Table: row, New: []byte{9, 0}},
		"huge serial type":      {Op: Insert, Table: row, New: []byte{10, 255, 255, 255, 255, 255, 255, 255, 255, 255}},
		"unfinished varint":     {Op: Insert, Table: row, New: []byte{3, 0x80, 0x80}},
		"old record of garbage": {Op: Update, Table: row, Old: []byte{0xff}, New: one},
	} {
		if n, err := c.Apply([]Change{ch}); n != 0 || err == nil {
			t.Errorf("%s: %d applied, %v", name, n, err)
		}
	}
	c.ResetTargets()
	if n, err := c.Apply([]Change{{Op: Insert, Table: row, New: one}}); n != 0 || err == nil {
		t.Errorf("closed target: %d applied, %v", n, err)
	}
	if n := mustInt(t, c, "SELECT count(*) FROM t"); n != 0 {
		t.Errorf("%d rows appeared", n)
	}
}

// FuzzApply feeds any bytes as records: an answer or an error, and a sound database.
func FuzzApply(f *testing.F) {
	f.Add(uint8(3), []byte{}, encodeRecord(1, text("a"), 0.5))
	f.Add(uint8(2), encodeRecord(text("x"), 2, nil), encodeRecord(text("x"), 2, []byte{1}))
	f.Add(uint8(1), encodeRecord(1), []byte{})
	f.Add(uint8(6), []byte{3, 0x80, 0x80}, []byte{10, 255, 255, 255, 255, 255, 255, 255, 255, 255})
	c, err := open(memory, Options{})
	must(f, err)
	f.Cleanup(func() { c.Close() })
	mustExec(f, c, "CREATE TABLE t(a, b TEXT DEFAULT 'd', c REAL); CREATE TABLE w(a, b, c, PRIMARY KEY(b, a)) WITHOUT ROWID; CREATE INDEX i ON t(b)")
	tables := []*Target{targetOf(f, c, "t"), targetOf(f, c, "w")}
	f.Fuzz(func(t *testing.T, op uint8, old, now []byte) {
		must(t, c.Begin())
		defer func() { must(t, c.Rollback()) }()
		mustExec(t, c, "INSERT INTO t VALUES(1,2,3); INSERT INTO w VALUES(1,2,3)")
		ch := Change{Op: Op(op & 3), Table: tables[op>>2&1], Rowid: 1 + int64(op>>3&1), Old: old, New: now}
		if len(old) == 0 {
			ch.Old = nil
		}
		if len(now) == 0 {
			ch.New = nil
		}
		if n, err := c.Apply([]Change{ch}); (n == 1) != (err == nil) {
			t.Errorf("%d applied, %v", n, err)
		}
		if s, err := c.QueryText("PRAGMA integrity_check"); err != nil || s != "ok" {
			t.Errorf("%s, %v", s, err)
		}
	})
}

// A record that ends early reads as the defaults of what it lacks, so it must be
// applied as such: ALTER TABLE ADD COLUMN and VACUUM leave short records behind.
func TestApplyShortRecords(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE t(a, b DEFAULT 'seven', c DEFAULT NULL); CREATE TABLE w(k PRIMARY KEY, b DEFAULT 7) WITHOUT ROWID`)
	row, w := targetOf(t, c, "t"), targetOf(t, c, "w")
	apply(t, c,
		Change{Op: Insert, Table: row, Rowid: 1, New: encodeRecord(1)},
		Change{Op: Insert, Table: row, Rowid: 2, New: encodeRecord(2, 2, 2)},
		Change{Op: Update, Table: row, Rowid: 2, Old: encodeRecord(2, 2, 2), New: encodeRecord(2)},
		Change{Op: Insert, Table: row, Rowid: 3, New: encodeRecord(3)},
		Change{Op: Update, Table: row, Rowid: 3, Old: encodeRecord(3), New: encodeRecord(3, nil)},
		Change{Op: Insert, Table: row, Rowid: 4, New: encodeRecord()},
		Change{Op: Insert, Table: w, New: encodeRecord(1, 1)},
		Change{Op: Update, Table: w, Old: encodeRecord(1, 1), New: encodeRecord(1)})
	seven := "text:736576656e"
	want := []string{
		"integer:1 " + seven + " null:%!x(<nil>) integer:1", "integer:2 " + seven + " null:%!x(<nil>) integer:2",
		"integer:3 null:%!x(<nil>) null:%!x(<nil>) integer:3", "null:%!x(<nil>) " + seven + " null:%!x(<nil>) integer:4",
	}
	if diff := cmp.Diff(want, rows(t, c, row.Table())); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"integer:1 integer:7"}, rows(t, c, w.Table())); diff != "" {
		t.Error(diff)
	}
}

// TestApplyWhatShortRecordsReadAs: which is not always what SQLite writes where an INSERT
// leaves out the column: 1.10 in a column of TEXT becomes 1.1 then.
func TestApplyWhatShortRecordsReadAs(t *testing.T) {
	const read = "SELECT typeof(d)||quote(d)||coalesce(atan2(d,-1)<0,'') FROM t WHERE rowid="
	for _, affinity := range []string{"", "TEXT", "NUMERIC", "INTEGER", "REAL", "BLOB"} {
		for _, value := range []string{"1.10", "-0.0", "(0.0)", "-1e3", "1e400", "'1e2'", "' 12 '", "x'3132'", "TRUE", "0x10",
			"9223372036854775808", "abc", "-'5'", "NULL", "''"} {
			c, err := open(memory, Options{RowSums: true})
			must(t, err)
			// The first row is short, as the source's is; the others come as changes.
			mustExec(t, c, "CREATE TABLE t(a); INSERT INTO t VALUES(NULL); ALTER TABLE t ADD COLUMN d "+affinity+" DEFAULT "+value)
			target := targetOf(t, c, "t")
			full, short := encodeRecord(nil, []byte("full")), encodeRecord(nil)
			apply(t, c, Change{Op: Insert, Table: target, Rowid: 2, New: short},
				Change{Op: Insert, Table: target, Rowid: 3, New: full},
				Change{Op: Update, Table: target, Rowid: 3, Old: full, New: short})
			for _, row := range []string{"2", "3"} {
				is, err := c.QueryText(read + row)
				must(t, err)
				if want, err := c.QueryText(read + "1"); err != nil || is != want {
					t.Errorf("%s DEFAULT %s, row %s: %s, the source reads %s, %v", affinity, value, row, is, want, err)
				}
			}
			must(t, c.Close())
		}
	}
}

// SQLite's own tables and the shadow tables of virtual ones are tables like others.
func TestApplyInternalTables(t *testing.T) {
	c, path := openTest(t, Options{})
	mustExec(t, c, `CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a VALUES(5); CREATE INDEX i ON a(id); ANALYZE;
		CREATE VIRTUAL TABLE f USING fts5(x, content='')`)
	seq, stat, config := targetOf(t, c, "sqlite_sequence"), targetOf(t, c, "sqlite_stat1"), targetOf(t, c, "f_config")
	apply(t, c, Change{Op: Update, Table: seq, Rowid: 1, Old: encodeRecord(text("a"), 5), New: encodeRecord(text("a"), 77)},
		Change{Op: Insert, Table: stat, Rowid: 99, New: encodeRecord(text("x"), nil, text("1"))},
		Change{Op: Insert, Table: config, New: encodeRecord(text("k"), 1)})
	app := reopen(t, path, Options{Plain: true})
	mustExec(t, app, "INSERT INTO a DEFAULT VALUES")
	if n := mustInt(t, app, "SELECT max(id) FROM a"); n != 78 {
		t.Errorf("the next id is %d, want 78", n)
	}
}
