package replicator_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A client is a program that has a database open and does what it is told, with
// nothing random in it.
type client struct {
	t    *testing.T
	work *process
}

var _ = func() bool {
	roles["client"] = playClient
	return true
}()

// newClient makes the database if there is none.
func newClient(t *testing.T, path string, s shape) *client {
	t.Helper()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := createShaped(path, s); err != nil {
			t.Fatal(err)
		}
	}
	return &client{t, spawn(t, "client", path)}
}

// exec runs SQL, which must hold no line end.
func (c *client) exec(format string, args ...any) {
	c.t.Helper()
	if _, err := c.work.do(fmt.Sprintf(format, args...)); err != nil {
		c.t.Fatal(err)
	}
}

// playClient is the child's main: PATH. Each line of its input is SQL.
func playClient(args []string) (err error) {
	c, err := sqlite.Open(args[0], sqlite.Options{Plain: true, BusyTimeout: busyTimeout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for in := bufio.NewReader(os.Stdin); ; {
		sql, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = c.Exec(sql)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", abridge(sql), err)
		}
		fmt.Println("ok")
	}
}

// list joins n of what f gives.
func list(n int, f func(i int) string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = f(i)
	}
	return strings.Join(parts, ", ")
}

// counted is a table of 0 to n-1, named n with a column i.
func counted(n int) string {
	return fmt.Sprintf("(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n WHERE i<%d) SELECT i FROM n) n", n-1)
}

