package sqlite

import "fmt"

// A catalog remembers where in sqlite_schema the tables are. That has no index: a
// search by name reads half of it, for each table again, which is most of the time
// that ten thousand tables take. What the catalog says is a hint and may be out of
// date: every use of it is proved by the row itself.
type catalog struct {
	rowids map[string]int64 // by name
	last   int64            // rowids up to here have been read
	limit  int              // of rowids before all are read anew, without the dropped ones
}

// spareNames is how many names of dropped tables a catalog may keep, besides as many as
// there are tables.
const spareNames = 1000

// tableRow gives the name and the text of a table; found is false when there is none.
func (c *Conn) tableRow(name string) (exact, sql string, found bool, err error) {
	k := &c.catalog
	if exact, sql, found, err = k.look(c, name); found || err != nil {
		return exact, sql, found, err
	}
	if err := k.learn(c); err != nil {
		return "", "", false, err
	}
	if exact, sql, found, err = k.look(c, name); found || err != nil {
		return exact, sql, found, err
	}
	return k.search(c, name)
}

// look reads the row that the catalog remembers.
func (k *catalog) look(c *Conn, name string) (exact, sql string, found bool, err error) {
	id, ok := k.rowids[name]
	if !ok {
		return "", "", false, nil
	}
	err = c.Query("SELECT name, sql FROM main.sqlite_schema WHERE rowid=?1 AND type='table' AND name=?2 COLLATE NOCASE", []any{id, name},
		func(r Row) error {
			exact, sql, found = r.Text(0), r.Text(1), true
			return nil
		})
	return exact, sql, found, err
}

// learn reads what was added since the last time.
func (k *catalog) learn(c *Conn) error {
	if len(k.rowids) >= k.limit {
		*k = catalog{rowids: make(map[string]int64)}
	}
	err := c.Query("SELECT rowid, name, type='table' FROM main.sqlite_schema WHERE rowid>?1 ORDER BY rowid", []any{k.last},
		func(r Row) error {
			k.last = r.Int(0)
			if r.Int(2) != 0 {
				k.rowids[r.Text(1)] = k.last
			}
			return nil
		})
	if k.limit == 0 {
		k.limit = 2*len(k.rowids) + spareNames
	}
	return err
}

// search reads sqlite_schema until the table comes: rows may have moved, and a name may
// be written in other letters.
func (k *catalog) search(c *Conn, name string) (exact, sql string, found bool, err error) {
	err = c.Query("SELECT name, sql, rowid FROM main.sqlite_schema WHERE type='table' AND name=?1 COLLATE NOCASE LIMIT 1", []any{name},
		func(r Row) error {
			exact, sql, found = r.Text(0), r.Text(1), true
			k.rowids[name] = r.Int(2)
			return nil
		})
	if err != nil {
		return "", "", false, err
	}
	// A row that takes the place of a dropped one is among the next to be learnt.
	k.last, err = c.QueryInt("SELECT coalesce(max(rowid), 0) FROM main.sqlite_schema")
	if err != nil {
		return "", "", false, fmt.Errorf("end of sqlite_schema: %w", err)
	}
	return exact, sql, found, nil
}
