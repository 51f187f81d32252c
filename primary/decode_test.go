package primary

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

const fillT = "WITH n(i) AS (SELECT %d UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t SELECT i, printf('%%.*c', %d, 'a') FROM n"

func fill(from, to, size int) string { return fmt.Sprintf(fillT, from, to, size) }

func TestRowidTable(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX tv ON t(v)")
	s.tx("INSERT INTO t VALUES(1,'a'),(2,'b'),(3,'c')")
	s.want("insert t 1", "insert t 2", "insert t 3")
	s.tx("UPDATE t SET v='x' WHERE id=2; DELETE FROM t WHERE id=1; INSERT INTO t VALUES(9,'z')")
	s.want("delete t 1", "update t 2", "insert t 9")
	s.tx("UPDATE t SET v=v")
	s.want()
	s.tx("INSERT INTO t VALUES(-5,'below'),(9223372036854775807,'last'),(-9223372036854775808,'first')")
	s.want("insert t -9223372036854775808", "insert t -5", "insert t 9223372036854775807")
	s.tx("INSERT INTO t VALUES(4,'gone'); DELETE FROM t WHERE id=4")
	s.want()
	s.tx(fill(100, 5000, 9))
	s.tx("UPDATE t SET v=v||'!' WHERE id%97=0")
	s.tx("DELETE FROM t WHERE id BETWEEN 1000 AND 4000")
	s.tx("DELETE FROM t")
}

func TestOrderInsideTransaction(t *testing.T) {
	s := newSubject(t, 1, `CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v);
		CREATE INDEX bi ON b(v); CREATE VIEW w AS SELECT 1; INSERT INTO a VALUES(1,1),(2,2); INSERT INTO b VALUES(1,1),(2,2)`)
	s.tx(`INSERT INTO b VALUES(3,3); CREATE INDEX ai ON a(v); UPDATE a SET v=9 WHERE id=1; DELETE FROM a WHERE id=2; DELETE FROM b WHERE id=1;
		INSERT INTO a(v) VALUES(7); PRAGMA user_version=5; DROP INDEX bi; DROP VIEW w; CREATE TABLE c(x); INSERT INTO c VALUES(1);
		CREATE TRIGGER tr AFTER INSERT ON c BEGIN SELECT 1; END; CREATE VIEW w2 AS SELECT 2; ALTER TABLE b ADD COLUMN z; PRAGMA application_id=-6`)
	s.want("delete a 2", "delete b 1",
		"view w -> nothing", "index bi -> nothing", "table b -> table b", "nothing -> table c", "nothing -> view w2", "nothing -> trigger tr",
		"user_version 5", "application_id -6",
		"update a 1", "insert a 3", "insert b 3", "insert c 1",
		"nothing -> index ai", "update sqlite_sequence 1")
}

