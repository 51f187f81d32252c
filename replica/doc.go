// Package replica keeps one SQLite file equal to a source database: it restores
// a snapshot, applies the records of the change log to it in order, and writes
// the position that it has reached into the same SQLite transaction as the rows
// (table _replicator_position). Whatever dies, each transaction is applied
// exactly once, whole, and in order.
//
// [New] checks and starts nothing. [Replica.Run] owns everything: the lock that
// keeps a second daemon away from the file, the connections, the consumer and
// the reports. What may heal by itself is a [State] with retries, never an exit:
// no snapshot yet, the stream out of reach, a full disk, a file that differs.
//
// How a record becomes rows: [cdc.Verifier] proves that it follows the one
// before it; its operations go to SQLite in batches, one C call each, several
// whole records in one SQLite transaction while more are waiting. When a UNIQUE
// constraint stops a batch (rows that swap their keys), the SQLite transaction is
// rolled back and done again, transaction by transaction, the failing one as
// delete-all-then-insert; the records are kept for that second pass, in memory
// and above 16 MiB in an unlinked file. A transaction of several records is
// applied as they arrive and is visible only with its end.
//
// Readers are never blocked and never see the file replaced: a file that must be
// seeded again (divergence, a gap, a break) receives the difference to a snapshot
// in one transaction. Between applies the daemon holds SQLite's write lock, so
// that a stray writer is usually refused; a write that slipped in is always
// detected, and healed by a re-seed.
//
// With [Apply].VerifyRows it keeps the row-set hash of each table: that of all rows
// as they were read in the background, and what every change since did to its row,
// as the file holds it before and after. A commit record carries the primary's
// hashes of the tables that it changes; before the SQLite transaction is committed
// they are compared. A row that was changed behind the replica's back is so found at
// the next transaction on its table, or when all tables are read again. Every start
// and every re-seed begins with all hashes unknown.
//
// Beside the file it keeps a directory of its own, path + ".replicator", with the
// lock and a snapshot while it is restored; in the file the tables
// _replicator_position and _replicator_left_off (indexes of the source that this
// program's SQLite cannot maintain).
//
// What the package never does: talk to NATS (it is given a [Stream]), continue
// past a record that does not fit, query a virtual table, or put a row value
// into a log line or an error.
package replica
