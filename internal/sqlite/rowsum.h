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

// A rq_shape tells what counts in the hash of a row: the rowid, if it does at all,
// always; columns not while they stand at the end and are what a record without them
// reads as.
typedef struct {
  int rowid; // counts
  int columns;
  rq_value *missing;
} rq_shape;

rq_shape *rq_shape_new(int rowid, int columns);
void rq_shape_free(rq_shape *s);

// rq_shape_set sets what column i is when it is missing; it copies the n bytes at p. It returns 0 when memory is short.
int rq_shape_set(rq_shape *s, int i, int class, int64_t v, double d, const void *p, uint64_t n);

// A rq_hash is the hash of a row, and how many bytes of text and blob are in it.
typedef struct {
  uint64_t h[2];
  uint64_t bytes;
} rq_hash;

// rq_row_hash writes the hash of a row to out (FORMAT.md of package cdc, "Row-set
// hash"). stmt stands at the row, its columns are those from first on. It returns
// SQLITE_OK or SQLITE_NOMEM.
int rq_row_hash(sqlite3_stmt *stmt, int first, const rq_shape *s, int64_t rowid, rq_hash *out);

#endif
