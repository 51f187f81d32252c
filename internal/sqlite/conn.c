#include "conn.h"

#include <math.h>

#define COPY_BINDING ((sqlite3_destructor_type)-1) /* SQLITE_TRANSIENT */

// An empty slice has no address in Go, and SQLite reads a NULL pointer as NULL.
static const char empty[1] = "";

int rq_db_config(sqlite3 *db, int op, int value) {
  int got = -1;
  int rc = sqlite3_db_config(db, op, value, &got);
  if (rc == SQLITE_OK && got != value) return SQLITE_ERROR;
  return rc;
}

int rq_no_lookaside(sqlite3 *db) {
  return sqlite3_db_config(db, SQLITE_DBCONFIG_LOOKASIDE, (void *)0, 0, 0);
}

int rq_bind_text(sqlite3_stmt *stmt, int i, const void *p, uint64_t n) {
  return sqlite3_bind_text64(stmt, i, n ? p : empty, n, COPY_BINDING, SQLITE_UTF8);
}

int rq_bind_blob(sqlite3_stmt *stmt, int i, const void *p, uint64_t n) {
  return sqlite3_bind_blob64(stmt, i, n ? p : empty, n, COPY_BINDING);
}

rq_marks rq_checkpoint(sqlite3 *db, int mode) {
  rq_marks m = {0, -1, -1};
  m.rc = sqlite3_wal_checkpoint_v2(db, "main", mode, &m.frames, &m.backfilled);
  return m;
}

int rq_commits(sqlite3 *db, uint32_t *n) {
  enum { region = 32768, change = 8 }; // bytes of the first part, and before iChange in its header
  sqlite3_file *f = 0;
  void volatile *p = 0;
  int rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &f);
  if (rc == SQLITE_OK) rc = f->pMethods->iVersion < 2 ? SQLITE_ERROR : f->pMethods->xShmMap(f, 0, region, 0, &p);
  if (rc == SQLITE_OK && !p) rc = SQLITE_ERROR;
  if (rc == SQLITE_OK) *n = ((uint32_t volatile *)p)[change / sizeof *n];
  return rc;
}

int rq_collation(sqlite3 *db, const char *table, const char *column, const char **name) {
  return sqlite3_table_column_metadata(db, "main", table, column, 0, name, 0, 0, 0);
}

int rq_has_table(sqlite3 *db, const char *table) {
  return sqlite3_table_column_metadata(db, "main", table, 0, 0, 0, 0, 0, 0);
}

static int refuse_commit(void *db) { return sqlite3_txn_state(db, "main") == SQLITE_TXN_WRITE; }

void rq_only_commit(sqlite3 *db, int on) { sqlite3_commit_hook(db, on ? refuse_commit : 0, db); }

static void not_there(sqlite3_context *c, int n, sqlite3_value **v) {
  (void)n, (void)v;
  sqlite3_result_error(c, "no such function", -1);
}

int rq_lend(sqlite3 *db, const char *name, int on) {
  return sqlite3_create_function_v2(db, name, -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, 0, on ? not_there : 0, 0, 0, 0);
}

static void alike(sqlite3_context *c, int n, sqlite3_value **v) {
  (void)n;
  int class = sqlite3_value_type(v[0]), same = class == sqlite3_value_type(v[1]);
  if (same && class == SQLITE_FLOAT) same = !signbit(sqlite3_value_double(v[0])) == !signbit(sqlite3_value_double(v[1]));
  sqlite3_result_int(c, same);
}

int rq_alike(sqlite3 *db, const char *name) {
  return sqlite3_create_function_v2(db, name, 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, 0, alike, 0, 0, 0);
}

void rq_temp_dir(const char *dir) { sqlite3_temp_directory = *dir ? sqlite3_mprintf("%s", dir) : 0; }

static int count_down(unsigned event, void *left, void *stmt, void *sql) {
  (void)event, (void)sql;
  if (--*(int64_t *)left == 0) sqlite3_interrupt(sqlite3_db_handle(stmt));
  return 0;
}

void rq_interrupt_at(sqlite3 *db, int64_t *left) {
  sqlite3_trace_v2(db, left ? SQLITE_TRACE_STMT : 0, left ? count_down : 0, left);
}
