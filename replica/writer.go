package replica

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A pass says which part of a transaction's operations is carried out. Rows that
// swap unique values cannot be updated one after the other: then the transaction
// is done in two passes, all rows that leave or change out, then all that come or
// changed in.
type pass uint8

const (
	direct  pass = iota // every operation as it is
	removal             // deletes, schema, and the old rows of updates as deletes
	arrival             // the new rows of updates as inserts, inserts, indexes, sqlite_sequence
)

// Limits of one batch: one C call of package sqlite takes about as much.
const (
	batchChanges = 1024
	batchBytes   = 1 << 20
)

// A writer turns operations into writes inside the open SQLite transaction.
type writer struct {
	conn     *sqlite.Conn
	tables   *tables
	sums     *rowSums
	sequence sequence
	schema   schema

	pass pass
	rows bool // an update or insert of the transaction in hand was seen

	batch []sqlite.Change
	from  []place // of each change in batch
	bytes int
}

// A place tells where a change came from, for an error.
type place struct {
	lsn   cdc.LSN
	table string
}

// A Divergence is a change that did not change exactly one row, or a table whose
// row-set hash is not what it should be: the file is not the database that the
// change was made for. It wraps sqlite.ErrDiverged, sqlite.ErrAltered, a
// constraint error or ErrRowSum.
type Divergence struct {
	LSN   cdc.LSN
	Table string
	err   error // names the row by its rowid, never by a value
	here  bool  // the file itself shows it, whatever the source has
	again bool  // to make the file equal to a snapshot did not help
}

func (d *Divergence) Error() string {
	if errors.Is(d.err, ErrRowSum) {
		return fmt.Sprintf("replica: table %q at LSN %d: %v", d.Table, d.LSN, d.err)
	}
	return fmt.Sprintf("replica: record %d does not fit table %q: %v", d.LSN, d.Table, d.err)
}

// Unwrap gives the cause.
func (d *Divergence) Unwrap() error { return d.err }

func newWriter(c *sqlite.Conn) (*writer, error) {
	w := &writer{conn: c, tables: newTables(c)}
	return w, w.reload()
}

// reload reads again what the writer remembers of the file.
func (w *writer) reload() error {
	w.drop()
	w.pass, w.rows = direct, false
	w.schema = schema{}
	w.tables.reset()
	if err := w.schema.load(w.conn); err != nil {
		return err
	}
	if err := w.sequence.load(w.conn); err != nil {
		return err
	}
	return w.sums.load(w.conn)
}

// prove keeps the row-set hashes in s from now on.
func (w *writer) prove(s *rowSums) error {
	w.sums, w.tables.sums = s, s
	return s.load(w.conn)
}

// abandon forgets what a rollback of the whole SQLite transaction has undone.
func (w *writer) abandon() error {
	w.sequence.reset()
	err := w.rewind()
	w.sums.abandon()
	w.schema.dirty = false
	return err
}

// rewind forgets what a rollback to a savepoint has undone. sqlite_sequence is
// not among it: its changes wait for the commit.
func (w *writer) rewind() error {
	w.drop()
	w.tables.forgetSums()
	w.pass, w.rows = direct, false
	w.schema.abandon() // what was noted, carried out or not
	if !w.schema.dirty && len(w.tables.loans) == 0 {
		return nil
	}
	w.tables.loans = nil
	w.tables.reset()
	if err := w.conn.ResetSchema(); err != nil {
		return err
	}
	return w.schema.load(w.conn)
}

// committed forgets what is now in the file.
func (w *writer) committed() { w.schema.dirty = false }

// op carries out one operation. The images in c must stay valid until flush:
// they alias the record, which outlives the batch.
func (w *writer) op(c *cdc.Change, lsn cdc.LSN) error {
	if c.Op == cdc.OpSchema {
		w.sums.touchSchema(c.Schema, lsn)
		return w.note(c.Schema)
	}
	if c.Op == cdc.OpTable {
		w.sums.touch(c.Table.Name, lsn)
		return nil
	}
	if w.schema.pending() {
		if err := w.alter(lsn); err != nil {
			return err
		}
	}
	switch c.Op {
	case cdc.OpDelete, cdc.OpUpdate, cdc.OpInsert:
		return w.row(c, lsn)
	case cdc.OpUserVersion:
		return w.conn.Exec(fmt.Sprintf("PRAGMA main.user_version=%d", c.Value))
	case cdc.OpApplicationID:
		return w.conn.Exec(fmt.Sprintf("PRAGMA main.application_id=%d", c.Value))
	case cdc.OpEnd:
		return w.end(lsn)
	}
	return nil
}

