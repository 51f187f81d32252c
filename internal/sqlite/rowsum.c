#include "rowsum.h"

#include <stdlib.h>
#include <string.h>

// The state is that of MurmurHash3 x64 128 (public domain, Austin Appleby). Every
// value starts with a block of its own: storage class and length in one half, its
// first eight bytes in the other; the rest follows in blocks padded with zeros. So
// no two rows of different values feed the same blocks.
typedef struct {
  uint64_t a, b;
  uint64_t bytes; // of text and blob so far
} hash;

static uint64_t rotl(uint64_t x, int r) { return x << r | x >> (64 - r); }

static void block(hash *h, uint64_t x, uint64_t y) {
  const uint64_t c1 = 0x87c37b91114253d5u, c2 = 0x4cf5ad432745937fu;
  h->a ^= rotl(x * c1, 31) * c2;
  h->a = (rotl(h->a, 27) + h->b) * 5 + 0x52dce729;
  h->b ^= rotl(y * c2, 33) * c1;
  h->b = (rotl(h->b, 31) + h->a) * 5 + 0x38495ab5;
}

static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
  x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
  return x ^ x >> 33;
}

// load reads n <= 8 bytes, little-endian on every machine.
static uint64_t load(const unsigned char *p, uint64_t n) {
  uint64_t x = 0;
  if (n >= 8) {
    for (int i = 7; i >= 0; i--) x = x << 8 | p[i];
    return x;
  }
  while (n > 0) x = x << 8 | p[--n];
  return x;
}

static void bytes(hash *h, int class, const unsigned char *p, uint64_t n) {
  uint64_t i = n < 8 ? n : 8;
  block(h, (uint64_t)class | n << 3, load(p, i));
  for (; i + 16 <= n; i += 16) block(h, load(p + i, 8), load(p + i + 8, 8));
  if (i < n) {
    uint64_t left = n - i;
    block(h, load(p + i, left), left > 8 ? load(p + i + 8, left - 8) : 0);
  }
}

static uint64_t bits(double d) {
  uint64_t b;
  memcpy(&b, &d, sizeof b);
  return b;
}

static int value(hash *h, sqlite3_stmt *stmt, int i) {
  int class = sqlite3_column_type(stmt, i);
  switch (class) {
  case SQLITE_INTEGER:
    block(h, SQLITE_INTEGER, (uint64_t)sqlite3_column_int64(stmt, i));
    return SQLITE_OK;
  case SQLITE_FLOAT:
    block(h, SQLITE_FLOAT, bits(sqlite3_column_double(stmt, i)));
    return SQLITE_OK;
  case SQLITE_TEXT:
  case SQLITE_BLOB: {
    // Of a text, too, this is the stored bytes: it converts nothing.
    const unsigned char *p = sqlite3_column_blob(stmt, i);
    uint64_t n = (uint64_t)sqlite3_column_bytes(stmt, i);
    if (!p && n) return SQLITE_NOMEM;
    bytes(h, class, p, n);
    h->bytes += n;
    return SQLITE_OK;
  }
  }
  block(h, SQLITE_NULL, 0);
  return SQLITE_OK;
}

// missing reports whether column i reads as if the record ended before it.
static int missing(sqlite3_stmt *stmt, int i, const rq_value *v) {
  int class = sqlite3_column_type(stmt, i);
  if (class != v->class) return 0;
  switch (class) {
  case SQLITE_INTEGER:
    return sqlite3_column_int64(stmt, i) == v->i;
  case SQLITE_FLOAT:
    return bits(sqlite3_column_double(stmt, i)) == bits(v->d);
  case SQLITE_TEXT:
  case SQLITE_BLOB: {
    const void *p = sqlite3_column_blob(stmt, i);
    uint64_t n = (uint64_t)sqlite3_column_bytes(stmt, i);
    return n == v->n && (n == 0 || (p && memcmp(p, v->p, n) == 0));
  }
  }
  return 1;
}

int rq_row_hash(sqlite3_stmt *stmt, int first, const rq_shape *s, int64_t rowid, rq_hash *out) {
  hash h = {0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu, 0};
  int n = s->columns;
  while (n > 0 && missing(stmt, first + n - 1, &s->missing[n - 1])) n--;
  if (s->rowid) block(&h, SQLITE_INTEGER, (uint64_t)rowid);
  for (int i = 0; i < n; i++) {
    int rc = value(&h, stmt, first + i);
    if (rc != SQLITE_OK) return rc;
  }
  n += s->rowid;
  h.a ^= (uint64_t)n;
  h.b ^= (uint64_t)n;
  h.a += h.b;
  h.b += h.a;
  h.a = mix(h.a);
  h.b = mix(h.b);
  out->h[0] = h.a + h.b;
  out->h[1] = h.a + 2 * h.b;
  out->bytes = h.bytes;
  return SQLITE_OK;
}

rq_shape *rq_shape_new(int rowid, int columns) {
  rq_shape *s = calloc(1, sizeof *s);
  if (!s) return 0;
  s->rowid = rowid;
  s->columns = columns;
  s->missing = calloc(columns + 1, sizeof *s->missing);
  if (!s->missing) {
    free(s);
    return 0;
  }
  for (int i = 0; i < columns; i++) s->missing[i].class = SQLITE_NULL;
  return s;
}

void rq_shape_free(rq_shape *s) {
  if (!s) return;
  for (int i = 0; i < s->columns; i++) free(s->missing[i].p);
  free(s->missing);
  free(s);
}

int rq_shape_set(rq_shape *s, int i, int class, int64_t v, double d, const void *p, uint64_t n) {
  rq_value *m = &s->missing[i];
  if (n > 0) {
    if (!(m->p = malloc(n))) return 0;
    memcpy(m->p, p, n);
  }
  m->class = class;
  m->i = v;
  m->d = d;
  m->n = n;
  return 1;
}
