// Package wal is the change log: the records of one database's history, in
// order, on the primary's disk. What it says has happened, has happened; the
// stream can be built from it again.
//
// It stores and returns the bytes of records, checks that each one follows the
// one before, and never looks at the operations in them. It never deletes a
// record unless Trim, CutTail or Cut is called, and never repairs anything but the
// torn end of a write that no Sync had confirmed. FORMAT.md is the byte map.
//
// # Why nothing is lost
//
// Assumptions: Sync of a file makes its content and size durable, SyncDir the
// names in a directory. Of what is not synced a power failure keeps any sectors
// (512 bytes), in any order; a sector that it does not keep reads as zeros or
// lies past the end of the file. After a failed sync none of the unsynced bytes
// need to be on the disk, though they can still be read. One process writes.
//
// The order in which things become durable:
//
//  1. A segment's header, synced, then its name (SyncDir), before the first
//     record is written. The segment before it was synced still earlier, so
//     only the last segment can have a torn end.
//  2. Records, in order, with Sync. Only then do readers see them and does
//     Durable grow.
//  3. With the next record after a Sync, a sync mark, which says how far that
//     Sync reached. Close adds one at the end.
//  4. Trim removes segments from the oldest, with SyncDir after each.
//
// What Open makes of each point of failure:
//
//   - A last segment without a header: step 1 did not end. It is removed.
//   - In the last segment a record whose checksum is wrong: if a sync mark
//     covers it, it was durable: ErrDamaged. If none does, and a sector of it is
//     zero or the file ends within it, it is torn and is cut off with all that
//     follows. Otherwise something has changed it: ErrDamaged.
//   - Everything after the last mark may be in the page cache only, if a sync
//     failed. Open writes it once more and syncs it before it counts as durable.
//   - A segment missing between two others (each header names the one before
//     it), or damage in an earlier one: ErrDamaged, when it is read.
//   - A record whose checksum is right and which does not follow: ErrDamaged.
//
// A segment begins right after a boundary and its header holds the position
// there. So a verifier can start at any segment, and what CutTail removes, the
// parts of an unfinished transaction, is always in one file.
//
// After a failed write or sync nobody knows what the disk holds. The Log then
// stays failed, and the next Open finds out.
package wal
