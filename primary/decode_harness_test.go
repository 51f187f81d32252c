package primary

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// An image is one state of a database, as the bytes of its file.
type image struct {
	data     []byte
	pageSize int
}

func newImage(data []byte) *image {
	size := int(binary.BigEndian.Uint16(data[16:]))
	if size == 1 {
		size = sqlitefile.MaxPageSize
	}
	return &image{data: data, pageSize: size}
}

func (m *image) count() uint32 { return uint32(len(m.data) / m.pageSize) }

func (m *image) Page(n uint32) ([]byte, error) {
	if n == 0 || n > m.count() {
		return nil, fmt.Errorf("%w: page %d of %d", sqlitefile.ErrCorrupt, n, m.count())
	}
	return m.data[int(n-1)*m.pageSize : int(n)*m.pageSize], nil
}

// differing returns the pages of m that are not those of before.
func (m *image) differing(before *image) []uint32 {
	var pages []uint32
	for n := uint32(1); n <= m.count(); n++ {
		after, _ := m.Page(n)
		if old, err := before.Page(n); err != nil || !bytes.Equal(old, after) {
			pages = append(pages, n)
		}
	}
	return pages
}

// A source file under test, its decoder, and a model that knows only what the
// decoder said.
type subject struct {
	t       testing.TB
	path    string
	conn    *sqlite.Conn
	decoder *decoder
	sorter  *sorter
	before  *image
	model   *model
	rnd     *rand.Rand

	ops []string // of the last transaction, without images
}

