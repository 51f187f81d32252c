#ifndef REPLICATOR_RECORD_H
#define REPLICATOR_RECORD_H

#include <stdint.h>

// A rq_field is one value of a record (file format, section 2.1), in place.
typedef struct {
  const unsigned char *p; // the bytes of the value
  uint64_t type;          // serial type
  uint64_t n;             // bytes
} rq_field;

// rq_parse splits the n bytes at p into fields, at most max of them, and returns
// how many there are, or -1 when the bytes are no record or hold more. It reads
// nothing outside the n bytes.
int rq_parse(const unsigned char *p, uint64_t n, rq_field *f, int max);

// rq_integer is the value of a field of serial type 1 to 6, 8 or 9.
int64_t rq_integer(const rq_field *f);

// rq_float is the value of a field of serial type 7.
double rq_float(const rq_field *f);

#endif
