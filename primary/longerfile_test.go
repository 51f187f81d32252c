package primary

import (
	"os"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// TestFileLongerThanItsDatabase: a program that sets SQLITE_FCNTL_CHUNK_SIZE makes the
// file longer than the database that the header speaks of. Then commit frames count the
// pages of the file, until the database is longer than that.
func TestFileLongerThanItsDatabase(t *testing.T) {
	b := newBench(t, oneTable)
	b.edit = func(o *Options) { // a restart finds the frames
		o.Capture.TurnoverBytes, o.Capture.RepinFrames = 1<<30, 1<<30
	}
	noError(t, b.app.Close()) // it checkpoints
	noError(t, os.Truncate(b.path, 64<<10))
	b.connect()
	b.start()
	b.sync()
	b.known()
	for i, sql := range []string{
		"INSERT INTO t(v) VALUES(1)",
		"INSERT INTO t(v) VALUES(2)",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<18) INSERT INTO t(v) SELECT zeroblob(10000) FROM n",
	} {
		b.exec(sql)
		b.sync()
		noError(t, b.p.summer.inspect(b.ctx))
		if got := b.p.Status().Sums; got.Inspections != 1 || got.MapMismatches+got.Mismatches != 0 {
			t.Errorf("after %d transactions: %+v", i+1, got)
		}
		b.end()
		b.start()
		b.sync()
		if !b.started().recalled {
			t.Errorf("after %d transactions the database was read anew", i+1)
		}
		b.known()
	}
	if b.inserted() != 20 || b.has(cdc.Break) {
		t.Errorf("%d of 20 inserts were captured; the records are %v", b.inserted(), b.kinds())
	}
}
