package replicator_test

import (
	"fmt"
	"strings"
)

// schemaOperations may run inside and outside explicit transactions.
var schemaOperations = []operation{
	{"create_table", 30, (*workload).createTable},
	{"create_table_as", 6, (*workload).createTableAs},
	{"drop_table", 8, (*workload).dropTable},
	{"recreate_table", 8, (*workload).recreateTable},
	{"rename_table", 8, (*workload).renameTable},
	{"swap_tables", 6, (*workload).swapTables},
	{"add_column", 14, (*workload).addColumn},
	{"rename_column", 8, (*workload).renameColumn},
	{"drop_column", 8, (*workload).dropColumn},
	{"rebuild_table", 5, (*workload).rebuildTable},
	{"create_index", 16, (*workload).createIndex},
	{"drop_index", 8, (*workload).dropIndex},
	{"create_view", 6, (*workload).createView},
	{"create_trigger", 8, (*workload).createTrigger},
	{"drop_view_or_trigger", 12, (*workload).dropOther},
	{"create_fts", 5, (*workload).createFTS},
	{"create_document", 3, (*workload).createDocument},
	{"create_rtree", 4, (*workload).createRTree},
	{"drop_virtual", 3, (*workload).dropVirtual},
}

const (
	enoughTables  = 12
	enoughVirtual = 3
	enoughOthers  = 5 // each view makes ALTER TABLE more likely to be refused
	enoughColumns = 14
)

// layouts are the kinds of tables. %s stands for further columns, each with a
// comma before it.
var layouts = []string{
	"(id INTEGER PRIMARY KEY%s)",
	"(id INTEGER PRIMARY KEY AUTOINCREMENT%s)",
	"(id INTEGER PRIMARY KEY DESC%s)", // not the rowid
	"(x%s)",
	"(rowid TEXT, c REAL%s)",
	"(rowid TEXT, oid INT, _rowid_ REAL%s)", // nothing left to call the rowid
	"(k TEXT PRIMARY KEY, u INT UNIQUE%s)",
	"(id INTEGER PRIMARY KEY, u INT UNIQUE ON CONFLICT REPLACE, u2 INT, UNIQUE(u2, id)%s)",
	"(id INTEGER PRIMARY KEY, u INT UNIQUE, u2 INT UNIQUE)",
	"(k TEXT PRIMARY KEY%s) WITHOUT ROWID",
	"(k TEXT PRIMARY KEY, u INT UNIQUE%s) WITHOUT ROWID",
	"(a INT, k TEXT COLLATE NOCASE, b BLOB%s, PRIMARY KEY(k, a DESC)) WITHOUT ROWID",
	"(n REAL, k TEXT COLLATE RTRIM, v INT%s, PRIMARY KEY(n DESC, k COLLATE BINARY)) WITHOUT ROWID",
	"(v INT, gs INT AS (v*2) STORED, k TEXT, gv AS (k||'!') VIRTUAL%s, PRIMARY KEY(k)) WITHOUT ROWID",
	"(id INTEGER PRIMARY KEY, i INT, t TEXT, r REAL, b BLOB, a ANY) STRICT",
	"(t TEXT NOT NULL PRIMARY KEY, i INT, a ANY) STRICT, WITHOUT ROWID",
	"(id INTEGER PRIMARY KEY, gv AS (v+1) VIRTUAL, v INT, gs TEXT AS (v||'s') STORED%s)",
	"(id INTEGER PRIMARY KEY, n INT NOT NULL DEFAULT 7, d DEFAULT (1+2), t TEXT DEFAULT 'it''s' CHECK(length(t)<50000), r REAL DEFAULT 1%s)",
	`("""odd"" name" INTEGER PRIMARY KEY, "sel,ect" TEXT, "" BLOB, 'é' REAL%s)`,
}

var types = []string{"", "TEXT", "BLOB", "REAL", "INT", "NUMERIC", "TEXT COLLATE NOCASE", "VARCHAR(10)", "DOUBLE", "BOOLEAN"}

func (w *workload) moreColumns() string {
	var b strings.Builder
	for range w.r.IntN(5) {
		fmt.Fprintf(&b, ", %s %s", w.name("c"), pick(w.r, types...))
	}
	return b.String()
}

// layout is what follows CREATE TABLE name.
func (w *workload) layout() string {
	if w.r.IntN(6) == 0 {
		if parent := w.table(); len(parent.columns) > 0 && parent.columns[0].name == "id" {
			action := pick(w.r, "ON DELETE CASCADE ON UPDATE CASCADE", "ON DELETE SET NULL ON UPDATE CASCADE", "DEFERRABLE INITIALLY DEFERRED", "")
			return fmt.Sprintf("(id INTEGER PRIMARY KEY, parent INT REFERENCES %s(id) %s%s)", quote(parent.name), action, w.moreColumns())
		}
	}
	l := pick(w.r, layouts...)
	if strings.Contains(l, "%s") {
		// Table constraints come last, and so the columns before them.
		if i := strings.Index(l, ", UNIQUE("); i >= 0 {
			l = strings.Replace(l, "%s", "", 1)
			return l[:i] + w.moreColumns() + l[i:]
		}
		return fmt.Sprintf(l, w.moreColumns())
	}
	return l
}

