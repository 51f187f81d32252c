package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/clock"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// audits gives a channel that receives once all tables have been read, for the first
// time and each time again.
func (g *rig) audits() <-chan struct{} {
	c := make(chan struct{}, 1)
	g.on("read the replica's tables", func() {
		select {
		case c <- struct{}{}:
		default:
		}
	})
	return c
}

func (g *rig) table(name string) TableState {
	g.t.Helper()
	for _, s := range g.r.Tables() {
		if s.Table == name {
			return s
		}
	}
	g.t.Fatalf("no table %q in %+v", name, g.r.Tables())
	return TableState{}
}

// TestRowsAreVerified: whatever a transaction does, the hashes follow it, and no
// table has to be read again.
func TestRowsAreVerified(t *testing.T) {
	g := newRig(t, `CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE, r REAL); INSERT INTO t VALUES(1,1,1),(2,2,2);
CREATE TABLE u(x); INSERT INTO u VALUES('u'); CREATE TABLE w(k TEXT PRIMARY KEY COLLATE NOCASE, v) WITHOUT ROWID; INSERT INTO w VALUES('a',1);
CREATE TABLE n(rowid, oid, _rowid_); INSERT INTO n VALUES(1,2,3)`)
	audited := g.audits()
	g.start()
	g.wait()
	g.until(audited)
	for _, sql := range []string{
		"INSERT INTO t VALUES(3,3,3.5); DELETE FROM t WHERE a=1; INSERT INTO u VALUES('v')",
		"UPDATE t SET b=-b; UPDATE t SET b=b+5", // rows that swap their keys
		"ALTER TABLE t ADD COLUMN c DEFAULT 'new'",
		"UPDATE t SET c='newer' WHERE a=2; UPDATE t SET b=7 WHERE a=3",
		"ALTER TABLE t ADD COLUMN d REAL NOT NULL DEFAULT 5; INSERT INTO t(a,b) VALUES(9,9)",
		"ALTER TABLE t RENAME TO other",
		"ALTER TABLE other RENAME COLUMN b TO bb; DELETE FROM other WHERE a=9",
		"ALTER TABLE other RENAME TO x; ALTER TABLE u RENAME TO other; ALTER TABLE x RENAME TO u; INSERT INTO other VALUES('w')",
		"UPDATE w SET v=2, k='A'; INSERT INTO w VALUES('b',NULL)",
		"DELETE FROM w WHERE k='a'; ALTER TABLE w ADD COLUMN z DEFAULT x'01'",
		"CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO auto(v) VALUES(1),(2)",
		"INSERT INTO auto(v) VALUES(3); DELETE FROM auto WHERE v<3",
		"DROP TABLE other; CREATE TABLE other(a, b); INSERT INTO other VALUES(1,2)",
		"ALTER TABLE other DROP COLUMN a", // made anew
		"CREATE INDEX i ON u(r); ANALYZE",
		"INSERT INTO u(a) SELECT value FROM " + series(100, 5000),
		"DELETE FROM u",
	} {
		old := g.sums
		lsn := g.step(sql)
		g.wait()
		for name, sum := range g.sums {
			s := g.table(name)
			if was, ok := old[name]; (!ok || was != sum) && s.VerifiedLSN != lsn || !s.Known {
				t.Errorf("%s: %+v, want it verified at LSN %d", sql, s, lsn)
			}
		}
		if v := g.r.Status().Verification; v.Known != v.Tables || v.Tables != len(g.sums) {
			t.Errorf("%s: %+v, want %d tables", sql, v, len(g.sums))
		}
	}
	g.equal()
	s := g.r.Status()
	if s.Counters.Divergences != 0 || s.Counters.Reseeds != 0 || s.Counters.Swaps == 0 {
		t.Errorf("counters %+v", s.Counters)
	}
	if v := s.Verification; v.AuditedAt == nil || v.OldestLSN == 0 || v.Verified == 0 || v.Verified == v.Tables {
		t.Errorf("verification %+v: table n was never changed", v)
	}
}

