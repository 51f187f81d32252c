// The part of SQLite's C interface that this package uses. The symbols come from
// the library that go-sqlite3 compiles in (or links, with -tags libsqlite3), so a
// prototype that does not exist there fails at link time.
#ifndef REPLICATOR_SQLITE_H
#define REPLICATOR_SQLITE_H

#include <stdint.h>

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct sqlite3_context sqlite3_context;
typedef struct Mem sqlite3_value;

// An open file of SQLite's, as far as the methods of version 2.
typedef struct {
  int iVersion;
  int (*others[12])(void); // xClose to xDeviceCharacteristics
  int (*xShmMap)(void *file, int region, int size, int extend, void volatile **);
} sqlite3_io_methods;
typedef struct {
  const sqlite3_io_methods *pMethods;
} sqlite3_file;

typedef void (*sqlite3_destructor_type)(void *);

enum {
  SQLITE_OK = 0, SQLITE_ERROR = 1, SQLITE_BUSY = 5, SQLITE_LOCKED = 6,
  SQLITE_NOMEM = 7, SQLITE_READONLY = 8, SQLITE_INTERRUPT = 9,
  SQLITE_CORRUPT = 11, SQLITE_FULL = 13, SQLITE_CONSTRAINT = 19,
  SQLITE_MISUSE = 21, SQLITE_NOTADB = 26, SQLITE_ROW = 100, SQLITE_DONE = 101
};
enum { SQLITE_INTEGER = 1, SQLITE_FLOAT = 2, SQLITE_TEXT = 3, SQLITE_BLOB = 4, SQLITE_NULL = 5 };
enum { SQLITE_UTF8 = 1, SQLITE_UTF16LE = 2, SQLITE_UTF16BE = 3 };
enum {
  SQLITE_OPEN_READONLY = 0x1, SQLITE_OPEN_READWRITE = 0x2, SQLITE_OPEN_CREATE = 0x4,
  SQLITE_OPEN_URI = 0x40, SQLITE_OPEN_NOMUTEX = 0x8000, SQLITE_OPEN_EXRESCODE = 0x02000000
};
enum {
  SQLITE_DBCONFIG_LOOKASIDE = 1001,
  SQLITE_DBCONFIG_ENABLE_TRIGGER = 1003,
  SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE = 1006,
  SQLITE_DBCONFIG_DEFENSIVE = 1010,
  SQLITE_DBCONFIG_DQS_DML = 1013,
  SQLITE_DBCONFIG_DQS_DDL = 1014
};
enum { SQLITE_PREPARE_PERSISTENT = 0x1 };
enum { SQLITE_DETERMINISTIC = 0x800, SQLITE_DIRECTONLY = 0x80000 };
enum { SQLITE_TXN_WRITE = 2, SQLITE_TRACE_STMT = 0x1 };
enum { SQLITE_DBSTATUS_CACHE_HIT = 7, SQLITE_DBSTATUS_CACHE_MISS = 8 };
enum { SQLITE_FCNTL_FILE_POINTER = 7 };

int sqlite3_open_v2(const char *, sqlite3 **, int, const char *);
int sqlite3_close_v2(sqlite3 *);
int sqlite3_db_config(sqlite3 *, int, ...);
int sqlite3_db_status(sqlite3 *, int, int *, int *, int);
int sqlite3_busy_timeout(sqlite3 *, int);
int sqlite3_get_autocommit(sqlite3 *);
void sqlite3_interrupt(sqlite3 *);
sqlite3 *sqlite3_db_handle(sqlite3_stmt *);
int sqlite3_txn_state(sqlite3 *, const char *);
void *sqlite3_commit_hook(sqlite3 *, int (*)(void *), void *);
int sqlite3_trace_v2(sqlite3 *, unsigned, int (*)(unsigned, void *, void *, void *), void *);
int sqlite3_errcode(sqlite3 *);
int sqlite3_extended_errcode(sqlite3 *);
const char *sqlite3_errmsg(sqlite3 *);
const char *sqlite3_errstr(int);
int64_t sqlite3_changes64(sqlite3 *);
int sqlite3_wal_checkpoint_v2(sqlite3 *, const char *, int, int *, int *);
int sqlite3_wal_autocheckpoint(sqlite3 *, int);
int sqlite3_file_control(sqlite3 *, const char *, int, void *);
int sqlite3_table_column_metadata(sqlite3 *, const char *, const char *, const char *,
                                  char const **, char const **, int *, int *, int *);
int sqlite3_compileoption_used(const char *);
const char *sqlite3_libversion(void);
int64_t sqlite3_soft_heap_limit64(int64_t);
int64_t sqlite3_memory_used(void);
int64_t sqlite3_memory_highwater(int);
char *sqlite3_mprintf(const char *, ...);
extern char *sqlite3_temp_directory;

int sqlite3_create_function_v2(sqlite3 *, const char *, int, int, void *,
                               void (*)(sqlite3_context *, int, sqlite3_value **),
                               void (*)(sqlite3_context *, int, sqlite3_value **),
                               void (*)(sqlite3_context *), void (*)(void *));
void sqlite3_result_error(sqlite3_context *, const char *, int);
void sqlite3_result_int(sqlite3_context *, int);
int sqlite3_value_type(sqlite3_value *);
double sqlite3_value_double(sqlite3_value *);

int sqlite3_exec(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
int sqlite3_prepare_v3(sqlite3 *, const char *, int, unsigned int, sqlite3_stmt **, const char **);
int sqlite3_finalize(sqlite3_stmt *);
int sqlite3_reset(sqlite3_stmt *);
int sqlite3_clear_bindings(sqlite3_stmt *);
int sqlite3_step(sqlite3_stmt *);
int sqlite3_bind_parameter_count(sqlite3_stmt *);
int sqlite3_bind_null(sqlite3_stmt *, int);
int sqlite3_bind_int64(sqlite3_stmt *, int, int64_t);
int sqlite3_bind_double(sqlite3_stmt *, int, double);
int sqlite3_bind_blob64(sqlite3_stmt *, int, const void *, uint64_t, sqlite3_destructor_type);
int sqlite3_bind_text64(sqlite3_stmt *, int, const char *, uint64_t, sqlite3_destructor_type, unsigned char);
int sqlite3_column_count(sqlite3_stmt *);
int sqlite3_data_count(sqlite3_stmt *);
int sqlite3_column_type(sqlite3_stmt *, int);
int64_t sqlite3_column_int64(sqlite3_stmt *, int);
double sqlite3_column_double(sqlite3_stmt *, int);
const void *sqlite3_column_blob(sqlite3_stmt *, int);
const unsigned char *sqlite3_column_text(sqlite3_stmt *, int);
int sqlite3_column_bytes(sqlite3_stmt *, int);

#endif
