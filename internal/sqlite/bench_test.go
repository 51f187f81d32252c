package sqlite

import (
	"fmt"
	"math/rand"
	"testing"
)

const (
	benchRows  = 1_000_000
	benchBatch = 1000
	benchTx    = 10 // batches a transaction
)

// benchTable fills a million rows with a random text key, which is indexed.
func benchTable(b *testing.B, rows int, sums bool) (*Conn, *Target) {
	b.Helper()
	c, _ := openTest(b, Options{CacheBytes: 64 << 20, RowSums: sums})
	mustExec(b, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, a INT, b REAL, c TEXT); CREATE INDEX i ON t(k)")
	mustExec(b, c, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<`+fmt.Sprint(rows)+`)
		INSERT INTO t SELECT i, printf('%08x', i*2654435761 % 4294967296), i, i/3.0, 'some text of usual length, 40 bytes long.' FROM n WHERE `+fmt.Sprint(rows)+`>0`)
	if rows == 0 {
		mustExec(b, c, "DELETE FROM t")
	}
	checkpoint(b, c, Truncate)
	return c, targetOf(b, c, "t")
}

func benchRecord(i int64, a int) []byte {
	return encodeRecord(nil, text(fmt.Sprintf("%08x", i*2654435761%4294967296)), a, float64(i)/3,
		text("some text of usual length, 40 bytes long."))
}

// benchApply times Apply alone, without and with sums: changes are made, and
// checkpoints run, off the clock.
func benchApply(b *testing.B, rows int, change func(t *Target, i int) Change) {
	for _, sums := range []bool{false, true} {
		b.Run(fmt.Sprintf("sums=%t", sums), func(b *testing.B) { benchApplyOn(b, rows, sums, change) })
	}
}

func benchApplyOn(b *testing.B, rows int, sums bool, change func(t *Target, i int) Change) {
	c, target := benchTable(b, rows, sums)
	changes := make([]Change, benchBatch)
	b.ReportAllocs()
	b.ResetTimer()
	for n := range b.N {
		b.StopTimer()
		for i := range changes {
			changes[i] = change(target, n*benchBatch+i)
		}
		b.StartTimer()
		if n%benchTx == 0 {
			must(b, c.BeginImmediate())
		}
		apply(b, c, changes...)
		if n%benchTx == benchTx-1 || n == b.N-1 {
			must(b, c.Commit())
			b.StopTimer()
			checkpoint(b, c, Passive)
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(b.N*benchBatch)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkApplyAppend(b *testing.B) {
	benchApply(b, 0, func(t *Target, i int) Change {
		return Change{Op: Insert, Table: t, Rowid: int64(i + 1), New: encodeRecord(nil, nil, i, float64(i)/3, text("some text of usual length, 40 bytes long."))}
	})
}

func BenchmarkApplyInsertIndexed(b *testing.B) {
	benchApply(b, benchRows, func(t *Target, i int) Change {
		id := int64(benchRows + i + 1)
		return Change{Op: Insert, Table: t, Rowid: id, New: benchRecord(id, i)}
	})
}

func BenchmarkApplyUpdateOneColumn(b *testing.B) {
	r := rand.New(rand.NewSource(1))
	benchApply(b, benchRows, func(t *Target, i int) Change {
		id := r.Int63n(benchRows) + 1
		return Change{Op: Update, Table: t, Rowid: id, Old: benchRecord(id, int(id)), New: benchRecord(id, -i)}
	})
}

func BenchmarkApplyDelete(b *testing.B) {
	order := rand.New(rand.NewSource(1)).Perm(benchRows)
	benchApply(b, benchRows, func(t *Target, i int) Change {
		id := int64(order[i%benchRows] + 1)
		if i >= benchRows {
			b.Fatal("more deletes than rows: run with -benchtime=1000x or less")
		}
		return Change{Op: Delete, Table: t, Rowid: id}
	})
}

// BenchmarkApplyMixed is half inserts, a third updates, the rest deletes.
func BenchmarkApplyMixed(b *testing.B) {
	order := rand.New(rand.NewSource(1)).Perm(benchRows)
	benchApply(b, benchRows, func(t *Target, i int) Change {
		switch id := int64(order[i/6*3%benchRows] + 1); i % 6 {
		case 0, 1:
			id = int64(order[(i/6*3+i%6+1)%benchRows] + 1)
			return Change{Op: Update, Table: t, Rowid: id, Old: benchRecord(id, int(id)), New: benchRecord(id, -i)}
		case 2:
			return Change{Op: Delete, Table: t, Rowid: id}
		default:
			id = int64(benchRows + i + 1)
			return Change{Op: Insert, Table: t, Rowid: id, New: benchRecord(id, i)}
		}
	})
}