// TestChangedRowIsFound: the row is one that no transaction touches, and the program
// that changed it was not seen.
func TestChangedRowIsFound(t *testing.T) {
	for _, sql := range []string{"UPDATE t SET b='wrong' WHERE a=1", "DELETE FROM t WHERE a=1", "INSERT INTO t VALUES(0,'more')", "UPDATE t SET a=7 WHERE a=1"} {
		t.Run(sql, func(t *testing.T) {
			g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two')")
			audited, diverged := g.audits(), g.reaches(Diverged)
			g.start()
			g.equal()
			g.until(audited)
			must(t, ignoreCanceled(g.stop()))
			g.scribble(sql + "; " + unseen)
			g.run()
			g.until(audited)
			lsn := g.step("INSERT INTO t VALUES(3,'three')")
			g.until(diverged)
			g.equal()
			s := g.r.Status()
			if s.Counters.Mismatches != 1 || s.Counters.Divergences != 1 || s.Counters.Reseeds != 1 ||
				!strings.Contains(s.Error.Text, fmt.Sprintf("table %q at LSN %d", "t", lsn)) {
				t.Errorf("counters %+v, error %+v", s.Counters, s.Error)
			}
		})
	}
}

// TestAuditFindsChangedRow: no record comes to tell.
func TestAuditFindsChangedRow(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two')")
	g.o.Apply.HoldWriteLock, g.o.Apply.AuditInterval = false, 1
	audited, seeded := g.audits(), make(chan struct{}, 2)
	g.on("replica file seeded again", func() { seeded <- struct{}{} })
	g.start()
	g.wait()
	for _, sql := range []string{"UPDATE t SET b='wrong' WHERE a=1", "DELETE FROM t"} { // twice at one LSN
		g.until(audited) // perhaps of before
		g.until(audited)
		g.scribble(sql)
		g.until(seeded)
	}
	g.step("INSERT INTO t VALUES(3,'three')")
	g.equal()
	if c := g.r.Status().Counters; c.Mismatches != 2 || c.Reseeds != 2 {
		t.Errorf("counters %+v", c)
	}
}

// A stillClock moves only when somebody sleeps.
type stillClock struct {
	now   time.Time
	slept time.Duration
}

func (c *stillClock) Now() time.Time { return c.now }

func (c *stillClock) Sleep(_ context.Context, d time.Duration) error {
	c.now, c.slept = c.now.Add(d), c.slept+d
	return nil
}

// TestAuditTakesItsShare: unless the SQLite WAL grows meanwhile.
func TestAuditTakesItsShare(t *testing.T) {
	for _, hurry := range []bool{false, true} {
		clock := &stillClock{now: testTime}
		a := auditor{clock: clock, hurry: func() bool { return hurry }, worked: clock.now}
		work := time.Duration(0)
		for range 1000 {
			clock.now = clock.now.Add(time.Millisecond)
			work += time.Millisecond
			a.rest(t.Context())
		}
		want := (auditShare - 1) * work
		if hurry {
			want = 0
		}
		if off := want - clock.slept; off < 0 || off > auditRest {
			t.Errorf("hurry %t: slept %v in %v of work, want %v", hurry, clock.slept, work, want)
		}
	}
}

// doctored appends a transaction whose record has another hash than the table.
func (g *rig) doctored(sql, table string) cdc.LSN {
	g.t.Helper()
	g.exec(sql)
	for _, op := range g.ops() {
		must(g.t, g.enc.Op(op))
	}
	b := g.boundary()
	b.Tables = g.hashes()
	for i := range b.Tables {
		if b.Tables[i].Table == table {
			b.Tables[i].Sum[3] ^= 1
		}
	}
	must(g.t, g.enc.End(b, false))
	must(g.t, g.enc.Flush())
	return g.enc.Position().LSN
}

