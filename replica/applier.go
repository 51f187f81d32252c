package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// An applier applies records to one file. It collects whole records in the open
// SQLite transaction until commit; a transaction of several records has one of
// its own. After any error the caller must call rollback, which leaves the file
// and the applier at the last commit.
type applier struct {
	guard *guard
	w     *writer
	spool *spool // the records of the open SQLite transaction
	now   func() time.Time

	verifier *cdc.Verifier
	decoder  cdc.Decoder
	mark     Mark  // in the file
	cookie   int64 // SQLite's count of schema changes in the file
	next     Mark  // after the whole records in hand
	records  int   // in hand
	changes  uint64
	redone   uint64 // SQLite transactions that needed the second way of applying
}

// newApplier continues a file at the position that it holds.
func newApplier(g *guard, spoolDir string, now func() time.Time) (*applier, error) {
	mark, found, err := readPosition(g.conn)
	if err == nil && !found {
		err = fmt.Errorf("replica: %s holds no position: it is not a replica", g.path)
	}
	if err != nil {
		return nil, err
	}
	w, err := newWriter(g.conn)
	if err != nil {
		return nil, err
	}
	a := &applier{guard: g, w: w, spool: newSpool(spoolDir), now: now, cookie: unsealed}
	a.restart(mark)
	return a, nil
}

// restart makes mark, which the file is at, the point to go on from.
func (a *applier) restart(mark Mark) {
	a.mark, a.next = mark, mark
	a.verifier = cdc.NewVerifier(mark.Position)
	a.decoder.Reset()
	a.spool.reset()
	a.w.sums.forgetClaims()
	a.records, a.changes = 0, 0
}

// whole reports whether what is in hand ends with a boundary, so that it can be
// committed.
func (a *applier) whole() bool { return a.next.LSN+1 == a.verifier.Next() }

// add applies a record, which it keeps until the commit. The caller commits
// before the first part of a transaction, and only when whole.
func (a *applier) add(ctx context.Context, raw []byte) error {
	whole := a.whole()
	rec, err := a.verifier.Verify(raw, false)
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	if rec.Kind == cdc.EpochStart && !whole {
		// The transaction whose parts came last will never end. It is alone in hand.
		if err := a.undo(); err != nil {
			return err
		}
	}
	if err := a.lost(); err != nil {
		return err
	}
	if err := a.guard.lock(ctx); err != nil {
		return err
	}
	if err := a.spool.add(raw, rec.Kind); err != nil {
		return err
	}
	err = a.decoder.Decode(rec, func(c *cdc.Change) error { return a.visit(c, rec.LSN) })
	if conflicts(err) {
		err = a.redo(ctx)
	}
	if err != nil {
		return err
	}
	a.records++
	if rec.Boundary != nil {
		a.next = markOf(a.verifier.Position(), rec.Boundary)
		a.w.sums.hear(rec.LSN, rec.Boundary.Tables)
	}
	return nil
}

// lost gives an error when SQLite has rolled back what is in hand, which then must come
// again.
func (a *applier) lost() error {
	if a.spool.bytes > 0 && !a.guard.conn.InTransaction() {
		return fmt.Errorf("replica: records up to %d: %w", a.verifier.Next()-1, sqlite.ErrNoTransaction)
	}
	return nil
}

// conflicts reports whether rows of one transaction stood in each other's way,
// which the second way of applying resolves.
func conflicts(err error) bool {
	var d *Divergence
	return sqlite.IsConstraint(err) && !errors.As(err, &d)
}

func (a *applier) visit(c *cdc.Change, lsn cdc.LSN) error {
	a.tally(c)
	if err := a.w.op(c, lsn); err != nil {
		return err
	}
	if c.Op != cdc.OpEnd || a.w.pass != removal {
		return nil
	}
	// The first pass of a transaction that spans records is complete.
	if _, err := a.first(arrival); err != nil {
		return err
	}
	a.w.pass = direct
	return nil
}

// tally counts changed rows.
func (a *applier) tally(c *cdc.Change) {
	if c.Op == cdc.OpDelete || c.Op == cdc.OpUpdate || c.Op == cdc.OpInsert {
		a.changes++
	}
}

// commit makes everything in hand and the position durable together, unless the
// rows are not those of the source: then it gives a Divergence.
func (a *applier) commit(ctx context.Context) error {
	if a.next.LSN == a.mark.LSN {
		return nil
	}
	if err := a.lost(); err != nil {
		return err
	}
	err := a.w.settle(a.next.LSN)
	if conflicts(err) {
		if err = a.redo(ctx); err == nil {
			err = a.w.settle(a.next.LSN)
		}
		if conflicts(err) { // both ways were tried
			err = &Divergence{LSN: a.next.LSN, Table: sequenceTable, err: err}
		}
	}
	if err != nil {
		return err
	}
	if err := advance(a.guard.conn, a.mark, a.next, a.now()); err != nil {
		return err
	}
	cookie, err := sealSchema(a.guard.conn, a.cookie)
	if err != nil {
		return err
	}
	err = a.w.sums.commit(func() error {
		if err := a.guard.commit(); err != nil {
			return fmt.Errorf("replica: commit at %s: %w", a.next.Position, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.w.committed()
	a.mark, a.cookie = a.next, cookie
	a.spool.reset()
	a.records, a.changes = 0, 0
	return nil
}

// rollback gives up everything since the last commit. The records after it must
// come again.
func (a *applier) rollback() error {
	err := a.undo()
	a.restart(a.mark)
	return err
}

// undo rolls the file back to the last commit and forgets the spooled records.
func (a *applier) undo() error {
	a.spool.reset()
	a.w.sums.forgetClaims()
	a.records, a.changes = 0, 0
	return a.rollbackFile()
}

func (a *applier) rollbackFile() error {
	return errors.Join(a.guard.rollback(), a.w.abandon())
}
