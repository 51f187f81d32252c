package primary

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// inPieces refuses large rows that are in memory as a whole.
type inPieces struct{ largeSink }

func (s inPieces) change(c *cdc.Change) error {
	if max(len(c.Old), len(c.New)) > keepBuffer {
		return errors.New("a large row was put together")
	}
	return s.largeSink.change(c)
}

// Rows that are never in memory as a whole arrive as they are, and their hashes are
// those of SQL: inserted, changed inside and at the ends, deleted, beside small ones.
func TestLargeRows(t *testing.T) {
	b := newBench(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, v TEXT, b DEFAULT 5)")
	b.exec("INSERT INTO t(v) VALUES(hex(randomblob(2000000)))")
	b.start()
	b.known()
	hasher := hasherOf(t, "t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, v TEXT, b DEFAULT 5)", sqlitefile.UTF8)
	before := b.content()[0].Sum
	from := b.sync().LSN
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		c.summing.next = inPieces{c.summing.next}
		return nil
	}))
	for _, sql := range []string{
		"INSERT INTO t(v) VALUES(hex(randomblob(1500000))),('small'),(hex(randomblob(700001)))",
		"UPDATE t SET a=zeroblob(3000000), b='after it' WHERE id=2",
		"UPDATE t SET v=substr(v,1,1000000)||'x'||substr(v,1000002) WHERE id=1",
		"UPDATE t SET v='not large any more' WHERE id=4",
		"UPDATE t SET v=hex(randomblob(3000000)), b=NULL WHERE id=3",
		"ALTER TABLE t ADD COLUMN c DEFAULT 7; INSERT INTO t(v) VALUES(hex(randomblob(600000)))",
		"DELETE FROM t WHERE id IN (1,4); INSERT INTO t(id,v) VALUES(1,hex(randomblob(900000)))",
	} {
		b.exec("BEGIN; " + sql + "; COMMIT")
		b.sync()
		if diff := cmp.Diff(b.content(), b.sums()); diff != "" {
			t.Fatalf("after %s the hashes differ (-SQL +capture):\n%s", sql, diff)
		}
	}
	sum, large := before, 0
	var d cdc.Decoder
	for _, r := range b.captured() {
		noError(t, d.Decode(r, func(c *cdc.Change) error {
			if r.LSN <= from || c.Table == nil || c.Op == cdc.OpTable {
				return nil
			}
			if max(len(c.Old), len(c.New)) > keepBuffer {
				large++
			}
			if c.Op != cdc.OpInsert {
				h, err := hasher.hash(c.Rowid, c.Old)
				noError(t, err)
				sum = sum.Sub(h)
			}
			if c.Op != cdc.OpDelete {
				h, err := hasher.hash(c.Rowid, c.New)
				noError(t, err)
				sum = sum.Add(h)
			}
			return nil
		}))
	}
	if want := b.content()[0].Sum; sum != want {
		t.Errorf("what was captured leads to %v, want %v", sum, want)
	}
	if large != 8 {
		t.Errorf("%d large changes were captured", large)
	}
}
