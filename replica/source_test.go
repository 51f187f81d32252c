package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A source is a database and its change log: step runs SQL in it, finds what
// changed by comparing all rows and the schema, and appends that as one
// transaction.
type source struct {
	t       testing.TB
	c       *sqlite.Conn
	path    string
	rows    map[string]*image // by table
	schema  []schemaRow
	headers [2]int64 // user_version, application_id
	sums    map[string]cdc.RowSum
	blind   map[string]bool // tables that changes were made for by hand, so that no hash is given
	enc     *cdc.Encoder
	clock   time.Time
	log     *log
}

type image struct {
	table sqlite.Table
	root  int64
	rows  map[string]row // by key
}

type row struct {
	rowid  int64
	record []byte
	values []any
}

// same reports whether r is b, apart from columns that were added since.
func (r row) same(b row) bool { return bytes.Equal(encode(r.values[:len(b.values)]...), b.record) }

type schemaRow struct {
	cdc.SchemaObject
	root int64
}

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newSource(t testing.TB, sql string) *source {
	t.Helper()
	s := newSourceAt(t, filepath.Join(t.TempDir(), "source.db"), sql)
	t.Cleanup(func() { must(t, s.c.Close()) })
	return s
}

// newSourceAt leaves it to the caller to close the database.
func newSourceAt(t testing.TB, path, sql string) *source {
	t.Helper()
	c, err := sqlite.Open(path, sqlite.Options{Create: true, Plain: true})
	must(t, err)
	must(t, c.Exec(sql+";PRAGMA journal_mode=WAL"))
	s := &source{t: t, c: c, path: path, log: newLog(), clock: testTime}
	lineage, err := cdc.NewID(nil)
	must(t, err)
	s.term(cdc.Tail{Next: 1, Boundary: cdc.Boundary{Lineage: lineage}}, 1)
	s.read()
	s.readSums()
	return s
}

// term begins a term of a primary after tail.
func (s *source) term(tail cdc.Tail, epoch cdc.Epoch) {
	s.t.Helper()
	term, err := cdc.NewID(nil)
	must(s.t, err)
	s.enc = cdc.NewEncoder(tail, epoch, term, func(rec []byte, _ cdc.Head, _ *cdc.Boundary) error {
		s.log.append(rec)
		return nil
	})
	must(s.t, s.enc.Epoch(s.boundary()))
}

// restart begins the next term, as after a crash of the primary.
func (s *source) restart() {
	s.t.Helper()
	v := cdc.NewVerifier(cdc.Position{})
	for _, rec := range s.log.all() {
		_, err := v.Verify(rec, true)
		must(s.t, err)
	}
	s.term(cdc.Tail{Position: v.Position(), Boundary: s.enc.Last(), Next: v.Next(), Chain: v.Chain()}, v.Position().Epoch+1)
}

func (s *source) boundary() cdc.Boundary {
	s.clock = s.clock.Add(time.Millisecond)
	return cdc.Boundary{CapturedAt: s.clock}
}

// step runs SQL and appends its effect as one transaction in one or more records.
func (s *source) step(sql string) cdc.LSN {
	s.t.Helper()
	s.exec(sql)
	s.emit()
	must(s.t, s.enc.Flush())
	return s.enc.Position().LSN
}

func (s *source) exec(sql string) {
	s.t.Helper()
	if err := s.c.Exec(sql); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// emit appends what changed since the last time, and the end of the transaction.
func (s *source) emit() {
	s.t.Helper()
	for _, op := range s.ops() {
		must(s.t, s.enc.Op(op))
	}
	b := s.boundary()
	b.Tables = s.hashes()
	must(s.t, s.enc.End(b, false))
}

// hashes are the row-set hashes of the tables that are not as they were.
func (s *source) hashes() (list []cdc.TableHash) {
	s.t.Helper()
	old := s.sums
	s.readSums()
	for name, sum := range s.sums {
		if was, ok := old[name]; (!ok || was != sum) && !s.blind[name] {
			list = append(list, cdc.TableHash{Table: name, Sum: sum.Bytes()})
		}
	}
	return list
}

func (s *source) readSums() {
	s.t.Helper()
	s.sums = map[string]cdc.RowSum{}
	for name := range s.rows {
		sum, err := s.c.SumTable(context.Background(), name)
		must(s.t, err)
		s.sums[name] = sum.Sum
	}
}

// insert appends a transaction of one row that the database itself does not see.
func (s *source) insert(table string, rowid int64, record []byte) {
	t := &cdc.Table{Name: table}
	if s.blind == nil {
		s.blind = map[string]bool{}
	}
	s.blind[table] = true
	must(s.t, s.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: t}, 0)))
	must(s.t, s.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpInsert, Table: t, Rowid: rowid, New: record}, 0)))
	must(s.t, s.enc.End(s.boundary(), false))
}

