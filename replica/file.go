package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// fileGroupBytes is how many bytes of records a File collects in one SQLite
// transaction.
const fileGroupBytes = 8 << 20

// FileOptions say how OpenFile opens a file. The zero value continues a file
// that holds a position.
type FileOptions struct {
	// At is the position of a file that holds none: one that a snapshot was
	// restored to. It is written into the file.
	At         Mark
	SpoolDir   string // of large transactions; "" is the file's directory
	CacheBytes int64  // of SQLite's page cache; 0 is SQLite's own default
}

// A File applies records to a plain file that nobody else uses, as restoring to
// a certain LSN does. Not safe for concurrent use.
type File struct {
	a  *applier // nil once closed
	at Mark     // of the last boundary applied
}

// OpenFile opens the file at path to apply what follows its position.
func OpenFile(path string, o FileOptions) (*File, error) {
	if o.SpoolDir == "" {
		o.SpoolDir = filepath.Dir(path)
	}
	g, err := openGuard(path, guardOptions{cacheBytes: o.CacheBytes, checkpointBytes: 64 << 20})
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	if o.At.LSN != 0 {
		err = claim(g.conn, o.At, time.Now())
	}
	var a *applier
	if err == nil {
		a, err = newApplier(g, o.SpoolDir, time.Now)
	}
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	return &File{a: a, at: a.mark}, nil
}

// claim turns a restored snapshot into a replica file at the given position.
func claim(c *sqlite.Conn, at Mark, now time.Time) error {
	if err := c.Exec("PRAGMA journal_mode=WAL"); err != nil {
		return fmt.Errorf("replica: claim restored file: %w", err)
	}
	if err := c.BeginImmediate(); err != nil {
		return fmt.Errorf("replica: claim restored file: %w", err)
	}
	err := createTables(c)
	if err == nil {
		err = leaveOff(c)
	}
	if err == nil {
		err = setPosition(c, at, now)
	}
	if err == nil {
		_, err = sealSchema(c, unsealed)
	}
	if err == nil {
		err = c.Commit()
	}
	return errors.Join(err, c.Rollback())
}

// Apply applies one record, which File keeps until it commits. The record must
// be the next one; see cdc.Verifier for the errors. After an error the File can
// only be closed.
func (f *File) Apply(raw []byte) error {
	ctx := context.Background()
	if h, err := cdc.ParseHead(raw); err == nil && h.Kind == cdc.Part && f.a.whole() {
		if err := f.commit(ctx); err != nil {
			return err
		}
	}
	if err := f.a.add(ctx, raw); err != nil {
		return err
	}
	f.at = f.a.next
	if f.a.whole() && f.a.spool.bytes >= fileGroupBytes {
		return f.commit(ctx)
	}
	return nil
}

func (f *File) commit(ctx context.Context) error {
	if err := f.a.commit(ctx); err != nil {
		return err
	}
	return f.a.guard.rest(ctx, true)
}

// Position is that of the last boundary applied.
func (f *File) Position() cdc.Position { return f.at.Position }

// Finish commits what was applied, drops an unfinished transaction and closes
// the file, which is then one file without a SQLite WAL. With strip, this
// program's own tables are removed: the file is again what the source was.
func (f *File) Finish(strip bool) error {
	err := f.finish(strip)
	return errors.Join(err, f.Close())
}

func (f *File) finish(strip bool) error {
	if f.a.whole() {
		if err := f.commit(context.Background()); err != nil {
			return err
		}
	}
	if err := f.a.rollback(); err != nil {
		return err
	}
	if !strip {
		return nil
	}
	return stripFile(f.a.guard.conn)
}

// Close closes the file at its last commit.
func (f *File) Close() error {
	if f.a == nil {
		return nil
	}
	f.a.spool.reset()
	err := f.a.guard.close()
	f.a = nil
	return err
}

// stripFile drops this program's own tables.
func stripFile(c *sqlite.Conn) error {
	err := c.BeginImmediate()
	if err == nil {
		err = c.Exec(`DROP TABLE IF EXISTS _replicator_position; DROP TABLE IF EXISTS _replicator_left_off;
DROP TABLE IF EXISTS _replicator_schema; DROP TABLE IF EXISTS _replicator_sums`)
	}
	if err == nil {
		err = c.Commit()
	}
	if err := errors.Join(err, c.Rollback()); err != nil {
		return fmt.Errorf("replica: strip restored file: %w", err)
	}
	return nil
}

// removeDatabase removes a database file and what SQLite keeps beside it.
func removeDatabase(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", ".partial"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
