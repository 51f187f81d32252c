package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/internal/tick"
)

// resolve gives an absolute path without symbolic links. What it leads to need not
// exist. Nothing is cleaned before links are followed: what .. is depends on them.
func resolve(path string) (string, error) {
	const most = 40 // links, as the kernel has it
	for range most {
		real, err := filepath.EvalSymlinks(path)
		dir, base := filepath.Split(path)
		dir = strings.TrimSuffix(dir, "/")
		if err == nil || !errors.Is(err, os.ErrNotExist) || dir == "" {
			return real, err
		}
		to, err := os.Readlink(path)
		switch {
		case err != nil: // not a link, but missing, or below something that is
			dir, err = resolve(dir)
			return filepath.Join(dir, base), err
		case filepath.IsAbs(to):
			path = to
		default:
			path = dir + "/" + to
		}
	}
	return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// watchEvery is how often the path of the open file is looked at while nothing is
// applied.
const watchEvery = time.Second

// A displaced error says that a path no longer leads to the file that is open
// under it: it was deleted or replaced. SQLite does not notice: what is written
// then is read by nobody.
type displaced struct {
	path string
	gone bool // nothing is there now
	side bool // it is a file beside the database, which itself is in its place
}

func (d *displaced) Error() string {
	what := "was replaced"
	if d.gone {
		what = "was deleted"
	}
	return fmt.Sprintf("replica: %s %s while the replica had it open", d.path, what)
}

// A fileID names an inode.
type fileID struct{ device, inode uint64 }

// statID is a fraction of os.Stat, for what is looked at each second.
func statID(path string) (fileID, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	for err == unix.EINTR { // as some file systems of a network answer
		err = unix.Stat(path, &st)
	}
	if err != nil {
		return fileID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// A footing is what the paths of a database led to when it was opened.
type footing [3]fileID

// besides are what SQLite adds to the path of a database in WAL mode for each
// file of a footing.
var besides = [len(footing{})]string{"", "-wal", "-shm"}

func footingOf(path string) (f footing, err error) {
	for i, suffix := range besides {
		if f[i], err = statID(path + suffix); err != nil {
			return f, err
		}
	}
	return f, nil
}

// check gives a *displaced error unless all paths lead where they did. It may be
// called concurrently.
func (f *footing) check(path string) error {
	for i, suffix := range besides {
		id, err := statID(path + suffix)
		gone := errors.Is(err, os.ErrNotExist)
		switch {
		case err != nil && !gone:
			return fmt.Errorf("replica: %w", err)
		case gone || id != f[i]:
			return &displaced{path: path + suffix, gone: gone, side: i > 0}
		}
	}
	return nil
}

// takeAlong removes what is left beside a database that is no longer at path. SQLite
// would replay the SQLite WAL into whatever has come in its place.
func (f *footing) takeAlong(path string) error {
	if id, err := statID(path); err == nil && id == f[0] {
		return nil // only a link to it was changed
	}
	var errs []error
	for i, suffix := range besides[1:] {
		id, err := statID(path + suffix)
		if err == nil && id == f[i+1] {
			err = os.Remove(path + suffix)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// watch ends the context that it gives, with the reason as its cause, when the
// open file is no longer the one at its path.
func (r *Replica) watch(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	g := r.a.guard
	go func() {
		defer close(done)
		for r.o.Clock.Sleep(ctx, tick.Until(r.o.Clock.Now(), watchEvery)) == nil {
			err := g.unmoved()
			if err == nil && r.name != r.o.Path { // there is a link that may lead elsewhere
				if path, rerr := resolve(r.name); rerr != nil || path != r.o.Path {
					err = &displaced{path: r.name}
				}
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// depart closes a file that is no longer at its path. The next step opens what is
// there now, as at the start.
func (r *Replica) depart(d *displaced) {
	r.o.Logger.Error("the replica's file is not the one that is open; programs that have it open must open it again",
		"path", r.o.Path, "lsn", r.a.mark.LSN, "err", d)
	// SQLite sees for itself whether it may still touch files by their names.
	if err := r.a.guard.close(); err != nil {
		r.o.Logger.Warn("closing the file that was displaced", "path", r.o.Path, "err", err)
	}
	if !d.side {
		if err := r.a.guard.files.takeAlong(r.o.Path); err != nil {
			r.o.Logger.Error("the SQLite WAL of the file that was displaced is in the way; remove it", "path", r.o.Path, "err", err)
		}
	}
	r.a, r.repair, r.past = nil, nil, past{}
	if d.side { // what was not yet in the database itself may be lost
		r.repair = &repair{reason: d}
	}
	r.board.differs(r.repair != nil)
	r.board.trouble(d)
	r.board.absent()
}