// Each of these broke a decoder once, or would break one that looks only at the
// leaves that were written.
func TestTraps(t *testing.T) {
	small := "PRAGMA page_size=512; "
	tests := []struct {
		name, setup string
		steps       []string
		want        []string // after the last step; nil: only that the rows are right
	}{
		{
			name:  "pages unlinked without being written, interior pages merged away above children that live on",
			setup: small + "CREATE TABLE t(id INTEGER PRIMARY KEY, v); " + fill(1, 4000, 60),
			steps: []string{"DELETE FROM t WHERE id BETWEEN 300 AND 3700", "DELETE FROM t WHERE id%2", "DELETE FROM t"},
		},
		{
			name:  "a row moves off a freed leaf, its chain stays",
			setup: small + "CREATE TABLE t(id INTEGER PRIMARY KEY, v); " + fill(1, 60, 900),
			steps: []string{"DELETE FROM t WHERE id%4<>0", "DELETE FROM t WHERE id%8<>0", fill(1000, 1020, 900), "UPDATE t SET id=id+5000 WHERE id=8"},
			want:  []string{"delete t 8", "insert t 5008"},
		},
		{
			name:  "freed chains are not written",
			setup: small + "CREATE TABLE t(id INTEGER PRIMARY KEY, v); " + fill(1, 20, 9000),
			steps: []string{"DELETE FROM t WHERE id=7", fill(100, 103, 30), fill(200, 202, 5000)},
		},
		{
			name:  "an overflow page is overwritten in place, its leaf is not",
			setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, v); " + fill(1, 3, 40000),
			steps: []string{"UPDATE t SET v=substr(v,1,30000)||'X'||substr(v,30002) WHERE id=2"},
			want:  []string{"update t 2"},
		},
		{
			name:  "the same in a WITHOUT ROWID table, with the cell on an interior page",
			setup: small + "CREATE TABLE t(id INTEGER PRIMARY KEY, v) WITHOUT ROWID; " + fill(1, 200, 700),
			steps: []string{"UPDATE t SET v=substr(v,1,600)||'X'||substr(v,602)"},
		},
		{
			name:  "a leaf becomes a page of another kind in one transaction",
			setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v); " + fill(1, 10, 10),
			steps: []string{"DROP TABLE t; CREATE TABLE w(a PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO w VALUES(1,2)", "DROP TABLE u; CREATE INDEX wi ON w(b); CREATE TABLE u(v); INSERT INTO u VALUES(zeroblob(20000))"},
			want:  []string{"table u -> nothing", "nothing -> table u", "insert u 1", "nothing -> index wi"},
		},
		{
			name:  "auto_vacuum moves a root page while the table is renamed",
			setup: "PRAGMA auto_vacuum=1; CREATE TABLE a(x); CREATE TABLE x(v); INSERT INTO a VALUES(1); INSERT INTO x VALUES(2),(3)",
			steps: []string{"DROP TABLE a; ALTER TABLE x RENAME TO y"},
			want:  []string{"table a -> nothing", "table x -> table y"},
		},
		{
			name:  "a table takes the name of a dropped one",
			setup: "PRAGMA auto_vacuum=1; CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES(1); INSERT INTO b VALUES(2),(3)",
			steps: []string{"DROP TABLE a; ALTER TABLE b RENAME TO a"},
			want:  []string{"table a -> nothing", "table b -> table a"},
		},
		{
			name:  "two tables swap names",
			setup: "CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES(1); INSERT INTO b VALUES(2),(3)",
			steps: []string{"ALTER TABLE a RENAME TO s; ALTER TABLE b RENAME TO a; ALTER TABLE s RENAME TO b", "ALTER TABLE a RENAME TO s; ALTER TABLE b RENAME TO a; ALTER TABLE s RENAME TO b"},
			want:  []string{"table b -> table a", "table a -> table b"},
		},
		{
			name:  "renames in a row",
			setup: "CREATE TABLE a(x); CREATE TABLE b(y); CREATE TABLE c(z)",
			steps: []string{"ALTER TABLE c RENAME TO d; ALTER TABLE b RENAME TO c; ALTER TABLE a RENAME TO b"},
			want:  []string{"table c -> table d", "table b -> table c", "table a -> table b"},
		},
		{
			name:  "dropped and created the same",
			setup: "CREATE TABLE a(id INTEGER PRIMARY KEY, v); INSERT INTO a VALUES(1,1),(2,2)",
			steps: []string{"DROP TABLE a; CREATE TABLE a(id INTEGER PRIMARY KEY, v); INSERT INTO a VALUES(2,2),(3,3)"},
			want:  []string{"delete a 1", "insert a 3"},
		},
		{
			name:  "indexes and triggers of a table that is replaced go with it and come back",
			setup: "CREATE TABLE a(x, y); CREATE INDEX ax ON a(x); CREATE TRIGGER tr AFTER INSERT ON a BEGIN SELECT 1; END; INSERT INTO a VALUES(1,2)",
			steps: []string{"ALTER TABLE a DROP COLUMN y"},
			want: []string{"trigger tr -> nothing", "index ax -> nothing", "table a -> nothing", "nothing -> table a", "nothing -> trigger tr",
				"insert a 1", "nothing -> index ax"},
		},
		{
			name:  "the other automatic indexes make it another table",
			setup: "CREATE TABLE a(x, y); INSERT INTO a VALUES(1,2)",
			steps: []string{"DROP TABLE a; CREATE TABLE a(x UNIQUE, y); INSERT INTO a VALUES(1,2)"},
			want:  []string{"table a -> nothing", "nothing -> table a", "insert a 1"},
		},
		{
			name:  "columns come and are renamed, rows stay",
			setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v); " + fill(1, 500, 10),
			steps: []string{"ALTER TABLE t ADD COLUMN w DEFAULT 5; ALTER TABLE t RENAME COLUMN id TO k; UPDATE t SET w=6 WHERE k=77"},
			want:  []string{"table t -> table t", "update t 77"},
		},
		{
			name:  "VACUUM with an INTEGER PRIMARY KEY changes nothing, though schema rows are numbered anew",
			setup: "CREATE TABLE x(a INTEGER PRIMARY KEY); CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE TABLE c(id INTEGER PRIMARY KEY, v); CREATE VIEW z AS SELECT 1; CREATE TABLE d(k PRIMARY KEY, v) WITHOUT ROWID; CREATE INDEX ti ON t(v); " + fill(1, 900, 30) + "; INSERT INTO d SELECT * FROM t; INSERT INTO b VALUES(1,zeroblob(30000))",
			steps: []string{"DROP TABLE x; DELETE FROM t WHERE id%3=0", "VACUUM"},
			want:  []string{},
		},
		{
			name:  "VACUUM drops sqlite_sequence when no table needs it",
			setup: "CREATE TABLE x(a INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE VIRTUAL TABLE f USING fts5(c); INSERT INTO x VALUES(1); " + fill(1, 9, 9),
			steps: []string{"DROP TABLE x", "VACUUM"},
			want:  []string{"table sqlite_sequence -> nothing"},
		},
		{
			name:  "VACUUM numbers rows anew where no INTEGER PRIMARY KEY is: real changes",
			setup: "CREATE TABLE t(v); INSERT INTO t VALUES('a'),('b'),('c'); DELETE FROM t WHERE v='a'",
			steps: []string{"VACUUM"},
			want:  []string{"delete t 3", "update t 2", "insert t 1"},
		},
		{
			name:  "incremental vacuum moves pages of chains and trees",
			setup: "PRAGMA auto_vacuum=2; " + small + "CREATE TABLE t(id INTEGER PRIMARY KEY, v); " + fill(1, 80, 3000) + "; CREATE TABLE u(id INTEGER PRIMARY KEY, v); INSERT INTO u SELECT * FROM t; DELETE FROM t",
			steps: []string{"PRAGMA incremental_vacuum(3)", "PRAGMA incremental_vacuum(200)", "PRAGMA incremental_vacuum"},
			want:  []string{},
		},
		{
			name:  "the file shrinks and grows again",
			setup: "PRAGMA auto_vacuum=1; CREATE TABLE t(id INTEGER PRIMARY KEY, v); " + fill(1, 50, 5000),
			steps: []string{"DELETE FROM t WHERE id>2", "CREATE TABLE u(a); CREATE INDEX ui ON u(a)", fill(100, 150, 5000)},
		},
		{
			name:  "user_version and application_id are in no row",
			setup: "CREATE TABLE t(a)",
			steps: []string{"PRAGMA user_version=-3; PRAGMA application_id=252006673"},
			want:  []string{"user_version -3", "application_id 252006673"},
		},
		{
			name:  "shadow tables of virtual tables, which are dropped without a b-tree",
			setup: "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('one two')",
			steps: []string{"DROP TABLE f; CREATE TABLE f(x); INSERT INTO f VALUES(1)"},
		},
		{
			name:  "statistics",
			setup: "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v); " + fill(1, 50, 5),
			steps: []string{"ANALYZE", "DELETE FROM t WHERE id>9; ANALYZE"},
		},
		{
			name:  "a table with a function that nobody here knows is filled anew",
			setup: "CREATE TABLE t(v); INSERT INTO t VALUES(1)",
			steps: []string{"PRAGMA writable_schema=1; UPDATE sqlite_schema SET sql='CREATE TABLE t(v, w AS (f(v)) STORED)' WHERE name='t'; PRAGMA writable_schema=0"},
			want:  []string{"table t -> nothing", "nothing -> table t", "insert t 1"},
		},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			s := newSubject(t, 3, tt.setup)
			for _, step := range tt.steps {
				if step == "VACUUM" {
					s.single(step)
				} else {
					s.tx(step)
				}
			}
			if tt.want != nil {
				s.want(tt.want...)
			}
		})
	}
}

