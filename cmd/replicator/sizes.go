package main

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/sqlite-replicator/replicator/internal/config"
)

// Sizes that follow from the free space of the disk where nothing is
// configured. The application always comes first: the disk is its own.
const (
	mostSQLiteWAL = 1 * config.GiB
	mostChangeLog = 4 * config.GiB
	mostHeld      = 4 * config.GiB
	mostStream    = 64 * config.GiB
)

// A statfs looks at a disk; unix.Statfs is one.
type statfs func(path string, st *unix.Statfs_t) error

// freeSpace is what an ordinary user may still write below dir, in bytes.
func freeSpace(look statfs, dir string) (config.Size, error) {
	var st unix.Statfs_t
	if err := look(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return config.Size(st.Bavail) * config.Size(st.Bsize), nil
}

// autoSQLiteWAL is configured or the less of 1 GiB and 10 % of what is free.
func autoSQLiteWAL(configured, free config.Size) config.Size {
	return auto(configured, free/10, mostSQLiteWAL)
}

// autoChangeLog is configured or the less of 4 GiB and 10 % of what is free.
func autoChangeLog(configured, free config.Size) config.Size {
	return auto(configured, free/10, mostChangeLog)
}

// autoHeld is configured or the less of 4 GiB and 10 % of what is free.
func autoHeld(configured, free config.Size) config.Size {
	return auto(configured, free/10, mostHeld)
}

// autoStream is configured, where there is room for that, or an equal share of half of the
// room: the other half is for snapshots.
func autoStream(configured, room config.Size, databases int) config.Size {
	each := room / config.Size(max(databases, 1))
	if configured != 0 && configured <= max(each, config.LeastAuto) {
		return configured
	}
	return auto(0, each/2, mostStream)
}

func auto(configured, share, most config.Size) config.Size {
	if configured != 0 {
		return configured
	}
	return max(min(share/config.MiB*config.MiB, most), config.LeastAuto) // whole MiB read better
}

// limits is what the log says at start of sizes that may have been chosen here. A
// stream without a limit of its own has that of the servers.
func limits(c config.Primary) []slog.Attr {
	stream := "unlimited"
	if c.Stream.MaxBytes != 0 {
		stream = size(int64(c.Stream.MaxBytes))
	}
	return []slog.Attr{
		slog.String("max_sqlite_wal", size(int64(c.Capture.MaxSQLiteWAL))),
		slog.String("max_change_log", size(int64(c.ChangeLog.MaxSize))), slog.String("stream_max_bytes", stream),
	}
}
