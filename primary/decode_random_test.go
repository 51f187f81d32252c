package primary

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A workload makes up SQL, the same for the same seed.
type workload struct {
	rnd      *rand.Rand
	pageSize int
	tables   []string // that exist, as far as the workload knows
	serial   int
}

func (w *workload) n(max int) int { return w.rnd.IntN(max) }

func (w *workload) pick(list ...string) string { return list[w.n(len(list))] }

func (w *workload) table() string { return w.tables[w.n(len(w.tables))] }

// value is an expression of a size that may or may not overflow a page.
func (w *workload) value() string {
	n := w.pageSize
	switch w.n(12) {
	case 0:
		n *= 1 + w.n(6)
	case 1:
		n = n/4 + w.n(n)
	case 2:
		if w.n(8) == 0 {
			n = w.n(300 << 10)
		}
	default:
		n = w.n(40)
	}
	text := fmt.Sprintf("printf('%%.*c',%d,'%c')", n, 'a'+rune(w.n(26)))
	switch w.n(8) {
	case 0:
		return "NULL"
	case 1:
		return strconv.Itoa(w.n(1 << 20))
	case 2:
		return fmt.Sprintf("CAST(%s AS BLOB)", text)
	case 3:
		return fmt.Sprintf("zeroblob(%d)", n)
	}
	return text
}

// where selects rows of any of the tables.
func (w *workload) where() string {
	switch w.n(6) {
	case 0:
		return fmt.Sprintf("k=%d", w.n(600))
	case 1:
		return fmt.Sprintf("k%%%d=%d", 3+w.n(40), w.n(3))
	case 2:
		return "length(v)>400"
	case 3:
		return fmt.Sprintf("k>%d", w.n(600))
	}
	lo := w.n(600)
	return fmt.Sprintf("k BETWEEN %d AND %d", lo, lo+w.n(60))
}

func (w *workload) create(name string) string {
	w.tables = append(w.tables, name)
	return fmt.Sprintf(w.pick(
		"CREATE TABLE %s(k INTEGER PRIMARY KEY, v, c)",
		"CREATE TABLE %s(k INTEGER PRIMARY KEY AUTOINCREMENT, v, c)",
		"CREATE TABLE %s(k INT UNIQUE, v, c)",
		"CREATE TABLE %s(k INT PRIMARY KEY, v, c) WITHOUT ROWID",
		"CREATE TABLE %s(v TEXT COLLATE NOCASE, k INT, c, PRIMARY KEY(k, v)) WITHOUT ROWID",
		"CREATE TABLE %s(k INTEGER PRIMARY KEY, v, g AS (length(v)) STORED, c)",
		"CREATE TABLE %s(k, v, c, d DEFAULT 'x')",
	), name)
}

func (w *workload) rows() string {
	t := w.table()
	verb := w.pick("INSERT OR REPLACE", "INSERT OR IGNORE")
	if w.n(3) > 0 {
		return fmt.Sprintf("%s INTO %s(k,v,c) VALUES(%d,%s,%s)", verb, t, w.n(600), w.value(), w.value())
	}
	lo := w.n(500)
	return fmt.Sprintf("WITH n(i) AS (SELECT %d UNION ALL SELECT i+1 FROM n WHERE i<%d) %s INTO %s(k,v,c) SELECT i, %s, i*%d FROM n",
		lo, lo+w.n(120), verb, t, w.value(), w.n(9))
}

func (w *workload) statement() string {
	w.serial++
	switch w.n(40) {
	case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
		return w.rows()
	case 11, 12, 13, 14, 15:
		return fmt.Sprintf("UPDATE OR REPLACE %s SET %s=%s WHERE %s", w.table(), w.pick("v", "c"), w.value(), w.where())
	case 16:
		return fmt.Sprintf("UPDATE OR REPLACE %s SET v=replace(v,'a','b') WHERE %s", w.table(), w.where())
	case 17, 18, 19, 20:
		return fmt.Sprintf("DELETE FROM %s WHERE %s", w.table(), w.where())
	case 21:
		return "DELETE FROM " + w.table()
	case 22:
		return fmt.Sprintf("PRAGMA user_version=%d; PRAGMA application_id=%d", w.n(3)-1, w.n(3)-1)
	case 23:
		return fmt.Sprintf("PRAGMA incremental_vacuum(%d)", w.n(20))
	case 24:
		return fmt.Sprintf("INSERT INTO fts(body) VALUES(%s)", w.value())
	case 25:
		return fmt.Sprintf("DELETE FROM fts WHERE rowid%%7=%d", w.n(7))
	case 26:
		return fmt.Sprintf("INSERT OR REPLACE INTO box VALUES(%d,%d,%d)", w.n(200), w.n(50), 50+w.n(50))
	case 27:
		return fmt.Sprintf("DELETE FROM box WHERE id%%5=%d", w.n(5))
	case 28:
		return w.pick("INSERT INTO fts(fts) VALUES('optimize')", "ANALYZE", "REINDEX")
	case 29:
		return fmt.Sprintf("SAVEPOINT s; %s; %s; ROLLBACK TO s; RELEASE s", w.rows(), w.rows())
	case 30:
		return fmt.Sprintf("UPDATE OR IGNORE %s SET k=k+%d WHERE %s", w.table(), 1+w.n(50), w.where())
	}
	return w.schema()
}

