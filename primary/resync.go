package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// A Replayer applies records to a plain file that holds the database as of a
// snapshot.
type Replayer interface {
	// Apply takes the next record, and keeps it. Parts of an unfinished transaction at the end
	// are dropped by Finish.
	Apply(rec []byte) error
	// Finish makes the file what the source was at the last boundary applied, and
	// closes it.
	Finish() error
	Close() error
}

// errMissed is wrapped by what a term says when it had to wait before it could compare.
var errMissed = errors.New("what was missed is being found out")

// errNoResync says why the difference to the source cannot be found, or not at
// a fair price. A break and a new snapshot take its place.
var errNoResync = errors.New("no resync")

const (
	// resyncShare and resyncFree bound the difference that is worth its records:
	// a part of the database, and bytes below which no database is too small.
	resyncShare = 4
	resyncFree  = 64 << 20
)

// A base is the source as of the last boundary, in a file of its own.
type base struct {
	path string
	file *os.File
	view *view
}

// resync closes the gap between the state at the last boundary and the source
// as it is now: it rebuilds the former from a snapshot and the change log,
// compares the two like the states before and after one transaction, and
// records the difference as such. Replicas notice nothing but that transaction.
//
// It is called with the follower attached. On an error that wraps errNoResync the
// follower is attached, too, and nothing was recorded.
func (c *capture) resync(ctx context.Context, tail cdc.Tail) (err error) {
	if c.rebuild == nil {
		return fmt.Errorf("%w: not configured", errNoResync)
	}
	if err := c.readable(); err != nil {
		return err
	}
	b, err := c.awaitBase(ctx, tail)
	if err != nil && !errors.Is(err, errNoResync) {
		return err
	}
	if b != nil {
		defer func() { err = errors.Join(err, b.close()) }()
	}
	if err := errors.Join(err, c.reattach(ctx)); err != nil {
		return err
	}
	if err := c.difference(b); err != nil {
		return asNoResync(ctx, err)
	}
	return nil
}

// readable reports why the source cannot be captured as it is: then each try to begin a term
// would restore a snapshot in vain.
func (c *capture) readable() error {
	state, pages := newScan(c.follower.view), c.follower.view.pages
	head, err := headerOf(state, pages)
	if err == nil {
		s := newSide(state, head, head.PageCount)
		_, err = readSchema(&s, head.Encoding, c.decoder.layouts)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.src.path, inconsistent(err))
	}
	return nil
}

// asNoResync makes every error but the end of ctx a reason to break instead.
func asNoResync(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errNoResync, err)
}

