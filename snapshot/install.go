package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// Install puts the database file tmp in the place of final and removes the
// -journal, -wal and -shm of what was there, durably. Both names must be in one
// file system, nobody may have either file open, and tmp must be complete: it is
// refused while its sidecar or a SQLite WAL or journal of its own with content
// stands beside it. tmp takes over the permissions of final, if that exists.
//
// SQLite replays whatever -wal or -journal has the database's name, so the
// rename and the removal belong together, yet no file system does both at once:
//
//   - rename first: a crash leaves the new database with the old SQLite WAL,
//     which SQLite replays into it. Corrupt.
//   - removal first: a crash leaves the old database without its SQLite WAL.
//     Unless that was empty, commits are lost, and a checkpoint that was under
//     way has left a mixture of two states. Corrupt.
//
// Therefore: when the old -wal and -journal are empty or absent, which a
// TRUNCATE checkpoint or the last close of the old database brings about, they
// are removed first, and a crash at any point leaves the old database or the
// new one. Otherwise the old database is given up first: final is removed, then
// its -wal, then comes the rename, and a crash leaves the old database, none, or
// the new one, never a mixture. When there is none, tmp is still complete:
// Install it again. The directory is synced between the steps, since a power
// failure may otherwise undo an earlier one and keep a later one.
func Install(tmp, final string) error {
	if err := install(durable.OS{}, tmp, final); err != nil {
		return fmt.Errorf("snapshot: install %s as %s: %w", tmp, final, err)
	}
	return nil
}

// replayed are the suffixes of the files that SQLite replays into the database
// whose name they bear.
var replayed = []string{"-journal", "-wal"}

func install(dfs durable.FS, tmp, final string) error {
	if err := prepare(dfs, tmp, final); err != nil {
		return err
	}
	needed := false // by the old database
	for _, suffix := range replayed {
		n, err := sizeOf(dfs, final+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		needed = needed || n > 0
	}
	if needed {
		if err := unlink(dfs, final); err != nil {
			return err
		}
	}
	if err := unlink(dfs, final+"-journal", final+"-wal", final+"-shm"); err != nil {
		return err
	}
	if err := dfs.Rename(tmp, final); err != nil {
		return err
	}
	if err := dfs.SyncDir(filepath.Dir(final)); err != nil {
		return err
	}
	if filepath.Dir(tmp) == filepath.Dir(final) {
		return nil
	}
	return dfs.SyncDir(filepath.Dir(tmp))
}

// prepare proves that tmp is complete by itself and makes it durable, content and
// name, while the old database is still untouched.
func prepare(dfs durable.FS, tmp, final string) error {
	if _, err := sizeOf(dfs, sidecarOf(tmp)); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s exists: the file is not complete; finish the restore", sidecarOf(tmp)), err)
	}
	for _, suffix := range replayed {
		n, err := sizeOf(dfs, tmp+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%s has content; checkpoint the database and close it first", tmp+suffix)
		}
	}
	if err := unlink(dfs, tmp+"-journal", tmp+"-wal", tmp+"-shm"); err != nil {
		return err
	}
	if info, err := os.Stat(final); err == nil {
		if err := os.Chmod(tmp, info.Mode().Perm()); err != nil {
			return err
		}
	}
	f, err := dfs.Open(tmp, os.O_RDWR)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return dfs.SyncDir(filepath.Dir(tmp))
}

// unlink removes the files that exist, all in one directory, and waits until they
// are gone for good.
func unlink(dfs durable.FS, names ...string) error {
	for _, name := range names {
		if err := dfs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return dfs.SyncDir(filepath.Dir(names[0]))
}
