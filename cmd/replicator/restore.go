package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

type restoreOptions struct {
	place  place
	output string
	lsn    uint64
	time   string
}

func newRestore(e *environment) *cobra.Command {
	var o restoreOptions
	cmd := command(e, "restore --config FILE -o FILE [--db NAME] [--lsn N | --time T]", "Write a database as of an LSN or a time to a new file", o.run)
	cmd.Long = "restore takes the newest snapshot at or before the target that is whole and applies what follows it in the stream,\n" +
		"up to the target; without one, up to the end of the stream. The file is then what the source was: nothing of replicator is\n" +
		"left in it. An existing file is never touched."
	o.place.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "file to write (required)")
	f.Uint64Var(&o.lsn, "lsn", 0, "last LSN to restore")
	f.StringVar(&o.time, "time", "", "last moment to restore, such as 2026-01-31T12:00:00Z")
	cmd.MarkFlagsMutuallyExclusive("lsn", "time")
	require(cmd, "output")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("lsn") && o.lsn == 0 {
			return usagef("--lsn is 0, want an LSN, which begin with 1; for the end of the stream leave it out")
		}
		return nil
	}
	return cmd
}

// A goal is where a restore ends; the zero value is the end of the stream.
type goal struct {
	lsn  cdc.LSN
	time time.Time
}

// covers reports whether a boundary lies at or before the goal.
func (g goal) covers(lsn cdc.LSN, captured time.Time) bool {
	return (g.lsn == 0 || lsn <= g.lsn) && (g.time.IsZero() || !captured.After(g.time))
}

func (g goal) String() string {
	switch {
	case g.lsn != 0:
		return "LSN " + g.lsn.String()
	case !g.time.IsZero():
		return g.time.UTC().Format(time.RFC3339Nano)
	}
	return "the end of the stream"
}

func (o *restoreOptions) run(ctx context.Context, e *environment) error {
	to := goal{lsn: cdc.LSN(o.lsn)}
	if o.time != "" {
		var err error
		if to.time, err = time.Parse(time.RFC3339, o.time); err != nil {
			return usagef("--time is %q, want one such as 2026-01-31T12:00:00Z", o.time)
		}
	}
	if err := refuseExisting(o.output); err != nil {
		return err
	}
	keepTempIn(e, filepath.Dir(o.output))
	return o.place.visit(ctx, e, func(a *access, db string, store snapshot.Store) error {
		m := newMeter(e)
		defer m.clear()
		at, err := restore(ctx, a, db, store, to, o.output, m)
		if err != nil {
			return fmt.Errorf("restore %s: %w", db, err)
		}
		m.clear()
		_, err = fmt.Fprintf(e.stdout, "%s restored as of LSN %d, epoch %d: %s, %s\n", db, at.LSN, at.Epoch, o.output, size(fileSize(o.output)))
		return err
	})
}

// refuseExisting protects the file and what SQLite would take for its own.
func refuseExisting(path string) error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		if _, err := os.Lstat(path + suffix); err == nil {
			return usagef("%s exists; move it away or choose another file", path+suffix)
		}
	}
	return nil
}

// restore writes the database to path and returns what it shows. A snapshot that is damaged
// is passed over: from an older one the stream leads to the same end.
func restore(ctx context.Context, a *access, db string, store snapshot.Store, to goal, path string, show *meter) (cdc.Position, error) {
	all, err := covered(ctx, store, to)
	if len(all) == 0 {
		return cdc.Position{}, err
	}
	pass := func(err error) { a.nats.Logger.Error("passing over a snapshot", "db", db, "err", err) }
	if err != nil {
		pass(err)
	}
	failed := []error{err}
	for _, m := range slices.Backward(all) {
		at, err := restoreFrom(ctx, a, db, store, m, to, path, show)
		if err == nil {
			return at, nil
		}
		if failed = append(failed, err); !errors.Is(err, snapshot.ErrDamaged) {
			break
		}
		pass(err)
	}
	return cdc.Position{}, errors.Join(failed...)
}

