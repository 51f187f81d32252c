package replicator_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// rowOperations may run inside and outside explicit transactions.
var rowOperations = []operation{
	{"insert", 300, func(w *workload) { w.insert(w.table(), w.r.IntN(4)) }},
	{"insert_many", 60, (*workload).insertMany},
	{"insert_select", 30, (*workload).insertSelect},
	{"insert_series", 8, (*workload).insertSeries},
	{"upsert", 60, (*workload).upsert},
	{"update", 180, (*workload).update},
	{"update_all_columns", 40, (*workload).updateRow},
	{"patch", 100, (*workload).patch},
	{"update_key", 60, (*workload).updateKey},
	{"permute_unique", 60, (*workload).permuteUnique},
	{"delete", 130, (*workload).delete},
	{"delete_all", 8, (*workload).deleteAll},
	{"fts", 60, (*workload).changeFTS},
	{"document", 50, (*workload).changeDocument},
	{"rtree", 40, (*workload).changeRTree},
	{"view", 15, (*workload).insertIntoView},
}

// A schema is what the workload knows of the database.
type schema struct {
	tables  []table  // that any operation may take
	content []string // tables that an FTS5 table takes its text from
	fts     []string
	rtrees  []string
	views   []string
	indexes []string
	others  []string // "VIEW name" and "TRIGGER name", to be dropped
}

type table struct {
	name    string
	rowid   string // a name of the rowid that no column has; "" for none
	columns []column
	uniques []string // integer columns whose values may be permuted
}

type column struct {
	name, typ string
	pk        int
	hidden    int // 2, 3: generated
	notNull   bool
	strict    bool
}

// Prefixes of names that stand for what a column or table is for.
const (
	uniquePrefix  = "u"   // an integer with a UNIQUE constraint
	contentPrefix = "doc" // a table with (id, body) and an FTS5 table over it
)

// load reads the schema again.
func (w *workload) load() {
	w.schema = schema{}
	s := &w.schema
	strict := map[string]bool{}
	w.query("SELECT name, type, wr, strict FROM pragma_table_list WHERE schema='main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name", func(r sqlite.Row) {
		name := r.Text(0)
		switch kind := r.Text(1); {
		case kind == "view":
			s.views = append(s.views, name)
		case kind == "virtual" && strings.HasPrefix(name, "fts"):
			s.fts = append(s.fts, name)
		case kind == "virtual":
			s.rtrees = append(s.rtrees, name)
		case kind == "table" && strings.HasPrefix(name, contentPrefix):
			s.content = append(s.content, name)
		case kind == "table":
			t := table{name: name}
			if r.Int(2) == 0 {
				t.rowid = "rowid"
			}
			strict[name] = r.Int(3) != 0
			s.tables = append(s.tables, t)
		}
	})
	for i := range s.tables {
		w.loadColumns(&s.tables[i], strict[s.tables[i].name])
	}
	w.query("SELECT upper(type), name FROM sqlite_schema WHERE type IN ('index','trigger','view') AND sql IS NOT NULL AND tbl_name NOT LIKE 'doc%' ORDER BY 1, 2", func(r sqlite.Row) {
		if r.Text(0) == "INDEX" {
			s.indexes = append(s.indexes, r.Text(1))
			return
		}
		s.others = append(s.others, r.Text(0)+" "+quote(r.Text(1)))
	})
}

func (w *workload) loadColumns(t *table, strict bool) {
	free := []string{"rowid", "_rowid_", "oid"}
	w.query("SELECT name, type, pk, hidden, \"notnull\" FROM pragma_table_xinfo(?)", func(r sqlite.Row) {
		c := column{name: r.Text(0), typ: r.Text(1), pk: int(r.Int(2)), hidden: int(r.Int(3)), notNull: r.Int(4) != 0, strict: strict}
		t.columns = append(t.columns, c)
		free = slices.DeleteFunc(free, func(n string) bool { return strings.EqualFold(n, c.name) })
		if strings.HasPrefix(c.name, uniquePrefix) && strings.EqualFold(c.typ, "INT") {
			t.uniques = append(t.uniques, c.name)
		}
	}, t.name)
	if t.rowid != "" {
		t.rowid = ""
		if len(free) > 0 {
			t.rowid = free[0]
		}
	}
}

// settable are the columns that statements may write.
func (t table) settable() (cs []column) {
	for _, c := range t.columns {
		if c.hidden == 0 {
			cs = append(cs, c)
		}
	}
	return cs
}

// data are the columns that are no part of the primary key.
func (t table) data() (cs []column) {
	for _, c := range t.settable() {
		if c.pk == 0 {
			cs = append(cs, c)
		}
	}
	return cs
}

