package primary

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// known waits until all tables have a hash.
func (b *bench) known() {
	b.t.Helper()
	err := b.p.changed.wait(b.ctx, func() bool {
		s := b.p.Status().Sums
		return s.Tables > 0 && s.Known == s.Tables
	})
	if err != nil {
		b.t.Fatalf("%v: %+v", err, b.p.Status().Sums)
	}
}

// sums are the hashes that the capture knows.
func (b *bench) sums() (list []snapshot.TableSum) {
	b.t.Helper()
	err := b.p.ask(b.ctx, func(c *capture) error {
		f := Frozen{sums: c.sums.list()}
		list = f.tableSums()
		return nil
	})
	noError(b.t, err)
	return list
}

// content is what SQL says of the hashes.
func (b *bench) content() (list []snapshot.TableSum) {
	b.t.Helper()
	tables, _, err := b.app.Content(b.ctx, nil)
	noError(b.t, err)
	for _, t := range tables {
		list = append(list, snapshot.TableSum{Name: t.Name, Sum: t.Sum})
	}
	return list
}

// A hashReader reads what the published records say of hashes.
type hashReader struct {
	b       *bench
	seen    cdc.LSN
	decoder cdc.Decoder
}

// next returns the hashes of the new records and the tables whose rows they change.
func (r *hashReader) next() (hashes map[string]cdc.RowSum, changed map[string]bool) {
	r.b.t.Helper()
	recs, err := r.b.stream.all()
	noError(r.b.t, err)
	hashes, changed = map[string]cdc.RowSum{}, map[string]bool{}
	for _, rec := range recs {
		if rec.LSN <= r.seen {
			continue
		}
		r.seen = rec.LSN
		err := r.decoder.Decode(rec, func(c *cdc.Change) error {
			if c.Op == cdc.OpDelete || c.Op == cdc.OpUpdate || c.Op == cdc.OpInsert {
				changed[c.Table.Name] = true
			}
			return nil
		})
		noError(r.b.t, err)
		if rec.Boundary == nil {
			continue
		}
		if !slices.IsSortedFunc(rec.Boundary.Tables, func(a, b cdc.TableHash) int { return strings.Compare(a.Table, b.Table) }) {
			r.b.t.Errorf("record %d: hashes are not sorted", rec.LSN)
		}
		for _, h := range rec.Boundary.Tables {
			hashes[h.Table] = cdc.RowSumOf(h.Sum)
		}
	}
	return hashes, changed
}

// A stateWriter writes a transaction of many kinds, the same for a seed.
type stateWriter struct {
	rng    *rand.Rand
	tables []string
	n      int // names, from 100 on
}

func (w *stateWriter) pick() string { return w.tables[w.rng.IntN(len(w.tables))] }