// schema is a change of the schema. Some fail; then the whole transaction does.
func (w *workload) schema() string {
	t := w.table()
	fresh := fmt.Sprintf("t%d", w.serial)
	switch w.n(16) {
	case 0, 1:
		if len(w.tables) < 8 {
			return w.create(fresh)
		}
		return w.remove(t)
	case 2:
		return w.remove(t) + "; " + w.create(t)
	case 3:
		w.remove(t)
		w.tables = append(w.tables, fresh)
		return fmt.Sprintf("ALTER TABLE %s RENAME TO %s", t, fresh)
	case 4:
		u := w.table()
		if u == t {
			return w.rows()
		}
		return fmt.Sprintf("ALTER TABLE %[1]s RENAME TO swap; ALTER TABLE %[2]s RENAME TO %[1]s; ALTER TABLE swap RENAME TO %[2]s", t, u)
	case 5:
		return fmt.Sprintf("ALTER TABLE %s ADD COLUMN x%d %s", t, w.serial, w.pick("", "DEFAULT 7", "TEXT", "AS (k)"))
	case 6:
		return fmt.Sprintf("ALTER TABLE %[1]s ADD COLUMN y; UPDATE %[1]s SET y=1 WHERE %[2]s; ALTER TABLE %[1]s DROP COLUMN y", t, w.where())
	case 7:
		return fmt.Sprintf("ALTER TABLE %s RENAME COLUMN c TO c%d; ALTER TABLE %s RENAME COLUMN c%d TO c", t, w.serial, t, w.serial)
	case 8, 9:
		return fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s_%s ON %s(%s)", t, w.pick("a", "b"), t, w.pick("v", "c", "c,k"))
	case 10:
		return fmt.Sprintf("DROP INDEX IF EXISTS %s_%s", t, w.pick("a", "b"))
	case 11:
		return fmt.Sprintf("DROP VIEW IF EXISTS %[1]s_view; CREATE VIEW %[1]s_view AS SELECT k+%[2]d AS k FROM %[1]s", t, w.n(5))
	case 12:
		return fmt.Sprintf("DROP TRIGGER IF EXISTS %[1]s_tr; CREATE TRIGGER %[1]s_tr AFTER DELETE ON %[1]s BEGIN UPDATE %[1]s SET c=%[2]d WHERE k=old.k+1; END", t, w.n(9))
	case 13:
		// The way that the documentation of ALTER TABLE teaches.
		return fmt.Sprintf("CREATE TABLE made(k INTEGER PRIMARY KEY, v, c); INSERT OR IGNORE INTO made SELECT k,v,c FROM %[1]s WHERE k IS NOT NULL; DROP TABLE %[1]s; ALTER TABLE made RENAME TO %[1]s", t)
	case 14:
		return fmt.Sprintf("DROP TABLE IF EXISTS fts; CREATE VIRTUAL TABLE fts USING fts5(body%s)", w.pick("", ", detail=none"))
	}
	u := w.table()
	if u == t {
		return w.rows()
	}
	return w.remove(t) + fmt.Sprintf("; ALTER TABLE %s RENAME TO %s", u, w.rename(u, fmt.Sprintf("r%d", w.serial)))
}

func (w *workload) remove(t string) string {
	for i, name := range w.tables {
		if name == t {
			w.tables = append(w.tables[:i], w.tables[i+1:]...)
			break
		}
	}
	if len(w.tables) == 0 {
		w.tables = append(w.tables, "base") // never dropped by its own name only
		return "SELECT 1"
	}
	return "DROP TABLE IF EXISTS " + t
}

func (w *workload) rename(from, to string) string {
	w.remove(from)
	w.tables = append(w.tables, to)
	return to
}

