package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
)

// List returns the manifests in the store, the newest last: by LSN, then by the
// time of making. A manifest that cannot be used is left out, and the error, which
// then wraps ErrDamaged or ErrVersion, names each. When the store itself fails
// the list is nil and the error wraps neither.
//
// That a manifest is listed does not prove that its chunks are there; Verify
// does.
func List(ctx context.Context, store Store) ([]Manifest, error) {
	names, err := store.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("snapshot: list: %w", err)
	}
	return load(ctx, store, names)
}

// At is List of the snapshots at one LSN.
func At(ctx context.Context, store Store, lsn cdc.LSN) ([]Manifest, error) {
	names, err := store.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("snapshot: list: %w", err)
	}
	return load(ctx, store, slices.DeleteFunc(names, func(name string) bool {
		id, _ := idOf(name)
		at, _, err := parseID(id)
		return err != nil || at != lsn
	}))
}

// load is List with the names at hand.
func load(ctx context.Context, store Store, names []string) ([]Manifest, error) {
	list := []Manifest{}
	var unusable []error
	for _, id := range manifestIDs(names) {
		m, err := fetchManifest(ctx, store, id)
		switch {
		case err == nil:
			list = append(list, m)
		case isUnusable(err):
			unusable = append(unusable, err)
		case errors.Is(err, fs.ErrNotExist): // deleted since it was listed
		default:
			return nil, err
		}
	}
	return list, errors.Join(unusable...)
}

// Latest returns the newest snapshot at or above from. The error wraps ErrNone
// when there is none, and names the manifests that could not be used.
func Latest(ctx context.Context, store Store, from cdc.LSN) (Manifest, error) {
	names, err := store.List(ctx, "")
	if err != nil {
		return Manifest{}, fmt.Errorf("snapshot: list: %w", err)
	}
	none := fmt.Errorf("%w at or above LSN %d", ErrNone, from)
	for _, id := range slices.Backward(manifestIDs(names)) {
		if lsn, _, _ := parseID(id); lsn < from {
			break
		}
		m, err := fetchManifest(ctx, store, id)
		if err == nil {
			return m, nil
		}
		if !isUnusable(err) && !errors.Is(err, fs.ErrNotExist) {
			return Manifest{}, err
		}
		none = errors.Join(none, err)
	}
	return Manifest{}, none
}

func isUnusable(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrVersion) }

// manifestIDs returns the ids of the snapshots that have a manifest, the oldest
// first.
func manifestIDs(names []string) (ids []string) {
	for _, name := range names {
		if id, ok := idOf(name); ok && name == manifestOf(id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, strings.Compare)
	return ids
}

// fetchManifest reads the manifest of one snapshot and proves that it is its own.
func fetchManifest(ctx context.Context, store Store, id string) (Manifest, error) {
	name := manifestOf(id)
	b, err := store.Get(ctx, name)
	if err != nil {
		return Manifest{}, fetchError(name, err)
	}
	m, err := ParseManifest(b)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", name, err)
	}
	if m.ID != id {
		return Manifest{}, fmt.Errorf("%w: %s is the manifest of %s", ErrDamaged, name, m.ID)
	}
	return m, nil
}
