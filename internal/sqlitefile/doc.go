// Package sqlitefile reads SQLite database files and -wal files as bytes,
// without the engine. "§" cites https://www.sqlite.org/fileformat2.html.
//
// # What it does
//
// A [Header] is the first 100 bytes of a database. [ParsePage] gives a [Page]
// of a b-tree, and a page gives its cells. [Overflow] and [Payload] follow a
// cell's overflow chain through a [Pages], one state of a database that the
// caller provides; [Walk] visits a whole b-tree of it. [Record] decodes a
// payload into values, [ParseSchemaRow] a row of sqlite_schema.
//
// A [WALReader] turns a -wal file into its committed transactions, as page
// numbers, each proved by the salts and by the cumulative checksum.
//
// # What it never does
//
// It never writes, starts a goroutine or panics, and it keeps nothing between
// calls except inside a WALReader. It does not know SQL, affinities, collations
// or which frames are committed: how far a -wal may be read is the engine's
// knowledge (the wal-index), and the caller passes it as a limit.
//
// # Damage
//
// Every byte may be hostile. Sizes, offsets, depths and chains are bounded, so
// that work and memory are proportional to what is really there and not to what
// a length field claims. Whatever the bytes cause wraps [ErrCorrupt]; errors of
// the caller's reader are passed on, wrapped, and are never taken for the end of
// a file. Errors name pages, frames and offsets, never values.
//
// # Memory and concurrency
//
// Results alias what they were decoded from: a cell its page, a value its
// record. Pages, cells, values and headers are plain values, safe for concurrent
// use as long as nobody writes the bytes below. A WALReader serves one goroutine.
package sqlitefile

import (
	"errors"
	"fmt"
)

// ErrCorrupt is wrapped by every error that the bytes themselves cause.
var ErrCorrupt = errors.New("sqlitefile: corrupt")

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}