// locator is an expression that tells rows from one another more or less.
func (t table) locator() string {
	if t.rowid != "" {
		return t.rowid
	}
	for _, c := range t.columns {
		if c.pk == 1 {
			return quote(c.name)
		}
	}
	return quote(t.columns[0].name)
}

func names(cs []column) []string {
	out := make([]string, len(cs))
	for i, c := range cs {
		out[i] = c.name
	}
	return out
}

// table picks one; there always is audit.
func (w *workload) table() table {
	if len(w.schema.tables) == 0 { // a failure is on its way out
		return table{name: "audit", rowid: "rowid", columns: []column{{name: "what"}}}
	}
	return w.schema.tables[w.r.IntN(len(w.schema.tables))]
}

// where picks rows: one, a few, a stretch, or every nth.
func (w *workload) where(t table) string {
	n, l := 1, t.locator()
	switch w.r.IntN(6) {
	case 0:
		n = 1 + w.r.IntN(20)
	case 1:
		n = 1 + w.r.IntN(400)
	case 2:
		return fmt.Sprintf("length(hex(%s))%%%d=%d", l, 2+w.r.IntN(9), w.r.IntN(2))
	}
	count := w.number("SELECT count(*) FROM " + quote(t.name))
	return fmt.Sprintf("%s IN (SELECT %s FROM %s ORDER BY 1 LIMIT %d OFFSET %d)", l, l, quote(t.name), n, w.r.IntN(count+1))
}

// Beyond these an insert is a delete instead, so that comparing stays quick.
const (
	enoughBytes = 12 << 20
	enoughRows  = 20_000
)

func (w *workload) plenty(t table) bool {
	return w.number("PRAGMA page_count")*w.shape.pageSize > enoughBytes || w.number("SELECT count(*) FROM "+quote(t.name)) > enoughRows
}

var verbs = []string{"INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE"}

func (w *workload) insert(t table, verb int) {
	if w.r.IntN(30) == 0 && w.plenty(t) {
		w.exec("DELETE FROM " + quote(t.name) + " WHERE " + w.where(t))
		return
	}
	var into []string
	var args []any
	for _, c := range t.settable() {
		if v, ok := w.field(t, c); ok {
			into, args = append(into, c.name), append(args, v)
		}
	}
	if len(into) == 0 {
		w.exec("INSERT INTO " + quote(t.name) + " DEFAULT VALUES")
		return
	}
	w.exec(fmt.Sprintf("%s INTO %s(%s) VALUES(%s)", verbs[verb], quote(t.name), quoteAll(into), marks(len(into))), args...)
}

// field is a value for one column of a new row; false leaves it to SQLite.
func (w *workload) field(t table, c column) (any, bool) {
	switch {
	case c.pk == 1 && t.rowid != "" && strings.EqualFold(c.typ, "INTEGER"):
		// Not the greatest integer: SQLite would make up random rowids after it.
		if w.r.IntN(40) == 0 {
			return pick(w.r, edgeInts[:25]...), true
		}
		return int64(w.r.IntN(20_000)), w.r.IntN(2) == 0
	case c.pk > 0:
		return w.key(), true
	case slices.Contains(t.uniques, c.name):
		return int64(w.r.IntN(100_000) - 50_000), true
	case c.name == "parent":
		return int64(w.r.IntN(200)), w.r.IntN(3) == 0
	case c.name == "v":
		return int64(w.r.IntN(1000)), true
	}
	return w.value(c), w.r.IntN(10) > 0 || c.notNull
}

func (w *workload) insertMany() {
	t := w.table()
	if w.plenty(t) {
		w.deleteAll()
		return
	}
	own := !w.inTx && w.exec("BEGIN IMMEDIATE")
	for i := w.r.IntN(300); i > 0; i-- {
		w.insert(t, 1)
	}
	if own && !w.exec("COMMIT") {
		w.exec("ROLLBACK")
	}
}

func (w *workload) insertSelect() {
	t := w.table()
	cs := t.data()
	if len(cs) == 0 || w.plenty(t) {
		return
	}
	list := quoteAll(names(cs))
	w.exec(fmt.Sprintf("%s INTO %s(%s) SELECT %s FROM %s LIMIT %d", verbs[w.r.IntN(4)], quote(t.name), list, list, quote(t.name), 1+w.r.IntN(100)))
}

// insertSeries makes a transaction that is larger than a record.
func (w *workload) insertSeries() {
	t := w.table()
	cs := t.data()
	if len(cs) == 0 || w.plenty(t) {
		return
	}
	c := cs[w.r.IntN(len(cs))]
	w.exec(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT OR IGNORE INTO %s(%s) SELECT printf('%%0*d',%d,i) FROM n",
		1+w.r.IntN(4000), quote(t.name), quote(c.name), 1+w.r.IntN(400)))
}

