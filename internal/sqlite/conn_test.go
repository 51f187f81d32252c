package sqlite

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// openTest opens a new WAL database in a temporary directory.
func openTest(t testing.TB, o Options) (*Conn, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	o.Create = true
	c := reopen(t, path, o)
	mustExec(t, c, "PRAGMA journal_mode=WAL")
	return c, path
}

func reopen(t testing.TB, path string, o Options) *Conn {
	t.Helper()
	c, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func mustExec(t testing.TB, c *Conn, sql string, args ...any) {
	t.Helper()
	if err := c.Exec(sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func mustInt(t testing.TB, c *Conn, sql string, args ...any) int64 {
	t.Helper()
	n, err := c.QueryInt(sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenPaths(t *testing.T) {
	for _, name := range []string{"a b.db", "what?.db", "100%25.db", "a#b.db", "naïve.db", "file:x.db", ":memory:", "a&mode=ro", "\xff.db"} {
		path := filepath.Join(t.TempDir(), name)
		c := reopen(t, path, Options{Create: true})
		mustExec(t, c, "CREATE TABLE t(a)")
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	must(t, os.WriteFile(garbage, bytes.Repeat([]byte("not a database "), 1000), 0o600))
	tests := []struct {
		name, path string
		o          Options
		is         func(error) bool
	}{
		{"missing", filepath.Join(dir, "none.db"), Options{}, IsCantOpen},
		{"empty path", "", Options{Create: true}, func(err error) bool { return err != nil }},
		{"nul", "a\x00b", Options{Create: true}, func(err error) bool { return err != nil }},
		{"garbage", garbage, Options{}, IsNotADatabase},
		{"synchronous off", filepath.Join(dir, "s.db"), Options{Create: true, Synchronous: "OFF"}, func(err error) bool { return err != nil }},
	}
	for _, tt := range tests {
		c, err := Open(tt.path, tt.o)
		if err == nil {
			c.Close()
		}
		if !tt.is(err) {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); err == nil {
		t.Error("a missing file was created")
	}
}

func TestSettings(t *testing.T) {
	c, path := openTest(t, Options{CacheBytes: 1 << 20})
	want := map[string]int64{
		"PRAGMA wal_autocheckpoint": 0, "PRAGMA foreign_keys": 0, "PRAGMA ignore_check_constraints": 1,
		"PRAGMA synchronous": 1, "PRAGMA cache_size": -1024, "PRAGMA busy_timeout": 0,
	}
	for sql, n := range want {
		if got := mustInt(t, c, sql); got != n {
			t.Errorf("%s is %d, want %d", sql, got, n)
		}
	}
	plain := reopen(t, path, Options{Plain: true, Synchronous: "full"})
	if got := mustInt(t, plain, "PRAGMA wal_autocheckpoint"); got != 1000 {
		t.Errorf("plain wal_autocheckpoint is %d", got)
	}
	if got := mustInt(t, plain, "PRAGMA synchronous"); got != 2 {
		t.Errorf("plain synchronous is %d", got)
	}
}

func TestArgumentsRoundTrip(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(i, f, s, b, n, e, z)")
	bad := "a\x00b\xff"
	mustExec(t, c, "INSERT INTO t VALUES(?,?,?,?,?,?,?)", int64(math.MinInt64), -0.5, bad, []byte{0, 1}, nil, "", []byte{})
	err := c.Query("SELECT i,f,s,b,n,e,z,typeof(e),typeof(z) FROM t", nil, func(r Row) error {
		if r.Len() != 9 || r.Int(0) != math.MinInt64 || r.Float(1) != -0.5 || r.Text(2) != bad ||
			!bytes.Equal(r.Blob(3), []byte{0, 1}) || !r.Null(4) || r.Null(5) || r.Text(7) != "text" || r.Text(8) != "blob" {
			t.Error("values changed on the way")
		}
		return nil
	})
	must(t, err)
	if err := c.Exec("INSERT INTO t(i) VALUES(?)", 1, 2); err == nil {
		t.Error("a surplus argument was taken")
	}
	if err := c.Exec("INSERT INTO t(i) VALUES(?)", struct{}{}); err == nil {
		t.Error("an unknown type was taken")
	}
	if err := c.Exec("SELECT ?; SELECT 1", 1); err == nil {
		t.Error("two statements with arguments were taken")
	}
	if _, err := c.QueryInt("SELECT i FROM t WHERE 0"); err == nil {
		t.Error("no row is no error")
	}
	stop := errors.New("stop")
	if err := c.Query("SELECT 1 UNION SELECT 2", nil, func(Row) error { return stop }); err != stop {
		t.Errorf("callback error came back as %v", err)
	}
}

func TestStatementCacheIsBounded(t *testing.T) {
	c, _ := openTest(t, Options{})
	for i := range 3 * maxStmts {
		mustInt(t, c, "SELECT ?+"+string(rune('a'+i%26))+" FROM (SELECT 1 AS "+string(rune('a'+i%26))+")", i)
	}
	if len(c.stmts.idle) > maxStmts {
		t.Errorf("%d idle statements", len(c.stmts.idle))
	}
	// The same text may run inside itself.
	err := c.Query("SELECT 1 UNION SELECT 2", nil, func(Row) error {
		return c.Query("SELECT 1 UNION SELECT 2", nil, func(Row) error { return nil })
	})
	must(t, err)
}

func TestTransactions(t *testing.T) {
	c, path := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a UNIQUE)")
	other := reopen(t, path, Options{})
	v0, err := other.DataVersion()
	must(t, err)
	must(t, c.BeginImmediate())
	mustExec(t, c, "INSERT INTO t VALUES(1)")
	if !c.InTransaction() {
		t.Error("no transaction after BEGIN IMMEDIATE")
	}
	if err := other.BeginImmediate(); !IsBusy(err) {
		t.Errorf("second writer: %v", err)
	}
	must(t, other.Rollback())
	must(t, c.Commit())
	if v1, _ := other.DataVersion(); v1 == v0 {
		t.Error("a foreign commit left data_version alone")
	}
	before, _ := c.DataVersion()
	mustExec(t, c, "INSERT INTO t VALUES(2)")
	if after, _ := c.DataVersion(); after != before {
		t.Error("an own commit changed data_version")
	}
	err = c.Exec("INSERT INTO t VALUES(2)")
	if !IsConstraint(err) || !IsUnique(err) || IsBusy(err) {
		t.Errorf("duplicate: %v", err)
	}
	ro := reopen(t, path, Options{ReadOnly: true})
	if err := ro.Exec("INSERT INTO t VALUES(3)"); !IsReadOnly(err) {
		t.Errorf("write on a read-only connection: %v", err)
	}
	must(t, c.Close())
	if err := c.Exec("SELECT 1"); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if _, err := c.Checkpoint(Noop); !errors.Is(err, ErrClosed) {
		t.Errorf("checkpoint after close: %v", err)
	}
	c.Interrupt()
}

// TestOnlyCommit: what follows an error that ended the transaction is not written, though
// SQLite would commit each statement by itself.
func TestOnlyCommit(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); CREATE TEMP TABLE own(a)")
	c.OnlyCommit()
	must(t, c.BeginImmediate())
	mustExec(t, c, "INSERT INTO t VALUES(1)")
	c.InterruptAt(1)
	if err := c.Exec("CREATE INDEX i ON t(a)"); !IsInterrupted(err) || c.InTransaction() || c.InterruptDue() {
		t.Fatalf("interrupted: %v, transaction open %t", err, c.InTransaction())
	}
	c.InterruptAt(0)
	for _, sql := range []string{"CREATE INDEX i ON t(a)", "INSERT INTO t VALUES(2)", "SAVEPOINT s; INSERT INTO t VALUES(3); RELEASE s", "PRAGMA user_version=7", "BEGIN; INSERT INTO t VALUES(4); COMMIT"} {
		if err := c.Exec(sql); !errors.Is(err, ErrNoTransaction) || IsConstraint(err) {
			t.Errorf("%s: %v", sql, err)
		}
		must(t, c.Rollback())
	}
	mustExec(t, c, "INSERT INTO own VALUES(1)") // nobody else sees it
	must(t, c.BeginImmediate())
	mustExec(t, c, "INSERT INTO t VALUES(5)")
	must(t, c.Commit())
	if got, err := c.QueryText("SELECT group_concat(a)||' '||(SELECT count(*) FROM sqlite_schema) FROM t"); err != nil || got != "5 1" {
		t.Errorf("the file holds %q, %v", got, err)
	}
}

func TestTriggersOff(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE t(a CHECK(a>0)); CREATE TABLE log(a); CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.a); END")
	mustExec(t, c, "INSERT INTO t VALUES(-1)")
	if n := mustInt(t, c, "SELECT count(*) FROM log"); n != 0 {
		t.Errorf("the trigger fired %d times", n)
	}
	must(t, c.SetTriggers(true))
	mustExec(t, c, "INSERT INTO t VALUES(-1)")
	if n := mustInt(t, c, "SELECT count(*) FROM log"); n != 1 {
		t.Errorf("switched on, the trigger fired %d times", n)
	}
}

func TestInterrupt(t *testing.T) {
	c, _ := openTest(t, Options{})
	// Interrupted from inside a row, the endless query must end.
	err := c.Query("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n) SELECT i FROM n", nil, func(Row) error {
		c.Interrupt()
		return nil
	})
	if !IsInterrupted(err) {
		t.Errorf("interrupted query: %v", err)
	}
}

func TestCheckBuild(t *testing.T) { must(t, CheckBuild()) }

// A fataler is a testing.TB or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

// TestDamagedSchemaIsNotQuoted: what a damaged file has for a schema may be rows.
func TestDamagedSchemaIsNotQuoted(t *testing.T) {
	for _, row := range []string{
		"'index', 'top secret', 'top secret', 99, 'CREATE INDEX'",
		"'table', 'top secret', 'top secret', 2, 'CREATE TABLE x(top secret'",
		"'table', 'x', 'x', 2, 'CREATE TABLE x(\"a\" top secret) \"top secret\" (top secret)'",
	} {
		path := filepath.Join(t.TempDir(), "db")
		c, err := Open(path, Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Exec("CREATE TABLE t(a); PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES(" + row + ")")
		if err := errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
		c, err = Open(path, Options{})
		if err == nil {
			_, err = c.QueryInt("SELECT count(*) FROM t")
			defer c.Close()
		}
		if !IsCorrupt(err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("the error is %v", err)
		}
	}
}

// A connection that takes little memory does what any other does, only slower.
func TestLean(t *testing.T) {
	c, path := openTest(t, Options{Lean: true})
	mustExec(t, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB)")
	mustExec(t, c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 300) INSERT INTO t SELECT i, zeroblob(i*97) FROM n")
	if got := mustInt(t, c, "PRAGMA cache_size"); got != -1 {
		t.Errorf("cache_size is %d", got)
	}
	if err := c.OpenRead(); err != nil {
		t.Fatal(err)
	}
	other := reopen(t, path, Options{})
	mustExec(t, other, "DELETE FROM t WHERE id > 200")
	if n := mustInt(t, c, "SELECT count(*) FROM t"); n != 300 {
		t.Errorf("%d rows in the read transaction", n)
	}
	must(t, c.Rollback())
	m, err := c.Checkpoint(Passive)
	if err != nil || m.Frames == 0 || m.Backfilled != m.Frames {
		t.Errorf("checkpoint: %+v, %v", m, err)
	}
	if n := mustInt(t, c, "SELECT sum(length(a)) FROM t"); n != 97*200*201/2 {
		t.Errorf("%d bytes", n)
	}
}