func (c *capture) openBase(ctx context.Context, tail cdc.Tail) (*base, error) {
	path, err := c.rebuild(ctx, tail.Position)
	if err != nil {
		return nil, err
	}
	b := &base{path: path}
	if b.file, err = os.Open(path); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	if err := b.read(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *base) read() error {
	head := make([]byte, sqlitefile.HeaderSize)
	if err := readFull(b.file, head, 0); err != nil {
		return err
	}
	h, err := sqlitefile.ParseHeader(head)
	if err != nil {
		return err
	}
	info, err := b.file.Stat()
	if err != nil {
		return err
	}
	pages := uint32(info.Size() / int64(h.PageSize))
	b.view = &view{db: b.file, pageSize: h.PageSize, pages: pages, cache: newPageCache(h.PageSize, mostCache)}
	return nil
}

func (b *base) close() error { return errors.Join(b.file.Close(), os.Remove(b.path)) }

// difference leaves in the sorter what turns the base into the source, and in
// the decoder the source's map.
func (c *capture) difference(b *base) error {
	if err := c.decoder.load(newScan(b.view), b.view.pages); err != nil {
		return err
	}
	c.decoder.unrelated = true
	defer func() { c.decoder.unrelated = false }()
	c.sums.load(c.decoder.schema, c.decoder.head.Encoding)
	now := c.follower.view
	written := make([]uint32, now.pages)
	for i := range written {
		written[i] = uint32(i) + 1
	}
	c.sorter.reset()
	c.sorter.most = max(int64(now.pages)*int64(now.pageSize)/resyncShare, resyncFree)
	defer func() { c.sorter.most = 0 }()
	return c.decoder.transaction(b.view, now, written, now.pages, &c.summing)
}

// rebuilder makes the function that rebuilds the source as of a position from a
// snapshot below it and the change log: from the newest that can be read.
func (p *Pipeline) rebuilder(log *wal.Log) func(context.Context, cdc.Position) (string, error) {
	if p.o.Replay == nil {
		return nil
	}
	return func(ctx context.Context, at cdc.Position) (string, error) {
		list, err := p.snapshotsBelow(ctx, log, at)
		if err == nil {
			list, err = p.soundOf(ctx, list)
		}
		if err != nil {
			return "", err
		}
		var failed []error
		for _, m := range list {
			err := p.rebuild(ctx, log, m, at)
			switch {
			case errors.Is(err, snapshot.ErrDamaged):
				p.snapshots.readBack.noteDamage(m, err)
			case !errors.Is(err, snapshot.ErrGone):
				return p.rebuilt(), err
			}
			failed = append(failed, err)
		}
		return "", errors.Join(append(failed, fmt.Errorf("no snapshot leads to LSN %d", at.LSN))...)
	}
}

// rebuild makes the file at p.rebuilt from one snapshot. After an error there is none.
func (p *Pipeline) rebuild(ctx context.Context, log *wal.Log, m snapshot.Manifest, at cdc.Position) error {
	waited := false
	done, err := p.o.Sources.Turns.Take(ctx, m.Size(), func(what string) {
		waited = true
		p.waits(fmt.Errorf("%w: this waits %s", errMissed, what))
		p.o.Logger.Info("to find out what was missed waits " + what)
	})
	if err != nil {
		return err
	}
	defer done()
	if waited {
		p.waits(errMissed)
	}
	path := p.rebuilt()
	if err := removeDatabase(path); err != nil {
		return err
	}
	if err := roomFor(p.o.Dir, m.Size()); err != nil {
		return err
	}
	p.o.Logger.Info("rebuilding the state at the last captured position, to compare it with the database", "snapshot", m.Position.LSN, "lsn", at.LSN)
	if err := snapshot.Restore(ctx, p.o.Snapshots, m, path, p.rebuildOptions()); err != nil {
		return errors.Join(err, snapshot.Discard(path))
	}
	if err := p.replay(ctx, log, path, m, at); err != nil {
		return errors.Join(err, removeDatabase(path))
	}
	return nil
}

func (p *Pipeline) rebuildOptions() snapshot.Options {
	said := progressLog{what: "reading the snapshot back, to find out what was missed", clock: p.o.Clock, logger: p.o.Logger}
	return snapshot.Options{Clock: storeClock{now: p.o.Clock}, Progress: said.note}
}

// snapshotsBelow gives the snapshots from which the change log leads on to at
// without a break, the newest first. One that is known to be damaged is left out.
func (p *Pipeline) snapshotsBelow(ctx context.Context, log *wal.Log, at cdc.Position) (usable []snapshot.Manifest, err error) {
	list, unusable := snapshot.List(ctx, p.o.Snapshots)
	if list == nil {
		return nil, unusable
	}
	first := log.First()
	if first == 0 {
		first = at.LSN + 1
	}
	for _, m := range slices.Backward(list) {
		if m.Position.Lineage != at.Lineage || m.Position.LSN > at.LSN {
			continue
		}
		if m.Position.LSN+1 < first {
			break
		}
		ours, err := p.recovery().isOurs(log, m)
		if err != nil {
			return nil, err
		}
		if !ours {
			continue
		}
		broken, err := lastBreak(ctx, log, m.Position.LSN+1)
		if unreadable(err) { // and so no older one leads on either
			unusable = errors.Join(unusable, asNoResync(ctx, err))
			break
		}
		if err != nil {
			return nil, err
		}
		if broken > m.Position.LSN {
			break
		}
		if !p.snapshots.readBack.isDamaged(m.ID) {
			usable = append(usable, m)
		}
	}
	if len(usable) == 0 {
		err = errors.Join(fmt.Errorf("no snapshot leads to LSN %d", at.LSN), unusable)
	}
	return usable, err
}

// errUncompared: something is to be removed, and it is not known yet whether the stream,
// and with it the snapshots, is ours still.
var errUncompared = errors.New("the stream was not compared with the change log yet")

// soundOf gives those of a list of snapshots that the standing doubt is not about. The
// others are of a state that no history explains, neither before the difference that is
// to be recorded nor after it: they are deleted first.
func (p *Pipeline) soundOf(ctx context.Context, list []snapshot.Manifest) ([]snapshot.Manifest, error) {
	d := p.doubts.standing()
	if d == nil || d.Sound == nil {
		return list, nil
	}
	lineage := list[0].Position.Lineage
	unsound := func(m snapshot.Manifest) bool { return m.Position.Lineage == lineage && !d.Sound.includes(m) }
	if list = slices.DeleteFunc(list, unsound); len(list) == 0 {
		return nil, errors.New("no snapshot is known to be from before that")
	}
	left, err := p.hasSnapshot(ctx, unsound)
	if err != nil || !left {
		return list, err
	}
	if !p.ours() {
		return nil, errUncompared
	}
	p.o.Logger.Warn("snapshots that may hold what no change led to are deleted", "from_lsn", d.Sound.Below)
	_, _, failed := snapshot.Retain(ctx, p.o.Snapshots, snapshot.Retention{
		Keep: math.MaxInt, Drop: func(m snapshot.Manifest) (bool, error) {
			if !p.ours() { // any more
				return false, errUncompared
			}
			return unsound(m), nil
		},
	})
	p.snapshots.forget()
	if left, err = p.hasSnapshot(ctx, unsound); left {
		err = errors.Join(errors.New("snapshots that may hold what no change led to are still there"), failed)
	}
	return list, err
}

// hasSnapshot reports whether there is a snapshot for which is returns true.
func (p *Pipeline) hasSnapshot(ctx context.Context, is func(snapshot.Manifest) bool) (bool, error) {
	list, err := snapshot.List(ctx, p.o.Snapshots)
	if list == nil && err != nil {
		return false, err
	}
	return slices.ContainsFunc(list, is), nil
}

// replay applies the records after the snapshot to the file at path.
func (p *Pipeline) replay(ctx context.Context, log *wal.Log, path string, m snapshot.Manifest, at cdc.Position) (err error) {
	file, err := p.o.Replay(path, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if m.Position.LSN < at.LSN {
		// Readers see what is durable, and the term that wrote the last records may
		// have ended before it made them so.
		if err := log.Sync(); err != nil {
			return err
		}
		r, err := log.Reader(m.Position.LSN + 1)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }() // reading only
		for lsn := m.Position.LSN + 1; lsn <= at.LSN; lsn++ {
			rec, _, err := r.Next(ctx)
			if unreadable(err) {
				return asNoResync(ctx, err)
			}
			if err != nil {
				return err
			}
			if err := file.Apply(bytes.Clone(rec)); err != nil { // the reader's bytes change at its next record
				return err
			}
		}
	}
	return file.Finish()
}

// rebuilt is where the state at the last boundary is rebuilt.
func (p *Pipeline) rebuilt() string { return filepath.Join(p.o.Dir, "resync.db") }

// removeDatabase removes a file and what SQLite or a restore left beside it.
func removeDatabase(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", ".partial"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// roomFor checks that dir has room for a file of size bytes and as much again
// as a quarter of it.
func roomFor(dir string, size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < size+size/4 {
		return fmt.Errorf("%s has %d bytes free, %d are needed: %w", dir, free, size+size/4, unix.ENOSPC)
	}
	return nil
}
