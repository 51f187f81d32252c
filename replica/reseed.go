package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A repair is why the file must be made equal to a snapshot.
type repair struct {
	reason error
	min    cdc.LSN // the snapshot's LSN at least
	// ahead is true when the history itself is in doubt, so that the snapshot
	// counts and not where the file is. Else the file is merely wrong: it becomes
	// right where it is, and readers do not see time go back.
	ahead bool
}

// reseed makes the live file equal to a snapshot. Readers go on: they see the
// file as it was until one SQLite transaction brings the difference.
func (r *Replica) reseed(ctx context.Context) error {
	need := *r.repair
	if r.board.foreign() { // whose LSNs are other numbers
		need.min, need.ahead = 0, true
	}
	snap, err := r.newest(ctx, need.min)
	if err != nil {
		return fmt.Errorf("%w (needed because: %w)", err, need.reason)
	}
	if need.ahead && snap.At.Position == r.past.seeded.Position {
		return fmt.Errorf("%w: the newest is at LSN %d, where the file already comes from (needed because: %w)",
			ErrNoSnapshot, snap.At.LSN, need.reason)
	}
	upTo := cdc.LSN(0)
	if was := r.a.mark; !need.ahead && snap.At.Lineage == was.Lineage {
		upTo = was.LSN
	}
	tmp, at, err := r.fetch(ctx, snap, upTo)
	if err != nil {
		return err
	}
	if at.LSN < upTo {
		at, err = r.catchUp(ctx, tmp, at, upTo)
	}
	if err == nil {
		err = r.adopt(ctx, tmp, at)
	}
	switch {
	case isFull(err), errors.Is(err, errStream), err != nil && ctx.Err() != nil: // it goes on from there
		return err
	case err != nil:
		return errors.Join(err, removeDatabase(tmp))
	}
	r.repair, r.past.seeded = nil, at
	r.board.count(func(c *Counters) { c.Reseeds++ })
	select {
	case <-r.found: // of the file as it was
	default:
	}
	r.board.differs(false)
	return removeDatabase(tmp)
}

// errStream is wrapped when the stream is out of reach before a file has caught up.
var errStream = errors.New("replica: stream out of reach")

// catchUp brings a restored file to the LSN that the live one has reached.
func (r *Replica) catchUp(ctx context.Context, path string, at Mark, upTo cdc.LSN) (Mark, error) {
	f, err := OpenFile(path, FileOptions{SpoolDir: r.o.SpoolDir, CacheBytes: r.o.Apply.CacheBytes})
	if err != nil {
		return Mark{}, err
	}
	var stopped error // by the file
	err = r.o.Stream.Consume(ctx, at.LSN+1, func(rec []byte, _ cdc.LSN, _ uint64) error {
		stopped = f.Apply(bytes.Clone(rec))
		if stopped == nil && f.Position().LSN >= upTo {
			stopped = errDone
		}
		return stopped
	})
	at = f.at
	var d *Divergence
	switch {
	case errors.Is(err, errDone):
		return at, f.Finish(false)
	case refused(err) || errors.As(err, &d):
		// The stream does not lead from this snapshot to here: a newer one is needed.
		r.repair = &repair{reason: r.repair.reason, min: upTo, ahead: true}
		err = fmt.Errorf("%w: the one at LSN %d does not lead to %d: %w", ErrNoSnapshot, at.LSN, upTo, err)
	case stopped == nil:
		err = fmt.Errorf("%w: %w", errStream, err)
	}
	return Mark{}, errors.Join(err, f.Close())
}

// adopt makes the live file equal to the one at path and writes the position.
func (r *Replica) adopt(ctx context.Context, path string, at Mark) error {
	same, err := sameEncoding(r.a.guard.conn, path)
	if err == nil && !same {
		return r.replace(ctx, path, "the source has another text encoding")
	}
	var did sqlite.Copied
	if err == nil {
		did, err = r.difference(ctx, path, at)
	}
	if err != nil && r.a == nil {
		return fmt.Errorf("replica: re-seed: %w", err)
	}
	if errors.Is(err, sqlite.ErrNoRowidName) {
		return r.replace(ctx, path, "the columns of a table have taken every name of the rowid, so that no SQL copies its rows")
	}
	if neverRuns(err) { // for want of a collation, say
		return r.replace(ctx, path, "SQLite will not write a table of it: "+err.Error())
	}
	if sqlite.IsCorrupt(err) && sound(ctx, path) == nil {
		return r.replace(ctx, path, "it is damaged: "+err.Error())
	}
	if errors.Is(err, sqlite.ErrAltered) || sqlite.IsConstraint(err) {
		return r.replace(ctx, path, "the source has a row that no SQL can write: "+err.Error())
	}
	if err != nil {
		return fmt.Errorf("replica: re-seed: %w", errors.Join(err, r.a.rollback()))
	}
	r.a.restart(at)
	if err := r.a.w.reload(); err != nil {
		return err
	}
	r.o.Logger.Warn("replica file seeded again", "lsn", at.LSN, "rows", did.Rows, "schema_objects", did.Objects)
	return nil
}

