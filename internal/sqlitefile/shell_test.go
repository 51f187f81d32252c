package sqlitefile

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sqlite3 runs a script in SQLite's own shell and returns its output.
func sqlite3(t testing.TB, path, script string, flags ...string) string {
	t.Helper()
	cmd := exec.Command("sqlite3", append(flags, "-batch", "-bail", path)...)
	cmd.Stdin = strings.NewReader(script)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("sqlite3 %s: %v\n%s(install the sqlite3 shell: the tests read what it writes)", path, err, &stderr)
	}
	return stdout.String()
}

// memPages is a database in memory, with pages of a SQLite WAL laid over it.
type memPages struct {
	file     []byte
	pageSize int
	wal      map[uint32][]byte
}

func (m memPages) Page(n uint32) ([]byte, error) {
	if b, ok := m.wal[n]; ok {
		return b, nil
	}
	if n == 0 || int64(n)*int64(m.pageSize) > int64(len(m.file)) {
		return nil, fmt.Errorf("%w: no page %d", ErrCorrupt, n)
	}
	return m.file[int(n-1)*m.pageSize:][:m.pageSize], nil
}

// database is an open memPages and what its page 1 says.
type database struct {
	Header
	memPages
	pages  uint32
	schema map[string]SchemaRow
}

func openFile(t testing.TB, path string) database {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseHeader(file)
	if err != nil {
		t.Fatal(err)
	}
	return openPages(t, memPages{file: file, pageSize: h.PageSize}, uint32(len(file)/h.PageSize))
}

func openPages(t testing.TB, src memPages, pages uint32) database {
	t.Helper()
	first, err := src.Page(1)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseHeader(first)
	if err != nil {
		t.Fatal(err)
	}
	db := database{Header: h, memPages: src, pages: pages, schema: map[string]SchemaRow{}}
	db.cells(t, SchemaRoot, func(c Cell, payload []byte) {
		row, err := ParseSchemaRow(c.Rowid, payload, h.Encoding)
		if err != nil {
			t.Fatal(err)
		}
		db.schema[row.Name] = row
	})
	return db
}

