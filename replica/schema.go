package replica

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A schema carries out schema changes. Tables and indexes are made by their SQL
// text, which gives them b-trees; everything else is an edit of sqlite_schema:
// the text that ALTER left behind, and views, triggers and virtual tables, whose
// CREATE would run code of their own (a virtual table would fill its shadow
// tables, which arrive as rows).
//
// Hardly anything is dropped under its own name, because DROP also deletes from
// sqlite_sequence and sqlite_stat1, where the source's own rows say what is left:
// see retire and, for the exception, plain.
type schema struct {
	run     []*cdc.SchemaChange // that wait for the operation after them
	changed bool                // in the source's transaction in hand
	dirty   bool                // in the open SQLite transaction
	orphans []cdc.SchemaObject  // indexes that went with a table which may come back
	leftOff []LeftOff           // as in the table _replicator_left_off
}

// A LeftOff is an index of the source that the replica does not have, because
// this program lacks a collation or function that it uses.
type LeftOff struct {
	Name   string `json:"name"`
	Table  string `json:"table"`
	SQL    string `json:"-"`
	Reason string `json:"reason"`
}

func (s *schema) add(c *cdc.SchemaChange) { s.run = append(s.run, c) }

func (s *schema) pending() bool { return len(s.run) > 0 }

// load reads the indexes that were left off.
func (s *schema) load(c *sqlite.Conn) error {
	s.leftOff = nil
	err := c.Query("SELECT name, tbl, sql, reason FROM main._replicator_left_off ORDER BY name", nil, func(r sqlite.Row) error {
		s.leftOff = append(s.leftOff, LeftOff{Name: r.Text(0), Table: r.Text(1), SQL: r.Text(2), Reason: r.Text(3)})
		return nil
	})
	if err != nil {
		return fmt.Errorf("replica: read indexes left off: %w", err)
	}
	return nil
}

// abandon forgets what belongs to the source's transaction in hand.
func (s *schema) abandon() { s.run, s.orphans, s.changed = nil, nil, false }

// apply carries out the changes that wait: drops, edits, creations.
func (s *schema) apply(c *sqlite.Conn) error {
	drops, edits, creates := sortChanges(s.run)
	s.run, s.changed, s.dirty = nil, true, true
	if len(edits) == 0 {
		var err error
		if drops, creates, err = plain(c, drops, creates); err != nil || len(drops)+len(creates) == 0 {
			return err
		}
	}
	if err := c.Exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	err := s.drop(c, drops)
	if err == nil {
		creates, err = s.edit(c, edits, creates)
	}
	if err == nil {
		err = s.create(c, creates)
	}
	if err == nil {
		err = placeTriggers(c)
	}
	if err == nil {
		err = bump(c)
	}
	if rerr := c.ResetSchema(); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("replica: change schema: %w", err)
	}
	return readable(c)
}

// placeTriggers moves each trigger behind a table that was made anew, since SQLite
// reads the schema in this order, and removes one whose table is gone: either
// would make the schema unreadable.
func placeTriggers(c *sqlite.Conn) error {
	const owner = "(SELECT t.rowid FROM main.sqlite_schema t WHERE t.type IN ('table','view') AND t.name=s.tbl_name COLLATE NOCASE)"
	if err := c.Exec("DELETE FROM main.sqlite_schema AS s WHERE type='trigger' AND NOT EXISTS " + owner); err != nil {
		return err
	}
	early, err := rowids(c, "SELECT rowid FROM main.sqlite_schema AS s WHERE type='trigger' AND rowid<"+owner+" ORDER BY rowid")
	if err != nil {
		return err
	}
	for _, id := range early {
		if err := c.Exec("UPDATE main.sqlite_schema SET rowid=(SELECT max(rowid)+1 FROM main.sqlite_schema) WHERE rowid=?", id); err != nil {
			return err
		}
	}
	return nil
}

// end completes a transaction of the source: an index that went with its table,
// and of which no change speaks, comes back when the table did.
func (s *schema) end(c *sqlite.Conn) error {
	s.changed = false
	orphans := s.orphans
	s.orphans = nil
	for _, o := range orphans {
		n, err := c.QueryInt(`SELECT (SELECT count(*) FROM main.sqlite_schema WHERE type='table' AND name=?1 COLLATE NOCASE)
-(SELECT count(*) FROM main.sqlite_schema WHERE type='index' AND name=?2)`, o.Table, o.Name)
		if err != nil {
			return err
		}
		if n != 1 {
			continue
		}
		if err := s.createIndex(c, &o); err != nil {
			return err
		}
	}
	return nil
}

// bump tells other connections that the schema has changed.
func bump(c *sqlite.Conn) error {
	v, err := c.QueryInt("PRAGMA main.schema_version")
	if err != nil {
		return err
	}
	return c.Exec(fmt.Sprintf("PRAGMA main.schema_version=%d", int32(v+1)))
}

