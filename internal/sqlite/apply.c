#include "apply.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define IN_PLACE ((sqlite3_destructor_type)0) /* SQLITE_STATIC */

static const unsigned char nothing[1];

rq_target *rq_target_new(int encoding, int fields, int key) {
  rq_target *t = calloc(1, sizeof *t);
  if (!t) return 0;
  t->encoding = encoding;
  t->fields = fields;
  t->key = key;
  t->words = fields / 64 + 1;
  t->bindable = calloc(t->words, sizeof *t->bindable);
  t->makes = calloc(fields + 1, sizeof *t->makes);
  t->bits = calloc(t->words, sizeof *t->bits);
  t->absent = calloc(fields + 1, sizeof *t->absent);
  t->old = calloc(fields + 1, sizeof *t->old);
  t->new = calloc(fields + 1, sizeof *t->new);
  if (!t->bindable || !t->makes || !t->bits || !t->absent || !t->old || !t->new) {
    rq_target_free(t);
    return 0;
  }
  for (int i = 0; i < fields; i++) t->absent[i].p = nothing;
  return t;
}

void rq_target_free(rq_target *t) {
  for (int i = 0; i < t->slots; i++) {
    sqlite3_finalize(t->slot[i].stmt);
    free(t->slot[i].bits);
  }
  for (int i = 0; t->absent && i < t->fields; i++)
    if (t->absent[i].n > 0) free((void *)t->absent[i].p);
  free(t->absent);
  free(t->bindable);
  free(t->makes);
  free(t->bits);
  free(t->old);
  free(t->new);
  rq_shape_free(t->shape);
  free(t);
}

void rq_target_bind(rq_target *t, int field, int makes) {
  t->bindable[field / 64] |= (uint64_t)1 << field % 64;
  t->makes[field] = (unsigned char)makes;
}

int rq_target_absent(rq_target *t, int field, uint64_t type, const void *p, uint64_t n) {
  rq_field *f = &t->absent[field];
  if (n > 0) {
    unsigned char *copy = malloc(n);
    if (!copy) return 0;
    memcpy(copy, p, n);
    f->p = copy;
  }
  f->type = type;
  f->n = n;
  return 1;
}

static size_t set_bytes(const rq_target *t) { return (size_t)t->words * sizeof(uint64_t); }

int rq_target_add(rq_target *t, sqlite3_stmt *stmt) {
  int want = t->kind == RQ_SELECT_RUN ? 2 : t->kind == RQ_INSERT ? t->key == 0 : t->key ? t->key : 1;
  for (int i = 0; i < t->words; i++) want += __builtin_popcountll(t->bits[i]);
  if (sqlite3_bind_parameter_count(stmt) != want) return 0;
  rq_slot *s = &t->slot[0];
  if (t->slots < RQ_SLOTS) {
    uint64_t *bits = malloc(set_bytes(t));
    if (!bits) return 0;
    s = &t->slot[t->slots++];
    s->bits = bits;
  } else {
    for (int i = 1; i < t->slots; i++)
      if (t->slot[i].used < s->used) s = &t->slot[i];
    sqlite3_finalize(s->stmt);
  }
  memcpy(s->bits, t->bits, set_bytes(t));
  s->kind = t->kind;
  s->stmt = stmt;
  s->used = ++t->clock;
  return 1;
}

// find returns the statement for t->bits, or leaves the shape in t for RQ_NEED.
static sqlite3_stmt *find(rq_target *t, int kind) {
  for (int i = 0; i < t->slots; i++) {
    rq_slot *s = &t->slot[i];
    if (s->kind == kind && memcmp(s->bits, t->bits, set_bytes(t)) == 0) {
      s->used = ++t->clock;
      return s->stmt;
    }
  }
  t->kind = kind;
  return 0;
}

// bind_text keeps SQLite from taking the first character of a UTF-16 text that
// happens to be U+FEFF for a byte order mark and dropping it: it drops one, so it
// gets one more.
static int bind_text(sqlite3_stmt *stmt, int i, const rq_field *f, int encoding) {
  if (encoding != SQLITE_UTF8 && f->n >= 2 && (f->p[0] ^ f->p[1]) == 1 && (f->p[0] & f->p[1]) == 0xfe) {
    unsigned char *copy = malloc(f->n + 2);
    if (!copy) return SQLITE_NOMEM;
    copy[0] = encoding == SQLITE_UTF16BE ? 0xfe : 0xff;
    copy[1] = copy[0] ^ 1;
    memcpy(copy + 2, f->p, f->n);
    return sqlite3_bind_text64(stmt, i, (const char *)copy, f->n + 2, free, encoding);
  }
  return sqlite3_bind_text64(stmt, i, (const char *)f->p, f->n, IN_PLACE, encoding);
}

