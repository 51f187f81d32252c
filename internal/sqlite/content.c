#include "content.h"

#define MANY_BYTES (16u << 20)

int rq_sum_rows(sqlite3_stmt *stmt, sqlite3_stmt *rowids, const rq_shape *shape, rq_sum *s, int max) {
  int first = shape->rowid && !rowids;
  uint64_t enough = s->bytes + MANY_BYTES;
  for (int left = max; left > 0 && s->bytes < enough; left--) {
    rq_hash row;
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW) return rc;
    if (rowids && (rc = sqlite3_step(rowids)) != SQLITE_ROW) return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
    s->rowid = rowids ? sqlite3_column_int64(rowids, 0) : first ? sqlite3_column_int64(stmt, 0) : 0;
    rc = rq_row_hash(stmt, first, shape, s->rowid, &row);
    if (rc != SQLITE_OK) return rc;
    s->sum[0] += row.h[0];
    s->sum[1] += row.h[1];
    s->bytes += row.bytes;
    s->rows++;
  }
  return SQLITE_ROW;
}

uint32_t rq_pages_read(sqlite3 *db) {
  int hits = 0, misses = 0, peak;
  sqlite3_db_status(db, SQLITE_DBSTATUS_CACHE_HIT, &hits, &peak, 0);
  sqlite3_db_status(db, SQLITE_DBSTATUS_CACHE_MISS, &misses, &peak, 0);
  return (uint32_t)hits + (uint32_t)misses;
}