// restoreFrom is restore with the snapshot m.
func restoreFrom(ctx context.Context, a *access, db string, store snapshot.Store, m snapshot.Manifest, to goal, path string, show *meter) (cdc.Position, error) {
	tmp := path + ".restoring"
	err := fetchSnapshot(ctx, store, m, tmp, show.snapshot("restoring"))
	if err != nil {
		return cdc.Position{}, err
	}
	at := m.Position
	if to.lsn != m.Position.LSN { // else there is nothing to add, and NATS is not needed
		if at, err = replay(ctx, a, db, m, to, tmp, show); err != nil {
			return at, err
		}
	}
	if err := refuseExisting(path); err != nil { // somebody may have been quicker
		return at, err
	}
	fs := durable.OS{}
	if err := fs.Rename(tmp, path); err != nil {
		return at, err
	}
	return at, fs.SyncDir(filepath.Dir(path))
}

// covered are the snapshots that the goal covers, the newest last. The error names the manifests
// that cannot be used, or says why there are none.
func covered(ctx context.Context, store snapshot.Store, to goal) ([]snapshot.Manifest, error) {
	all, err := snapshot.List(ctx, store)
	if all == nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.Join(errors.New("there is no snapshot in the store"), err)
	}
	oldest := all[0]
	all = slices.DeleteFunc(all, func(m snapshot.Manifest) bool { return !to.covers(m.Position.LSN, m.Totals.CapturedAt) })
	if len(all) == 0 {
		return nil, errors.Join(fmt.Errorf("no snapshot reaches back to %s; the oldest is of LSN %d, %s",
			to, oldest.Position.LSN, oldest.Totals.CapturedAt.UTC().Format(time.RFC3339)), err)
	}
	return all, err
}

// fetchSnapshot writes a snapshot to path, in place of what an earlier restore
// has left there.
func fetchSnapshot(ctx context.Context, store snapshot.Store, m snapshot.Manifest, path string, o snapshot.Options) error {
	err := snapshot.Restore(ctx, store, m, path, o)
	if !errors.Is(err, snapshot.ErrExists) {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", ".partial"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return snapshot.Restore(ctx, store, m, path, o)
}

// errReached ends a replay.
var errReached = errors.New("reached")

// replay applies the records after the snapshot m up to the goal.
func replay(ctx context.Context, a *access, db string, m snapshot.Manifest, to goal, path string, show *meter) (at cdc.Position, err error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return at, fmt.Errorf("what follows the snapshot is in the stream (--lsn %d takes the snapshot alone): %w", m.Position.LSN, err)
	}
	s := conn.Stream(db, stream.StreamConfig{})
	info, err := s.Info(ctx)
	if err != nil {
		return at, err
	}
	switch {
	case !info.Exists:
		return at, fmt.Errorf("stream %s does not exist; --lsn %d takes the snapshot alone", s.Name(), m.Position.LSN)
	case to.lsn > info.Last:
		return at, fmt.Errorf("LSN %d is not in the stream, which ends at %d", to.lsn, info.Last)
	}
	f, err := openRestored(path, m)
	if err != nil {
		return at, err
	}
	if err := applyUntil(ctx, s, m.Position.LSN, info.Last, to, f, show); err != nil {
		return at, errors.Join(err, f.Close())
	}
	at = f.Position()
	return at, f.Finish(true)
}

// applyUntil applies the records after one LSN up to another, or up to the goal
// where that comes first. Parts of a transaction that ends beyond it are dropped
// when the file is finished.
func applyUntil(ctx context.Context, s *stream.Stream, after, last cdc.LSN, to goal, f *replica.File, show *meter) error {
	if after >= last {
		return nil
	}
	began := show.clock()
	err := s.Consume(ctx, after+1, func(raw []byte, lsn cdc.LSN, _ uint64) error {
		rec, err := cdc.DecodeBoundary(raw)
		if err != nil {
			return err
		}
		if rec.Boundary != nil && !to.covers(lsn, rec.Boundary.CapturedAt) || to.lsn != 0 && lsn > to.lsn {
			return errReached
		}
		if err := f.Apply(raw); err != nil {
			return err
		}
		show.records("catching_up", began, uint64(lsn-after), uint64(last-after))
		if lsn == last {
			return errReached
		}
		return nil
	})
	switch {
	case errors.Is(err, errReached):
		return nil
	case errors.Is(err, cdc.ErrBreak):
		return fmt.Errorf("%w; restore to an LSN below it, or from a snapshot above it", err)
	}
	return err
}