// less is a fifth of n in a short run.
func less(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

// TestSizes: whatever SQLite allows is replicated. Each step is compared.
func TestSizes(t *testing.T) {
	plain := shape{pageSize: 4096, encoding: "UTF-8"}
	small := shape{pageSize: 512, encoding: "UTF-8", autoVacuum: 1}
	wide := shape{pageSize: 1024, encoding: "UTF-16le"}
	for _, c := range []struct {
		name  string
		shape shape
		steps func(c *client, equal func())
	}{
		{"2000 columns", plain, func(c *client, equal func()) { manyColumns(c, equal, "", 2000) }},
		{"2000 columns and a rowid that has a name", plain, func(c *client, equal func()) { manyColumns(c, equal, "INTEGER PRIMARY KEY", 2000) }},
		{"2000 columns without rowid", small, func(c *client, equal func()) { manyColumns(c, equal, "PRIMARY KEY", 2000) }},
		{"indexes", wide, manyIndexes},
		{"long keys", plain, longKeys},
		{"long keys on small pages", small, longKeys},
		{"long keys in UTF-16", wide, longKeys},
		{"names", plain, longNames},
		{"names in UTF-16", wide, longNames},
		{"without rowid", plain, manyKeyedRows},
		{"schema changes", small, manySchemaChanges},
		{"tables", plain, func(c *client, equal func()) { manyTables(c, equal, less(1000)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := &rig{t: t, seed: 1, dir: folder(t), tuning: tight()}
			g.tuning.apply.VerifyRows = true
			g.source = filepath.Join(g.dir, "source.db")
			g.connect()
			client := newClient(t, g.source, c.shape)
			g.startPrimary()
			r := g.startReplica("replica")
			c.steps(client, func() { t.Helper(); g.equal(r) })
			late := g.startReplica("late")
			g.equal(r, late)
			if n := r.Status().Counters; n.Reseeds != 0 {
				g.fail("nothing was stopped, but the replica was seeded again: %+v", n)
			}
		})
	}
}

// manyColumns fills a table of n columns, of which the first is key.
func manyColumns(c *client, equal func(), key string, n int) {
	without := ""
	if key == "PRIMARY KEY" {
		without = " WITHOUT ROWID"
	}
	column := func(i int) string {
		return fmt.Sprintf("c%d %s", i, []string{"TEXT", "INT DEFAULT 7", "REAL", "BLOB"}[i%4])
	}
	c.exec("CREATE TABLE t(c0 %s, %s)%s", key, list(n-2, func(i int) string { return column(i + 1) }), without)
	c.exec("INSERT INTO t(c0, c1, c3) SELECT i, 'a'||i, i FROM %s", counted(20))
	equal()
	c.exec("ALTER TABLE t ADD COLUMN last DEFAULT 'd'")
	c.exec("INSERT INTO t SELECT i+100, %s FROM %s", list(n-1, func(i int) string { return fmt.Sprint("i+", i) }), counted(20))
	c.exec("UPDATE t SET c%d='changed', last=1 WHERE c0%%3=0", n-2)
	c.exec("DELETE FROM t WHERE c0%%5=0")
	equal()
	c.exec("UPDATE t SET %s", list(n-2, func(i int) string { return fmt.Sprintf("c%d=c%d||'.'", i+1, n-2-i) }))
	equal()
}

// manyIndexes keeps a table with 80 indexes, among them some that make rows stand in each
// other's way.
func manyIndexes(c *client, equal func()) {
	c.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, u INT UNIQUE, %s)", list(40, func(i int) string { return fmt.Sprintf("c%d", i) }))
	for i := range 40 {
		c.exec("CREATE INDEX i%d ON t(c%d, c%d DESC) WHERE c%d IS NOT NULL", i, i, (i+1)%40, i)
		c.exec("CREATE UNIQUE INDEX u%d ON t(c%d, u)", i, i)
	}
	c.exec("INSERT INTO t SELECT i, i, %s FROM %s", list(40, func(i int) string { return fmt.Sprintf("iif(i%%%d, 'v'||i, NULL)", i+1) }), counted(300))
	equal()
	c.exec("BEGIN IMMEDIATE; UPDATE t SET u=-u-1; UPDATE t SET u=299-(-u-1); COMMIT")
	c.exec("UPDATE t SET c0='moved '||id, c39=NULL WHERE id%%2")
	equal()
	c.exec("BEGIN IMMEDIATE; %s COMMIT", strings.ReplaceAll(list(40, func(i int) string { return fmt.Sprintf("DROP INDEX i%d;", i) }), ",", ""))
	c.exec("DELETE FROM t WHERE id%%7=0")
	equal()
}

// longKeys has keys that do not fit a page: in indexes, and in tables without rowid,
// whose interior pages have overflow chains, too.
func longKeys(c *client, equal func()) {
	c.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, b BLOB); CREATE INDEX tk ON t(k); CREATE UNIQUE INDEX tb ON t(b, k)")
	c.exec("CREATE TABLE w(k TEXT, n, v BLOB, PRIMARY KEY(k, n)) WITHOUT ROWID; CREATE INDEX wv ON w(v)")
	for _, size := range []int{200, 3000, 70_000} {
		n := min(400_000/size, 300)
		key := fmt.Sprintf("printf('%%.*c', %d, 'k')||i", size)
		c.exec("INSERT INTO t(k, b) SELECT %s, CAST(%s AS BLOB) FROM %s", key, key, counted(n))
		c.exec("INSERT INTO w SELECT %s, %d, zeroblob(i*7) FROM %s", key, size, counted(n))
		equal()
		c.exec("UPDATE t SET k='x'||k WHERE id%%3=0; UPDATE w SET v=randomblob(%d) WHERE length(v)%%3=0", size)
		c.exec("UPDATE w SET n=n+1 WHERE length(v)%%4=0; DELETE FROM t WHERE id%%5=0; DELETE FROM w WHERE n=%d AND length(v)%%5=0", size)
		equal()
	}
	c.exec("DELETE FROM w; VACUUM")
	equal()
}

// longNames has names as nobody should give.
func longNames(c *client, equal func()) {
	for i, name := range []string{
		strings.Repeat("long ", 2000), strings.Repeat("é€😀", 300), `a"b'c]d;--e`, "select", " ", "tab\tand\x01\x7f", "İ", "sqlite", "0",
	} {
		t, col := quote(name), quote(name+" column")
		c.exec("CREATE TABLE %s(%s INTEGER PRIMARY KEY AUTOINCREMENT, %s)", t, col, quote(strings.ToUpper(name)+"2"))
		c.exec("CREATE INDEX %s ON %s(%s)", quote(name+" index"), t, quote(strings.ToUpper(name)+"2"))
		c.exec("INSERT INTO %s SELECT i+1, 'value '||i FROM %s", t, counted(10))
		c.exec("CREATE TABLE %s(k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID", quote(name+" keyed"))
		c.exec("INSERT INTO %s SELECT 'é'||i, i FROM %s", quote(name+" keyed"), counted(10))
		equal()
		c.exec("UPDATE %s SET %s=NULL; ALTER TABLE %s RENAME COLUMN %s TO %s", t, quote(strings.ToUpper(name)+"2"), t, col, quote(name+" other"))
		c.exec("ALTER TABLE %s RENAME TO %s", t, quote(fmt.Sprint(name, " renamed ", i)))
		c.exec("UPDATE %s SET v=v+1 WHERE k>'é5'", quote(name+" keyed"))
		equal()
	}
}