static int bind_field(sqlite3_stmt *stmt, int i, const rq_field *f, int encoding) {
  switch (f->type) {
  case 0:
    return sqlite3_bind_null(stmt, i);
  case 7:
    return sqlite3_bind_double(stmt, i, rq_float(f));
  case 1: case 2: case 3: case 4: case 5: case 6: case 8: case 9:
    return sqlite3_bind_int64(stmt, i, rq_integer(f));
  }
  if (f->type & 1) return bind_text(stmt, i, f, encoding);
  return sqlite3_bind_blob64(stmt, i, f->p, f->n, IN_PLACE);
}

// bind_set binds the fields in t->bits as parameters from i on.
static int bind_set(rq_target *t, sqlite3_stmt *stmt, int *i) {
  for (int w = 0; w < t->words; w++) {
    for (uint64_t left = t->bits[w]; left; left &= left - 1) {
      int rc = bind_field(stmt, (*i)++, &t->new[w * 64 + __builtin_ctzll(left)], t->encoding);
      if (rc != SQLITE_OK) return rc;
    }
  }
  return SQLITE_OK;
}

// bind_key binds the rowid, or else the key among the fields f.
static int bind_key(rq_target *t, sqlite3_stmt *stmt, int i, int64_t rowid, const rq_field *f) {
  if (t->key == 0) return sqlite3_bind_int64(stmt, i, rowid);
  for (int k = 0; k < t->key; k++) {
    int rc = bind_field(stmt, i + k, &f[k], t->encoding);
    if (rc != SQLITE_OK) return rc;
  }
  return SQLITE_OK;
}

// execute runs one bound statement, which must change exactly one row.
static int execute(sqlite3 *db, sqlite3_stmt *stmt, int *rc) {
  *rc = sqlite3_step(stmt);
  sqlite3_reset(stmt);
  if (*rc != SQLITE_DONE) return RQ_SQL;
  *rc = SQLITE_OK;
  return sqlite3_changes64(db) == 1 ? RQ_OK : RQ_DIVERGED;
}

// changed sets t->bits to the fields whose bytes differ: all, without an old record.
static void changed(rq_target *t, int nold) {
  memcpy(t->bits, t->bindable, set_bytes(t));
  for (int i = 0; i < nold; i++) {
    const rq_field *a = &t->old[i], *b = &t->new[i];
    if (a->type == b->type && memcmp(a->p, b->p, a->n) == 0) t->bits[i / 64] &= ~((uint64_t)1 << i % 64);
  }
}

static int run_delete(sqlite3 *db, rq_target *t, sqlite3_stmt *stmt, int64_t rowid, int *rc) {
  t->dirty = 1;
  *rc = bind_key(t, stmt, 1, rowid, t->old);
  return *rc == SQLITE_OK ? execute(db, stmt, rc) : RQ_SQL;
}

static int run_insert(sqlite3 *db, rq_target *t, sqlite3_stmt *stmt, int64_t rowid, int *rc) {
  int i = 1;
  t->dirty = 1;
  *rc = SQLITE_OK;
  if (t->key == 0) *rc = sqlite3_bind_int64(stmt, i++, rowid);
  if (*rc == SQLITE_OK) *rc = bind_set(t, stmt, &i);
  return *rc == SQLITE_OK ? execute(db, stmt, rc) : RQ_SQL;
}

static int apply_delete(sqlite3 *db, const rq_change *c, int *rc) {
  rq_target *t = c->target;
  memset(t->bits, 0, set_bytes(t));
  sqlite3_stmt *stmt = find(t, RQ_DELETE);
  return stmt ? run_delete(db, t, stmt, c->rowid, rc) : RQ_NEED;
}

static int apply_insert(sqlite3 *db, const rq_change *c, int *rc) {
  rq_target *t = c->target;
  memcpy(t->bits, t->bindable, set_bytes(t));
  sqlite3_stmt *stmt = find(t, RQ_INSERT);
  return stmt ? run_insert(db, t, stmt, c->rowid, rc) : RQ_NEED;
}

static int apply_update(sqlite3 *db, const rq_change *c, int nold, int *rc) {
  rq_target *t = c->target;
  changed(t, nold);
  sqlite3_stmt *stmt = find(t, RQ_UPDATE);
  if (!stmt) return RQ_NEED;
  int i = 1;
  t->dirty = 1;
  *rc = bind_set(t, stmt, &i);
  if (*rc == SQLITE_OK) *rc = bind_key(t, stmt, i, c->rowid, t->old);
  return *rc == SQLITE_OK ? execute(db, stmt, rc) : RQ_SQL;
}

