#ifndef REPLICATOR_APPLY_H
#define REPLICATOR_APPLY_H

#include "record.h"
#include "rowsum.h"
#include "sqlite.h"

// The statements that a table keeps. A table is written in few shapes; a workload
// of more different column sets than this prepares again.
#define RQ_SLOTS 64

enum { RQ_DELETE = 1, RQ_UPDATE = 2, RQ_INSERT = 3, RQ_SELECT = 4, RQ_SELECT_RUN = 5 };

enum {
  RQ_OK = 0,
  RQ_NEED,     // prepare the statement that the target's kind and bits ask for, then call again
  RQ_SQL,      // SQLite refused: rc
  RQ_DIVERGED, // not exactly one row changed
  RQ_RECORD,   // the bytes are no record of this table
  RQ_ALTERED   // SQLite would store a value of the new row as another one
};

// What a column makes of the values that are written to it.
enum {
  RQ_KEEPS = 0,
  RQ_TEXT,    // a text of a number
  RQ_NUMERIC, // an integer or a float of the text of a number, and an integer of an integral float
  RQ_REAL     // a float of the text of a number, and of an integer, which it is stored as
};

// A rq_slot is a prepared statement and the shape it is for.
typedef struct {
  int kind;
  uint64_t used;  // clock of the last use
  uint64_t *bits; // the fields it sets
  sqlite3_stmt *stmt;
} rq_slot;

// A rq_run is rows of one rowid table with rowids that follow each other.
typedef struct {
  int64_t first;
  int n;
  int at; // of the first row in the batch
} rq_run;

// A rq_target is a table as the batch loop sees it.
typedef struct {
  int encoding;
  int fields; // stored fields
  int key;    // leading fields that are the key; 0 = the rowid is
  int words;  // uint64_t words of a set of fields
  int dirty;  // some statement has bindings that point into the batch
  int slots;
  uint64_t clock;
  uint64_t *bindable;  // fields that SQL may set
  unsigned char *makes; // of each field: RQ_KEEPS or another
  rq_field *absent;    // what a field reads as where a record ends before it
  rq_field *old, *new; // the change at hand
  rq_shape *shape;     // of the rows that are summed; 0 = none are
  rq_run run;          // inserted, and not yet read back
  uint64_t sum[2];     // of the rows written less those that were there before
  int kind;            // the shape that RQ_NEED asks for
  uint64_t *bits;
  rq_slot slot[RQ_SLOTS];
} rq_target;

// A rq_change is one change. The addresses are integers, so that Go can write
// those of pinned memory without a write barrier.
typedef struct {
  rq_target *target;
  int64_t rowid;
  uintptr_t old, new; // 0 = none
  uint64_t nold, nnew;
  int op;
} rq_change;

typedef struct {
  int status;
  int done; // changes that were applied; the one at this index stopped the batch
  int rc;
} rq_result;

rq_target *rq_target_new(int encoding, int fields, int key);
void rq_target_free(rq_target *t);
void rq_target_bind(rq_target *t, int field, int makes);

// rq_target_absent says what a field reads as where a record ends before it; NULL unless
// it is called, once at most. It copies, and returns 0 for want of memory.
int rq_target_absent(rq_target *t, int field, uint64_t type, const void *p, uint64_t n);

// rq_target_add gives t the statement for the shape it asked for, and owns it. It
// returns 0 when the statement has another number of parameters than the shape.
int rq_target_add(rq_target *t, sqlite3_stmt *stmt);

// rq_apply runs ch[from] to ch[n-1]. No binding outlives the call.
rq_result rq_apply(sqlite3 *db, const rq_change *ch, int n, int from);

#endif
