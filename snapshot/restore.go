package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// Restore writes the database of m to path, which is not to be opened before
// Restore has returned nil. From before the first byte until the last is synced,
// the sidecar path + ".partial" stands beside it and names the snapshot. After
// an interruption call it again with the same manifest: chunks that are already
// in the file, by their checksum, are not fetched again.
//
// It never replaces a file: for one at path that is not its own partial, or a
// SQLite WAL or journal that SQLite would replay into it, the error wraps
// ErrExists. The file is readable by its owner only; [Install] puts it in the
// place of a database.
func Restore(ctx context.Context, store Store, m Manifest, path string, o Options) error {
	return restore(ctx, durable.OS{}, store, m, path, o)
}

// Discard removes what an unfinished Restore to path has left, so that another
// snapshot can be restored there. A finished file stays.
func Discard(path string) error {
	return discard(durable.OS{}, path)
}

func sidecarOf(path string) string { return path + ".partial" }

// sidecarLimit is far more bytes than a sidecar has.
const sidecarLimit = 4096

// A sidecar says which snapshot a partial file is being restored from. What is
// in the file already is not written down: the checksums tell, and a list could
// be wrong after a power failure.
type sidecar struct {
	ID  string `json:"id"`
	Sum Sum    `json:"sum"` // of the manifest
}

func restore(ctx context.Context, dfs durable.FS, store Store, m Manifest, path string, o Options) (err error) {
	f, err := newFetcher(store, m, o)
	if err != nil {
		return err
	}
	defer f.packer.close()
	if err := claim(dfs, m, path); err != nil {
		return err
	}
	file, err := dfs.Open(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return fmt.Errorf("snapshot: restore: %w", err)
	}
	defer func() {
		if cerr := file.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("snapshot: restore: %w", cerr)
		}
	}()
	if err := fill(ctx, f, newOutflow(file)); err != nil {
		return fmt.Errorf("snapshot: restore %s to %s: %w", m.ID, path, err)
	}
	if err := finish(dfs, file, m, path); err != nil {
		return fmt.Errorf("snapshot: restore %s to %s: %w", m.ID, path, err)
	}
	return nil
}

// claim makes sure that path is free or a partial of m, and that the sidecar is
// durable before the file can exist.
func claim(dfs durable.FS, m Manifest, path string) error {
	want := sidecar{ID: m.ID, Sum: m.Sum}
	b, err := durable.ReadFile(dfs, sidecarOf(path), sidecarLimit)
	if err == nil || errors.Is(err, durable.ErrTooLong) {
		var have sidecar
		if err := json.Unmarshal(b, &have); err != nil || have != want {
			return fmt.Errorf("%w: %s is the unfinished restore of another snapshot (%q); remove it and %s", ErrExists, path, have.ID, sidecarOf(path))
		}
		return free(dfs, path, replayed...)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("snapshot: restore: %w", err)
	}
	if err := free(dfs, path, slices.Concat(replayed, []string{""})...); err != nil {
		return err
	}
	if b, err = json.Marshal(want); err != nil {
		return fmt.Errorf("snapshot: restore: %w", err)
	}
	if err := durable.WriteFile(dfs, sidecarOf(path), b); err != nil {
		return fmt.Errorf("snapshot: restore: %w", err)
	}
	return nil
}

// free proves that path with any of the suffixes does not exist. It looks into the
// directory: to open a database that this process has open in SQLite, and to
// close it again, would drop SQLite's locks.
func free(dfs durable.FS, path string, suffixes ...string) error {
	names, err := dfs.ReadDir(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("snapshot: restore: %w", err)
	}
	for _, suffix := range suffixes {
		if slices.Contains(names, filepath.Base(path)+suffix) {
			return fmt.Errorf("%w: %s is in the way of a restore; move it away or choose another path", ErrExists, path+suffix)
		}
	}
	return nil
}

// fill brings every chunk into the file.
func fill(ctx context.Context, f *fetcher, out *outflow) error {
	have, err := out.file.Size()
	if err != nil {
		return err
	}
	err = f.each(ctx, func(ctx context.Context, c Chunk, spare []byte) error {
		at := f.m.offset(c)
		if have >= at+int64(c.Bytes) {
			b := spare[:c.Bytes]
			if _, err := out.file.ReadAt(b, at); err != nil {
				return err
			}
			if sumOf(b) == c.Sum {
				f.meter.add(int64(c.Bytes), 0, int64(c.Bytes))
				return nil
			}
		}
		raw, err := f.fetch(ctx, c, spare)
		if err != nil {
			return err
		}
		if err := out.write(raw, at); err != nil {
			return err
		}
		f.meter.add(int64(c.Bytes), int64(c.Stored), 0)
		return nil
	})
	if out.failed.Load() {
		err = errors.Join(err, forget(out.file))
	}
	return err
}

// forget empties a file that the disk has lost a part of: it may still read back
// well from memory, and the next restore would take it for done.
func forget(file durable.File) error { return file.Truncate(0) }

// finish proves that the file is the database, makes it durable and only then
// takes the sidecar away.
func finish(dfs durable.FS, file durable.File, m Manifest, path string) error {
	if err := file.Truncate(m.Size()); err != nil {
		return err
	}
	if m.Pages > 0 {
		page := make([]byte, headerSize)
		if _, err := file.ReadAt(page, 0); err != nil {
			return err
		}
		if _, err := checkHeader(page, m.PageSize, m.Pages); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	if err := file.Sync(); err != nil {
		return errors.Join(err, forget(file))
	}
	if err := dfs.SyncDir(filepath.Dir(path)); err != nil { // the file's entry, before the sidecar's goes
		return err
	}
	if err := dfs.Remove(sidecarOf(path)); err != nil {
		return err
	}
	return dfs.SyncDir(filepath.Dir(path))
}

func discard(dfs durable.FS, path string) error {
	if _, err := sizeOf(dfs, sidecarOf(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// The file first: without its sidecar it would look complete.
	for _, name := range []string{path, sidecarOf(path)} {
		if err := dfs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("snapshot: discard: %w", err)
		}
		if err := dfs.SyncDir(filepath.Dir(path)); err != nil {
			return fmt.Errorf("snapshot: discard: %w", err)
		}
	}
	return nil
}

// sizeOf opens a file to learn its size. It must not be used on a database or
// -shm, see free.
func sizeOf(dfs durable.FS, name string) (n int64, err error) {
	f, err := dfs.Open(name, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Size()
}