// read_row hashes the row that stmt selects, which must be there.
static int read_row(rq_target *t, sqlite3_stmt *stmt, int64_t rowid, const rq_field *key, uint64_t h[2], int *rc) {
  t->dirty = 1;
  *rc = bind_key(t, stmt, 1, rowid, key);
  if (*rc != SQLITE_OK) return RQ_SQL;
  int status = RQ_OK, step = sqlite3_step(stmt);
  rq_hash row;
  if (step == SQLITE_ROW) {
    *rc = rq_row_hash(stmt, 0, t->shape, rowid, &row);
    h[0] = row.h[0];
    h[1] = row.h[1];
  } else if (step == SQLITE_DONE)
    status = RQ_DIVERGED;
  else
    *rc = step;
  sqlite3_reset(stmt);
  return *rc == SQLITE_OK ? status : RQ_SQL;
}

// A text is read unit by unit: bytes of UTF-8, pairs of UTF-16.
typedef struct {
  const unsigned char *p, *end;
  int wide, low; // bytes of a unit, and which of them is the low one
} units;

// peek is the unit at hand, 0 for one that can be in no number and at the end.
static int peek(const units *u) {
  if (u->p >= u->end || (u->wide == 2 && u->p[1 - u->low])) return 0;
  return u->p[u->low];
}

static int digits(units *u) {
  int n = 0;
  for (; peek(u) >= '0' && peek(u) <= '9'; u->p += u->wide) n = 1;
  return n;
}

static void spaces(units *u) {
  while (peek(u) == ' ' || (peek(u) >= '\t' && peek(u) <= '\r')) u->p += u->wide;
}

static int skip(units *u, int a, int b) {
  int c = peek(u);
  if (c == 0 || (c != a && c != b)) return 0;
  u->p += u->wide;
  return 1;
}

// is_number reports whether SQLite takes the whole text for a decimal number.
static int is_number(const rq_field *f, int encoding) {
  units u = {f->p, f->p + f->n, encoding == SQLITE_UTF8 ? 1 : 2, encoding == SQLITE_UTF16BE};
  spaces(&u);
  skip(&u, '+', '-');
  int some = digits(&u);
  if (skip(&u, '.', '.')) some |= digits(&u);
  if (!some) return 0;
  if (skip(&u, 'e', 'E')) {
    skip(&u, '+', '-');
    if (!digits(&u)) return 0;
  }
  spaces(&u);
  return u.p == u.end || (u.p[0] == 0 && u.p[u.wide - 1] == 0); /* to SQLite a zero ends it */
}

// is_integral reports whether SQLite stores the number as an integer where it may.
static int is_integral(double d) {
  return d >= -9223372036854774784.0 && d <= 9223372036854774784.0 && d == (double)(int64_t)d;
}

// kept reports whether a field of a row reads, once it is written by SQL, as the
// field does. What SQLite has written itself always does.
static int kept(const rq_field *f, int makes, int encoding) {
  if (f->type >= 12 && f->type & 1) {
    if (encoding != SQLITE_UTF8 && f->n & 1) return 0; /* half a character is cut off */
    return makes < RQ_NUMERIC || !is_number(f, encoding);
  }
  if (f->type == 0 || f->type >= 12 || makes == RQ_KEEPS) return 1;
  if (makes == RQ_TEXT) return 0;
  if (f->type != 7) return 1;
  double d = rq_float(f);
  return makes == RQ_NUMERIC ? !is_integral(d) : d != 0 || !signbit(d); /* REAL: -0.0 is stored as the integer 0 */
}

// all_kept looks at every field of the new row that SQL may set: an UPDATE writes
// those anew that it leaves alone, too.
static int all_kept(const rq_target *t, int nnew) {
  for (int i = 0; i < nnew; i++) {
    if (t->bindable[i / 64] >> i % 64 & 1 && !kept(&t->new[i], t->makes[i], t->encoding)) return 0;
  }
  return 1;
}

static int apply_parsed(sqlite3 *db, const rq_change *c, int nold, int *rc) {
  switch (c->op) {
  case RQ_DELETE:
    return apply_delete(db, c, rc);
  case RQ_UPDATE:
    return apply_update(db, c, nold, rc);
  }
  return apply_insert(db, c, rc);
}

// joins reports whether a change is the next row of its target's run.
static int joins(const rq_change *c) {
  const rq_run *run = &c->target->run;
  return c->op == RQ_INSERT && run->n > 0 && c->rowid > run->first && (uint64_t)c->rowid - (uint64_t)run->first == (uint64_t)run->n;
}

// extend_run inserts a row that will be read back together with its neighbours.
static int extend_run(sqlite3 *db, const rq_change *c, int at, int *rc) {
  rq_target *t = c->target;
  memset(t->bits, 0, set_bytes(t));
  if (!find(t, RQ_SELECT_RUN)) return RQ_NEED;
  int status = apply_insert(db, c, rc);
  if (status != RQ_OK) return status;
  if (t->run.n++ == 0) {
    t->run.first = c->rowid;
    t->run.at = at;
  }
  return RQ_OK;
}

