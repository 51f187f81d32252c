package main

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/internal/config"
)

func TestAutoSizes(t *testing.T) {
	const MiB, GiB, TiB = config.MiB, config.GiB, config.TiB
	for _, tt := range []struct {
		name      string
		got, want config.Size
	}{
		{"SQLite WAL on a large disk", autoSQLiteWAL(0, 1*TiB), 1 * GiB},
		{"SQLite WAL on a small disk", autoSQLiteWAL(0, 1*GiB), 102 * MiB},
		{"SQLite WAL on a full disk", autoSQLiteWAL(0, 0), 16 * MiB},
		{"SQLite WAL as configured", autoSQLiteWAL(3*TiB, 1*GiB), 3 * TiB},
		{"change log on a large disk", autoChangeLog(0, 1*TiB), 4 * GiB},
		{"change log on a small disk", autoChangeLog(0, 20*GiB), 2 * GiB},
		{"stream of one database", autoStream(0, 10*GiB, 1), 5 * GiB},
		{"stream of ten databases", autoStream(0, 10*GiB, 10), 512 * MiB},
		{"stream on a huge disk", autoStream(0, 100*TiB, 1), 64 * GiB},
		{"stream without databases", autoStream(0, 10*GiB, 0), 5 * GiB},
		{"stream where others have the room", autoStream(0, 0, 3), 16 * MiB},
		{"stream as configured", autoStream(3*GiB, 10*GiB, 3), 3 * GiB},
		{"stream beyond the room", autoStream(4*GiB, 9*GiB, 3), 1536 * MiB},
		{"small stream without room", autoStream(2*MiB, 0, 1), 2 * MiB},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, tt.got, tt.want)
		}
	}
}

func TestFreeSpace(t *testing.T) {
	// What is reserved for the superuser does not count.
	free, err := freeSpace(func(path string, st *unix.Statfs_t) error {
		if path != "/data" {
			t.Errorf("looked at %s", path)
		}
		st.Bsize, st.Bavail, st.Bfree = 4096, 10, 20
		return nil
	}, "/data")
	if err != nil || free != 40960 {
		t.Errorf("%v, %v; want 40960", free, err)
	}
	if _, err = freeSpace(func(string, *unix.Statfs_t) error { return unix.EIO }, "/data"); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
}

func TestLimits(t *testing.T) {
	var c config.Primary
	c.Capture.MaxSQLiteWAL, c.ChangeLog.MaxSize = config.GiB, 38_005*config.MiB
	for stream, want := range map[config.Size]string{
		0:                   "[max_sqlite_wal=1.0 GiB max_change_log=37.1 GiB stream_max_bytes=unlimited]",
		38_005 * config.MiB: "[max_sqlite_wal=1.0 GiB max_change_log=37.1 GiB stream_max_bytes=37.1 GiB]",
	} {
		c.Stream.MaxBytes = stream
		if got := fmt.Sprint(limits(c)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