// TestHashMismatchStops: the group is not committed.
func TestHashMismatchStops(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a); CREATE TABLE u(a)")
	g.o.Apply.OnDivergence = Stop
	audited, stopped := g.audits(), make(chan struct{})
	g.on("replica stopped applying", func() { close(stopped) })
	g.start()
	g.wait()
	g.until(audited)
	before := g.step("INSERT INTO u VALUES(1)")
	g.wait()
	lsn := g.doctored("INSERT INTO t VALUES(1); INSERT INTO u VALUES(2)", "t")
	g.until(stopped)
	s := g.r.Status()
	if s.State != Diverged || s.Applied.LSN != before || s.Counters.Mismatches != 1 || !strings.Contains(s.Error.Text, fmt.Sprintf("table %q at LSN %d", "t", lsn)) {
		t.Errorf("status %+v, error %+v", s, s.Error)
	}
	c, err := sqlite.Open(g.o.Path, sqlite.Options{ReadOnly: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	if n, err := c.QueryInt("SELECT (SELECT count(*) FROM t)*10+(SELECT count(*) FROM u)"); err != nil || n != 1 {
		t.Errorf("the file has %d rows, %v", n, err)
	}
}

// TestHashMismatchTwice: a snapshot below does not help, so one above is needed.
func TestHashMismatchTwice(t *testing.T) {
	g := newRig(t, "CREATE TABLE t(a)")
	audited, waiting := g.audits(), g.reaches(Waiting)
	g.start()
	g.wait()
	g.until(audited)
	g.doctored("INSERT INTO t VALUES(1)", "t")
	g.until(waiting)
	if c := g.r.Status().Counters; c.Mismatches != 2 || c.Reseeds != 1 {
		t.Errorf("counters %+v", c)
	}
	g.snaps.add(g.snapshot())
	g.step("INSERT INTO t VALUES(2)")
	g.equal()
}

// A proof is a replica file with hashes, without a daemon: the test decides when the
// tables are read.
type proof struct {
	t    fataler
	f    *File
	sums *rowSums
	read *sqlite.Conn
}

func newProof(t fataler, path string, snap Snapshot) *proof {
	t.Helper()
	must(t, snap.Restore(context.Background(), path, func(int64) {}))
	g, err := openGuard(path, guardOptions{checkpointBytes: 64 << 20, rowSums: true})
	must(t, err)
	must(t, claim(g.conn, snap.At, testTime))
	a, err := newApplier(g, filepath.Dir(path), clock.System{}.Now)
	must(t, err)
	p := &proof{t: t, f: &File{a: a, at: a.mark}, sums: newRowSums()}
	must(t, a.w.prove(p.sums))
	p.read, err = sqlite.Open(path, sqlite.Options{ReadOnly: true})
	must(t, err)
	return p
}

// begin opens the transaction to read a table; finish reads it.
func (p *proof) begin() *reading {
	p.t.Helper()
	r, err := p.sums.begin(p.read)
	must(p.t, err)
	return r
}

func (p *proof) finish(r *reading) *Divergence {
	p.t.Helper()
	sum, err := p.read.SumTable(context.Background(), r.name)
	must(p.t, err)
	must(p.t, p.read.Rollback())
	return p.sums.learn(r, sum.Sum)
}

// all reads every table that waits.
func (p *proof) all() {
	p.t.Helper()
	for r := p.begin(); r != nil; r = p.begin() {
		if d := p.finish(r); d != nil {
			p.t.Fatal(d)
		}
	}
}

func (p *proof) state(table string) TableState {
	for _, s := range p.sums.tables() {
		if s.Table == table {
			return s
		}
	}
	return TableState{}
}

func (p *proof) close() { must(p.t, errors.Join(p.read.Close(), p.f.Close())) }

// apply takes over what the source has appended.
func (p *proof) apply(s *source) error {
	for _, rec := range s.log.all()[p.f.at.LSN:] {
		if err := p.f.Apply(rec); err != nil {
			return err
		}
	}
	return p.f.commit(context.Background())
}

// TestBaseComesLate: a table is read while transactions change it, and the last hash
// from the primary is older than the result.
func TestBaseComesLate(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		s := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one'),(2,'two')")
		p := newProof(t, filepath.Join(t.TempDir(), "replica.db"), s.snapshot())
		defer p.close()
		if wrong {
			c := p.f.a.guard.conn
			must(t, errors.Join(c.BeginImmediate(), c.Exec("UPDATE t SET b='wrong' WHERE a=2"), c.Commit()))
		}
		s.step("INSERT INTO t VALUES(3,3)")
		must(t, p.apply(s))
		r := p.begin()
		s.step("DELETE FROM t WHERE a=1")
		lsn := s.step("ALTER TABLE t RENAME TO u; UPDATE u SET b=b||b WHERE a=3")
		must(t, p.apply(s))
		if st := p.state("u"); st.Known || st.VerifiedLSN != 0 {
			t.Errorf("before it was read: %+v", st)
		}
		d := p.finish(r)
		switch st := p.state("u"); {
		case wrong != (d != nil), wrong && (d.Table != "u" || d.LSN != lsn):
			t.Errorf("wrong row %t: %v", wrong, d)
		case !wrong && st.VerifiedLSN != lsn:
			t.Errorf("%+v, want LSN %d", st, lsn)
		}
	}
}

