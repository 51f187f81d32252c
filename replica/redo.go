package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sqlite-replicator/replicator/cdc"
)

// errDone ends a walk over the spool early.
var errDone = errors.New("done")

// redo applies the spooled records again, one transaction of the source at a
// time, each within a savepoint and, where that fails, in two passes. Of a
// transaction that spans records only the part at hand can be done: it goes on
// in its first pass, and add completes it.
func (a *applier) redo(ctx context.Context) error {
	a.redone++
	a.changes = 0
	if err := a.rollbackFile(); err != nil {
		return err
	}
	if err := a.guard.lock(ctx); err != nil {
		return err
	}
	spans := a.spool.spans()
	if spans {
		ended, err := a.first(removal)
		if err != nil {
			return err
		}
		if !ended {
			a.w.pass = removal
			return nil
		}
		if _, err := a.first(arrival); err != nil {
			return err
		}
	}
	return a.each(spans)
}

// first carries out one pass of the first transaction in the spool, and reports
// whether its end is there.
func (a *applier) first(p pass) (ended bool, err error) {
	if err := a.w.flush(); err != nil {
		return false, err
	}
	a.w.pass, a.w.rows = p, false
	err = a.walk(func(c *cdc.Change, lsn cdc.LSN) error {
		if p == removal {
			a.tally(c)
		}
		if err := a.w.op(c, lsn); err != nil || c.Op != cdc.OpEnd {
			return err
		}
		ended = true
		return errDone
	})
	if err != nil && !errors.Is(err, errDone) {
		return false, err
	}
	if err := a.w.flush(); err != nil {
		return false, err
	}
	if ended {
		a.w.pass = direct
	}
	return ended, nil
}

// walk decodes the spooled records once more. Where it reaches their end, decoding
// goes on from there: the error that led here cut the last record short.
func (a *applier) walk(visit func(*cdc.Change, cdc.LSN) error) error {
	var d cdc.Decoder
	err := a.spool.each(func(raw []byte) error {
		rec, err := cdc.Decode(raw)
		if err != nil {
			return err
		}
		return d.Decode(rec, func(c *cdc.Change) error { return visit(c, rec.LSN) })
	})
	if err == nil {
		a.decoder = d
	}
	return err
}

// each applies the spooled transactions one by one, without the first one if
// that is done. All others lie within one record each, so that their operations
// fit in memory.
func (a *applier) each(skipFirst bool) error {
	var ops []cdc.Change
	return a.walk(func(c *cdc.Change, lsn cdc.LSN) error {
		if !skipFirst {
			a.tally(c)
			ops = append(ops, *c)
		}
		if c.Op != cdc.OpEnd {
			return nil
		}
		if skipFirst {
			skipFirst = false
			return nil
		}
		err := a.transaction(ops, lsn)
		clear(ops)
		ops = ops[:0]
		return err
	})
}

// transaction applies one transaction, in two passes if need be.
func (a *applier) transaction(ops []cdc.Change, lsn cdc.LSN) error {
	// Noted once, whichever way succeeds.
	rows := slices.DeleteFunc(slices.Clone(ops), isSequence)
	// What a rollback to the savepoint undoes, it must undo whole.
	if err := a.w.tables.giveBack(); err != nil {
		return err
	}
	if err := a.guard.conn.Exec("SAVEPOINT replicator"); err != nil {
		return err
	}
	a.w.tables.collectSums()
	sums := a.w.sums.save()
	err := a.run(rows, lsn, direct)
	if conflicts(err) {
		if err := a.guard.conn.Exec("ROLLBACK TO replicator"); err != nil {
			return err
		}
		if err := a.w.rewind(); err != nil {
			return err
		}
		a.w.sums.restore(sums)
		if err := a.run(rows, lsn, removal); err != nil {
			return err
		}
		err = a.run(rows, lsn, arrival)
	}
	if err != nil {
		return err
	}
	a.w.pass = direct
	for i := range ops {
		if isSequence(ops[i]) {
			a.w.sequence.add(&ops[i])
		}
	}
	if err := a.guard.conn.Exec("RELEASE replicator"); err != nil {
		return fmt.Errorf("replica: record %d: %w", lsn, err)
	}
	return nil
}

func isSequence(c cdc.Change) bool {
	return c.Table != nil && c.Op != cdc.OpTable && c.Table.Name == sequenceTable
}

func (a *applier) run(ops []cdc.Change, lsn cdc.LSN, p pass) error {
	a.w.pass, a.w.rows = p, false
	for i := range ops {
		if err := a.w.op(&ops[i], lsn); err != nil {
			return err
		}
	}
	return a.w.flush()
}
