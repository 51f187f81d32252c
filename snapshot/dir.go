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
type DirStore struct{ dir string }

// NewDir returns the store below dir. The directory is created by the first Put.
func NewDir(dir string) *DirStore { return &DirStore{dir: dir} }

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
	if err := (durable.OS{}).MkdirAll(filepath.Dir(file)); err != nil {
		return err
	}
	return durable.WriteFile(durable.OS{}, file, data)
}

// Get implements [Store].
func (d *DirStore) Get(ctx context.Context, name string) ([]byte, error) {
	file, err := d.file(ctx, name)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// List implements [Store].
func (d *DirStore) List(ctx context.Context, prefix string) (names []string, err error) {
	root := d.dir
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 { // look only where the names can be
		if root, err = d.file(ctx, prefix[:i]); err != nil {
			return nil, err
		}
	}
	err = filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // deleted meanwhile, or nothing was ever put
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
	return names, err
}

// Delete implements [Store]. It removes a directory with its last object.
func (d *DirStore) Delete(ctx context.Context, name string) error {
	file, err := d.file(ctx, name)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return err
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