func (s *source) ops() [][]byte {
	old, oldSchema, oldHeaders := s.rows, s.schema, s.headers
	s.read()
	d := diff{ordinals: map[string]int{}}
	d.schemaOf(oldSchema, s.schema, old, s.rows)
	d.rowsOf(old, s.rows)
	for i, op := range []cdc.Op{cdc.OpUserVersion, cdc.OpApplicationID} {
		if oldHeaders[i] != s.headers[i] {
			d.schema = append(d.schema, cdc.AppendOp(nil, &cdc.Change{Op: op, Value: int32(s.headers[i])}, 0))
		}
	}
	return slices.Concat(d.tables, d.deletes, d.schema, d.updates, d.inserts, d.indexes, d.sequence)
}

// read takes an image of everything.
func (s *source) read() {
	s.t.Helper()
	s.rows, s.schema = map[string]*image{}, nil
	must(s.t, s.c.Query("SELECT type, name, tbl_name, coalesce(sql,''), coalesce(rootpage,0) FROM sqlite_schema ORDER BY rowid", nil, func(r sqlite.Row) error {
		o := cdc.SchemaObject{Type: r.Text(0), Name: r.Text(1), Table: r.Text(2), SQL: r.Text(3)}
		o.Virtual = strings.HasPrefix(strings.ToUpper(o.SQL), "CREATE VIRTUAL")
		s.schema = append(s.schema, schemaRow{o, r.Int(4)})
		return nil
	}))
	for _, o := range s.schema {
		if o.Type == "table" && !o.Virtual {
			s.rows[o.Name] = s.image(o)
		}
	}
	for i, name := range []string{"user_version", "application_id"} {
		var err error
		s.headers[i], err = s.c.QueryInt("PRAGMA " + name)
		must(s.t, err)
	}
}

func (s *source) image(o schemaRow) *image {
	table, err := s.c.Table(o.Name)
	must(s.t, err)
	im := &image{table: table, root: o.root, rows: map[string]row{}}
	if !table.WithoutRowid && table.RowidName == "" { // no SQL reads the rowids: changes are made by hand
		return im
	}
	var cols []string
	for _, i := range table.Stored {
		name := `"` + table.Columns[i].Name + `"`
		cols = append(cols, name, "typeof("+name+")")
	}
	rowid := "0"
	if !table.WithoutRowid {
		rowid = table.RowidName
	}
	must(s.t, s.c.Query(`SELECT `+rowid+`, `+strings.Join(cols, ",")+` FROM "`+o.Name+`"`, nil, func(r sqlite.Row) error {
		var values []any
		for i := range table.Stored {
			values = append(values, value(r, 1+2*i))
		}
		if table.RowidAlias >= 0 {
			values[table.RowidAlias] = nil
		}
		key := fmt.Sprint(r.Int(0))
		if table.WithoutRowid {
			key = string(encode(values[:table.Key]...))
		}
		im.rows[key] = row{r.Int(0), encode(values...), values}
		return nil
	}))
	return im
}

func value(r sqlite.Row, i int) any {
	switch r.Text(i + 1) {
	case "integer":
		return r.Int(i)
	case "real":
		return r.Float(i)
	case "text":
		return r.Text(i)
	case "blob":
		return append([]byte{}, r.Blob(i)...)
	}
	return nil
}

// encode makes a SQLite record (file format §2.1).
func encode(values ...any) []byte {
	var types, body []byte
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			types = append(types, 0)
		case int:
			types, body = append(types, 6), binary.BigEndian.AppendUint64(body, uint64(v))
		case int64:
			types, body = append(types, 6), binary.BigEndian.AppendUint64(body, uint64(v))
		case float64:
			types, body = append(types, 7), binary.BigEndian.AppendUint64(body, math.Float64bits(v))
		case string:
			types, body = append(types, varint(13+2*len(v))...), append(body, v...)
		case []byte:
			types, body = append(types, varint(12+2*len(v))...), append(body, v...)
		}
	}
	size := len(types) + 1
	if size > 127 {
		size++
	}
	return slices.Concat(varint(size), types, body)
}

// varint is SQLite's, up to 28 bits.
func varint(n int) []byte {
	b := []byte{byte(n & 0x7f)}
	for n >>= 7; n > 0; n >>= 7 {
		b = append([]byte{byte(n&0x7f) | 0x80}, b...)
	}
	return b
}

// A diff is the operations of a transaction, in their order.
type diff struct {
	ordinals                                                     map[string]int
	tables, deletes, schema, updates, inserts, indexes, sequence [][]byte

	renamed map[string]string // old name of a table by its new one
	rebuilt map[string]bool   // tables whose rows all go and come
}

func (d *diff) op(c *cdc.Change, t *image) []byte {
	if c.Op == cdc.OpSchema {
		return cdc.AppendOp(nil, c, 0)
	}
	n, ok := d.ordinals[t.table.Name]
	c.Table = &cdc.Table{Name: t.table.Name, WithoutRowid: t.table.WithoutRowid, Key: t.table.Key}
	if !ok {
		n = len(d.ordinals)
		d.ordinals[t.table.Name] = n
		d.tables = append(d.tables, cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: c.Table}, 0))
	}
	return cdc.AppendOp(nil, c, n)
}

