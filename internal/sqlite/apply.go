package sqlite

// #include <stdlib.h>
// #include "apply.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

var (
	// ErrDiverged is wrapped when a change did not change exactly one row: the
	// database is not the one that the change was made for.
	ErrDiverged = errors.New("not exactly one row changed")

	// ErrRecord is wrapped when Change.Old or Change.New is no record of its table.
	ErrRecord = errors.New("malformed record")

	// ErrAltered is wrapped when SQLite would store a value as another one: an integer
	// in a TEXT column, say, is none that SQLite has written there. A database has one
	// where a page is damaged, or the column got another type by writable_schema.
	ErrAltered = errors.New("a value is not of its column's type, and SQLite would write another")
)

// An Op is what a change does to its row.
type Op uint8

const (
	Delete Op = C.RQ_DELETE
	Update Op = C.RQ_UPDATE
	Insert Op = C.RQ_INSERT
)

func (op Op) String() string {
	switch op {
	case Delete:
		return "delete"
	case Update:
		return "update"
	case Insert:
		return "insert"
	}
	return fmt.Sprintf("op %d", uint8(op))
}

// A Change is one row change. Old and New are SQLite records in the database's
// encoding (https://www.sqlite.org/fileformat2.html#record_format); fields that a
// record lacks at its end, as ALTER TABLE ADD COLUMN leaves it, mean what they read
// as (Conn.Missing). Old is needed for Delete and Update of WITHOUT ROWID tables, where
// its key finds the row; for Update of others it only tells which columns to leave
// alone, and nil means none.
type Change struct {
	Op       Op
	Table    *Target
	Rowid    int64 // ignored for WITHOUT ROWID tables
	Old, New []byte
}

const (
	batchChanges = 1024    // changes of one C call
	batchBytes   = 1 << 20 // copied records of one C call
	pinBytes     = 8 << 10 // from this size on a record is pinned, not copied
)

// A batch is C memory that holds the changes of one call.
type batch struct {
	changes unsafe.Pointer // [batchChanges]C.rq_change
	records unsafe.Pointer // [batchBytes]byte
	used    int            // bytes of records
	pinner  runtime.Pinner
}

func newBatch() *batch {
	return &batch{
		changes: C.calloc(batchChanges, C.sizeof_rq_change), // zero: Go's write barrier looks at what it overwrites
		records: C.malloc(batchBytes),
	}
}

func (b *batch) free() {
	C.free(b.changes)
	C.free(b.records)
}

// Apply makes the changes in order, inside the caller's transaction, and returns
// how many were made. The error for the next one names its table and row but no
// value. IsUnique(err) tells a conflict between rows, as two rows that swap a
// unique value make: roll back to a savepoint, then apply all deletes and updates'
// old rows before all inserts. errors.Is(err, ErrDiverged) tells that a row was
// missing. After any error the caller must roll back: the failed change may be
// half made.
//
// Triggers, foreign keys and CHECK constraints are off as Open left them; SQLite
// computes generated columns. Apply needs the copy of at most 1 MiB of records
// besides what SQLite uses.
func (c *Conn) Apply(changes []Change) (n int, err error) {
	if c.db == nil {
		return 0, ErrClosed
	}
	if c.batch == nil {
		c.batch = newBatch()
	}
	for n < len(changes) {
		filled, err := c.batch.fill(c, changes[n:])
		if err != nil {
			return n, err
		}
		done, err := c.applyBatch(changes[n : n+filled])
		c.batch.pinner.Unpin()
		n += done
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// applyBatch runs the changes that the batch holds, preparing statements when the
// C loop asks for them.
func (c *Conn) applyBatch(changes []Change) (int, error) {
	done := C.int(0)
	for {
		r := C.rq_apply(c.db, (*C.rq_change)(c.batch.changes), C.int(len(changes)), done)
		done = r.done
		if r.status == C.RQ_OK {
			return int(done), nil
		}
		ch := changes[done]
		var err error
		switch r.status {
		case C.RQ_NEED:
			if err = ch.Table.prepare(); err == nil {
				continue
			}
		case C.RQ_DIVERGED:
			err = ErrDiverged
		case C.RQ_RECORD:
			err = ErrRecord
		case C.RQ_ALTERED:
			err = ErrAltered
		default:
			err = c.fail("step", r.rc)
		}
		return int(done), ch.wrap(err)
	}
}

// fill copies as many changes as fit, at least one, and checks their form.
func (b *batch) fill(c *Conn, changes []Change) (int, error) {
	b.used = 0
	ops := unsafe.Slice((*C.rq_change)(b.changes), batchChanges)
	for i, ch := range changes[:min(len(changes), batchChanges)] {
		err := ch.check(c)
		if err != nil && i > 0 {
			return i, nil // the next call reports it, after these were made
		}
		if err != nil {
			return 0, err
		}
		if b.used+b.needs(ch.Old)+b.needs(ch.New) > batchBytes {
			return i, nil
		}
		ops[i] = C.rq_change{
			target: ch.Table.h, rowid: C.int64_t(ch.Rowid), op: C.int(ch.Op),
			old: b.hold(ch.Old), nold: C.uint64_t(len(ch.Old)),
			new: b.hold(ch.New), nnew: C.uint64_t(len(ch.New)),
		}
	}
	return min(len(changes), batchChanges), nil
}

func (b *batch) needs(record []byte) int {
	if len(record) >= pinBytes {
		return 0
	}
	return len(record)
}

// hold makes record's bytes stay where they are until the call is over and returns
// their address, 0 for nil.
func (b *batch) hold(record []byte) C.uintptr_t {
	if record == nil {
		return 0
	}
	if len(record) >= pinBytes {
		b.pinner.Pin(&record[0])
		return C.uintptr_t(uintptr(unsafe.Pointer(&record[0])))
	}
	to := unsafe.Add(b.records, b.used)
	copy(unsafe.Slice((*byte)(to), len(record)), record)
	b.used += len(record)
	return C.uintptr_t(uintptr(to))
}

func (ch *Change) check(c *Conn) error {
	switch {
	case ch.Table == nil || ch.Table.conn != c:
		return fmt.Errorf("sqlite: apply: %v on a target that is closed or of another connection", ch.Op)
	case ch.Op < Delete || ch.Op > Insert:
		return ch.wrap(errors.New("unknown operation"))
	case (ch.Op == Delete) != (ch.New == nil):
		return ch.wrap(fmt.Errorf("new row given: %v: %w", ch.New != nil, ErrRecord))
	case ch.Op == Insert && ch.Old != nil, ch.Op != Insert && ch.Old == nil && ch.Table.table.WithoutRowid:
		return ch.wrap(fmt.Errorf("old row given: %v: %w", ch.Old != nil, ErrRecord))
	}
	return nil
}

// wrap names the row by what is no value of it.
func (ch *Change) wrap(err error) error {
	t := ch.Table.table
	if t.WithoutRowid {
		return fmt.Errorf("sqlite: apply: %v in %q, key of %d fields: %w", ch.Op, t.Name, t.Key, err)
	}
	return fmt.Errorf("sqlite: apply: %v in %q, rowid %d: %w", ch.Op, t.Name, ch.Rowid, err)
}