func (w *workload) createTable() {
	if len(w.schema.tables) >= enoughTables {
		w.dropTable()
		return
	}
	name := w.name("t")
	if w.r.IntN(10) == 0 {
		name = w.name(`odd "name" é `)
	}
	w.exec("CREATE TABLE " + quote(name) + w.layout())
}

func (w *workload) createTableAs() {
	if len(w.schema.tables) < enoughTables {
		w.exec(fmt.Sprintf("CREATE TABLE %s AS SELECT * FROM %s LIMIT %d", w.name("t"), quote(w.table().name), w.r.IntN(300)))
	}
}

func (w *workload) dropTable() {
	if t := w.table(); t.name != "audit" && len(w.schema.tables) > 4 {
		w.exec("DROP TABLE " + quote(t.name))
	}
}

// atomically runs f in a transaction of its own, or in the one that is open.
func (w *workload) atomically(f func()) {
	own := !w.inTx && w.exec("BEGIN IMMEDIATE")
	f()
	if own && !w.exec("COMMIT") {
		w.exec("ROLLBACK")
	}
}

// recreateTable drops a table and makes another of that name.
func (w *workload) recreateTable() {
	t := w.table()
	if t.name == "audit" {
		return
	}
	w.atomically(func() {
		if !w.exec("DROP TABLE " + quote(t.name)) {
			return
		}
		layout := w.layout()
		if w.r.IntN(3) == 0 {
			layout = "(z, y INT, id INTEGER PRIMARY KEY)"
		}
		w.exec("CREATE TABLE " + quote(t.name) + layout)
		w.fill(t.name)
	})
}

// fill inserts some rows into a table that was just made.
func (w *workload) fill(name string) {
	w.load()
	for _, t := range w.schema.tables {
		if t.name == name {
			for range w.r.IntN(30) {
				w.insert(t, 1)
			}
		}
	}
}

func (w *workload) renameTable() {
	if t := w.table(); t.name != "audit" {
		w.exec("ALTER TABLE " + quote(t.name) + " RENAME TO " + w.name("t"))
	}
}

// swapTables exchanges the names of two tables, as a migration does.
func (w *workload) swapTables() {
	a, b := w.table(), w.table()
	if a.name == "audit" || b.name == "audit" || a.name == b.name {
		return
	}
	w.atomically(func() {
		tmp := w.name("tmp")
		w.exec("ALTER TABLE " + quote(a.name) + " RENAME TO " + tmp)
		w.exec("ALTER TABLE " + quote(b.name) + " RENAME TO " + quote(a.name))
		w.exec("ALTER TABLE " + tmp + " RENAME TO " + quote(b.name))
	})
}

// rebuildTable is SQLite's own recipe for the changes ALTER TABLE cannot make.
func (w *workload) rebuildTable() {
	t := w.table()
	if t.name == "audit" {
		return
	}
	w.atomically(func() {
		next := w.name("new")
		if !w.exec(fmt.Sprintf("CREATE TABLE %s AS SELECT * FROM %s", next, quote(t.name))) {
			return
		}
		if w.exec("DROP TABLE " + quote(t.name)) {
			w.exec("ALTER TABLE " + next + " RENAME TO " + quote(t.name))
		}
	})
}

func (w *workload) addColumn() {
	t := w.table()
	if len(t.columns) >= enoughColumns || t.name == "audit" {
		return
	}
	w.exec("ALTER TABLE " + quote(t.name) + " ADD COLUMN " + w.name("a") + pick(w.r,
		"", " INT DEFAULT 7", " TEXT NOT NULL DEFAULT 'dflt'", " REAL DEFAULT 1", " REAL NOT NULL DEFAULT 2", " BLOB DEFAULT x'00ff'",
		" TEXT DEFAULT 1.20", " INT DEFAULT '12'", " NUMERIC DEFAULT '1e2'", " DEFAULT -0.0", " AS (1) VIRTUAL", " INT CHECK(1)", " TEXT COLLATE NOCASE DEFAULT NULL"))
}