// Dropping a big table does not read it.
func TestDropBigTable(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v); "+
		fill(1, 3000, 100)+"; INSERT INTO u SELECT * FROM t; INSERT INTO t VALUES(9999,zeroblob(50000))")
	s.exec("DROP TABLE t")
	img := s.read()
	old := &countingPages{Pages: s.before}
	if err := s.decoder.transaction(old, img, img.differing(s.before), img.count(), s.sorter); err != nil {
		t.Fatal(err)
	}
	if old.n > 50 {
		t.Errorf("%d of %d pages were read", old.n, s.before.count())
	}
	if err := s.decoder.check(img, img.count()); err != nil {
		t.Error(err)
	}
	s.before = img
	s.model = walkModel(t, img)
	s.tx("DELETE FROM u WHERE id>20")
}

type countingPages struct {
	sqlitefile.Pages
	n int
}

func (c *countingPages) Page(n uint32) ([]byte, error) {
	c.n++
	return c.Pages.Page(n)
}

// What is read grows with what changed, not with the database.
func TestReadsAreLocal(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill(1, 20000, 60)+
		"; CREATE TABLE w(id INTEGER PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w SELECT * FROM t")
	for _, sql := range []string{"UPDATE t SET v='x' WHERE id=777", "INSERT INTO t VALUES(20001,'x')", "UPDATE w SET v='x' WHERE id=777",
		"DELETE FROM w WHERE id=4", "CREATE TABLE n(a)", "ALTER TABLE t RENAME TO t2", "DROP TABLE n"} {
		s.exec(sql)
		img := s.read()
		old, next := &countingPages{Pages: s.before}, &countingPages{Pages: img}
		s.sorter.reset()
		if err := s.decoder.transaction(old, next, img.differing(s.before), img.count(), s.sorter); err != nil {
			t.Fatal(err)
		}
		if old.n+next.n > 60 {
			t.Errorf("%s: %d pages were read", sql, old.n+next.n)
		}
		s.before = img
	}
}

