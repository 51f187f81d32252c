package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Attach makes the database at path readable under the name as, which CopyFrom
// takes. It must happen outside a transaction, and both databases must have the
// same text encoding; an empty main database takes that of path. The file at path
// is not written, but SQLite may leave an empty -wal and a -shm beside it.
func (c *Conn) Attach(path, as string) error {
	empty, err := c.QueryInt("SELECT NOT EXISTS(SELECT 1 FROM main.sqlite_schema)")
	if err != nil {
		return err
	}
	attach := func() error { return c.Exec("ATTACH ?1 AS ?2", fileURI(path, Options{})+"?mode=ro", as) }
	err = attach()
	for _, encoding := range []string{"UTF-8", "UTF-16le", "UTF-16be"} {
		if err == nil || empty == 0 || !hasCode(err, codeError) {
			break
		}
		if err := c.Exec("PRAGMA encoding='" + encoding + "'"); err != nil {
			return err
		}
		err = attach()
	}
	if err != nil {
		return fmt.Errorf("sqlite: attach %s: %w", path, err)
	}
	return nil
}

// Detach closes an attached database, outside a transaction.
func (c *Conn) Detach(as string) error { return c.Exec("DETACH ?1", as) }

// Copied is what CopyFrom did.
type Copied struct {
	Rows    int64    // deleted plus inserted
	Objects int      // of the schema that one database had and the other had not
	LeftOff []string // indexes that this SQLite cannot build: an unknown collation or function
}

// CopyFrom makes the main database equal to the attached database from, inside the
// caller's open write transaction, so that readers see the old state until it
// commits. Only what differs is written: tables of equal text keep their rows that
// are equal in rowid or key and in every column, and a second call changes nothing.
// skip, unless nil, names tables of equal text whose rows are known to be equal.
// Names with the prefix Reserved are left alone on both sides. user_version and
// application_id are copied, page size and the position in the file are not.
//
// The error wraps ErrAltered when the source has a value that SQL cannot write.
//
// Virtual tables are made by their rows in sqlite_schema and are never asked; their
// shadow tables are copied like any other table.
//
// All targets of c are closed. After an error call Rollback, no mere ROLLBACK TO:
// it also makes the connection forget the schema that was never committed.
func (c *Conn) CopyFrom(ctx context.Context, from string, skip func(table string) bool) (Copied, error) {
	if !c.InTransaction() {
		return Copied{}, errors.New("sqlite: copy: no transaction is open")
	}
	if skip == nil {
		skip = func(string) bool { return false }
	}
	defer c.interruptOn(ctx)()
	c.ResetTargets()
	if err := c.makeAlike(); err != nil {
		return Copied{}, err
	}
	p := &copier{c: c, ctx: ctx, from: quote(from), skip: skip}
	err := p.run()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return Copied{}, fmt.Errorf("sqlite: copy: %w", err)
	}
	return p.did, nil
}

// A copier is one run of CopyFrom.
type copier struct {
	c    *Conn
	ctx  context.Context
	from string // quoted name of the source
	skip func(string) bool
	did  Copied
	kept map[string]bool // tables that were there, by exact name
}

