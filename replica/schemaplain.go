package replica

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// plain carries out the beginning of a run that only makes tables and indexes, or
// only drops them, by the statements of SQL, and returns what it leaves to the edits
// of sqlite_schema. Those make SQLite read the whole schema several times over, so that
// of ten thousand tables each would take longer than all of its rows.
func plain(c *sqlite.Conn, drops, creates []*cdc.SchemaObject) (restDrops, restCreates []*cdc.SchemaObject, err error) {
	text := func(o *cdc.SchemaObject) bool { return !hasTree(o) } // a trigger would go with its table
	if len(drops) > 0 && len(creates) > 0 || slices.ContainsFunc(drops, text) {
		return drops, creates, nil
	}
	for ; len(drops) > 0; drops = drops[1:] {
		if done, err := plainDrop(c, drops[0]); err != nil || !done {
			return drops, creates, err
		}
	}
	for ; len(creates) > 0; creates = creates[1:] {
		o := creates[0]
		if !hasTree(o) || isSQLites(o.Name) || sqlite.Edited(asRow(o)) {
			break
		}
		if done, err := attempt(c, createObject(c, o)); err != nil || !done { // what is wrong with it shows once more
			return drops, creates, err
		}
	}
	return drops, creates, nil
}

// attempt takes the outcome of a statement in whose place there is another way, and gives
// the error of one after which that is not open.
func attempt(c *sqlite.Conn, err error) (done bool, _ error) {
	if declined(c, err) {
		return false, nil
	}
	return err == nil, err
}

func createObject(c *sqlite.Conn, o *cdc.SchemaObject) error { return c.Create(asRow(o)) }

func asRow(o *cdc.SchemaObject) sqlite.SchemaRow {
	return sqlite.SchemaRow{Type: o.Type, Name: o.Name, Table: o.Table, SQL: o.SQL}
}

// declined reports whether err is about the statement, which SQLite will not execute in
// this schema or with these rows, so that another may come in its place. After an error of
// the moment nothing may: it says nothing of the file, and SQLite has perhaps rolled back
// the whole transaction, so that what comes next would be done without what came before
// (https://www.sqlite.org/lang_transaction.html §3).
func declined(c *sqlite.Conn, err error) bool {
	return err != nil && c.InTransaction() && !sqlite.Passes(err) && !sqlite.IsInterrupted(err)
}

// isSQLites reports whether SQLite treats a table of that name in a way of its own.
func isSQLites(name string) bool {
	const prefix = "sqlite_"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// plainDrop drops a table or an index unless SQLite would drop more with it than the
// source did: see retire. What it deletes from sqlite_sequence comes back.
func plainDrop(c *sqlite.Conn, o *cdc.SchemaObject) (done bool, err error) {
	if isSQLites(o.Name) || isSQLites(o.Table) {
		return false, nil
	}
	for i := 1; i <= 4; i++ {
		// By index, too: the table may have had another name when it was analyzed.
		n, err := c.QueryInt(fmt.Sprintf("SELECT EXISTS(SELECT 1 FROM main.sqlite_stat%d WHERE tbl=?1 COLLATE NOCASE OR idx=?2 COLLATE NOCASE)", i), o.Table, o.Name)
		if err == nil && n > 0 {
			return false, nil
		}
		if err != nil && !declined(c, err) { // not for want of the table
			return false, err
		}
	}
	if o.Type == "index" {
		return attempt(c, c.Exec("DROP INDEX main."+quote(o.Name)))
	}
	explicit := false // an index may come back without its table: see dropTable
	err = c.Query("SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin='c'", []any{o.Name}, func(sqlite.Row) error {
		explicit = true
		return nil
	})
	if err != nil || explicit {
		return false, err
	}
	return attempt(c, c.Exec("DROP TABLE main."+quote(o.Name)))
}