func (w *workload) renameColumn() {
	t := w.table()
	cs := t.data()
	if len(cs) == 0 || t.name == "audit" {
		return
	}
	w.exec(fmt.Sprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", quote(t.name), quote(cs[w.r.IntN(len(cs))].name), w.name("r")))
}

func (w *workload) dropColumn() {
	t := w.table()
	cs := t.data()
	if len(cs) < 2 || t.name == "audit" {
		return
	}
	w.exec(fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s", quote(t.name), quote(cs[w.r.IntN(len(cs))].name)))
}

func (w *workload) createIndex() {
	if len(w.schema.indexes) > 2*enoughTables {
		w.dropIndex()
		return
	}
	t := w.table()
	cs := t.settable()
	if len(cs) == 0 {
		return
	}
	a, b := quote(cs[w.r.IntN(len(cs))].name), quote(cs[w.r.IntN(len(cs))].name)
	on := pick(w.r, a, a+" DESC", a+" COLLATE NOCASE", "length("+a+")", a+","+b+" DESC", "typeof("+a+"),"+b)
	where := pick(w.r, "", "", " WHERE "+b+" IS NOT NULL", " WHERE typeof("+b+")='text'")
	unique := ""
	if w.r.IntN(8) == 0 {
		unique = "UNIQUE "
	}
	w.exec("CREATE " + unique + "INDEX " + w.name("i") + " ON " + quote(t.name) + "(" + on + ")" + where)
}

func (w *workload) dropIndex() {
	if len(w.schema.indexes) > 0 {
		w.exec("DROP INDEX " + quote(pick(w.r, w.schema.indexes...)))
	}
}

func (w *workload) createView() {
	if len(w.schema.others) < enoughOthers {
		w.exec("CREATE VIEW " + w.name("view") + " AS SELECT * FROM " + quote(w.table().name))
	}
}

func (w *workload) createTrigger() {
	if len(w.schema.others) >= enoughOthers {
		return
	}
	name := w.name("trigger")
	if len(w.schema.views) > 0 && w.r.IntN(3) == 0 {
		w.exec("CREATE TRIGGER " + name + " INSTEAD OF INSERT ON " + quote(pick(w.r, w.schema.views...)) +
			" BEGIN INSERT INTO audit(what) VALUES('instead'); DELETE FROM audit WHERE n%7=0; END")
		return
	}
	t := w.table()
	if t.name == "audit" {
		return
	}
	event := pick(w.r, "AFTER INSERT", "AFTER UPDATE", "AFTER DELETE", "BEFORE INSERT", "BEFORE UPDATE", "BEFORE DELETE")
	body := pick(w.r, "INSERT INTO audit(what) VALUES('"+event+"')", "UPDATE audit SET what=substr(what||'.',1,100) WHERE n=(SELECT max(n) FROM audit)",
		"DELETE FROM audit WHERE n=(SELECT min(n) FROM audit)")
	w.exec("CREATE TRIGGER " + name + " " + event + " ON " + quote(t.name) + " BEGIN " + body + "; END")
}

func (w *workload) dropOther() {
	if len(w.schema.others) > 0 {
		w.exec("DROP " + pick(w.r, w.schema.others...))
	}
}

func (w *workload) createFTS() {
	if len(w.schema.fts) < enoughVirtual {
		w.exec("CREATE VIRTUAL TABLE " + w.name("fts") + " USING fts5(a, b" + pick(w.r, "", ", prefix='2 3'", ", detail=none", ", content='', contentless_delete=1", ", tokenize='trigram'") + ")")
	}
}

// createDocument makes a table and an FTS5 table that holds only its index.
func (w *workload) createDocument() {
	if len(w.schema.content) > 0 {
		return
	}
	doc := w.name(contentPrefix)
	f := w.name("fts") + contentPrefix
	w.atomically(func() {
		w.exec("CREATE TABLE " + doc + "(id INTEGER PRIMARY KEY, body TEXT)")
		w.exec("CREATE VIRTUAL TABLE " + f + " USING fts5(body, content='" + doc + "', content_rowid='id')")
		drop := "INSERT INTO " + f + "(" + f + ", rowid, body) VALUES('delete', old.id, old.body);"
		add := "INSERT INTO " + f + "(rowid, body) VALUES(new.id, new.body);"
		w.exec("CREATE TRIGGER " + doc + "i AFTER INSERT ON " + doc + " BEGIN " + add + " END")
		w.exec("CREATE TRIGGER " + doc + "d AFTER DELETE ON " + doc + " BEGIN " + drop + " END")
		w.exec("CREATE TRIGGER " + doc + "u AFTER UPDATE ON " + doc + " BEGIN " + drop + add + " END")
	})
}

func (w *workload) createRTree() {
	if len(w.schema.rtrees) < enoughVirtual {
		w.exec("CREATE VIRTUAL TABLE " + w.name("area") + " USING " + pick(w.r, "rtree", "rtree_i32") + "(id, x0, x1, y0, y1, +note)")
	}
}

func (w *workload) dropVirtual() {
	for _, kind := range [][]string{w.schema.fts, w.schema.rtrees} {
		if len(kind) == 0 || w.r.IntN(2) == 0 {
			continue
		}
		if name := pick(w.r, kind...); !strings.HasSuffix(name, contentPrefix) {
			w.exec("DROP TABLE " + name)
			return
		}
	}
}