const attached = "_replicator_snapshot"

// difference writes what differs, in one SQLite transaction with the position.
func (r *Replica) difference(ctx context.Context, path string, at Mark) (did sqlite.Copied, err error) {
	g := r.a.guard
	if err := g.rollback(); err != nil { // ATTACH is refused inside a transaction
		return did, err
	}
	r.a.w.tables.reset()
	if err := g.conn.Attach(path, attached); err != nil {
		return did, err
	}
	defer func() {
		err = errors.Join(err, g.rollback())
		if derr := g.conn.Detach(attached); derr != nil {
			// This connection can attach no other snapshot, and perhaps it has committed: the
			// file, opened again, says where it is.
			err = errors.Join(err, derr, g.close())
			r.a = nil
		}
	}()
	err = g.lock(ctx)
	if errors.Is(err, errStray) { // whatever it wrote ends here
		err = g.lock(ctx)
	}
	if err != nil {
		return did, err
	}
	if did, err = g.conn.CopyFrom(ctx, attached, nil); err != nil {
		return did, err
	}
	if err := createTables(g.conn); err != nil {
		return did, err
	}
	if err := dropSums(g.conn); err != nil { // of the rows as they were
		return did, err
	}
	if err := listLeftOff(g.conn, did.LeftOff); err != nil {
		return did, err
	}
	if err := setPosition(g.conn, at, r.o.Clock.Now()); err != nil {
		return did, err
	}
	if r.a.cookie, err = sealSchema(g.conn, unsealed); err != nil {
		return did, err
	}
	return did, g.commit()
}

// listLeftOff writes which indexes the file lacks: those that the restored one
// lacked already, and names.
func listLeftOff(c *sqlite.Conn, names []string) error {
	err := c.Exec(`DELETE FROM main._replicator_left_off;
INSERT INTO main._replicator_left_off(name, tbl, sql, reason) SELECT name, tbl, sql, reason FROM ` + attached + `._replicator_left_off`)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := c.Exec(`INSERT OR REPLACE INTO main._replicator_left_off(name, tbl, sql, reason)
SELECT name, tbl_name, sql, 'its collation or function is not built in' FROM `+attached+`.sqlite_schema WHERE type='index' AND name=?`, name)
		if err != nil {
			return err
		}
	}
	return nil
}

func sameEncoding(c *sqlite.Conn, path string) (bool, error) {
	mine, err := c.QueryText("PRAGMA encoding")
	if err != nil {
		return false, err
	}
	other, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
	if err != nil {
		return false, err
	}
	theirs, err := other.QueryText("PRAGMA encoding")
	return mine == theirs, errors.Join(err, other.Close())
}

// replace puts another file in the place of the live one, where no SQL leads from
// one to the other. Readers must open it anew.
func (r *Replica) replace(ctx context.Context, path, why string) error {
	if err := r.a.guard.unmoved(); err != nil { // it is not ours that would be replaced
		return err
	}
	r.o.Logger.Warn("replacing the file; programs that have it open must open it again", "path", r.o.Path, "because", why)
	_ = r.a.rollback() // what it cannot read of the file is replaced
	err := r.a.guard.close()
	r.a = nil
	if err != nil {
		return err
	}
	if err := snapshot.Install(path, r.o.Path); err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	return r.open(ctx)
}

// sound gives an error unless SQLite finds nothing wrong with the file at path.
func sound(ctx context.Context, path string) error {
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, c.Interrupt)
	defer stop()
	said, err := c.QueryText("PRAGMA quick_check(1)")
	if err == nil && said != "ok" {
		err = fmt.Errorf("replica: %s is damaged: %s", path, said)
	}
	return errors.Join(err, c.Close())
}
