// Package snapshot makes, keeps and restores full copies of a SQLite database,
// each exactly as of one boundary of the change log. A snapshot is a manifest and
// the chunks it names, in a [Store]; FORMAT.md is the layout. The manifest is
// written last: a snapshot without one does not exist.
//
// [Make] reads a [Source] with one sequential reader, at the speed of the disk,
// while workers compress, hash and upload. [Restore] does the reverse and picks
// up where an interrupted restore stopped. [Install] puts a restored file in
// the place of a database. [List], [Latest], [Verify] and [Retain] look after
// what a store holds.
//
// What it promises:
//
//   - A restored file is the one that was read, page for page, or there is an
//     error, which names the chunk and wraps [ErrDamaged] where bytes are the cause. Every byte is covered
//     by two checksums, as stored and as unpacked, and the manifest by its own.
//   - A file that looks complete is complete: until the last byte is synced, a
//     sidecar (path + ".partial") stands beside it.
//   - The buffers of one call take at most 40 MiB, whatever the size of the
//     database, as long as a chunk is at most 12 MiB; with larger ones, as much
//     as two chunks. What a Store allocates comes on top.
//
// What it never does: open a database with SQLite, hold a lock or a pin (the
// Source does, for as long as Make reads), talk to NATS, log, or decide when a
// snapshot is due. The checksums are XXH3: they guard against damage and
// mix-ups, not against an adversary who can write to the store.
//
// All functions may be called concurrently, but only one Restore or Install
// may work on a path at a time.
package snapshot

import "errors"

// ErrDamaged is wrapped by every error that stored bytes cause: a manifest or
// chunk that is missing, short, altered or another's. Fetching again does not
// help; another snapshot does.
var ErrDamaged = errors.New("snapshot: damaged")

// ErrGone is wrapped when a snapshot is not in the store any more, manifest and all: it
// was deleted meanwhile, or what was mounted there is not. It says nothing of damage.
var ErrGone = errors.New("snapshot: no longer there")

// ErrVersion is wrapped when a manifest was written by a newer replicator. The
// remedy is to upgrade the reader; the snapshot is fine.
var ErrVersion = errors.New("snapshot: unknown version")

// ErrLeft is wrapped by errors of Retain about what was to go and may be there still. Another
// call goes on.
var ErrLeft = errors.New("snapshot: not all was deleted")

// ErrNone is wrapped when a store has no snapshot as new as was asked for.
var ErrNone = errors.New("snapshot: none found")

// ErrExists is wrapped when a file that Restore was not asked to replace is in
// its way.
var ErrExists = errors.New("snapshot: file exists")
