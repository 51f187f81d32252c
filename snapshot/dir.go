package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sqlite-replicator/replicator/internal/durable"
)

// A DirStore keeps objects as files below a directory, which may be on another
// machine: a mount that honours fsync and rename is enough. What a crashed Put
// left behind is listed as name + ".tmp", so that Retain finds it.
type DirStore struct {
	dir  string
	home *home // nil: not remembered
}

// NewDir returns the store below dir. The directory is created by the first Put.
func NewDir(dir string) *DirStore { return &DirStore{dir: dir} }

// NewDirAt is NewDir for the one who writes. It remembers, in the file note, on which
// file system the store is, and so tells a store without an object, which is a fact,
// from one that is not mounted: then every call fails, with an error that wraps
// syscall.ENODEV, and nothing is written to where the mount should be.
func NewDirAt(dir, note string) *DirStore {
	return &DirStore{dir: dir, home: &home{dir: dir, note: note, device: deviceOf}}
}

func (d *DirStore) file(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if name == "." || !filepath.IsLocal(name) || !fs.ValidPath(name) {
		return "", fmt.Errorf("snapshot: %q is not the name of an object", name)
	}
	return filepath.Join(d.dir, filepath.FromSlash(name)), nil
}

// Put implements [Store].
func (d *DirStore) Put(ctx context.Context, name string, data []byte) error {
	file, err := d.file(ctx, name)
	if err != nil {
		return err
	}
	if err := d.home.check(d.names); err != nil {
		return err
	}
	if err := (durable.OS{}).MkdirAll(filepath.Dir(file)); err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS{}, file, data); err != nil {
		return err
	}
	return d.home.keep()
}

// Get implements [Store].
func (d *DirStore) Get(ctx context.Context, name string) ([]byte, error) {
	file, err := d.file(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	return b, d.absent(err)
}

// absent gives err, unless that says that something is not there because the store is
// not: then only what says that. Whoever asks takes what is absent for deleted or lost.
func (d *DirStore) absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		if away := d.home.check(d.names); away != nil {
			return away
		}
	}
	return err
}

// List implements [Store].
func (d *DirStore) List(ctx context.Context, prefix string) ([]string, error) {
	names, whole, err := d.list(ctx, prefix)
	if err == nil && (!whole || len(names) == 0) {
		err = d.home.check(d.names)
	}
	return names, err
}

func (d *DirStore) names() ([]string, error) {
	names, _, err := d.list(context.Background(), "")
	return names, err
}

// list gives what it finds; whole: nothing that a directory had was gone a moment later.
func (d *DirStore) list(ctx context.Context, prefix string) (names []string, whole bool, err error) {
	root := d.dir
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 { // look only where the names can be
		if root, err = d.file(ctx, prefix[:i]); err != nil {
			return nil, false, err
		}
	}
	whole = true
	err = filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // deleted meanwhile, or nothing was ever put
			whole = false
			return nil
		}
		if err != nil || e.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		name, err := filepath.Rel(d.dir, file)
		if name = filepath.ToSlash(name); err == nil && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
		return err
	})
	return names, whole, err
}

// Delete implements [Store]. It removes a directory with its last object.
func (d *DirStore) Delete(ctx context.Context, name string) error {
	file, err := d.file(ctx, name)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return d.absent(err)
	}
	dir := filepath.Dir(file)
	if err := (durable.OS{}).SyncDir(dir); err != nil {
		return err
	}
	if dir != filepath.Clean(d.dir) {
		_ = os.Remove(dir) // fails unless it is empty
	}
	return nil
}