func (w *stateWriter) statement() string {
	t := w.pick()
	w.n++
	switch k := w.rng.IntN(16); {
	case k < 5:
		return fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d)
			INSERT OR IGNORE INTO %s(a,b,c) SELECT %d+i, i/2.0, printf('%%.*c', i%%40*i, 'x') FROM n`, 1+w.rng.IntN(60), t, w.n*100)
	case k < 8:
		return fmt.Sprintf("UPDATE %s SET b=a, c=c||'y' WHERE a%%7=%d", t, w.rng.IntN(7))
	case k < 10:
		return fmt.Sprintf("DELETE FROM %s WHERE a%%5=%d", t, w.rng.IntN(5))
	case k == 10:
		return fmt.Sprintf("ALTER TABLE %s ADD COLUMN d%d REAL DEFAULT %d", t, w.n, w.rng.IntN(3))
	case k == 11:
		i := slices.Index(w.tables, t)
		w.tables[i] = fmt.Sprintf("r%d", w.n)
		return fmt.Sprintf("ALTER TABLE %s RENAME TO %s; INSERT OR IGNORE INTO %[2]s(a,b,c) VALUES(-%[3]d,1,NULL)", t, w.tables[i], w.n)
	case k == 12 && len(w.tables) < 6:
		name := fmt.Sprintf("t%d", w.n)
		w.tables = append(w.tables, name)
		return "CREATE TABLE " + name + []string{"(a, b REAL, c)", "(a INTEGER PRIMARY KEY, b, c)", "(c, b REAL, a PRIMARY KEY) WITHOUT ROWID"}[w.rng.IntN(3)]
	case k == 13 && len(w.tables) > 2:
		w.tables = slices.DeleteFunc(w.tables, func(name string) bool { return name == t })
		return "DROP TABLE " + t
	case k == 14:
		return "DROP TABLE " + t + "; CREATE TABLE " + t + "(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT, c DEFAULT 5); INSERT INTO " + t + "(a,b) VALUES(1,2)"
	default:
		return "VACUUM"
	}
}

const sumTables = `CREATE TABLE t1(a, b REAL, c); CREATE TABLE t2(a INTEGER PRIMARY KEY, b, c TEXT);
	CREATE TABLE t3(b REAL, c, a PRIMARY KEY) WITHOUT ROWID; CREATE TABLE t4(g AS (a), a, b, c, s AS (b) STORED, UNIQUE(a));
	INSERT INTO t1 VALUES(1,2,3); INSERT INTO t4(a,b,c) VALUES(1,2,x'')`

// TestRowSumsAreThoseOfTheTables: whatever is written, the capture's hashes and
// those in the records are those that SQL gives.
func TestRowSumsAreThoseOfTheTables(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := newBench(t, sumTables)
			b.start()
			w := &stateWriter{rng: rand.New(rand.NewPCG(seed, 1)), n: 100, tables: []string{"t1", "t2", "t3", "t4"}}
			r := &hashReader{b: b}
			for range 5 { // while the bases may be computed
				b.exec(w.transaction())
			}
			b.sync()
			b.known()
			r.next()
			for i := range 60 {
				if i%10 == 9 {
					noError(t, b.p.summer.inspect(b.ctx))
				}
				sql := w.transaction()
				b.exec(sql)
				b.sync()
				b.known()
				want := b.content()
				if diff := cmp.Diff(want, b.sums()); diff != "" {
					t.Fatalf("after %s (-SQL +capture):\n%s", sql, diff)
				}
				hashes, changed := r.next()
				for _, s := range want {
					if h, ok := hashes[s.Name]; ok && h != s.Sum || !ok && changed[s.Name] {
						t.Fatalf("after %s: the records say of %s: %v (%t), want %v", sql, s.Name, h, ok, s.Sum)
					}
				}
			}
			if s := b.p.Status().Sums; s.Inspections != 6 || s.Mismatches+s.MapMismatches != 0 {
				t.Errorf("inspections found %+v", s)
			}
		})
	}
}

func (w *stateWriter) transaction() string {
	sql := w.statement()
	if sql == "VACUUM" {
		return sql
	}
	return "BEGIN; " + sql + "; COMMIT"
}

// Transactions that share a record state only what is true after all of them.
func TestRowSumsOfAGroup(t *testing.T) {
	b := newBench(t, "CREATE TABLE a(x); CREATE TABLE b(x)")
	log := &boundaryLog{memoryLog: newMemoryLog(func(*cdc.Change) error { return nil })}
	c := startCapture(t, b.path, log, testCaptureOptions())
	for _, table := range c.sums.tables { // both are empty
		table.known = true
		c.sums.known++
	}
	b.exec("INSERT INTO a VALUES(1)")
	b.exec("INSERT INTO b VALUES(2)")
	b.exec("INSERT INTO a VALUES(3)")
	b.exec("ALTER TABLE a RENAME TO c")
	b.exec("INSERT INTO c VALUES(4)")
	b.exec("DROP TABLE b")
	b.exec("INSERT INTO c VALUES(5)")
	if _, err := c.poll(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, boundary := range log.boundaries {
		list := []string{}
		for _, h := range boundary.Tables {
			list = append(list, h.Table)
		}
		names = append(names, strings.Join(list, " "))
	}
	if diff := cmp.Diff([]string{"", "a b", "c", "c"}, names); diff != "" {
		t.Error(diff)
	}
	last := log.boundaries[len(log.boundaries)-1].Tables[0].Sum
	if got, want := cdc.RowSumOf(last), sqlSum(t, b.app, "c"); got != want {
		t.Errorf("the last record says %v, want %v", got, want)
	}
}

type boundaryLog struct {
	*memoryLog
	boundaries []cdc.Boundary
}

func (l *boundaryLog) Append(rec []byte, h cdc.Head, b *cdc.Boundary) error {
	if b != nil {
		l.boundaries = append(l.boundaries, *b)
	}
	return l.memoryLog.Append(rec, h, b)
}

// summer is one that no pipeline runs.
func (b *bench) summer() *summer {
	p := &Pipeline{o: b.options()}
	p.snapshots = newSnapshotter(p)
	return &summer{p: p, hold: sumHold}
}

// Changes that are made while a base is computed belong to the hash, whether they
// are taken before or after it is done.
func TestRowSumsWhileWriting(t *testing.T) {
	b := newBench(t, sumTables)
	fill := "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) INSERT INTO "
	b.exec(fill + "t1 SELECT i, i, 'text' FROM n; " + fill + "t3(a,b,c) SELECT i, i, 'text' FROM n")
	c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	b.exec("DELETE FROM t1 WHERE a%3=0")
	job, err := c.beginSums()
	noError(t, err)
	b.exec("UPDATE t1 SET b=7 WHERE a%5=0; DELETE FROM t3 WHERE a%2=0")
	b.exec("ALTER TABLE t2 RENAME TO u2; INSERT INTO u2 VALUES(1,2,3); DROP TABLE t4; CREATE TABLE t4(a)")
	if _, err := c.poll(); err != nil {
		t.Fatal(err)
	}
	if len(c.sums.list()) != 1 { // the new t4
		t.Errorf("known before the bases are: %v", c.sums.list())
	}
	s := b.summer()
	noError(t, s.compute(b.ctx, job))
	b.exec("INSERT INTO t3(a) VALUES('late')")
	if _, err := c.poll(); err != nil {
		t.Fatal(err)
	}
	c.sums.finish(job)
	noError(t, job.frozen.Close())
	f := Frozen{sums: c.sums.list()}
	if diff := cmp.Diff(b.content(), f.tableSums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
}

// What a job did not come to is wanted again.
func TestRowSumsOfAnInterruptedJob(t *testing.T) {
	b := newBench(t, sumTables)
	c := startCapture(t, b.path, newMemoryLog(func(*cdc.Change) error { return nil }), testCaptureOptions())
	<-c.sums.wanted
	job, err := c.beginSums()
	noError(t, err)
	ctx, cancel := context.WithCancelCause(b.ctx)
	cancel(errSumSpace)
	s := b.summer()
	if err := s.compute(ctx, job); !errors.Is(err, errSumSpace) {
		t.Errorf("interrupted: %v", err)
	}
	c.sums.finish(job)
	noError(t, job.frozen.Close())
	select {
	case <-c.sums.wanted:
	default:
		t.Error("nothing is wanted")
	}
	if c.sums.known != 0 || len(c.sums.missing()) != 4 {
		t.Errorf("%d known, %d missing", c.sums.known, len(c.sums.missing()))
	}
	if job, err = c.beginSums(); err != nil || len(job.tables) != 4 {
		t.Fatalf("%v", err)
	}
	noError(t, s.compute(b.ctx, job))
	c.sums.finish(job)
	noError(t, job.frozen.Close())
	if c.sums.known != 4 {
		t.Errorf("%d known", c.sums.known)
	}
}

// The hashes outlive a term as long as the next one goes on exactly where they are.
func TestRowSumsOutliveATerm(t *testing.T) {
	at := cdc.Position{LSN: 5, Hash: cdc.Hash{1}}
	of := func() *rowSums {
		s := newRowSums(slog.New(slog.DiscardHandler))
		s.put(&summedTable{face: &face{name: "t"}, known: true, sum: cdc.RowSum{1, 1}})
		s.reached(at)
		return s
	}
	for _, c := range []struct {
		name string
		do   func(*rowSums)
		tail cdc.Position
		want int
	}{
		{"same", func(*rowSums) {}, at, 1},
		{"in a transaction that failed", func(s *rowSums) { s.schemaChange(&cdc.SchemaChange{Old: &cdc.SchemaObject{Type: "table", Name: "t"}}) }, at, 1},
		{"another history", func(*rowSums) {}, cdc.Position{LSN: 5}, 0},
		{"not durable", func(s *rowSums) { s.end() }, at, 0},
		{"durable again", func(s *rowSums) { s.end(); s.reached(at) }, at, 1},
	} {
		s := of()
		c.do(s)
		noError(t, s.open(c.tail))
		if s.known != c.want || len(s.list()) != c.want || len(s.tables) != 1 {
			t.Errorf("%s: %d known, want %d", c.name, s.known, c.want)
		}
		noError(t, s.close())
	}
}

// In one process, what was missed is a change like any other.
func TestRowSumsAcrossAResync(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	r := &hashReader{b: b}
	r.next()
	// The term ends, and the next one is told that something may have been missed.
	err := b.p.ask(b.ctx, func(c *capture) error {
		b.exec("INSERT INTO t1 VALUES(9,9,9)")
		return fmt.Errorf("%w: for the test", errUndecodable)
	})
	if !errors.Is(err, errUndecodable) {
		t.Fatal(err)
	}
	b.exec("INSERT INTO t2 VALUES(1,1,1)")
	b.sync()
	b.known()
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
}

func TestSnapshotStatesRowSums(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	m, err := b.p.Snapshot(b.ctx)
	noError(t, err)
	if diff := cmp.Diff(b.content(), m.Tables); diff != "" {
		t.Errorf("(-SQL +manifest):\n%s", diff)
	}
}

// A change of a table costs a hash, once its base is known or computed.
func BenchmarkCaptureSums(b *testing.B) {
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprintf("known=%t", known), func(b *testing.B) {
			s := newRowSums(slog.New(slog.DiscardHandler))
			noError(b, s.open(cdc.Position{}))
			defer s.close()
			s.encoding = sqlitefile.UTF8
			s.put(&summedTable{face: &face{name: "t", sql: "CREATE TABLE t(a,b,c,d)"}, known: known})
			record := sqlitefile.EncodeRecord(nil, []sqlitefile.Value{{Type: sqlitefile.TypeInt, Int: 9}, {Type: sqlitefile.TypeText, Bytes: []byte(strings.Repeat("x", 80))}})
			c := &cdc.Change{Op: cdc.OpInsert, Table: &cdc.Table{Name: "t"}, New: record}
			b.ReportAllocs()
			for b.Loop() { // transactions of one row
				s.rollback()
				s.change(c)
				s.end()
			}
		})
	}
}

// A resync counts like any transaction: its record states hashes, which only those
// that were kept can give, since it comes before any base is computed.
func TestResyncStatesRowSums(t *testing.T) {
	b := newBench(t, sumTables)
	b.edit = func(o *Options) {
		o.Replay = func(string, snapshot.Manifest) (Replayer, error) { return noReplay{}, nil }
	}
	b.start()
	b.sync()
	b.known()
	if _, err := b.p.Snapshot(b.ctx); err != nil {
		t.Fatal(err)
	}
	noError(t, b.p.summer.inspect(b.ctx)) // so that the snapshot is sound
	r := &hashReader{b: b}
	r.next()
	err := b.p.ask(b.ctx, func(c *capture) error {
		b.exec("INSERT INTO t1 VALUES(9,9,9); DROP TABLE t2; CREATE TABLE n(x)")
		return fmt.Errorf("%w: for the test", errUndecodable)
	})
	if !errors.Is(err, errUndecodable) {
		t.Fatal(err)
	}
	b.sync()
	hashes, _ := r.next()
	if got, want := hashes["t1"], sqlSum(t, b.app, "t1"); got != want || b.has(cdc.Break) {
		t.Errorf("the resync says %v, want %v; records %v", got, want, b.kinds())
	}
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
}