// readable proves that the edited schema is one that SQLite can read.
func readable(c *sqlite.Conn) error {
	if _, err := c.QueryInt("SELECT count(*) FROM main.sqlite_schema"); err != nil {
		return fmt.Errorf("replica: schema after change: %w", err)
	}
	return nil
}

// sortChanges splits a run of changes. What turns an object into one of another
// kind is a drop and a creation. Automatic indexes follow their tables.
func sortChanges(run []*cdc.SchemaChange) (drops []*cdc.SchemaObject, edits []*cdc.SchemaChange, creates []*cdc.SchemaObject) {
	for _, ch := range run {
		old, now := ch.Old, ch.New
		if ignored(old) || ignored(now) {
			continue
		}
		if old != nil && now != nil && old.Type == now.Type && old.Virtual == now.Virtual {
			edits = append(edits, ch)
			continue
		}
		if old != nil {
			drops = append(drops, old)
		}
		if now != nil {
			creates = append(creates, now)
		}
	}
	// sqlite_sequence first, because an AUTOINCREMENT table would make it; then
	// tables, what stands on them, and what is only text.
	slices.SortStableFunc(creates, func(a, b *cdc.SchemaObject) int { return creationRank(a) - creationRank(b) })
	return drops, edits, creates
}

func ignored(o *cdc.SchemaObject) bool {
	return o != nil && (isReserved(o.Name) || isReserved(o.Table) || o.Type == "index" && o.SQL == "")
}

func creationRank(o *cdc.SchemaObject) int {
	switch {
	case o.Name == sequenceTable:
		return 0
	case o.Type == "table" && !o.Virtual:
		return 1
	case o.Type == "index":
		return 2
	case o.Type == "table":
		return 3
	case o.Type == "view":
		return 4
	}
	return 5
}

// hasTree reports whether the object owns a b-tree.
func hasTree(o *cdc.SchemaObject) bool { return o.Type == "index" || o.Type == "table" && !o.Virtual }

func (s *schema) drop(c *sqlite.Conn, drops []*cdc.SchemaObject) error {
	var trees []int64
	for _, o := range drops {
		var rows []int64
		var err error
		switch {
		case !hasTree(o):
			rows, err = rowids(c, "DELETE FROM main.sqlite_schema WHERE type=? AND name=? RETURNING rowid", o.Type, o.Name)
		case s.isLeftOff(o.Name) && o.Type == "index":
			err = s.forget(c, o.Name)
			rows = []int64{0}
		case o.Type == "index":
			rows, err = rowids(c, "SELECT rowid FROM main.sqlite_schema WHERE type='index' AND name=?", o.Name)
			trees = append(trees, rows...)
			s.orphans = slices.DeleteFunc(s.orphans, func(i cdc.SchemaObject) bool { return i.Name == o.Name })
		default:
			rows, err = s.dropTable(c, o, drops)
			trees = append(trees, rows...)
			rows = rows[:min(len(rows), 1)]
		}
		if err == nil && len(rows) != 1 {
			err = fmt.Errorf("drop %s %q: %d of them in the file: %w", o.Type, o.Name, len(rows), sqlite.ErrDiverged)
		}
		if err != nil {
			return err
		}
	}
	if len(drops) > 0 && len(trees) == 0 { // their names are free
		return reread(c)
	}
	return retire(c, trees)
}

// dropTable lists the b-trees of a table and remembers those of its indexes that
// the transaction does not drop by name.
func (s *schema) dropTable(c *sqlite.Conn, o *cdc.SchemaObject, drops []*cdc.SchemaObject) (trees []int64, err error) {
	err = c.Query(`SELECT rowid, type, name, tbl_name, coalesce(sql,'') FROM main.sqlite_schema
WHERE type='table' AND name=?1 OR type='index' AND tbl_name=?1 ORDER BY type DESC`, []any{o.Name}, func(r sqlite.Row) error {
		trees = append(trees, r.Int(0))
		i := cdc.SchemaObject{Type: r.Text(1), Name: r.Text(2), Table: r.Text(3), SQL: r.Text(4)}
		named := slices.ContainsFunc(drops, func(d *cdc.SchemaObject) bool { return d.Type == "index" && d.Name == i.Name })
		if i.Type == "index" && i.SQL != "" && !named {
			s.orphans = append(s.orphans, i)
		}
		return nil
	})
	return trees, err
}