// read_run adds the rows of the run to the sum. One walk along the table reads them
// back in less than half of the time that a search for each takes. Between rowids that
// follow each other nothing else can lie, so that their number proves each of them.
static int read_run(rq_target *t, rq_result *r) {
  rq_run run = t->run;
  if (run.n == 0) return 1;
  t->run.n = 0;
  t->dirty = 1;
  memset(t->bits, 0, set_bytes(t));
  sqlite3_stmt *stmt = find(t, RQ_SELECT_RUN); // used by the last insert: still there
  int n = 0, rc = sqlite3_bind_int64(stmt, 1, run.first);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int64(stmt, 2, run.first + (run.n - 1));
  while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
    rq_hash row;
    rc = rq_row_hash(stmt, 0, t->shape, run.first + n++, &row);
    for (int i = 0; rc == SQLITE_OK && i < 2; i++) t->sum[i] += row.h[i];
  }
  sqlite3_reset(stmt);
  if (rc == SQLITE_DONE && n == run.n) return 1;
  *r = (rq_result){rc == SQLITE_DONE ? RQ_DIVERGED : RQ_SQL, run.at, rc};
  return 0;
}

// apply_summed makes a change between two looks at its row. The sum moves only
// when the change is made: one that needs a statement starts over.
static int apply_summed(sqlite3 *db, const rq_change *c, int at, int nold, int *rc) {
  rq_target *t = c->target;
  if (c->op == RQ_INSERT && t->key == 0) return extend_run(db, c, at, rc);
  uint64_t before[2] = {0, 0}, after[2] = {0, 0};
  memset(t->bits, 0, set_bytes(t));
  sqlite3_stmt *row = find(t, RQ_SELECT);
  if (!row) return RQ_NEED;
  int status = RQ_OK;
  if (c->op != RQ_INSERT) status = read_row(t, row, c->rowid, t->old, before, rc);
  if (status == RQ_OK) status = apply_parsed(db, c, nold, rc);
  if (status == RQ_OK && c->op != RQ_DELETE) status = read_row(t, row, c->rowid, t->new, after, rc);
  if (status != RQ_OK) return status;
  for (int i = 0; i < 2; i++) t->sum[i] += after[i] - before[i];
  return RQ_OK;
}

// complete adds to the fields of a record those that it lacks. To leave them to an INSERT
// would not do: the DEFAULT 1.10 of a column of TEXT reads as 1.10, and is written as 1.1.
static void complete(const rq_target *t, rq_field *f, int n) {
  for (; n < t->fields; n++) f[n] = t->absent[n];
}

// apply_one makes c, the change of the batch at that index.
static int apply_one(sqlite3 *db, const rq_change *c, int at, int *rc) {
  rq_target *t = c->target;
  int nold = 0;
  if (c->old && (t->key || c->op == RQ_UPDATE)) {
    nold = rq_parse((const unsigned char *)c->old, c->nold, t->old, t->fields);
    if (nold < t->key) return RQ_RECORD;
    complete(t, t->old, nold);
    nold = t->fields;
  }
  if (c->new) {
    int nnew = rq_parse((const unsigned char *)c->new, c->nnew, t->new, t->fields);
    if (nnew < t->key) return RQ_RECORD;
    if (!all_kept(t, nnew)) return RQ_ALTERED;
    complete(t, t->new, nnew);
  }
  return t->shape ? apply_summed(db, c, at, nold, rc) : apply_parsed(db, c, nold, rc);
}

// forget drops every binding that points into the batch.
static void forget(const rq_change *ch, int n) {
  for (int i = 0; i < n; i++) {
    rq_target *t = ch[i].target;
    if (!t->dirty) continue;
    for (int k = 0; k < t->slots; k++) sqlite3_clear_bindings(t->slot[k].stmt);
    t->dirty = 0;
  }
}

rq_result rq_apply(sqlite3 *db, const rq_change *ch, int n, int from) {
  rq_result r = {RQ_OK, from, SQLITE_OK};
  for (int i = 0; from == 0 && i < n; i++) ch[i].target->run.n = 0; // of a batch that failed
  while (r.status == RQ_OK && r.done < n) {
    const rq_change *c = &ch[r.done];
    if (!joins(c) && !read_run(c->target, &r)) break;
    r.status = apply_one(db, c, r.done, &r.rc);
    if (r.status == RQ_OK) r.done++;
  }
  for (int i = 0; r.status == RQ_OK && i < n; i++) read_run(ch[i].target, &r);
  forget(ch, n);
  return r;
}
