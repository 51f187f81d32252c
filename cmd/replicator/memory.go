package main

import (
	"log/slog"
	"strings"

	"github.com/sqlite-replicator/replicator/internal/config"
)

// What Go's heap may take in a daemon before the collector works harder, in bytes.
// SQLite's memory and the program itself, some 50 MiB together, come on top.
//
// Without a limit the collector lets garbage grow to the size of what is alive. An
// embedded NATS server reads and writes objects through blocks of megabytes that it
// gives up at once, so that this would be a gigabyte. Far below what is alive, the
// collector would do nothing else: each database adds to it.
const (
	primaryHeap     = 104 << 20
	primaryHeapEach = 512 << 10 // database more than primaryHeapFor: its streams in the NATS server, and its part of the rest
	primaryHeapFor  = 32        // databases that primaryHeap is enough for: snapshots take turns
	replicaHeap     = 72 << 20
	replicaHeapEach = 256 << 10
)

// mapsOf is what the page maps of the databases may take while they grow, in bytes:
// five bytes for each page of 4 KiB, and as much again.
func mapsOf(databases []config.PrimaryDatabase) (n int64) {
	for _, d := range databases {
		n += fileSize(d.Path) / 4096 * 10
	}
	return n
}

// What SQLite may take in a replica beyond the cache of one database, in bytes: caches
// of several share that. Each connection takes some before it reads anything.
const (
	sqliteBeside = 8 << 20
	sqliteEach   = 384 << 10 // database
)

// shareCaches makes the databases of a replica share a page cache of that many bytes.
func shareCaches(e *environment, cache int64, databases int) {
	if e.shareSQLite != nil {
		e.shareSQLite(cache + sqliteBeside + int64(databases)*sqliteEach)
	}
}

// keepTempIn makes SQLite keep in dir what does not fit into memory: there is room for it
// where the database is, or is restored, and perhaps not where the system has such files.
func keepTempIn(e *environment, dir string) {
	if e.tempSQLite != nil {
		e.tempSQLite(dir)
	}
}

// limitMemory sets the limit of Go's heap, unless GOMEMLIMIT does.
func limitMemory(e *environment, log *slog.Logger, heap, each int64, databases int) {
	if e.memoryLimit == nil {
		return
	}
	for _, entry := range e.environ {
		if value, ok := strings.CutPrefix(entry, "GOMEMLIMIT="); ok && value != "" {
			log.Info("memory limit of Go", "GOMEMLIMIT", value)
			return
		}
	}
	limit := heap + int64(max(databases-1, 0))*each
	e.memoryLimit(limit)
	log.Info("memory limit of Go", "bytes", limit)
}