// All operations on a table that keeps its name share one declaration.
func TestOneDeclaration(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,1),(2,2)")
	s.tx("DELETE FROM t WHERE id=1; ALTER TABLE t ADD COLUMN w; INSERT INTO t VALUES(3,3,3)")
	declared := 0
	for _, op := range drained(t, s.sorter) {
		if cdc.Op(op[0]) == cdc.OpTable {
			declared++
		}
	}
	if declared != 1 {
		t.Errorf("%d declarations", declared)
	}
}

func TestBigBlobOverwritten(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill(1, 2, 300<<10))
	s.tx("UPDATE t SET v=printf('%.*c', 307200, 'b') WHERE id=1")
	s.want("update t 1")
	s.tx("UPDATE t SET v=printf('%.*c', 307201, 'b') WHERE id=1")
	s.want("update t 1")
}

func TestReservedNames(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE t(a)")
	after := func(sql string) *image { s.exec(sql); return s.read() }
	img := after("CREATE TABLE _Replicator_position(lsn)")
	err := s.decoder.transaction(s.before, img, img.differing(s.before), img.count(), s.sorter)
	if !errors.Is(err, errReservedName) || !strings.Contains(err.Error(), "drop or rename it") {
		t.Errorf("created: %v", err)
	}
	if err := newTestDecoder(t).load(img, img.count()); !errors.Is(err, errReservedName) {
		t.Errorf("load: %v", err)
	}
	if err := s.decoder.check(s.before, s.before.count()); err != nil {
		t.Errorf("an error moved the decoder: %v", err)
	}
	img = after("DROP TABLE _Replicator_position; CREATE TABLE replicator_position(a)")
	s.sorter.reset()
	if err := s.decoder.transaction(s.before, img, img.differing(s.before), img.count(), s.sorter); err != nil {
		t.Errorf("another name: %v", err)
	}
}

