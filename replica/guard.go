package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// errStray means that something else has written to the replica's file.
var errStray = errors.New("replica: another program wrote to this replica's file, which only the replicator may write; it will be compared with a snapshot")

const (
	// busyTimeout is how long SQLite waits for another writer before a context is
	// looked at again.
	busyTimeout = 500 * time.Millisecond
	// lockTries is how often the write lock is tried before that is a trouble.
	lockTries = 10
	// idleCheckpoint is the size in bytes of the SQLite WAL from which it is
	// checkpointed while nothing waits to be applied.
	idleCheckpoint = 1 << 20
)

// A guard owns the connections of a replica's file: one that writes, and one for
// checkpoints, which SQLite refuses inside a transaction. With hold it keeps the
// write lock between applies, so that other writers find the database locked,
// and it detects one that came through in between.
type guard struct {
	conn, control *sqlite.Conn
	path          string
	files         footing // of path
	hold          bool
	backlogBytes  int64 // of the SQLite WAL at which a backlog is interrupted for a checkpoint

	pageSize int64
	bytes    int64  // of the SQLite WAL after the last commit
	last     counts // when the lock was last held, and since then ours
	tried    uint32 // frames at the last checkpoint that could not finish
}

// Both counts change where another connection has committed: version by a checkpoint
// that truncates the SQLite WAL, too, and commits by our own.
type counts struct {
	version int64
	commits uint32
}

type guardOptions struct {
	cacheBytes, checkpointBytes int64
	hold                        bool
	rowSums                     bool // of what is applied
}

func openGuard(path string, o guardOptions) (g *guard, err error) {
	g = &guard{path: path, hold: o.hold, backlogBytes: o.checkpointBytes}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
			g = nil
		}
	}()
	before, err := statID(path)
	if err != nil {
		return g, err
	}
	options := sqlite.Options{BusyTimeout: busyTimeout, CacheBytes: o.cacheBytes, CheckpointOnClose: true, RowSums: o.rowSums}
	if g.conn, err = sqlite.Open(path, options); err != nil {
		return g, err
	}
	if g.control, err = sqlite.Open(path, sqlite.Options{Lean: true}); err != nil {
		return g, err
	}
	if g.pageSize, err = g.conn.QueryInt("PRAGMA page_size"); err != nil {
		return g, err
	}
	if err := g.identify(before); err != nil {
		return g, err
	}
	// Where SQLite starts its WAL over, the file is cut to this: what one transaction made
	// of it goes back to the disk. Twice, so that ordinary work never cuts.
	if err := g.conn.Exec(fmt.Sprintf("PRAGMA journal_size_limit=%d", 2*o.checkpointBytes)); err != nil {
		return g, err
	}
	g.last, err = g.count()
	g.conn.OnlyCommit()
	return g, err
}

// count reads commits first: who commits in between was there before.
func (g *guard) count() (now counts, err error) {
	if now.commits, err = g.conn.Commits(); err == nil {
		now.version, err = g.conn.DataVersion()
	}
	return now, err
}

// identify notes which files are open. The first read has made SQLite create those
// beside the database, unless that is not in WAL mode yet, as a copy may be.
func (g *guard) identify(before fileID) error {
	mode, err := g.conn.QueryText("PRAGMA journal_mode=WAL")
	if err == nil && mode != "wal" {
		err = fmt.Errorf("journal mode is %q and cannot be set to WAL", mode)
	}
	if err == nil {
		_, err = g.conn.QueryInt("PRAGMA schema_version")
	}
	if err == nil {
		g.files, err = footingOf(g.path)
	}
	if err == nil && before != g.files[0] {
		err = &displaced{path: g.path}
	}
	return err
}

// unmoved gives a *displaced error when the path leads to other files than those
// that are open. It may be called concurrently.
func (g *guard) unmoved() error { return g.files.check(g.path) }

// close ends an open transaction. The last connection to close checkpoints the
// file, so that at rest it is one file.
func (g *guard) close() error {
	var errs []error
	for _, c := range []*sqlite.Conn{g.control, g.conn} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// lock takes SQLite's write lock, or finds that it is held already, and gives
// errStray when another connection has committed since it was last held; to
// checkpoint is to write nothing. It waits a while for a writer that is in the way.
func (g *guard) lock(ctx context.Context) error {
	if g.conn.InTransaction() {
		return nil
	}
	for try := 1; ; try++ {
		err := g.conn.BeginImmediate()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !sqlite.IsBusy(err) || try == lockTries {
			return fmt.Errorf("replica: lock %s for writing (does another program hold it?): %w", g.path, err)
		}
	}
	now, err := g.count()
	if err != nil {
		return fmt.Errorf("replica: lock %s: %w", g.path, err)
	}
	stray := now.version != g.last.version && now.commits != g.last.commits
	g.last = now
	if stray {
		return errors.Join(errStray, g.conn.Rollback())
	}
	return nil
}

func (g *guard) rollback() error { return g.conn.Rollback() }

// commit commits what was written since lock, which is not nothing.
func (g *guard) commit() error {
	err := g.conn.Commit()
	if err == nil {
		g.last.commits++
	}
	return err
}

// rest is called after each commit. It takes the lock again if it is to be held,
// and keeps the SQLite WAL small: a checkpoint while the lock is held and idle,
// then a new transaction, because only one that begins when everything is
// backfilled lets SQLite start its WAL over. Without that the file grows forever.
func (g *guard) rest(ctx context.Context, backlog bool) error {
	if g.hold {
		if err := g.lock(ctx); err != nil {
			return err
		}
	}
	at, err := g.control.Checkpoint(sqlite.Noop)
	g.bytes = int64(at.Frames) * g.pageSize
	if err != nil || !g.due(at, backlog) {
		return err
	}
	at, err = g.control.Checkpoint(sqlite.Passive)
	if err != nil {
		return fmt.Errorf("replica: checkpoint %s: %w", g.path, err)
	}
	g.tried = 0
	if at.Busy || at.Backfilled < at.Frames {
		g.tried = at.Frames // a reader is in the way: try when there is more to gain
	}
	if !g.conn.InTransaction() {
		return nil
	}
	if err := g.conn.Rollback(); err != nil {
		return err
	}
	return g.lock(ctx)
}

func (g *guard) due(at sqlite.Checkpoint, backlog bool) bool {
	limit := int64(idleCheckpoint)
	if backlog {
		limit = max(g.backlogBytes, limit)
	}
	if at.Frames < g.tried {
		g.tried = 0 // SQLite has started over
	}
	fresh := at.Frames - max(g.tried, at.Backfilled)
	return int64(at.Frames)*g.pageSize >= limit && int64(fresh)*g.pageSize >= limit/4
}
