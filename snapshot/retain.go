package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/clock"
)

// orphanAge is how long objects without a manifest are taken for a snapshot
// that is being made.
const orphanAge = time.Hour

// A Retention says which snapshots to keep.
type Retention struct {
	// Keep is how many complete snapshots to keep at least; 1 or more.
	Keep int
	// Hold, if set, keeps those for which it returns true beyond Keep.
	Hold func(Manifest) bool
	// Drop, if set, deletes those for which it returns true, however new: snapshots
	// of another history, whose LSNs say nothing. After an error nothing is deleted: what
	// cannot be judged must not count towards Keep either.
	Drop func(Manifest) (bool, error)
	// Complete, if set, proves that a snapshot can be restored, and so counts
	// towards Keep. If nil, it is enough that every chunk is listed; Verify is the
	// thorough choice and fetches them all.
	Complete func(context.Context, Manifest) error
	// Active are the ids of snapshots that are being made or restored: nothing of
	// them is deleted.
	Active []string
	// Clock, if nil, is the system's.
	Clock Clock
}

// Retain deletes snapshots that r does not keep, and objects older than an hour
// that belong to none. oldest is the LSN of the oldest complete snapshot that
// is left, 0 if there is none: a change log may be trimmed below it.
//
// A snapshot goes manifest first, so that a crash leaves no manifest without its
// chunks. An incomplete one does not count towards Keep; as long as it is newer
// than the last that does, it is left alone and reported. Manifests that cannot
// be read, and names that are not of a snapshot, are left alone too. The error
// joins all that went wrong, and wraps ErrLeft if something could not be deleted; the
// results are right in spite of it.
func Retain(ctx context.Context, store Store, r Retention) (deleted []Manifest, oldest cdc.LSN, err error) {
	if r.Keep < 1 {
		return nil, 0, fmt.Errorf("snapshot: retain: keep is %d, want at least 1", r.Keep)
	}
	if r.Clock == nil {
		r.Clock = clock.System{}
	}
	names, err := store.List(ctx, "")
	if err != nil {
		return nil, 0, fmt.Errorf("snapshot: list: %w", err)
	}
	list, err := load(ctx, store, names)
	if list == nil {
		return nil, 0, err
	}
	stale, derr := r.stale(list)
	if derr != nil {
		return nil, 0, errors.Join(err, derr)
	}
	groups := groupNames(names)
	drop, oldest, derr := r.choose(ctx, list, stale, groups)
	var left []error
	for _, m := range drop {
		if err := remove(ctx, store, manifestOf(m.ID)); err != nil {
			left = append(left, err)
			continue
		}
		deleted = append(deleted, m)
		left = append(left, removeAll(ctx, store, m.ID))
	}
	left = append(left, r.sweep(ctx, store, groups))
	if failed := errors.Join(left...); failed != nil {
		derr = errors.Join(derr, fmt.Errorf("%w: %w", ErrLeft, failed))
	}
	return deleted, oldest, errors.Join(err, derr)
}

// groupNames sorts the names of objects by snapshot.
func groupNames(names []string) map[string][]string {
	groups := make(map[string][]string)
	for _, name := range names {
		if id, ok := idOf(name); ok {
			groups[id] = append(groups[id], name)
		}
	}
	return groups
}

// stale gives the ids for which Drop returns true.
func (r Retention) stale(list []Manifest) (map[string]bool, error) {
	stale := make(map[string]bool)
	for _, m := range list {
		if r.Drop == nil {
			break
		}
		drop, err := r.Drop(m)
		if err != nil {
			return nil, fmt.Errorf("snapshot: retain %s: %w", m.ID, err)
		}
		stale[m.ID] = drop
	}
	return stale, nil
}

// choose returns what to delete, and the LSN of the oldest complete snapshot
// that stays.
func (r Retention) choose(ctx context.Context, list []Manifest, stale map[string]bool, groups map[string][]string) (drop []Manifest, oldest cdc.LSN, err error) {
	complete := 0
	var errs []error
	for _, m := range slices.Backward(list) {
		enough := complete >= r.Keep
		held := slices.Contains(r.Active, m.ID) || r.Hold != nil && r.Hold(m)
		if stale[m.ID] && held {
			continue
		}
		if stale[m.ID] || enough && !held {
			drop = append(drop, m)
			continue
		}
		if err := r.complete(ctx, m, groups[m.ID]); err != nil {
			errs = append(errs, err)
			continue
		}
		complete++
		oldest = m.Position.LSN // the list goes down
	}
	slices.Reverse(drop)
	return drop, oldest, errors.Join(errs...)
}

func (r Retention) complete(ctx context.Context, m Manifest, names []string) error {
	if missing := missingChunks(m, names); len(missing) > 0 {
		return fmt.Errorf("%w: snapshot %s lacks %d of %d chunks, the first is %s", ErrDamaged, m.ID, len(missing), len(m.Chunks), missing[0])
	}
	if r.Complete == nil {
		return nil
	}
	return r.Complete(ctx, m)
}

// sweep deletes the objects of snapshots that were never finished.
func (r Retention) sweep(ctx context.Context, store Store, groups map[string][]string) error {
	var errs []error
	for id, names := range groups {
		_, made, _ := parseID(id) // the groups have good ids
		if slices.Contains(names, manifestOf(id)) || slices.Contains(r.Active, id) || r.Clock.Now().Sub(made) <= orphanAge {
			continue
		}
		// It may have been finished since the names were listed.
		if _, err := store.Get(ctx, manifestOf(id)); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				errs = append(errs, fmt.Errorf("snapshot: fetch %s: %w", manifestOf(id), err))
			}
			continue
		}
		errs = append(errs, removeAll(ctx, store, id))
	}
	return errors.Join(errs...)
}
