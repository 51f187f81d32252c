#ifndef REPLICATOR_CONN_H
#define REPLICATOR_CONN_H

#include "sqlite.h"

// rq_db_config sets a boolean option and fails when it did not take.
int rq_db_config(sqlite3 *db, int op, int value);

// rq_no_lookaside gives back the 48 KiB that a connection keeps for small
// allocations. It must come before the first statement.
int rq_no_lookaside(sqlite3 *db);

// These copy: the statement may outlive the Go memory behind p.
int rq_bind_text(sqlite3_stmt *stmt, int i, const void *p, uint64_t n);
int rq_bind_blob(sqlite3_stmt *stmt, int i, const void *p, uint64_t n);

typedef struct {
  int rc;
  int frames;     // mxFrame of the wal-index, -1 unknown
  int backfilled; // nBackfill, -1 unknown
} rq_marks;

rq_marks rq_checkpoint(sqlite3 *db, int mode);

// rq_commits reads the wal-index's count of commits. db has read the main database,
// which is in WAL mode.
int rq_commits(sqlite3 *db, uint32_t *n);

// rq_collation points name at the collation of a column of the main database,
// valid until the schema changes.
int rq_collation(sqlite3 *db, const char *table, const char *column, const char **name);

// rq_has_table returns SQLITE_OK for a table of main, SQLITE_ERROR where there is none.
int rq_has_table(sqlite3 *db, const char *table);

// rq_only_commit makes every commit of the main database fail but those for which
// it is switched off.
void rq_only_commit(sqlite3 *db, int on);

// rq_lend makes a function of any number of arguments that only fails, or removes it.
int rq_lend(sqlite3 *db, const char *name, int on);

// rq_alike makes a function that reports whether two values that IS holds for equal are
// of one storage class and sign: 1 and 1.0 are not, nor are 0.0 and -0.0.
int rq_alike(sqlite3 *db, const char *name);

// rq_temp_dir sets the directory of temporary files; "" is SQLite's own choice.
void rq_temp_dir(const char *dir);

// rq_interrupt_at interrupts db when the statement begins that makes *left 0.
void rq_interrupt_at(sqlite3 *db, int64_t *left);

#endif