// random runs a workload on s; a transaction that fails is rolled back.
func (s *subject) random(pageSize, transactions int) {
	w := &workload{rnd: s.rnd, pageSize: pageSize, tables: []string{"base"}}
	done := 0
	for range transactions {
		if s.rnd.IntN(60) == 0 {
			s.single("VACUUM")
			for _, op := range s.ops {
				if strings.Contains(op, "->") && op != "table sqlite_sequence -> nothing" {
					s.t.Fatalf("VACUUM: %s", op)
				}
			}
			continue
		}
		var list []string
		for range 1 + s.rnd.IntN(4) {
			list = append(list, w.statement())
		}
		sql := strings.Join(list, "; ")
		if err := s.conn.Exec("BEGIN; " + sql + "; COMMIT"); err != nil {
			if err := s.conn.Rollback(); err != nil {
				s.t.Fatal(err)
			}
			w.tables = s.userTables()
			continue
		}
		done++
		s.check(sql)
	}
	if done < transactions/2 {
		s.t.Errorf("%d of %d transactions went through", done, transactions)
	}
}

func (s *subject) userTables() []string {
	var names []string
	err := s.conn.Query(`SELECT name FROM sqlite_schema WHERE type='table' AND sql LIKE '%(%k%' AND sql NOT LIKE 'CREATE VIRTUAL%'
		AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'fts%' AND name NOT LIKE 'box%' ORDER BY name`, nil,
		func(r sqlite.Row) error { names = append(names, r.Text(0)); return nil })
	if err != nil {
		s.t.Fatal(err)
	}
	if len(names) == 0 {
		s.exec("CREATE TABLE base(k INTEGER PRIMARY KEY, v, c)")
		s.check("CREATE TABLE base")
		names = []string{"base"}
	}
	return names
}

const randomSetup = `
CREATE TABLE base(k INTEGER PRIMARY KEY, v, c);
CREATE VIRTUAL TABLE fts USING fts5(body);
CREATE VIRTUAL TABLE box USING rtree(id, lo, hi);`

func TestRandom(t *testing.T) {
	transactions := 60
	if n, err := strconv.Atoi(os.Getenv("DECODE_TRANSACTIONS")); err == nil {
		transactions = n
	}
	first := uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("DECODE_SEED"), 10, 64); err == nil {
		first = n
	}
	// Every page size, every auto_vacuum, every encoding; the smallest and the largest
	// page with each auto_vacuum.
	for i, shape := range []struct{ pageSize, vacuum int }{
		{512, 0}, {512, 1}, {512, 2}, {1024, 0}, {2048, 1}, {4096, 2}, {8192, 0}, {16384, 1}, {32768, 2}, {65536, 0}, {65536, 1}, {65536, 2},
	} {
		seed := first + 1 + uint64(i)
		encoding := []string{"UTF-8", "UTF-16le", "UTF-16be"}[seed%3]
		secure := seed % 2
		setup := fmt.Sprintf("PRAGMA page_size=%d; PRAGMA auto_vacuum=%d; PRAGMA encoding='%s'; PRAGMA secure_delete=%d;", shape.pageSize, shape.vacuum, encoding, secure)
		t.Run(fmt.Sprintf("page=%d/vacuum=%d/%s/secure=%d/seed=%d", shape.pageSize, shape.vacuum, encoding, secure, seed), func(t *testing.T) {
			s := newSubject(t, seed, setup+randomSetup)
			s.random(shape.pageSize, transactions)
		})
	}
}

// A database may keep bytes at the end of each page for itself.
func TestRandomReservedBytes(t *testing.T) {
	const pageSize, reserved, seed = 1024, 32, 77
	s := newSubject(t, seed, "PRAGMA page_size=1024; CREATE TABLE x(a); DROP TABLE x; VACUUM")
	if err := s.conn.Close(); err != nil {
		t.Fatal(err)
	}
	data := append([]byte(nil), s.before.data...)
	if len(data) != pageSize {
		t.Fatalf("an empty database of %d bytes", len(data))
	}
	data[20] = reserved
	data[105], data[106] = (pageSize-reserved)>>8, (pageSize-reserved)&0xff
	s.path = filepath.Join(t.TempDir(), "reserved.db")
	if err := os.WriteFile(s.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.conn, err = sqlite.Open(s.path, sqlite.Options{Plain: true}); err != nil {
		t.Fatal(err)
	}
	s.exec("PRAGMA synchronous=OFF; " + randomSetup)
	s.before = s.read()
	if err := s.decoder.load(s.before, s.before.count()); err != nil {
		t.Fatal(err)
	}
	if got := s.decoder.header().Usable; got != pageSize-reserved {
		t.Fatalf("%d usable bytes", got)
	}
	s.model = walkModel(t, s.before)
	s.random(pageSize, 60)
}