func (w *workload) upsert() {
	t := w.table()
	cs, data := t.settable(), t.data()
	if len(data) == 0 {
		return
	}
	var args []any
	for _, c := range cs {
		v, _ := w.field(t, c)
		args = append(args, v)
	}
	set := quote(data[w.r.IntN(len(data))].name)
	action := pick(w.r, "NOTHING", "UPDATE SET "+set+"=excluded."+set, "UPDATE SET "+set+"=NULL")
	w.exec(fmt.Sprintf("INSERT INTO %s(%s) VALUES(%s) ON CONFLICT DO %s", quote(t.name), quoteAll(names(cs)), marks(len(cs)), action), args...)
}

func (w *workload) update() {
	t := w.table()
	cs := t.data()
	if len(cs) == 0 {
		return
	}
	c := cs[w.r.IntN(len(cs))]
	v, _ := w.field(t, c)
	w.exec(fmt.Sprintf("UPDATE OR %s %s SET %s=? WHERE %s", pick(w.r, "IGNORE", "REPLACE", "ABORT", "FAIL"), quote(t.name), quote(c.name), w.where(t)), v)
}

// updateRow changes all columns of few rows.
func (w *workload) updateRow() {
	t := w.table()
	cs := t.data()
	if len(cs) == 0 {
		return
	}
	var set []string
	var args []any
	for _, c := range cs {
		v, _ := w.field(t, c)
		set, args = append(set, quote(c.name)+"=?"), append(args, v)
	}
	w.exec(fmt.Sprintf("UPDATE OR IGNORE %s SET %s WHERE %s", quote(t.name), strings.Join(set, ","), w.where(t)), args...)
}

// patch changes one byte, or the end, of long values: the page that changes may
// be an overflow page of a leaf that does not.
func (w *workload) patch() {
	t := w.table()
	cs := t.data()
	if len(cs) == 0 {
		return
	}
	c := cs[w.r.IntN(len(cs))]
	col := quote(c.name)
	blob := "CAST(" + col + " AS BLOB)"
	as := pick(w.r, "BLOB", "TEXT")
	if c.strict {
		as = c.typ
	}
	to := fmt.Sprintf("substr(%s,1,length(%s)-%d)||x'6162'", blob, blob, w.r.IntN(80))
	if w.r.IntN(3) > 0 {
		at := fmt.Sprintf("length(%s)*%d/100", blob, w.r.IntN(100))
		to = fmt.Sprintf("substr(%s,1,%s)||x'%02x'||substr(%s,%s+2)", blob, at, 97+w.r.IntN(20), blob, at)
	}
	w.exec(fmt.Sprintf("UPDATE OR IGNORE %s SET %s=CAST(%s AS %s) WHERE length(%s)>60 AND %s", quote(t.name), col, to, as, col, w.where(t)))
}

// updateKey moves rows.
func (w *workload) updateKey() {
	t := w.table()
	verb := "UPDATE OR " + pick(w.r, "IGNORE", "REPLACE", "ABORT")
	if t.rowid != "" {
		w.exec(fmt.Sprintf("%s %s SET %s=%s+%d WHERE %s", verb, quote(t.name), t.rowid, t.rowid, w.r.IntN(2000)-1000, w.where(t)))
		return
	}
	key := t.locator()
	to := pick(w.r, "upper("+key+")", "lower("+key+")", key+"||'x'", "substr("+key+",1,8)")
	w.exec(fmt.Sprintf("%s %s SET %s=%s WHERE %s", verb, quote(t.name), key, to, w.where(t)))
}

// permuteUnique gives rows the unique values of other rows of the table.
func (w *workload) permuteUnique() {
	var with []table
	for _, t := range w.schema.tables {
		if len(t.uniques) > 0 {
			with = append(with, t)
		}
	}
	if len(with) == 0 {
		return
	}
	t := with[w.r.IntN(len(with))]
	name, u := quote(t.name), quote(t.uniques[w.r.IntN(len(t.uniques))])
	// SQLite checks row by row, so a shift takes two statements.
	for _, sql := range pick(w.r,
		[]string{"UPDATE " + name + " SET " + u + "=-" + u},
		[]string{"UPDATE " + name + " SET " + u + "=" + u + "+1"},
		[]string{"UPDATE " + name + " SET " + u + "=" + u + "+1000000", "UPDATE " + name + " SET " + u + "=" + u + "-999999"},
		[]string{
			fmt.Sprintf("UPDATE %s SET %s=%s+3000000 WHERE %s=(SELECT min(%s) FROM %s)", name, u, u, u, u, name),
			fmt.Sprintf("UPDATE %s SET %s=(SELECT min(%s)-1 FROM %s) WHERE %s=(SELECT max(%s) FROM %s WHERE %s<3000000)", name, u, u, name, u, u, name, u),
		},
	) {
		w.exec(sql)
	}
	w.swapTwo(name, u)
}