// retire destroys b-trees. Each first becomes the tree of a made-up table that
// nothing else in the database refers to, so that DROP TABLE frees the pages and
// does nothing more.
func retire(c *sqlite.Conn, trees []int64) error {
	if len(trees) == 0 {
		return nil
	}
	slices.Sort(trees)
	trees = slices.Compact(trees)
	for _, id := range trees {
		name := fmt.Sprintf("%sdrop_%d", reserved, id)
		err := c.Exec("UPDATE main.sqlite_schema SET type='table', name=?1, tbl_name=?1, sql='CREATE TABLE '||?1||'(x)' WHERE rowid=?2", name, id)
		if err != nil {
			return err
		}
	}
	if err := reread(c); err != nil {
		return err
	}
	for _, id := range trees {
		if err := c.Exec(fmt.Sprintf("DROP TABLE main.%sdrop_%d", reserved, id)); err != nil {
			return err
		}
	}
	return nil
}

// reread parses the schema again, edits included, and leaves it open to edits.
func reread(c *sqlite.Conn) error {
	if err := c.ResetSchema(); err != nil {
		return err
	}
	return c.Exec("PRAGMA writable_schema=ON")
}

func (s *schema) create(c *sqlite.Conn, creates []*cdc.SchemaObject) error {
	for _, o := range creates {
		there, err := c.QueryInt("SELECT count(*) FROM main.sqlite_schema WHERE type=? AND name=?", o.Type, o.Name)
		switch {
		case err != nil:
		case there > 0 && o.Name == sequenceTable: // came with an AUTOINCREMENT table
		case there > 0:
			err = fmt.Errorf("create %s %q: the file has one: %w", o.Type, o.Name, sqlite.ErrDiverged)
		case !hasTree(o):
			err = c.Exec("INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES(?,?,?,0,?)", o.Type, o.Name, o.Table, o.SQL)
		case o.Type == "index":
			err = s.createIndex(c, o)
		default:
			err = createTable(c, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func createTable(c *sqlite.Conn, o *cdc.SchemaObject) error {
	err := createObject(c, o)
	if err != nil && lacks(err) {
		return fmt.Errorf("%w: create table %q: %w", errUnwritable, o.Name, err)
	}
	return err
}

// createIndex makes an index, or lists it as left off when this program lacks
// what it needs.
func (s *schema) createIndex(c *sqlite.Conn, o *cdc.SchemaObject) error {
	err := createObject(c, o)
	if err == nil || !lacks(err) {
		return err
	}
	l := LeftOff{Name: o.Name, Table: o.Table, SQL: o.SQL, Reason: err.Error()}
	s.leftOff = append(s.leftOff, l)
	s.dirty = true
	return l.write(c)
}

func (l LeftOff) write(c *sqlite.Conn) error {
	return c.Exec("INSERT OR REPLACE INTO main._replicator_left_off(name, tbl, sql, reason) VALUES(?,?,?,?)", l.Name, l.Table, l.SQL, l.Reason)
}

// leaveOff drops the indexes of a restored file that this program lacks something
// for. It finds them by compiling a REINDEX.
func leaveOff(c *sqlite.Conn) error {
	var trees []int64
	var indexes []LeftOff
	err := c.Query("SELECT rowid, name, tbl_name, sql FROM main.sqlite_schema WHERE type='index' AND sql IS NOT NULL", nil, func(r sqlite.Row) error {
		l := LeftOff{Name: r.Text(1), Table: r.Text(2), SQL: r.Text(3)}
		err := c.Exec("EXPLAIN REINDEX main." + quote(l.Name))
		if err == nil || !lacks(err) {
			return err
		}
		l.Reason = err.Error()
		trees, indexes = append(trees, r.Int(0)), append(indexes, l)
		return nil
	})
	if err != nil || len(trees) == 0 {
		return err
	}
	for _, l := range indexes {
		if err := l.write(c); err != nil {
			return err
		}
	}
	if err := c.Exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	if err := retire(c, trees); err != nil {
		return err
	}
	return c.ResetSchema()
}

// lacks reports whether SQLite refused a statement for what this program does
// not have; there is no code of its own for that.
func lacks(err error) bool {
	text := err.Error()
	for _, what := range []string{"no such collation sequence", "no such function", "unknown function"} {
		if strings.Contains(text, what) {
			return true
		}
	}
	return false
}

func (s *schema) isLeftOff(name string) bool {
	return slices.ContainsFunc(s.leftOff, func(l LeftOff) bool { return l.Name == name })
}

func (s *schema) forget(c *sqlite.Conn, name string) error {
	s.leftOff = slices.DeleteFunc(slices.Clone(s.leftOff), func(l LeftOff) bool { return l.Name == name })
	return c.Exec("DELETE FROM main._replicator_left_off WHERE name=?", name)
}

// rowids runs sql and collects the first column.
func rowids(c *sqlite.Conn, sql string, args ...any) (ids []int64, err error) {
	err = c.Query(sql, args, func(r sqlite.Row) error {
		ids = append(ids, r.Int(0))
		return nil
	})
	return ids, err
}