// TestMeaningOfRowsChanges: an edit of the text that changes what rows read as makes
// the hash unknown, even to who is just reading them.
func TestMeaningOfRowsChanges(t *testing.T) {
	s := newSource(t, "CREATE TABLE t(a); INSERT INTO t VALUES(1); ALTER TABLE t ADD COLUMN b DEFAULT 5")
	p := newProof(t, filepath.Join(t.TempDir(), "replica.db"), s.snapshot())
	defer p.close()
	p.all()
	must(t, p.f.a.guard.conn.Rollback())
	if !p.sums.waiting(testTime, 0) && len(p.sums.queue) != 0 {
		t.Fatal("a table waits")
	}
	p.sums.queue = append(p.sums.queue, p.sums.byName["t"])
	r := p.begin()
	old := cdc.SchemaObject{Type: "table", Name: "t", Table: "t", SQL: "CREATE TABLE t(a, b DEFAULT 5)"}
	now := old
	now.SQL = "CREATE TABLE t(a, b DEFAULT 6)"
	must(t, s.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{Old: &old, New: &now}}, 0)))
	must(t, s.enc.End(s.boundary(), false))
	must(t, s.enc.Flush())
	must(t, p.apply(s))
	if st := p.state("t"); st.Known {
		t.Errorf("%+v", st)
	}
	if d := p.finish(r); d != nil || p.state("t").Known {
		t.Errorf("%v, %+v", d, p.state("t"))
	}
	p.all()
	if st := p.state("t"); !st.Known {
		t.Errorf("%+v", st)
	}
}

// TestLaterRecordOutdatesHash: a hash counts only for what the table was at its
// record, when a later one of the group has none.
func TestLaterRecordOutdatesHash(t *testing.T) {
	s := newSource(t, "CREATE TABLE t(a)")
	p := newProof(t, filepath.Join(t.TempDir(), "replica.db"), s.snapshot())
	defer p.close()
	p.all()
	first := s.step("INSERT INTO t VALUES(1)")
	must(t, p.apply(s))
	s.step("INSERT INTO t VALUES(2)")
	s.insert("t", 9, encode(9)) // gives no hash
	must(t, s.enc.Flush())
	must(t, p.apply(s))
	if st := p.state("t"); st.VerifiedLSN != first || !st.Known {
		t.Errorf("%+v, want LSN %d", st, first)
	}
}

// TestLaterCommitOutdatesHash: the same when the table has not been read yet.
func TestLaterCommitOutdatesHash(t *testing.T) {
	s := newSource(t, "CREATE TABLE t(a)")
	p := newProof(t, filepath.Join(t.TempDir(), "replica.db"), s.snapshot())
	defer p.close()
	s.step("INSERT INTO t VALUES(1)")
	must(t, p.apply(s))
	s.insert("t", 9, encode(9)) // gives no hash
	must(t, s.enc.Flush())
	must(t, p.apply(s))
	p.all()
	if st := p.state("t"); st.VerifiedLSN != 0 || !st.Known {
		t.Errorf("%+v", st)
	}
}

// TestConflictLeavesNoSum: what a batch did before rows of it stood in each other's
// way is done again, and counts once.
func TestConflictLeavesNoSum(t *testing.T) {
	for _, first := range []string{"", "DELETE FROM t WHERE a=4; ALTER TABLE t ADD COLUMN c;"} {
		s := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE); INSERT INTO t VALUES(1,10),(2,20),(3,30),(4,40)")
		p := newProof(t, filepath.Join(t.TempDir(), "replica.db"), s.snapshot())
		defer p.close()
		p.all()
		s.step("INSERT INTO t VALUES(5,50)")
		lsn := s.step(first + "UPDATE t SET b=11 WHERE a=1; UPDATE t SET b=-b; UPDATE t SET b=CASE a WHEN 2 THEN 30 WHEN 3 THEN 20 ELSE -b END")
		must(t, p.apply(s))
		if st := p.state("t"); st.VerifiedLSN != lsn || p.f.a.redone != 1 {
			t.Errorf("%q: %+v, done again %d times", first, st, p.f.a.redone)
		}
	}
}