// swapTwo exchanges the values of two rows, in one transaction if it can.
func (w *workload) swapTwo(table, u string) {
	var at []int64
	w.query(fmt.Sprintf("SELECT %s FROM %s WHERE typeof(%s)='integer' ORDER BY 1 LIMIT 2 OFFSET %d", u, table, u, w.r.IntN(20)), func(r sqlite.Row) {
		at = append(at, r.Int(0))
	})
	if len(at) < 2 {
		return
	}
	own := !w.inTx && w.exec("BEGIN IMMEDIATE")
	set := fmt.Sprintf("UPDATE OR ROLLBACK %s SET %s=? WHERE %s=?", table, u, u)
	if !own {
		set = fmt.Sprintf("UPDATE OR IGNORE %s SET %s=? WHERE %s=?", table, u, u)
	}
	ok := w.exec(set, int64(9_000_000), at[0]) && w.exec(set, at[0], at[1]) && w.exec(set, at[1], int64(9_000_000))
	if own && ok {
		w.exec("COMMIT")
	}
}

func (w *workload) delete() {
	t := w.table()
	w.exec("DELETE FROM " + quote(t.name) + " WHERE " + w.where(t))
}

func (w *workload) deleteAll() {
	w.exec("DELETE FROM " + quote(w.table().name))
}

func (w *workload) words() string {
	var b strings.Builder
	for i := w.r.IntN(40); i >= 0; i-- {
		fmt.Fprintf(&b, "w%d ", w.r.IntN(60))
	}
	return b.String()
}

func (w *workload) changeFTS() {
	if len(w.schema.fts) == 0 {
		return
	}
	f := pick(w.r, w.schema.fts...)
	if strings.HasSuffix(f, contentPrefix) { // its triggers write it
		w.changeDocument()
		return
	}
	id := w.r.IntN(200)
	switch w.r.IntN(8) {
	case 0:
		w.exec(fmt.Sprintf("INSERT INTO %s(%s) VALUES('%s')", f, f, pick(w.r, "optimize", "rebuild", "flush")))
	case 1:
		w.exec(fmt.Sprintf("INSERT INTO %s(%s, rank) VALUES('%s', %d)", f, f, pick(w.r, "merge", "automerge", "crisismerge"), 2+w.r.IntN(8)))
	case 2:
		w.exec(fmt.Sprintf("DELETE FROM %s WHERE rowid%%7=%d", f, w.r.IntN(7)))
	case 3:
		w.exec("UPDATE "+f+" SET a=?, b=? WHERE rowid=?", w.words(), w.words(), id)
	default:
		for range 1 + w.r.IntN(20) {
			w.exec("INSERT OR REPLACE INTO "+f+"(rowid, a, b) VALUES(?,?,?)", id, w.words(), w.words())
			id++
		}
	}
}

// changeDocument writes a table whose triggers keep an FTS5 table.
func (w *workload) changeDocument() {
	if len(w.schema.content) == 0 {
		return
	}
	t, id := pick(w.r, w.schema.content...), w.r.IntN(200)
	switch w.r.IntN(4) {
	case 0:
		w.exec("DELETE FROM "+t+" WHERE id%5=?", w.r.IntN(5))
	case 1:
		w.exec("UPDATE "+t+" SET body=? WHERE id BETWEEN ? AND ?", w.words(), id, id+w.r.IntN(20))
	default:
		w.exec("INSERT OR IGNORE INTO "+t+"(id, body) VALUES(?,?)", id, w.words())
	}
}

func (w *workload) changeRTree() {
	if len(w.schema.rtrees) == 0 {
		return
	}
	t, id := pick(w.r, w.schema.rtrees...), w.r.IntN(2000)
	switch w.r.IntN(5) {
	case 0:
		w.exec("DELETE FROM "+t+" WHERE id%5=?", w.r.IntN(5))
	case 1:
		w.exec("UPDATE "+t+" SET x1=x1+10 WHERE id BETWEEN ? AND ?", id, id+w.r.IntN(100))
	default:
		for range 1 + w.r.IntN(60) {
			x, y := w.r.IntN(1000), w.r.IntN(1000)
			w.exec("INSERT OR REPLACE INTO "+t+"(id,x0,x1,y0,y1,note) VALUES(?,?,?,?,?,?)", id, x, x+w.r.IntN(50), y, y+w.r.IntN(50), w.words())
			id++
		}
	}
}

// insertIntoView works where a trigger takes the row.
func (w *workload) insertIntoView() {
	if len(w.schema.views) > 0 {
		w.exec("INSERT INTO " + quote(pick(w.r, w.schema.views...)) + " DEFAULT VALUES")
	}
}