// dropRank is the order in which the primary drops: what stands on a table before it.
var dropRank = map[string]int{"trigger": 0, "view": 1, "index": 2, "table": 3}

func (d *diff) schemaOf(old, now []schemaRow, oldRows, rows map[string]*image) {
	d.renamed, d.rebuilt = map[string]string{}, map[string]bool{}
	find := func(in []schemaRow, typ, name string) *schemaRow {
		for i := range in {
			if in[i].Type == typ && in[i].Name == name {
				return &in[i]
			}
		}
		return nil
	}
	change := func(o, n *schemaRow) {
		c := &cdc.SchemaChange{}
		if o != nil {
			c.Old = &o.SchemaObject
		}
		if n != nil {
			c.New = &n.SchemaObject
		}
		op := d.op(&cdc.Change{Op: cdc.OpSchema, Schema: c}, nil)
		if o == nil && n.Type == "index" {
			d.indexes = append(d.indexes, op)
			return
		}
		d.schema = append(d.schema, op)
	}
	for i := range now {
		n := &now[i]
		o := find(old, n.Type, n.Name)
		if o == nil && n.Type == "table" && n.root > 0 { // renamed?
			for j := range old {
				if old[j].Type == "table" && old[j].root == n.root && find(now, "table", old[j].Name) == nil {
					o = &old[j]
					d.renamed[n.Name] = o.Name
				}
			}
		}
		if n.SQL == "" {
			continue
		}
		switch {
		case o == nil:
			change(nil, n)
		case o.SchemaObject == n.SchemaObject:
		case n.Type == "table" && !n.Virtual && !oldRows[o.Name].table.SameLayout(rows[n.Name].table):
			d.rebuilt[n.Name] = true
			change(o, nil)
			change(nil, n)
		default:
			change(o, n)
		}
	}
	// What stands on a table goes before it, as the primary has it.
	drops := slices.Clone(old)
	slices.SortStableFunc(drops, func(a, b schemaRow) int { return dropRank[a.Type] - dropRank[b.Type] })
	for i := range drops {
		o := &drops[i]
		gone := find(now, o.Type, o.Name) == nil && o.SQL != ""
		for _, was := range d.renamed {
			gone = gone && !(o.Type == "table" && was == o.Name)
		}
		if gone {
			change(o, nil)
		}
	}
}

func (d *diff) rowsOf(old, now map[string]*image) {
	names := []string{}
	for name := range now {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		n := now[name]
		was := name
		if r := d.renamed[name]; r != "" {
			was = r
		}
		before := map[string]row{}
		o := old[was]
		if o != nil && !d.rebuilt[name] {
			before = o.rows
		}
		for _, key := range sorted(before) {
			r := before[key]
			if _, ok := n.rows[key]; !ok {
				d.add(cdc.OpDelete, &cdc.Change{Op: cdc.OpDelete, Rowid: r.rowid, Old: r.record}, o)
			}
		}
		for _, key := range sorted(n.rows) {
			r, b := n.rows[key], before[key]
			switch {
			case b.record == nil:
				d.add(cdc.OpInsert, &cdc.Change{Op: cdc.OpInsert, Rowid: r.rowid, New: r.record}, n)
			case !r.same(b):
				d.add(cdc.OpUpdate, &cdc.Change{Op: cdc.OpUpdate, Rowid: r.rowid, Old: b.record, New: r.record}, n)
			}
		}
	}
}

func sorted(rows map[string]row) (keys []string) {
	for k := range rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if x, y := rows[a].rowid, rows[b].rowid; x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return keys
}

func (d *diff) add(op cdc.Op, c *cdc.Change, t *image) {
	b := d.op(c, t)
	switch {
	case t.table.Name == sequenceTable:
		d.sequence = append(d.sequence, b)
	case op == cdc.OpDelete:
		d.deletes = append(d.deletes, b)
	case op == cdc.OpUpdate:
		d.updates = append(d.updates, b)
	default:
		d.inserts = append(d.inserts, b)
	}
}

// mark is the end of the change log.
func (s *source) mark() Mark {
	b := s.enc.Last()
	return Mark{Position: s.enc.Position(), Transactions: b.Transactions, Bytes: b.Bytes, CapturedAt: b.CapturedAt}
}

// snapshot copies the database as of the end of the change log.
func (s *source) snapshot() Snapshot {
	s.t.Helper()
	_, err := s.c.Checkpoint(sqlite.Truncate)
	must(s.t, err)
	b, err := os.ReadFile(s.path)
	must(s.t, err)
	return Snapshot{At: s.mark(), Bytes: int64(len(b)), Restore: func(_ context.Context, path string, progress func(int64)) error {
		progress(int64(len(b)))
		return os.WriteFile(path, b, 0o600)
	}}
}
