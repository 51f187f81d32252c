#ifndef REPLICATOR_ROWSUM_H
#define REPLICATOR_ROWSUM_H

#include "sqlite.h"

// A rq_value is one value; p is owned by its shape.
typedef struct {
  int class; // SQLITE_INTEGER to SQLITE_NULL
  int64_t i;
  double d;
  unsigned char *p;
  uint64_t n;
} rq_value;

// A rq_shape tells what the columns of a SELECT count for in the hash of a row:
// the first `fixed` always do, the others not while they stand at the end and are
// what a record without them reads as.
typedef struct {
  int fixed;
  int columns; // after those
  rq_value *missing;
} rq_shape;

rq_shape *rq_shape_new(int fixed, int columns);
void rq_shape_free(rq_shape *s);

// rq_shape_set sets what column i, not counting the fixed ones, is when it is
// missing; it copies the n bytes at p. It returns 0 when memory is short.
int rq_shape_set(rq_shape *s, int i, int class, int64_t v, double d, const void *p, uint64_t n);

// rq_row_hash writes the hash of the row at which stmt stands to h (FORMAT.md of
// package cdc, "Row-set hash"). It returns SQLITE_OK or SQLITE_NOMEM.
int rq_row_hash(sqlite3_stmt *stmt, const rq_shape *s, uint64_t h[2]);

#endif
