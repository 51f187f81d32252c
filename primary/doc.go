// Package primary captures the committed row changes of SQLite databases that
// other programs write, and ships them.
//
// One [Pipeline] serves one database. Its data flows one way:
//
//	source    the files, descriptors and connections of the database
//	follower  keeps a pin on the SQLite WAL and finds committed transactions
//	decoder   turns the pages of a transaction into row and schema changes
//	encoder   (package cdc) cuts them into numbered records
//	Log       the change log, durable first
//	shipper   publishes what is durable
//
// The package changes nothing in the source but its journal mode, which it sets
// to WAL where it is not. It never writes a page of it, creates no object in
// it, and holds SQLite's write lock for milliseconds at a time.
//
// Invariants, in the order in which the code relies on them:
//
//   - A pin (an open read transaction) keeps SQLite from overwriting frames. It
//     moves past a frame only after every change up to that frame is fsynced in
//     the change log.
//   - Only frames up to the wal-index's mxFrame are decoded: a valid commit
//     frame in the file alone proves nothing.
//   - The capture position lives in the commit record: appending that record is
//     the only commit point.
//   - In doubt the pipeline appends a break record and makes a new snapshot. It
//     never guesses and never skips.
package primary
