#include "content.h"

int rq_sum_rows(sqlite3_stmt *stmt, sqlite3_stmt *rowids, const rq_shape *shape, rq_sum *s, int max) {
  int first = shape->rowid && !rowids;
  for (int left = max; left > 0; left--) {
    uint64_t h[2];
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW) return rc;
    if (rowids && (rc = sqlite3_step(rowids)) != SQLITE_ROW) return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
    int64_t rowid = rowids ? sqlite3_column_int64(rowids, 0) : first ? sqlite3_column_int64(stmt, 0) : 0;
    rc = rq_row_hash(stmt, first, shape, rowid, h);
    if (rc != SQLITE_OK) return rc;
    s->sum[0] += h[0];
    s->sum[1] += h[1];
    s->rows++;
  }
  return SQLITE_ROW;
}
