#include "record.h"

#include <string.h>

// varint reads at most nine bytes before end and returns how many it read, 0 when
// they do not suffice.
static int varint(const unsigned char *p, const unsigned char *end, uint64_t *v) {
  uint64_t x = 0;
  for (int i = 0; i < 9 && p + i < end; i++) {
    if (i == 8) {
      *v = x << 8 | p[i];
      return 9;
    }
    x = x << 7 | (p[i] & 0x7f);
    if (p[i] < 0x80) {
      *v = x;
      return i + 1;
    }
  }
  return 0;
}

int rq_parse(const unsigned char *p, uint64_t n, rq_field *f, int max) {
  static const unsigned char size[10] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0};
  uint64_t header;
  int k = varint(p, p + n, &header);
  if (k == 0 || header < (uint64_t)k || header > n) return -1;
  const unsigned char *h = p + k, *body = p + header, *hend = body, *end = p + n;
  int i = 0;
  for (; h < hend; i++) {
    uint64_t type;
    if (i == max) return -1;
    k = varint(h, hend, &type);
    if (k == 0 || type == 10 || type == 11) return -1;
    h += k;
    f[i].type = type;
    f[i].n = type < 10 ? size[type] : (type - 12) / 2;
    f[i].p = body;
    if (f[i].n > (uint64_t)(end - body)) return -1;
    body += f[i].n;
  }
  if (body != end) return -1; /* SQLite reads no such record to its end */
  return i;
}

static uint64_t big_endian(const unsigned char *p, uint64_t n) {
  uint64_t x = 0;
  for (uint64_t i = 0; i < n; i++) x = x << 8 | p[i];
  return x;
}

int64_t rq_integer(const rq_field *f) {
  if (f->type >= 8) return (int64_t)f->type - 8;
  int shift = 64 - 8 * (int)f->n;
  return (int64_t)(big_endian(f->p, f->n) << shift) >> shift;
}

double rq_float(const rq_field *f) {
  uint64_t bits = big_endian(f->p, 8);
  double d;
  memcpy(&d, &bits, sizeof d);
  return d;
}
