#include "content.h"

int rq_sum_rows(sqlite3_stmt *stmt, const rq_shape *shape, rq_sum *s, int max) {
  for (int left = max; left > 0; left--) {
    uint64_t h[2];
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW) return rc;
    rc = rq_row_hash(stmt, shape, h);
    if (rc != SQLITE_OK) return rc;
    s->sum[0] += h[0];
    s->sum[1] += h[1];
    s->rows++;
  }
  return SQLITE_ROW;
}
