#ifndef REPLICATOR_CONTENT_H
#define REPLICATOR_CONTENT_H

#include "rowsum.h"

typedef struct {
  uint64_t rows;
  uint64_t sum[2];
  uint64_t bytes; // of text and blob
  int64_t rowid;  // of the last row, if rowids count
} rq_sum;

// rq_sum_rows steps stmt over at most max rows, adding each to s, and returns
// SQLITE_ROW when there may be more, SQLITE_DONE at the end, or an error code. It
// stops early after many bytes of text and blob. A rowid that counts is the first
// column of stmt, or is what the statement rowids, unless 0, gives of the same rows.
int rq_sum_rows(sqlite3_stmt *stmt, sqlite3_stmt *rowids, const rq_shape *shape, rq_sum *s, int max);

// rq_pages_read is how many pages db has asked its cache for. It wraps around, and
// misses pages of a long value, of which some never come to the cache.
uint32_t rq_pages_read(sqlite3 *db);

#endif