func (w *writer) row(c *cdc.Change, lsn cdc.LSN) error {
	if isReserved(c.Table.Name) {
		return nil
	}
	if c.Table.Name == sequenceTable {
		if w.pass != removal {
			w.sequence.add(c)
		}
		return nil
	}
	w.rows = w.rows || c.Op != cdc.OpDelete
	ch, skip := w.change(c)
	if skip {
		return nil
	}
	t, err := w.tables.of(c.Table)
	if err != nil {
		return w.fault(err, place{lsn, c.Table.Name})
	}
	if ch.Op == sqlite.Insert && t.autoincrement {
		w.sequence.touched = true
	}
	ch.Table = t.Target
	w.batch = append(w.batch, ch)
	w.from = append(w.from, place{lsn, c.Table.Name})
	w.bytes += len(ch.Old) + len(ch.New)
	if len(w.batch) >= batchChanges || w.bytes >= batchBytes {
		return w.flush()
	}
	return nil
}

// change is what the present pass does with a row operation.
func (w *writer) change(c *cdc.Change) (ch sqlite.Change, skip bool) {
	ch = sqlite.Change{Rowid: c.Rowid, Old: c.Old, New: c.New}
	switch c.Op {
	case cdc.OpDelete:
		ch.Op = sqlite.Delete
		return ch, w.pass == arrival
	case cdc.OpInsert:
		ch.Op = sqlite.Insert
		return ch, w.pass == removal
	}
	switch w.pass {
	case removal:
		ch.Op, ch.New = sqlite.Delete, nil
	case arrival:
		ch.Op, ch.Old = sqlite.Insert, nil
	default:
		ch.Op = sqlite.Update
	}
	return ch, false
}

// note keeps a schema change until the run of them is complete. Those after the
// first update or insert build indexes and belong to the second pass.
func (w *writer) note(s *cdc.SchemaChange) error {
	if w.pass == removal && w.rows || w.pass == arrival && !w.rows {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.schema.add(s)
	return nil
}

// alter carries out the schema changes that wait.
func (w *writer) alter(lsn cdc.LSN) error {
	if err := w.flush(); err != nil {
		return err
	}
	w.tables.reset()
	if err := w.tables.giveBack(); err != nil {
		return err
	}
	dropped := slices.ContainsFunc(w.schema.run, dropsSequence)
	edit, err := w.sums.edit(w.conn, w.schema.run)
	if err == nil {
		err = w.schema.apply(w.conn)
	}
	if err == nil {
		err = edit.done(w.conn)
	}
	if err == nil && dropped {
		err = w.sequence.dropped(w.conn)
	}
	w.sequence.touched = true // as DROP TABLE does
	w.tables.reset()
	return w.misfit(err, lsn)
}

func dropsSequence(c *cdc.SchemaChange) bool {
	return c.Old != nil && c.New == nil && c.Old.Name == sequenceTable
}

// end completes a transaction of the source.
func (w *writer) end(lsn cdc.LSN) error {
	if w.schema.changed && w.pass != removal {
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.tables.giveBack(); err != nil {
			return err
		}
		if err := w.schema.end(w.conn); err != nil {
			return w.misfit(err, lsn)
		}
		w.tables.reset()
	}
	w.rows = false
	return nil
}

// flush writes the batch.
func (w *writer) flush() error {
	if len(w.batch) == 0 {
		return nil
	}
	n, err := w.conn.Apply(w.batch)
	var at place
	if err != nil {
		at = w.from[min(n, len(w.from)-1)]
	}
	w.drop()
	return w.fault(err, at)
}

func (w *writer) drop() {
	clear(w.batch)
	w.batch, w.from, w.bytes = w.batch[:0], w.from[:0], 0
}

// settle makes the transaction ready to commit.
func (w *writer) settle(lsn cdc.LSN) error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.fault(w.sequence.settle(w.conn, w.tables), place{lsn, sequenceTable}); err != nil {
		return err
	}
	w.tables.collectSums()
	return w.tables.giveBack()
}

// misfit is fault for a schema change. What SQLite refuses to do at all does not
// fit the schema in the file.
func (w *writer) misfit(err error, lsn cdc.LSN) error {
	if (neverRuns(err) || sqlite.IsCorrupt(err)) && !errors.Is(err, errUnwritable) {
		return &Divergence{LSN: lsn, Table: "sqlite_schema", err: err}
	}
	return w.fault(err, place{lsn, "sqlite_schema"})
}

// neverRuns reports whether SQLite will not execute a statement at all, with this schema
// or these rows, however often it is asked to (SQLITE_ERROR).
func neverRuns(err error) bool {
	const code = 1 // no such table, collation or function, syntax, malformed schema
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code == code
}

// fault turns what proves a difference between file and source into a
// Divergence. A constraint is left to the caller while the second way of applying
// is still open.
func (w *writer) fault(err error, at place) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sqlite.ErrDiverged) || errors.Is(err, sqlite.ErrRecord) || errors.Is(err, sqlite.ErrAltered) ||
		w.pass != direct && sqlite.IsConstraint(err) {
		return &Divergence{LSN: at.lsn, Table: at.table, err: err}
	}
	if lacks(err) { // in a generated column
		err = fmt.Errorf("%w: %w", errUnwritable, err)
	}
	return fmt.Errorf("replica: record %d, table %q: %w", at.lsn, at.table, err)
}