func TestUnknownKeyIsNamed(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE odd(a PRIMARY KEY) WITHOUT ROWID; PRAGMA writable_schema=1; "+
		"UPDATE sqlite_schema SET sql='CREATE TABLE odd(a PRIMARY KEY) WITHOUT ROWID' WHERE name='odd'")
	s.exec("UPDATE sqlite_schema SET sql='no sql' WHERE name='odd'")
	img := s.read()
	err := newTestDecoder(t).load(img, img.count())
	if err == nil || !strings.Contains(err.Error(), "table odd") {
		t.Errorf("%v does not name the table", err)
	}
}

func TestHeaderChanged(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=1024; CREATE TABLE t(a)")
	for name, change := range map[string]func(b []byte){
		"page size": func(b []byte) { b[16], b[17] = 8, 0 },
		"reserved":  func(b []byte) { b[20] = 8 },
		"encoding":  func(b []byte) { b[59] = 2 },
	} {
		img := newImage(append([]byte(nil), s.before.data...))
		change(img.data)
		if err := s.decoder.transaction(s.before, img, []uint32{1}, img.count(), s.sorter); !errors.Is(err, errHeaderChanged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A transaction that was spilled and then became smaller leaves frames of pages
// that the database does not have.
func TestPagesAboveTheDatabaseAreIgnored(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	s.exec("INSERT INTO t VALUES(1,2)")
	img := s.read()
	written := append(img.differing(s.before), 0, img.count()+1, 1<<31)
	if err := s.decoder.transaction(s.before, img, written, img.count(), s.sorter); err != nil {
		t.Fatal(err)
	}
	if err := s.model.apply(s.sorter, &s.ops); err != nil {
		t.Fatal(err)
	}
	s.want("insert t 1")
}

// A map that is wrong about a table costs a comparison of the whole table, no more.
func TestFallback(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill(1, 900, 50))
	s.exec("DELETE FROM t WHERE id BETWEEN 100 AND 700")
	img := s.read()
	inner := uint32(0) // a leaf that is not written
	written := img.differing(s.before)
	for n := uint32(2); n <= s.before.count(); n++ {
		if kind, _ := s.decoder.pages.at(n); kind == treePage && !contains(written, n) {
			inner = n
			break
		}
	}
	s.decoder.pages.set(inner, treePage, inner+1)
	if err := s.decoder.transaction(s.before, img, written, img.count(), s.sorter); err != nil {
		t.Fatal(err)
	}
	if s.decoder.fallbacks != 1 {
		t.Errorf("%d fallbacks", s.decoder.fallbacks)
	}
	if err := s.model.apply(s.sorter, &s.ops); err != nil {
		t.Fatal(err)
	}
	if len(s.ops) != 601 {
		t.Errorf("%d changes, want 601 deletes", len(s.ops))
	}
	if err := s.decoder.check(img, img.count()); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsWrongMap(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill(1, 50, 900))
	if err := s.decoder.check(s.before, s.before.count()); err != nil {
		t.Fatal(err)
	}
	s.decoder.pages.set(9, unmapped, 0)
	if err := s.decoder.check(s.before, s.before.count()); !errors.Is(err, errInconsistent) || !strings.Contains(err.Error(), "page 9") {
		t.Errorf("%v", err)
	}
}

func TestNothingLoaded(t *testing.T) {
	d := newTestDecoder(t)
	if err := d.transaction(pageArray{}, pageArray{}, nil, 0, newSorter(t.TempDir(), 1)); !errors.Is(err, errInconsistent) {
		t.Errorf("%v", err)
	}
}

// failAfter fails after n changes.
type failAfter struct{ n int }

var errSink = errors.New("sink")

func (f *failAfter) change(*cdc.Change) error {
	if f.n--; f.n < 0 {
		return errSink
	}
	return nil
}

// An error of the sink is passed on, and the transaction can be tried again.
func TestSinkFails(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	s.exec("INSERT INTO t VALUES(1,1),(2,2); CREATE TABLE u(a)")
	img := s.read()
	for n := range 3 {
		if err := s.decoder.transaction(s.before, img, img.differing(s.before), img.count(), &failAfter{n}); !errors.Is(err, errSink) {
			t.Fatalf("after %d changes: %v", n, err)
		}
	}
	s.check("INSERT")
	s.want("nothing -> table u", "insert t 1", "insert t 2")
}

// Past its limit, the map is built anew instead of being updated.
func TestRandomTinyBounds(t *testing.T) {
	const seed = 5
	s := newSubject(t, seed, "PRAGMA page_size=512; PRAGMA auto_vacuum=1; "+randomSetup)
	s.decoder.updates.least = 1
	s.decoder.rows.keyed.maxPending, s.decoder.rows.keyed.maxPairs = 5, 3
	s.random(512, 80)
	s.exec("DROP TABLE IF EXISTS base; CREATE TABLE base(k INTEGER PRIMARY KEY, v, c)")
	s.check("DROP TABLE base")
	s.tx("DELETE FROM base; WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) INSERT INTO base SELECT i, i, i FROM n")
	if !s.decoder.updates.rebuild {
		t.Error("the map was not built anew")
	}
}

func TestKeyedTable(t *testing.T) {
	s := newSubject(t, 1, "CREATE TABLE t(a TEXT COLLATE NOCASE, b INT, c, PRIMARY KEY(a, b)) WITHOUT ROWID; INSERT INTO t VALUES('x',1,1),('y',2,2),('z',3,3)")
	s.tx("UPDATE t SET c=9 WHERE a='y'")
	s.want("update t")
	s.tx("UPDATE t SET a='Z' WHERE a='z'") // the same key for SQLite, other bytes for us
	s.want("delete t", "insert t")
	s.tx("INSERT INTO t VALUES('m',1,zeroblob(9000)); DELETE FROM t WHERE a='x'")
	s.want("delete t", "insert t")
	s.tx("UPDATE t SET c=c")
	s.want()
	s.tx("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT INTO t SELECT 'k'||i, i, i FROM n")
	s.tx("UPDATE t SET c=c+1 WHERE b%10=0")
	for _, op := range s.ops {
		if op != "update t" {
			t.Fatalf("%s in an UPDATE of all", op)
		}
	}
	s.tx("DELETE FROM t WHERE b%3")
	s.single("VACUUM")
	s.want()
	s.tx("DROP TABLE t")
	s.want("table t -> nothing")
}

func TestAppendKey(t *testing.T) {
	record := sqlitefile.EncodeRecord(nil, []sqlitefile.Value{{Type: sqlitefile.TypeInt, Int: 300}, {Type: sqlitefile.TypeText, Bytes: []byte("ab")}, {}})
	for n, want := range []string{"", "\x02\x01\x2c", "\x02\x11\x01\x2cab", "\x02\x11\x00\x01\x2cab"} {
		got, err := appendKey(nil, record, n)
		if err != nil || string(got) != want {
			t.Errorf("%d fields: %q, %v, want %q", n, got, err, want)
		}
	}
	if got, err := appendKey(nil, record, 4); err != nil || len(got) != 0 {
		t.Errorf("more fields than there are: %q, %v", got, err)
	}
	for n := range record {
		if _, err := appendKey(nil, record[:n], 2); n < len(record) && err == nil {
			t.Errorf("no error for %d of %d bytes", n, len(record))
		}
	}
}

// TestWrittenOver: a backup that is written over the source by SQLite comes as a transaction.
// Rows of sqlite_schema with one number have nothing to do with each other then, and what
// has the columns of sqlite_sequence does not become it, nor it that.
func TestWrittenOver(t *testing.T) {
	counted := "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t DEFAULT VALUES"
	plain := "CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE u(name, seq); INSERT INTO u(rowid, name) VALUES(2, 3)"
	s := newSubject(t, 1, counted)
	for _, setup := range []string{plain, counted} {
		s.path = newSubject(t, 1, setup).path
		s.check(setup)
	}
}