// BenchmarkVerification asks for the status of a replica with very many tables.
func BenchmarkVerification(b *testing.B) {
	s := newRowSums()
	s.byName = make(map[string]*rowSum)
	for i := range 10_000 {
		name := fmt.Sprintf("table %d", i)
		s.byName[name] = &rowSum{name: name, live: true, known: true, proved: cdc.LSN(i)}
	}
	b.ReportAllocs()
	for b.Loop() {
		if s.status().Tables != 10_000 {
			b.Fatal("tables are missing")
		}
	}
}

// Whatever a database goes through, the hashes that are kept are those of the rows,
// and those of the source.
func TestRowSumsFollow(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "")
		must(t, err)
		s := newSourceAt(t, filepath.Join(dir, "source.db"), "CREATE TABLE t0(id INTEGER PRIMARY KEY, a, b UNIQUE); INSERT INTO t0 VALUES(1,1,1),(2,2,2); CREATE TABLE t1(a,b)")
		defer func() { must(t, s.c.Close()) }()
		p := newProof(rt, filepath.Join(dir, "replica.db"), s.snapshot())
		defer p.close()
		var r *reading
		for range rapid.IntRange(1, 12).Draw(rt, "transactions") {
			if r == nil && rapid.Bool().Draw(rt, "begin") {
				r = p.begin()
			}
			s.exec("BEGIN")
			for range rapid.IntRange(1, 5).Draw(rt, "statements") {
				sql := statement(rt)
				if err := s.c.Exec(sql); err == nil {
					rt.Log(sql)
				}
			}
			s.exec("COMMIT")
			s.emit()
			must(t, s.enc.Flush())
			if rapid.Bool().Draw(rt, "apply") {
				must(rt, p.apply(s))
			}
			if r != nil && rapid.Bool().Draw(rt, "finish") {
				if d := p.finish(r); d != nil {
					rt.Fatal(d)
				}
				r = nil
			}
		}
		if r != nil {
			if d := p.finish(r); d != nil {
				rt.Fatal(d)
			}
		}
		must(rt, p.apply(s))
		p.all()
		for name, want := range s.sums {
			if e := p.sums.byName[name]; e == nil || !e.known || e.sum() != want {
				rt.Fatalf("table %s: %+v, want %v", name, e, want)
			}
		}
		if len(p.sums.byName) != len(s.sums) {
			rt.Fatalf("%d tables, want %d", len(p.sums.byName), len(s.sums))
		}
		must(t, os.RemoveAll(dir))
	})
}

// TestTableThatCameLast: a table that must be read again is not forgotten because the pass
// over all of them ends just then.
func TestTableThatCameLast(t *testing.T) {
	s := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one')")
	p := newProof(t, filepath.Join(t.TempDir(), "replica.db"), s.snapshot())
	defer p.close()
	p.all() // there was none left
	p.sums.pending.unknown[p.sums.byName["t"]] = true
	must(t, p.sums.commit(func() error { return nil }))
	if p.sums.finished(testTime) || !p.sums.waiting(testTime.Add(time.Minute), 24*time.Hour) {
		t.Error("nobody will read the table for a day")
	}
	p.all()
	if !p.sums.finished(testTime) || p.sums.waiting(testTime.Add(time.Minute), 24*time.Hour) || !p.state("t").Known {
		t.Error("the pass does not end")
	}
}

// TestHashOfWrongRowsIsNotKept: what the auditor finds to be wrong is not what a seal says,
// even if nobody has heard of it yet.
func TestHashOfWrongRowsIsNotKept(t *testing.T) {
	s := newSource(t, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1,'one')")
	p := newProof(t, filepath.Join(t.TempDir(), "replica.db"), s.snapshot())
	defer p.close()
	c := p.f.a.guard.conn
	must(t, errors.Join(c.BeginImmediate(), c.Exec("UPDATE t SET b='wrong'"), c.Commit()))
	s.step("INSERT INTO t VALUES(2,'two')")
	must(t, p.apply(s))
	if d := p.finish(p.begin()); d == nil {
		t.Fatal("the hash of the source was not compared")
	}
	if e := p.sums.byName["t"]; e.known && e.sum() != s.sums["t"] {
		t.Error("the hash of the wrong rows counts")
	}
}
