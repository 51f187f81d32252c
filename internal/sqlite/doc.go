// Package sqlite is the project's one door to the SQLite library: connections
// that keep SQLite's own housekeeping in our hands, checkpoints, the shape of
// tables, batch apply of row changes, content hashes and a row diff between two
// files. It is the only importer of github.com/mattn/go-sqlite3, and of that it
// uses only the library which the driver compiles in: statements, bindings and
// checkpoints go straight to SQLite's C interface, because the driver's own open
// runs statements before it can be told not to checkpoint when it closes.
//
// What a connection of this package never does, unless asked through Options:
//
//   - checkpoint by itself, neither after a commit nor when it closes, and so it
//     never deletes the SQLite WAL of a file it merely looked at;
//   - run below synchronous=NORMAL: a checkpoint that does not sync can corrupt
//     the user's database in a power failure;
//   - fire triggers, enforce foreign keys or evaluate CHECK constraints: what is
//     applied already happened, and passed them, elsewhere.
//
// It never logs, leaves no goroutine behind and puts no row value in an error.
//
// The C side (*.c, sqlite.h) declares the few prototypes of SQLite it needs and
// links against the driver's copy; it reads records that came from outside with
// full bounds checks. A Conn is for one goroutine at a time. It opens files, so
// it is bound by the POSIX rule that closing any descriptor of a file drops all
// locks the process holds on it: who opens two connections on one inode closes
// every other descriptor of that inode last.
package sqlite
