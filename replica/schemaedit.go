package replica

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A rewrite gives one row of sqlite_schema its new names and text. Rows are
// named by rowid, because renames may swap names.
type rewrite struct {
	rowid int64
	to    cdc.SchemaObject
	text  bool   // to.SQL counts too
	shape string // of an index before the edit
}

// edit rewrites names and texts. An index whose text now means something else is
// dropped and appended to creates: SQLite would trust its old content.
func (s *schema) edit(c *sqlite.Conn, edits []*cdc.SchemaChange, creates []*cdc.SchemaObject) ([]*cdc.SchemaObject, error) {
	if len(edits) == 0 {
		return creates, nil
	}
	rewrites, again, err := s.plan(c, edits)
	if err != nil {
		return nil, err
	}
	creates = append(creates, again...)
	for _, r := range rewrites {
		err := c.Exec("UPDATE main.sqlite_schema SET name=?, tbl_name=?, sql=iif(?, ?, sql) WHERE rowid=?",
			r.to.Name, r.to.Table, r.text, r.to.SQL, r.rowid)
		if err != nil {
			return nil, err
		}
	}
	if err := reread(c); err != nil {
		return nil, err
	}
	var stale []int64
	for _, r := range rewrites {
		if r.to.Type != "index" || !r.text {
			continue
		}
		shape, err := indexShape(c, r.to.Name)
		if err != nil && !declined(c, err) {
			return nil, err
		}
		if err != nil || shape != r.shape {
			stale = append(stale, r.rowid)
			creates = append(creates, &r.to)
		}
	}
	return creates, retire(c, stale)
}

// plan finds the rows to rewrite. Those that follow a renamed table come first,
// so that what an edit says of them itself wins.
// again are indexes that went with their table in the same run.
func (s *schema) plan(c *sqlite.Conn, edits []*cdc.SchemaChange) (rewrites []rewrite, again []*cdc.SchemaObject, err error) {
	var follow, named []rewrite
	for _, ch := range edits {
		old, now := ch.Old, ch.New
		if old.Type == "index" && s.isLeftOff(old.Name) {
			if err := s.editLeftOff(c, old.Name, now); err != nil {
				return nil, nil, err
			}
			continue
		}
		if old.Type == "index" && s.adoptOrphan(old.Name) {
			again = append(again, now)
			continue
		}
		ids, err := rowids(c, "SELECT rowid FROM main.sqlite_schema WHERE type=? AND name=?", old.Type, old.Name)
		if err == nil && len(ids) != 1 {
			err = fmt.Errorf("alter %s %q: %d of them in the file: %w", old.Type, old.Name, len(ids), sqlite.ErrDiverged)
		}
		if err != nil {
			return nil, nil, err
		}
		r := rewrite{rowid: ids[0], to: *now, text: true}
		if old.Type == "index" {
			if r.shape, err = indexShape(c, old.Name); err != nil {
				return nil, nil, err
			}
		}
		if old.Table != now.Table && !renames(edits, old.Table, now.Table) {
			r.shape = "" // on another table: never what it was
		}
		named = append(named, r)
		if old.Type == "table" && old.Name != now.Name {
			rows, err := followers(c, ids[0], old.Name, now.Name)
			if err != nil {
				return nil, nil, err
			}
			follow = append(follow, rows...)
		}
	}
	return append(follow, named...), again, nil
}

// adoptOrphan reports whether an index went with a dropped table, and forgets it.
func (s *schema) adoptOrphan(name string) bool {
	n := len(s.orphans)
	s.orphans = slices.DeleteFunc(s.orphans, func(o cdc.SchemaObject) bool { return o.Name == name })
	return len(s.orphans) < n
}

func renames(edits []*cdc.SchemaChange, old, now string) bool {
	return slices.ContainsFunc(edits, func(c *cdc.SchemaChange) bool {
		return c.Old.Type == "table" && c.Old.Name == old && c.New.Name == now
	})
}

// followers are the rows that belong to the table old, which is renamed. The
// names of automatic indexes are made of the table's.
func followers(c *sqlite.Conn, table int64, old, now string) (rows []rewrite, err error) {
	prefix := "sqlite_autoindex_" + old
	err = c.Query("SELECT rowid, type, name, sql IS NULL FROM main.sqlite_schema WHERE tbl_name=? COLLATE NOCASE AND rowid<>?",
		[]any{old, table}, func(r sqlite.Row) error {
			to := cdc.SchemaObject{Type: r.Text(1), Name: r.Text(2), Table: now}
			if suffix, ok := strings.CutPrefix(to.Name, prefix); ok && r.Int(3) != 0 {
				to.Name = "sqlite_autoindex_" + now + suffix
			}
			rows = append(rows, rewrite{rowid: r.Int(0), to: to})
			return nil
		})
	return rows, err
}

// indexShape is what decides the content of an index, as far as a pragma shows
// it: an index on an expression, or a partial one, never has the shape of
// another. Its table counts by what the columns are, not by their names.
func indexShape(c *sqlite.Conn, name string) (string, error) {
	var b strings.Builder
	exact := true
	err := c.Query(`SELECT x.cid, x.desc, x.coll, x.key, l."unique", l.partial
FROM main.sqlite_schema s, pragma_index_list(s.tbl_name, 'main') l, pragma_index_xinfo(s.name, 'main') x
WHERE s.type='index' AND s.name=?1 AND l.name=s.name ORDER BY x.seqno`, []any{name}, func(r sqlite.Row) error {
		exact = exact && r.Int(0) != -2 && r.Int(5) == 0
		fmt.Fprintf(&b, "%d %d %q %d %d;", r.Int(0), r.Int(1), r.Text(2), r.Int(3), r.Int(4))
		return nil
	})
	if err != nil || exact && b.Len() > 0 {
		return b.String(), err
	}
	sql, err := c.QueryText("SELECT sql FROM main.sqlite_schema WHERE type='index' AND name=?", name)
	return "text " + sql, err
}

func (s *schema) editLeftOff(c *sqlite.Conn, name string, to *cdc.SchemaObject) error {
	for i := range s.leftOff {
		if l := &s.leftOff[i]; l.Name == name {
			l.Name, l.Table, l.SQL = to.Name, to.Table, to.SQL
		}
	}
	return c.Exec("UPDATE main._replicator_left_off SET name=?, tbl=?, sql=? WHERE name=?", to.Name, to.Table, to.SQL, name)
}