// cells calls visit with each cell of a b-tree that is a row.
func (db database) cells(t testing.TB, root uint32, visit func(c Cell, payload []byte)) {
	t.Helper()
	var buf []byte
	err := Walk(db, root, db.Usable, db.pages, func(p Page, _ uint32) error {
		for i := range p.Cells() {
			c, err := p.Cell(i)
			if err != nil || p.Type() == InteriorTable {
				return err
			}
			payload, err := Payload(buf, db, c, db.Usable)
			if err != nil {
				return err
			}
			if c.Overflow != 0 {
				buf = payload
			}
			if int64(len(payload)) != c.PayloadSize {
				t.Errorf("page %d: cell %d: payload of %d bytes, want %d", p.Number(), i, len(payload), c.PayloadSize)
			}
			visit(c, payload)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk of %d: %v", root, err)
	}
}

// dump returns the rows of a table in the form of dumpSQL, sorted.
func (db database) dump(t testing.TB, table string) []string {
	t.Helper()
	var lines []string
	db.cells(t, db.schema[table].Root, func(c Cell, payload []byte) {
		vals, err := Record(nil, payload)
		if err != nil {
			t.Fatalf("table %s, rowid %d: %v", table, c.Rowid, err)
		}
		line := strconv.FormatInt(c.Rowid, 10)
		for _, v := range vals {
			line += " " + show(v)
		}
		lines = append(lines, line)
	})
	slices.Sort(lines)
	return lines
}

func show(v Value) string {
	switch v.Type {
	case TypeInt:
		return "integer:" + strconv.FormatInt(v.Int, 10)
	case TypeFloat:
		return "real:" + strconv.FormatFloat(v.Float, 'f', 3, 64)
	case TypeText, TypeBlob:
		return v.Type.String() + ":" + strings.ToUpper(hex.EncodeToString(v.Bytes))
	}
	return "null:"
}

// dumpSQL selects rows as dump shows them; rowid is an expression too.
func dumpSQL(table, rowid string, cols ...string) string {
	expr := rowid
	for _, c := range cols {
		expr += fmt.Sprintf(" || ' ' || typeof(%[1]s) || ':' || CASE typeof(%[1]s) WHEN 'null' THEN '' WHEN 'integer' THEN %[1]s "+
			"WHEN 'real' THEN printf('%%.3f', %[1]s) ELSE hex(CAST(%[1]s AS BLOB)) END", c)
	}
	return "SELECT " + expr + " FROM " + table + ";"
}

func sortedLines(s string) []string {
	if s == "" {
		return nil
	}
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

const shellSchema = `
CREATE TABLE seq(i INTEGER PRIMARY KEY);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) INSERT INTO seq SELECT i FROM n;
CREATE TABLE plain(a, b, c, d);
CREATE INDEX plain_b ON plain(b, a);
INSERT INTO plain SELECT i, substr(replace(hex(zeroblob(i*i%20000)),'00',char(0xE9, 0x1F600, 48+i%10)),1,i*i%20000),
	CASE i%3 WHEN 0 THEN NULL WHEN 1 THEN i*1.25 ELSE zeroblob(i) END, -(1<<(i%63)) FROM seq;
CREATE TABLE alias(id INTEGER PRIMARY KEY, v);
INSERT INTO alias SELECT (i-150)*(i-150)*(i-150)*(i-150)*(i-150)*1000, 'v'||i FROM seq;
ALTER TABLE alias ADD COLUMN later DEFAULT 'x';
INSERT INTO alias(v, later) VALUES('with', 7);
CREATE TABLE keyed(k TEXT, n INT, v, PRIMARY KEY(k, n)) WITHOUT ROWID;
INSERT INTO keyed SELECT 'key'||(i%17)||substr(hex(zeroblob(i*13%900)),1,i*13%900), i, zeroblob(i*37%3000) FROM seq;
CREATE TABLE empty(x);
CREATE TABLE big(x);
INSERT INTO big VALUES(zeroblob(300000)), ('after');
CREATE VIEW vw AS SELECT 'é' AS e FROM plain;
CREATE TRIGGER trg AFTER INSERT ON empty BEGIN SELECT 1; END;
CREATE TABLE "ta""bé"(x UNIQUE);
DELETE FROM plain WHERE rowid%7=0;
PRAGMA user_version=-5;
PRAGMA application_id=252006673;
`

// The rows read here must be those that SQLite reads, whatever the layout.
func TestReadsWhatSQLiteReads(t *testing.T) {
	type layout struct {
		pageSize   int
		encoding   Encoding
		autoVacuum bool
	}
	var layouts []layout
	for size := MinPageSize; size <= MaxPageSize; size *= 2 {
		layouts = append(layouts, layout{pageSize: size, encoding: UTF8})
	}
	layouts = append(layouts,
		layout{pageSize: 512, encoding: UTF16LE, autoVacuum: true},
		layout{pageSize: 1024, encoding: UTF16BE},
		layout{pageSize: 65536, encoding: UTF16BE, autoVacuum: true},
	)
	for _, l := range layouts {
		t.Run(fmt.Sprintf("%d,%v,%v", l.pageSize, l.encoding, l.autoVacuum), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			vacuum := "none"
			if l.autoVacuum {
				vacuum = "full"
			}
			sqlite3(t, path, fmt.Sprintf("PRAGMA page_size=%d; PRAGMA encoding='%v'; PRAGMA auto_vacuum=%s; BEGIN; %s COMMIT;",
				l.pageSize, l.encoding, vacuum, shellSchema))
			db := openFile(t, path)
			checkHeader(t, path, db, l.autoVacuum, l.encoding)
			checkTables(t, path, db)
		})
	}
}

func checkHeader(t *testing.T, path string, db database, autoVacuum bool, e Encoding) {
	t.Helper()
	want := db.Header
	want.PageSize, want.Usable = db.pageSize, db.pageSize
	want.Encoding, want.AutoVacuum, want.WAL = e, autoVacuum, false
	want.PageCount, want.UserVersion, want.ApplicationID, want.SchemaFormat = db.pages, -5, 252006673, 4
	if diff := cmp.Diff(want, db.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	cookie := strings.TrimSpace(sqlite3(t, path, "PRAGMA schema_version;", "-readonly"))
	if got := fmt.Sprint(db.SchemaCookie); got != cookie {
		t.Errorf("schema cookie is %s, want %s", got, cookie)
	}
}

func checkTables(t *testing.T, path string, db database) {
	t.Helper()
	for table, query := range map[string]string{
		"plain": dumpSQL("plain", "rowid", "a", "b", "c", "d"),
		"keyed": dumpSQL("keyed", "0", "k", "n", "v"),
		"big":   dumpSQL("big", "rowid", "x"),
		"seq":   dumpSQL("seq", "rowid", "NULL"),
		// The rows from before ALTER TABLE are one value short.
		"alias": "SELECT id || ' null: text:' || hex(CAST(v AS BLOB)) || CASE v WHEN 'with' THEN ' integer:7' ELSE '' END FROM alias;",
	} {
		want := sortedLines(sqlite3(t, path, query, "-readonly"))
		if diff := cmp.Diff(want, db.dump(t, table)); diff != "" {
			t.Errorf("table %s (-want +got):\n%.2000s", table, diff)
		}
	}
	if rows := db.dump(t, "empty"); len(rows) != 0 {
		t.Errorf("table empty has %d rows", len(rows))
	}

	plain := len(db.dump(t, "plain"))
	if n := len(db.dump(t, "plain_b")); n != plain {
		t.Errorf("index plain_b has %d entries, want %d", n, plain)
	}

	var got []string
	for _, r := range db.schema {
		got = append(got, fmt.Sprintf("%d|%s|%s|%s|%d|%t|%s", r.Rowid, r.Type, r.Name, r.Table, r.Root, r.HasSQL, r.SQL))
	}
	slices.Sort(got)
	want := sortedLines(sqlite3(t, path, `SELECT rowid || '|' || type || '|' || name || '|' || tbl_name || '|' || rootpage ||
		'|' || CASE WHEN sql IS NULL THEN 'false' ELSE 'true' END || '|' || coalesce(sql, '') FROM sqlite_schema;`, "-readonly"))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("schema (-want +got):\n%s", diff)
	}
}

// Every page must be met exactly once: b-trees, overflow chains, and with what
// the header says is free, that is the whole file.
func TestPagesAddUp(t *testing.T) {
	for _, size := range []int{512, 4096} {
		path := filepath.Join(t.TempDir(), "a.db")
		sqlite3(t, path, fmt.Sprintf("PRAGMA page_size=%d; BEGIN; %s COMMIT;", size, shellSchema))
		free, err := strconv.Atoi(strings.TrimSpace(sqlite3(t, path, "PRAGMA freelist_count;", "-readonly")))
		if err != nil {
			t.Fatal(err)
		}
		db := openFile(t, path)
		seen := map[uint32]bool{}
		mark := func(page, _ uint32) error {
			if seen[page] {
				t.Errorf("page %d met twice", page)
			}
			seen[page] = true
			return nil
		}
		roots := []uint32{SchemaRoot}
		for _, r := range db.schema {
			if r.Root != 0 {
				roots = append(roots, r.Root)
			}
		}
		for _, root := range roots {
			err := Walk(db, root, db.Usable, db.pages, func(p Page, parent uint32) error {
				for i := range p.Cells() {
					c, err := p.Cell(i)
					if err != nil {
						return err
					}
					if err := Overflow(db, c, db.Usable, mark); err != nil {
						return err
					}
				}
				return mark(p.Number(), parent)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := len(seen) + free; got != int(db.pages) {
			t.Errorf("page size %d: %d pages met and %d free, want %d in all", size, len(seen), free, db.pages)
		}
	}
}

// A -wal file that SQLite wrote, copied while its connection was open: read
// transaction by transaction, started again, and resumed.
func TestReadsTheWALThatSQLiteWrites(t *testing.T) {
	dir := t.TempDir()
	copyTo := func(name string) string {
		to := filepath.Join(dir, name)
		return fmt.Sprintf(".shell cp '%[1]s/a.db' '%[2]s' && cp '%[1]s/a.db-wal' '%[2]s-wal'\n", dir, to)
	}
	sqlite3(t, filepath.Join(dir, "a.db"), `PRAGMA page_size=1024; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
CREATE TABLE t(a, b);
`+copyTo("early")+`
BEGIN; INSERT INTO t VALUES(1, zeroblob(5000)); INSERT INTO t VALUES(2, 'two'); COMMIT;
UPDATE t SET b='one' WHERE a=1;
`+copyTo("first")+`
PRAGMA wal_checkpoint(RESTART);
DELETE FROM t WHERE a=2;
`+copyTo("second"))

	early, first, second := readWAL(t, dir, "early"), readWAL(t, dir, "first"), readWAL(t, dir, "second")
	if len(early.txs) != 1 || len(first.txs) != 3 {
		t.Fatalf("%d and %d transactions, want 1 and 3", len(early.txs), len(first.txs))
	}
	for _, s := range []walState{early, first} {
		db := openPages(t, s.pages, s.txs[len(s.txs)-1].DBSize)
		want := sortedLines(sqlite3(t, s.path, dumpSQL("t", "rowid", "a", "b")))
		if got := db.dump(t, "t"); !slices.Equal(got, want) {
			t.Errorf("%s: rows %q, want %q", s.path, got, want)
		}
		if !db.WAL {
			t.Errorf("%s: header does not say WAL mode", s.path)
		}
	}

	// The same generation goes on where the earlier copy ended.
	if err := first.r.Resume(early.end); err != nil {
		t.Fatal(err)
	}
	tx, ok, err := first.r.Next(first.frames)
	if err != nil || !ok || tx.First != early.end.Frame+1 {
		t.Errorf("after Resume: %+v, %t, %v", tx, ok, err)
	}
	// The third copy is a new generation over the frames of the old one.
	if err := second.r.Resume(first.end); !errors.Is(err, ErrGeneration) {
		t.Errorf("Resume in another generation: %v, want ErrGeneration", err)
	}
	if err := second.r.Start(); err != nil {
		t.Fatal(err)
	}
	if len(second.txs) != 1 || second.lost == nil {
		t.Errorf("%d transactions and error %v in the new generation, want 1 and the stale frames as ErrLost", len(second.txs), second.lost)
	}
}

type walState struct {
	path   string
	r      *WALReader
	frames uint32 // in the file, stale ones included
	txs    []WALTransaction
	lost   error
	end    WALPosition
	pages  memPages
}

// readWAL reads a copy up to the last valid commit.
func readWAL(t *testing.T, dir, name string) walState {
	t.Helper()
	path := filepath.Join(dir, name)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	s := walState{path: path, r: NewWALReader(bytes.NewReader(wal))}
	if err := s.r.Start(); err != nil {
		t.Fatal(err)
	}
	size := s.r.Position().PageSize
	s.pages = memPages{file: file, pageSize: size, wal: map[uint32][]byte{}}
	s.frames = uint32((len(wal) - WALHeaderSize) / (FrameHeaderSize + size))
	for {
		tx, ok, err := s.r.Next(s.frames)
		if err != nil && !errors.Is(err, ErrLost) {
			t.Fatal(err)
		}
		if !ok {
			s.lost, s.end = err, s.r.Position()
			return s
		}
		for i, page := range tx.Pages {
			s.pages.wal[page] = wal[FrameOffset(tx.First+uint32(i), size)+FrameHeaderSize:][:size]
		}
		tx.Pages = slices.Clone(tx.Pages)
		s.txs = append(s.txs, tx)
	}
}