func testLogger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newTestDecoder(t testing.TB) *decoder {
	t.Helper()
	l, err := newLayouts()
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoder(l, testLogger())
	if _, timed := t.(*testing.B); !timed {
		d.pages = newPageMap(t.TempDir(), 0, testLogger()) // check builds one that is all in memory
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// newSubject makes a database with a rollback journal, so that its file is the
// state after each transaction, and loads it after setup.
func newSubject(t testing.TB, seed uint64, setup string) *subject {
	t.Helper()
	s := &subject{t: t, path: filepath.Join(t.TempDir(), "app.db"), rnd: rand.New(rand.NewPCG(seed, 1))}
	var err error
	if s.conn, err = sqlite.Open(s.path, sqlite.Options{Create: true, Plain: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.conn.Close(); err != nil {
			t.Error(err)
		}
	})
	s.exec("PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY; " + setup)
	s.decoder = newTestDecoder(t)
	s.sorter = newSorter(t.TempDir(), 32<<10)
	t.Cleanup(func() { _ = s.sorter.close() })
	s.before = s.read()
	if err := s.decoder.load(s.before, s.before.count()); err != nil {
		t.Fatal(err)
	}
	s.model = walkModel(t, s.before)
	return s
}

func (s *subject) exec(sql string) {
	s.t.Helper()
	if err := s.conn.Exec(sql); err != nil {
		s.t.Fatalf("%.200s: %v", sql, err)
	}
}

func (s *subject) read() *image {
	s.t.Helper()
	data, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	return newImage(data)
}

// tx runs sql as one transaction and checks all that the decoder says about it.
func (s *subject) tx(sql string) {
	s.t.Helper()
	s.exec("BEGIN; " + sql + "; COMMIT")
	s.check(sql)
}

// single runs a statement that cannot be inside a transaction.
func (s *subject) single(sql string) {
	s.t.Helper()
	s.exec(sql)
	s.check(sql)
}

func (s *subject) check(sql string) {
	s.t.Helper()
	after := s.read()
	written := after.differing(s.before)
	for range s.rnd.IntN(4) { // pages may be written as they were
		if n := uint32(1 + s.rnd.IntN(int(after.count()))); !contains(written, n) {
			written = append(written, n)
		}
	}
	s.rnd.Shuffle(len(written), func(i, j int) { written[i], written[j] = written[j], written[i] })
	s.sorter.reset()
	if err := s.decoder.transaction(s.before, after, written, after.count(), s.sorter); err != nil {
		s.t.Fatalf("after %.300s: %v", sql, err)
	}
	if s.rnd.IntN(8) == 0 {
		s.again(after, written)
	}
	s.ops = s.ops[:0]
	if err := s.model.apply(s.sorter, &s.ops); err != nil {
		s.t.Fatalf("after %.300s: %v\n%s", sql, err, strings.Join(s.ops, "\n"))
	}
	if diff := cmp.Diff(walkModel(s.t, after), s.model, cmp.AllowUnexported(model{}, modelTable{})); diff != "" {
		s.t.Fatalf("after %.300s: rows differ (-database +decoded):\n%.2000s", sql, diff)
	}
	if err := s.decoder.check(after, after.count()); err != nil {
		s.t.Fatalf("after %.300s: map: %v", sql, err)
	}
	if s.decoder.fallbacks != 0 {
		s.t.Fatalf("after %.300s: a table was compared whole", sql)
	}
	s.before = after
}

// again decodes the transaction with a new decoder and the written pages in
// another order: the outcome must be the same, byte by byte.
func (s *subject) again(after *image, written []uint32) {
	s.t.Helper()
	s.rnd.Shuffle(len(written), func(i, j int) { written[i], written[j] = written[j], written[i] })
	d, out := newTestDecoder(s.t), newSorter(s.t.TempDir(), 1<<20)
	d.updates.least, d.rows.keyed.maxPending, d.rows.keyed.maxPairs = s.decoder.updates.least, s.decoder.rows.keyed.maxPending, s.decoder.rows.keyed.maxPairs
	if err := d.load(s.before, s.before.count()); err != nil {
		s.t.Fatal(err)
	}
	if err := d.transaction(s.before, after, written, after.count(), out); err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(drained(s.t, s.sorter), drained(s.t, out)); diff != "" {
		s.t.Fatalf("a second decoder says something else (-first +second):\n%.2000s", diff)
	}
	_ = out.close()
}

// want checks the operations of the last transaction.
func (s *subject) want(ops ...string) {
	s.t.Helper()
	got := append([]string(nil), s.ops...)
	if diff := cmp.Diff(ops, got); len(ops)+len(got) > 0 && diff != "" {
		s.t.Errorf("operations (-want +got):\n%s", diff)
	}
}

func contains(list []uint32, n uint32) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// A modelTable holds rows by their rowid, or by the bytes of their key.
type modelTable struct {
	Keyed bool
	Key   int
	Rows  map[string]string
}

// A model is a database as a consumer of changes sees it.
type model struct {
	Tables  map[string]*modelTable
	Objects map[string]cdc.SchemaObject // by type and name
	Values  [2]int32                    // user_version, application_id
}

func rowKey(t *cdc.Table, c *cdc.Change, row []byte) (string, error) {
	if !t.WithoutRowid {
		return fmt.Sprint(c.Rowid), nil
	}
	key, err := appendKey(nil, row, t.Key)
	return string(key), err
}

// apply takes the operations of s through the codec and applies them one by one,
// strictly: every image must be the one at hand.
func (m *model) apply(s *sorter, ops *[]string) error {
	var dec cdc.Decoder
	edits := []*cdc.SchemaChange(nil)
	enc := cdc.NewEncoder(cdc.Tail{Next: 1}, 1, cdc.ID{1}, func(rec []byte, _ cdc.Head, _ *cdc.Boundary) error {
		r, err := cdc.Decode(rec)
		if err != nil {
			return err
		}
		return dec.Decode(r, func(c *cdc.Change) error {
			if c.Op == cdc.OpEnd || c.Op == cdc.OpTable {
				return nil
			}
			*ops = append(*ops, describeOp(c))
			if c.Op == cdc.OpSchema && c.Schema.Old != nil && c.Schema.New != nil {
				edits = append(edits, c.Schema) // they happen at once: two tables may swap names
				return nil
			}
			if err := m.edit(edits); err != nil {
				return err
			}
			edits = nil
			return m.one(c)
		})
	})
	if err := s.drain(enc); err != nil {
		return err
	}
	if err := enc.End(cdc.Boundary{CapturedAt: time.Unix(1, 0)}, false); err != nil {
		return err
	}
	if err := enc.Flush(); err != nil {
		return err
	}
	return m.edit(edits)
}

func describeOp(c *cdc.Change) string {
	switch c.Op {
	case cdc.OpSchema:
		name := func(o *cdc.SchemaObject) string {
			if o == nil {
				return "nothing"
			}
			return o.Type + " " + o.Name
		}
		return name(c.Schema.Old) + " -> " + name(c.Schema.New)
	case cdc.OpUserVersion, cdc.OpApplicationID:
		return fmt.Sprintf("%v %d", c.Op, c.Value)
	}
	if c.Table.WithoutRowid {
		return fmt.Sprintf("%v %s", c.Op, c.Table.Name)
	}
	return fmt.Sprintf("%v %s %d", c.Op, c.Table.Name, c.Rowid)
}

func objectKey(o *cdc.SchemaObject) string { return o.Type + " " + o.Name }

func (m *model) edit(edits []*cdc.SchemaChange) error {
	tables := make(map[string]*modelTable)
	for _, e := range edits {
		if got := m.Objects[objectKey(e.Old)]; got != *e.Old {
			return fmt.Errorf("edit of %s: it is not as the change says", objectKey(e.Old))
		}
		delete(m.Objects, objectKey(e.Old))
		if e.Old.Type == typeTable && !e.Old.Virtual {
			tables[e.New.Name] = m.Tables[e.Old.Name]
			delete(m.Tables, e.Old.Name)
		}
	}
	for _, e := range edits {
		if err := m.create(e.New); err != nil {
			return err
		}
		if t := tables[e.New.Name]; t != nil {
			m.Tables[e.New.Name] = t
		}
	}
	return nil
}

func (m *model) create(o *cdc.SchemaObject) error {
	if _, ok := m.Objects[objectKey(o)]; ok {
		return fmt.Errorf("%s is created and exists", objectKey(o))
	}
	m.Objects[objectKey(o)] = *o
	if o.Type == typeTable && !o.Virtual {
		m.Tables[o.Name] = nil // its kind shows with its first row
	}
	return nil
}

func (m *model) drop(o *cdc.SchemaObject) error {
	if got := m.Objects[objectKey(o)]; got != *o {
		return fmt.Errorf("drop of %s: it is not as the change says", objectKey(o))
	}
	delete(m.Objects, objectKey(o))
	if o.Type == typeTable || o.Type == typeView {
		delete(m.Tables, o.Name)
		for key, other := range m.Objects { // DROP would take them along
			if (other.Type == typeIndex || other.Type == typeTrigger) && other.Table == o.Name {
				return fmt.Errorf("%s still has %s", objectKey(o), key)
			}
		}
	}
	return nil
}

func (m *model) one(c *cdc.Change) error {
	switch c.Op {
	case cdc.OpSchema:
		if c.Schema.Old != nil {
			return m.drop(c.Schema.Old)
		}
		return m.create(c.Schema.New)
	case cdc.OpUserVersion:
		m.Values[0] = c.Value
		return nil
	case cdc.OpApplicationID:
		m.Values[1] = c.Value
		return nil
	}
	t, ok := m.Tables[c.Table.Name]
	if !ok {
		return fmt.Errorf("%s: no such table", describeOp(c))
	}
	if t == nil {
		t = &modelTable{Keyed: c.Table.WithoutRowid, Key: c.Table.Key, Rows: map[string]string{}}
		m.Tables[c.Table.Name] = t
	}
	if t.Keyed != c.Table.WithoutRowid || t.Key != c.Table.Key {
		return fmt.Errorf("%s: the table has another kind", describeOp(c))
	}
	if c.Op != cdc.OpInsert {
		key, err := rowKey(c.Table, c, c.Old)
		if err != nil {
			return err
		}
		if got, ok := t.Rows[key]; !ok || got != string(c.Old) {
			return fmt.Errorf("%s: the old image is not the row, which exists: %t", describeOp(c), ok)
		}
		delete(t.Rows, key)
		if bytes.Equal(c.Old, c.New) {
			return fmt.Errorf("%s: nothing changed", describeOp(c))
		}
	}
	if c.Op != cdc.OpDelete {
		key, err := rowKey(c.Table, c, c.New)
		if err != nil {
			return err
		}
		if _, ok := t.Rows[key]; ok {
			return fmt.Errorf("%s: the row exists", describeOp(c))
		}
		t.Rows[key] = string(c.New)
	}
	if len(t.Rows) == 0 {
		m.Tables[c.Table.Name] = nil
	}
	return nil
}

// walkModel reads a whole state, without the decoder's walks.
func walkModel(t testing.TB, state *image) *model {
	t.Helper()
	h, err := sqlitefile.ParseHeader(state.data)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{Tables: map[string]*modelTable{}, Objects: map[string]cdc.SchemaObject{}, Values: [2]int32{h.UserVersion, h.ApplicationID}}
	scratch, err := sqlite.NewScratch()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = scratch.Close() }()
	rows := walkRows(t, state, h, &cdc.Table{}, 1)
	for rowid, record := range rows {
		var id int64
		_, _ = fmt.Sscan(rowid, &id)
		row, err := sqlitefile.ParseSchemaRow(id, []byte(record), h.Encoding)
		if err != nil {
			t.Fatal(err)
		}
		o := cdc.SchemaObject{Type: row.Type, Name: row.Name, Table: row.Table, SQL: row.SQL, Virtual: row.Type == "table" && row.Root == 0}
		if row.Type == "index" && !row.HasSQL {
			continue
		}
		m.Objects[objectKey(&o)] = o
		if row.Type != "table" || row.Root == 0 {
			continue
		}
		layout, err := scratch.Describe(row.Name, row.SQL)
		if err != nil {
			t.Fatal(err)
		}
		table := &cdc.Table{Name: row.Name, WithoutRowid: layout.WithoutRowid, Key: layout.Key}
		m.Tables[row.Name] = nil
		if rows := walkRows(t, state, h, table, row.Root); len(rows) > 0 {
			m.Tables[row.Name] = &modelTable{Keyed: layout.WithoutRowid, Key: layout.Key, Rows: rows}
		}
	}
	return m
}

func walkRows(t testing.TB, state *image, h sqlitefile.Header, table *cdc.Table, root uint32) map[string]string {
	t.Helper()
	rows := map[string]string{}
	err := sqlitefile.Walk(state, root, h.Usable, state.count(), func(p sqlitefile.Page, _ uint32) error {
		if p.Type() == sqlitefile.InteriorTable {
			return nil
		}
		for i := range p.Cells() {
			c, err := p.Cell(i)
			if err != nil {
				return err
			}
			record, err := sqlitefile.Payload(nil, state, c, h.Usable)
			if err != nil {
				return err
			}
			key, err := rowKey(table, &cdc.Change{Rowid: c.Rowid}, record)
			if err != nil {
				return err
			}
			rows[key] = string(record)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
