package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// open opens the replica's file, after restoring it from a snapshot if there is
// none. After errStray the file is open all the same; after no other error is it, so that
// it is not followed before it was compared with what it says of itself.
func (r *Replica) open(ctx context.Context) error {
	// The lock is that of the file to which the name led when Run began.
	if path, err := resolve(r.name); err != nil || path != r.o.Path {
		return &exitError{errors.Join(fmt.Errorf("replica: path %s no longer leads to %s: restore the link, or restart the replica", r.name, r.o.Path), err)}
	}
	err := usable(r.o.Path)
	if errors.Is(err, errVacant) {
		err = r.bootstrap(ctx)
	}
	if err != nil {
		return err
	}
	g, err := openGuard(r.o.Path, guardOptions{
		cacheBytes: r.o.Apply.CacheBytes, checkpointBytes: r.o.Apply.CheckpointBytes, hold: r.o.Apply.HoldWriteLock,
		rowSums: r.o.Apply.VerifyRows,
	})
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	a, err := newApplier(g, r.o.SpoolDir, r.o.Clock.Now)
	if err == nil {
		err = a.w.prove(r.sums)
	}
	if err == nil && r.repair == nil { // else whatever is wrong is mended with it
		err = a.unseal(ctx)
	}
	if err != nil && !errors.Is(err, errStray) {
		return errors.Join(err, g.close())
	}
	r.a, r.opened = a, true
	r.o.Logger.Info("replica file open", "path", r.o.Path, "lsn", a.mark.LSN, "epoch", a.mark.Epoch)
	return err
}

// errVacant means that nothing is at the path that could be lost.
var errVacant = errors.New("replica: no file yet")

// usable gives nil for the file of a replica and errVacant where there is none. A
// file without a byte is none: a shell that only looked leaves one.
func usable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && info.Mode().IsRegular() && info.Size() == 0:
		return errVacant
	case err != nil:
		return fmt.Errorf("replica: %w", err)
	}
	return ours(path)
}

// ours refuses a file that this program did not make: it is never overwritten.
func ours(path string) error {
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true, BusyTimeout: busyTimeout})
	if sqlite.IsNotADatabase(err) {
		return &exitError{fmt.Errorf("replica: file %s exists and is not a SQLite database: move it away, or choose another path", path)}
	}
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	_, found, err := readPosition(c)
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, errUnreadable) {
		err = &exitError{fmt.Errorf("replica: file %s is damaged: remove the file with its -wal and -shm, and start the replica again: %w", path, err)}
	}
	if err == nil && !found {
		err = &exitError{fmt.Errorf("replica: file %s exists and is not a replica: move it away, or choose another path", path)}
	}
	return err
}

// bootstrap makes the file from the newest snapshot.
func (r *Replica) bootstrap(ctx context.Context) error {
	snap, err := r.newest(ctx, 0)
	if err != nil {
		return err
	}
	tmp, _, err := r.fetch(ctx, snap, 0)
	if err != nil {
		return err
	}
	// Whoever made a file meanwhile did not know that its name is taken.
	if err := usable(r.o.Path); !errors.Is(err, errVacant) {
		return err
	}
	if err := snapshot.Install(tmp, r.o.Path); err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	r.past.seeded = snap.At
	r.o.Logger.Info("snapshot restored", "path", r.o.Path, "lsn", snap.At.LSN, "bytes", snap.Bytes)
	return nil
}

func (r *Replica) newest(ctx context.Context, min cdc.LSN) (Snapshot, error) {
	snap, err := r.o.Snapshots.Newest(ctx, min, r.board.leadsOn)
	if err != nil && !errors.Is(err, ErrNoSnapshot) {
		err = fmt.Errorf("%w: %w", errStore, err)
	}
	return snap, err
}

// fetch gives a replica's file in the replica's own directory, and where it is: at a
// snapshot, which it restores unless that was done before and there was no going on.
// Then records up to the LSN upTo may have been applied, too.
func (r *Replica) fetch(ctx context.Context, snap Snapshot, upTo cdc.LSN) (path string, at Mark, err error) {
	path = filepath.Join(r.work, "restore.db")
	r.board.needs(snap.At.LSN)
	if at, err = markIn(path); err == nil {
		caughtUp := at.Lineage == snap.At.Lineage && at.LSN > snap.At.LSN && at.LSN <= upTo
		if caughtUp || at.Position == snap.At.Position {
			if r.board.status().State != DiskFull { // which it is until something was written
				r.board.set(Restoring)
			}
			return path, at, nil
		}
	}
	r.board.set(Restoring)
	if err := r.restore(ctx, snap, path); err != nil {
		return "", Mark{}, err
	}
	return path, snap.At, claimFile(path, snap.At, r.o.Clock)
}

// markIn gives the position in a replica's file that is complete without a SQLite WAL. It
// makes no file, for which there may be no room.
func markIn(path string) (Mark, error) {
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		return Mark{}, errVacant
	}
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true, Immutable: true})
	if err != nil {
		return Mark{}, err
	}
	at, found, err := readPosition(c)
	if err == nil && !found {
		err = errVacant
	}
	return at, errors.Join(err, c.Close())
}

func (r *Replica) restore(ctx context.Context, snap Snapshot, path string) error {
	done, err := r.o.Turns.Take(ctx, snap.Bytes, func(what string) {
		r.board.progress(Progress{Total: uint64(snap.Bytes), Unit: "bytes", Waits: what})
		r.o.Logger.Info("a restore waits "+what, "lsn", snap.At.LSN, "bytes", snap.Bytes)
	})
	if err != nil {
		return err
	}
	defer done()
	r.o.Logger.Info("restoring snapshot", "lsn", snap.At.LSN, "bytes", snap.Bytes)
	err = snap.Restore(ctx, path, func(done int64) {
		r.board.progress(Progress{Done: uint64(done), Total: uint64(snap.Bytes), Unit: "bytes"})
	})
	if err != nil {
		return fmt.Errorf("%w: restore the one at LSN %d: %w", errStore, snap.At.LSN, err)
	}
	return nil
}

// claimFile makes a restored file a replica, complete in one file.
func claimFile(path string, at Mark, clock Clock) error {
	c, err := sqlite.Open(path, sqlite.Options{CheckpointOnClose: true})
	if err != nil {
		return fmt.Errorf("replica: claim restored file: %w", err)
	}
	return errors.Join(claim(c, at, clock.Now()), c.Close())
}