func (p *copier) run() error {
	// While on, SQLite lets us create its own tables and edit sqlite_schema; RESET,
	// also where the schema was edited, switches it off.
	p.c.schemaEdited = true
	if err := p.exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	if err := p.compareSchemas(); err != nil {
		return err
	}
	steps := []func() error{p.findKept, p.copyRows, p.copyHeader, p.c.ResetSchema}
	if p.did.Objects > 0 {
		steps = []func() error{p.dropText, p.findKept, p.dropObjects, p.createTables, p.copyRows,
			p.createIndexes, p.createText, p.copyHeader, p.touchSchema}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (p *copier) exec(sql string, args ...any) error {
	if err := p.ctx.Err(); err != nil { // an interrupt between statements goes unheard
		return err
	}
	return p.c.Exec(sql, args...)
}

// objects lists sqlite_schema of a database, in its order.
func (p *copier) objects(db, where string) (out []SchemaRow, err error) {
	err = p.c.once("SELECT type, name, tbl_name, sql FROM "+db+".sqlite_schema"+unreserved+where+" ORDER BY rowid", func(r Row) error {
		out = append(out, SchemaRow{r.Text(0), r.Text(1), r.Text(2), r.Text(3)})
		return nil
	})
	return out, err
}

func (p *copier) compareSchemas() error {
	list := func(db string) string {
		return "SELECT type, name, tbl_name, sql FROM " + db + ".sqlite_schema" + unreserved
	}
	for _, pair := range [][2]string{{"main", p.from}, {p.from, "main"}} {
		n, err := p.c.QueryInt("SELECT count(*) FROM (" + list(pair[0]) + " EXCEPT " + list(pair[1]) + ")")
		if err != nil {
			return err
		}
		p.did.Objects += int(n)
	}
	return nil
}

// textOnly selects what exists in the schema's text alone: views, triggers and
// virtual tables.
const textOnly = " AND coalesce(rootpage,0)=0"

// dropText removes them by their rows. Their order matters to SQLite (a trigger
// after its table), so if anything in the schema differs all of them are made anew.
func (p *copier) dropText() error {
	if err := p.exec("DELETE FROM main.sqlite_schema" + unreserved + textOnly); err != nil {
		return err
	}
	return p.resetSchema()
}

func (p *copier) resetSchema() error {
	if err := p.c.ResetSchema(); err != nil {
		return err
	}
	return p.exec("PRAGMA writable_schema=ON")
}

func (p *copier) findKept() error {
	p.kept = map[string]bool{}
	return p.c.once("SELECT name FROM main.sqlite_schema"+unreserved+" AND type='table' AND rootpage>0 AND (name,sql) IN (SELECT name, sql FROM "+
		p.from+".sqlite_schema WHERE type='table' AND rootpage>0)", func(r Row) error {
		p.kept[r.Text(0)] = true
		return nil
	})
}

// dropObjects drops tables, and indexes of tables that stay, that differ.
func (p *copier) dropObjects() error {
	indexes, err := p.objects("main", " AND type='index' AND sql IS NOT NULL AND (name,tbl_name,sql) NOT IN (SELECT name, tbl_name, sql FROM "+
		p.from+".sqlite_schema WHERE type='index' AND sql IS NOT NULL)")
	if err != nil {
		return err
	}
	tables, err := p.objects("main", " AND type='table'")
	if err != nil {
		return err
	}
	// Dropping an AUTOINCREMENT table deletes its row there.
	slices.SortStableFunc(tables, func(a, b SchemaRow) int { return sequenceLast(a.Name) - sequenceLast(b.Name) })
	for _, o := range indexes {
		if err := p.exec("DROP INDEX main." + quote(o.Name)); err != nil {
			return fmt.Errorf("index %q: %w", o.Name, err)
		}
	}
	for _, o := range tables {
		if p.kept[o.Name] {
			continue
		}
		if err := p.dropTable(o.Name); err != nil {
			return fmt.Errorf("table %q: %w", o.Name, err)
		}
	}
	return nil
}

// dropTable drops a table. SQLite never drops sqlite_sequence, so that one takes
// another name first.
func (p *copier) dropTable(name string) error {
	if !strings.EqualFold(name, "sqlite_sequence") {
		return p.exec("DROP TABLE main." + quote(name))
	}
	const other = Reserved + "dropped"
	if err := p.exec("UPDATE main.sqlite_schema SET name='"+other+"', tbl_name='"+other+"', sql='CREATE TABLE "+other+"(name,seq)' WHERE name=?1", name); err != nil {
		return err
	}
	if err := p.resetSchema(); err != nil {
		return err
	}
	return p.exec("DROP TABLE main." + other)
}

func (p *copier) create(o SchemaRow) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	return p.c.Create(o)
}

func (p *copier) createTables() error {
	tables, err := p.objects(p.from, " AND type='table' AND rootpage>0")
	if err != nil {
		return err
	}
	for _, o := range tables {
		there, err := p.c.QueryInt("SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type='table' AND name=?1)", o.Name)
		if err != nil {
			return err
		}
		if there != 0 { // kept, or sqlite_sequence, which comes with the first AUTOINCREMENT
			continue
		}
		if err := p.create(o); err != nil {
			return fmt.Errorf("table %q: %w", o.Name, err)
		}
	}
	return nil
}

// createIndexes comes after the rows: SQLite sorts once.
func (p *copier) createIndexes() error {
	indexes, err := p.objects(p.from, " AND type='index' AND sql IS NOT NULL AND name NOT IN (SELECT name FROM main.sqlite_schema WHERE type='index')")
	if err != nil {
		return err
	}
	for _, o := range indexes {
		switch err := p.create(o); {
		case err == nil:
		case hasCode(err, codeError):
			p.did.LeftOff = append(p.did.LeftOff, o.Name)
		default:
			return fmt.Errorf("index %q: %w", o.Name, err)
		}
	}
	return nil
}

func (p *copier) createText() error {
	return p.exec("INSERT INTO main.sqlite_schema(type,name,tbl_name,rootpage,sql) SELECT type, name, tbl_name, 0, sql FROM " +
		p.from + ".sqlite_schema" + unreserved + textOnly + " ORDER BY rowid")
}

// copyHeader copies the two numbers that applications keep in the file's header.
func (p *copier) copyHeader() error {
	for _, name := range []string{"user_version", "application_id"} {
		want, err := p.c.QueryInt("PRAGMA " + p.from + "." + name)
		if err != nil {
			return err
		}
		got, err := p.c.QueryInt("PRAGMA main." + name)
		if err != nil {
			return err
		}
		if got == want {
			continue
		}
		if err := p.exec(fmt.Sprintf("PRAGMA main.%s=%d", name, want)); err != nil {
			return err
		}
	}
	return nil
}

// touchSchema makes all connections read the schema again.
func (p *copier) touchSchema() error {
	v, err := p.c.QueryInt("PRAGMA main.schema_version")
	if err != nil {
		return err
	}
	if err := p.exec(fmt.Sprintf("PRAGMA main.schema_version=%d", int32(v)+1)); err != nil {
		return err
	}
	return p.c.ResetSchema()
}
