package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

// A filePages is a database file as a snapshot.Source, in pages of 4 KiB.
type filePages []byte

func (p filePages) PageSize() int { return 4096 }
func (p filePages) Pages() uint32 { return uint32(len(p) / 4096) }
func (p filePages) ReadPages(_ context.Context, first uint32, dst []byte) (int, error) {
	return copy(dst, p[int(first-1)*4096:]) / 4096, nil
}

// TestRestorePassesOverDamage: a snapshot that is damaged, or has a damaged manifest, stands
// in no restore's way, nothing is restored from it, and that is told.
func TestRestorePassesOverDamage(t *testing.T) {
	dir, ctx, to := t.TempDir(), t.Context(), goal{lsn: 7}
	app := filepath.Join(dir, "app.db")
	c, err := sqlite.Open(app, sqlite.Options{Plain: true, Create: true})
	if err == nil {
		err = errors.Join(c.Exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)"), c.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(app)
	if err != nil {
		t.Fatal(err)
	}
	store := snapshot.NewDir(filepath.Join(dir, "snapshots"))
	for range 3 {
		m := snapshot.Manifest{Database: "app", Node: "test", Position: cdc.Position{Lineage: cdc.ID{1}, Epoch: 1, LSN: to.lsn}}
		if _, err := snapshot.Make(ctx, store, filePages(file), m, snapshot.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := covered(ctx, store, to)
	if err != nil || len(all) != 3 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	unlisted, all := all[2].ID, all[:2]
	if err := store.Put(ctx, unlisted+"/manifest.json", []byte("damage")); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	a := &access{nats: stream.Options{Logger: slog.New(slog.NewTextHandler(&said, nil))}}
	for left, m := range slices.Backward(all) {
		if err := store.Put(ctx, m.ID+"/chunk-000001", []byte("damage")); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, fmt.Sprintf("restored-%d.db", left))
		at, err := restore(ctx, a, "app", store, to, path, newMeter(&environment{clock: time.Now}))
		got, rerr := os.ReadFile(path)
		switch {
		case left > 0 && (err != nil || at.LSN != to.lsn || rerr != nil || !bytes.Equal(got, file) || !strings.Contains(said.String(), unlisted) || !strings.Contains(said.String(), m.ID)):
			t.Errorf("%d whole: LSN %d, %v; %d bytes, %v; said %q", left, at.LSN, err, len(got), rerr, said.String())
		case left == 0 && (!errors.Is(err, snapshot.ErrDamaged) || !strings.Contains(err.Error(), unlisted) || !errors.Is(rerr, fs.ErrNotExist)):
			t.Errorf("none whole: %v; %d bytes, %v", err, len(got), rerr)
		}
	}
}