// manyKeyedRows is a transaction that is larger than what is compared and sorted in
// memory.
func manyKeyedRows(c *client, equal func()) {
	c.exec("CREATE TABLE t(k TEXT, n INT, v, PRIMARY KEY(k, n)) WITHOUT ROWID")
	c.exec("INSERT INTO t SELECT 'key '||(i*7919%%100000), i, 'value '||i FROM %s", counted(less(100_000)))
	equal()
	c.exec("BEGIN IMMEDIATE; UPDATE t SET v=v||'!' WHERE n%%3; DELETE FROM t WHERE n%%7=0; UPDATE t SET n=-n WHERE n%%11=0; COMMIT")
	equal()
	c.exec("DELETE FROM t WHERE k<'key 9'; VACUUM")
	equal()
}

// manySchemaChanges changes the schema a thousand times, within transactions and
// without, while rows are written.
func manySchemaChanges(c *client, equal func()) {
	c.exec("CREATE TABLE rows(id INTEGER PRIMARY KEY, v)")
	for i := range less(100) {
		open, end := "", ""
		if i%3 == 0 {
			open, end = "BEGIN IMMEDIATE; ", "; COMMIT"
		}
		name := fmt.Sprintf("t%d", i%20)
		c.exec("%s", strings.Join([]string{
			open + "DROP TABLE IF EXISTS " + name,
			"CREATE TABLE " + name + "(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
			"INSERT INTO rows(v) VALUES(" + fmt.Sprint(i) + ")",
			"CREATE INDEX " + name + "a ON " + name + "(a)",
			"INSERT INTO " + name + "(a) SELECT i FROM " + counted(20),
			"ALTER TABLE " + name + " ADD COLUMN b DEFAULT 'b'",
			"CREATE VIEW " + name + "v AS SELECT a, b FROM " + name,
			"CREATE TRIGGER " + name + "t AFTER UPDATE ON " + name + " BEGIN UPDATE rows SET v=v+1 WHERE id=1; END",
			"UPDATE " + name + " SET b='c' WHERE a%3=0",
			"ALTER TABLE " + name + " RENAME COLUMN a TO c",
			"DROP VIEW " + name + "v",
			"ALTER TABLE " + name + " RENAME TO " + name + "x",
			"ALTER TABLE " + name + "x RENAME TO " + name,
			"DROP INDEX " + name + "a" + end,
		}, "; "))
		if i%20 == 19 {
			equal()
		}
	}
}

// manyTables makes n tables, some of them in one transaction, writes into a few, and
// drops half of them.
func manyTables(c *client, equal func(), n int) {
	for i := range n / 2 {
		c.exec("CREATE TABLE a%d(id INTEGER PRIMARY KEY, v TEXT UNIQUE)", i)
	}
	c.exec("BEGIN IMMEDIATE")
	for i := range n / 2 {
		c.exec("CREATE TABLE b%d(k PRIMARY KEY, v) WITHOUT ROWID", i)
	}
	c.exec("COMMIT")
	for i := 0; i < n/2; i += 50 {
		c.exec("INSERT INTO a%d(v) VALUES('x'); INSERT INTO b%d VALUES('k', 'v')", i, i)
	}
	equal()
	for i := range n / 4 {
		c.exec("DROP TABLE a%d", i)
	}
	c.exec("BEGIN IMMEDIATE")
	for i := range n / 4 {
		c.exec("DROP TABLE b%d", i)
	}
	c.exec("COMMIT")
	equal()
}
