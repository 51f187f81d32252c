package primary

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

func TestAuditFindsAWrongSum(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	audit := func() {
		t.Helper()
		id, _, err := b.p.BeginAudit(b.ctx)
		noError(t, err)
		_, err = b.p.Audit(b.ctx, id)
		noError(t, err)
		b.p.EndAudit(id)
	}
	audit()
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		c.sums.tables["t1"].sum[0]++
		return nil
	}))
	audit()
	noError(t, b.p.changed.wait(b.ctx, func() bool { return b.p.Status().Sums.Mismatches == 1 && len(b.sums()) == 4 }))
	if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
		t.Errorf("(-SQL +capture):\n%s", diff)
	}
}

// A row that is none leaves its table without a hash, and nothing else.
func TestRowSumsOfADamagedRow(t *testing.T) {
	s := newRowSums(slog.New(slog.DiscardHandler))
	noError(t, s.open(cdc.Position{}))
	defer s.close()
	s.encoding = sqlitefile.UTF8
	s.put(&summedTable{face: &face{name: "t", sql: "CREATE TABLE t(a)"}, known: true})
	s.put(&summedTable{face: &face{name: "u", sql: "CREATE TABLE u(a)"}, known: true})
	for _, c := range []*cdc.Change{
		{Op: cdc.OpInsert, Table: &cdc.Table{Name: "t"}, New: []byte{2, 100}},
		{Op: cdc.OpInsert, Table: &cdc.Table{Name: "u"}, New: []byte{2, 8}},
	} {
		s.change(c)
	}
	if !s.moved() {
		t.Error("what was said of the table before would stand")
	}
	hashes := s.end()
	if len(hashes) != 1 || hashes[0].Table != "u" || s.known != 1 {
		t.Errorf("%d hashes, %d known", len(hashes), s.known)
	}
}

// TestRowSumsNameThePage: a row of a WITHOUT ROWID table has no number, its page has.
func TestRowSumsNameThePage(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v) WITHOUT ROWID; "+fill(1, 100, 50))
	sums := newRowSums(testLogger())
	noError(t, sums.open(cdc.Position{}))
	defer sums.close()
	sums.load(s.decoder.schema, s.decoder.head.Encoding)
	sums.tables["t"].known = true
	sums.where = s.decoder.rows.where
	after := &image{data: append([]byte(nil), s.before.data...), pageSize: 512}
	leaf := after.count()
	page, err := after.Page(leaf)
	noError(t, err)
	p, err := sqlitefile.ParsePage(page, leaf, 512)
	noError(t, err)
	cell, err := p.Cell(0)
	noError(t, err)
	cell.Local[2] = 0x7f // the type of v: a text of 57 bytes, more than there are
	noError(t, s.decoder.transaction(s.before, after, []uint32{leaf}, leaf, &summingSink{sums, s.sorter}))
	if want := fmt.Sprintf("page %d: ", leaf); !strings.Contains(sums.damage(), want) {
		t.Errorf("the damage is %q, which does not name %s", sums.damage(), want)
	}
}

// TestRowSumsOfANewDamagedTable: a table has no face of its own in the transaction
// that makes it.
func TestRowSumsOfANewDamagedTable(t *testing.T) {
	s := newRowSums(slog.New(slog.DiscardHandler))
	noError(t, s.open(cdc.Position{}))
	defer s.close()
	s.encoding = sqlitefile.UTF8
	s.change(&cdc.Change{Op: cdc.OpSchema, Schema: &cdc.SchemaChange{New: &cdc.SchemaObject{Type: typeTable, Name: "t", SQL: "CREATE TABLE t(a)"}}})
	s.change(&cdc.Change{Op: cdc.OpInsert, Table: &cdc.Table{Name: "t"}, Rowid: 7, New: []byte{2, 100}})
	if hashes := s.end(); len(hashes) != 0 || s.known != 0 {
		t.Errorf("%d hashes, %d known", len(hashes), s.known)
	}
	if got := s.damage(); !strings.Contains(got, "table t ") || !strings.Contains(got, "row 7") {
		t.Errorf("the damage is %q", got)
	}
}

// TestDamagedTableIsSaid: a table that SQLite may read as it pleases is an error of
// the database.
func TestDamagedTableIsSaid(t *testing.T) {
	b := newBench(t, "CREATE TABLE t(a); INSERT INTO t VALUES('some text'); PRAGMA journal_mode=WAL")
	noError(t, b.app.Close())
	b.app = nil
	bytes, err := os.ReadFile(b.path)
	noError(t, err)
	at := strings.Index(string(bytes), "some text")
	bytes[at-1] = 0x7f // the type of the value: a text of 57 bytes
	noError(t, os.WriteFile(b.path, bytes, 0o600))
	b.connect()
	b.start()
	err = b.p.changed.wait(b.ctx, func() bool { return b.p.Status().Error != "" })
	noError(t, err)
	if s := b.p.Status(); !strings.Contains(s.Error, "table t ") || !strings.Contains(s.Error, "page 2") || s.State != StateStreaming && s.State != StateSnapshotting {
		t.Errorf("%s: %s", s.State, s.Error)
	}
}
