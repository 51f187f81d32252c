package replica

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// cpuTime is what the process has used of all CPUs: a machine that others share does
// not change it much.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkApply applies inserts into a table with one index on a random key.
// One operation is one row.
func BenchmarkApply(b *testing.B) {
	for _, rows := range []int{1, 100} {
		for _, group := range []int{1, 10, 100, 1000} {
			for _, sums := range []bool{false, true} {
				b.Run(fmt.Sprintf("rows=%d/group=%d/sums=%t", rows, group, sums), func(b *testing.B) { benchmarkApply(b, rows, group, sums) })
			}
		}
	}
}

func benchmarkApply(b *testing.B, rows, group int, sums bool) {
	s := newSource(b, "CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v TEXT); CREATE INDEX tk ON t(k)")
	snap := s.snapshot()
	table := &cdc.Table{Name: "t"}
	n := 0
	for n < b.N {
		must(b, s.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpTable, Table: table}, 0)))
		for range rows {
			n++
			key := fmt.Sprintf("%016x", uint64(n)*0x9e3779b97f4a7c15)
			must(b, s.enc.Op(cdc.AppendOp(nil, &cdc.Change{Op: cdc.OpInsert, Table: table, Rowid: int64(n),
				New: encode(nil, key, "some text that is about as long as a row of an application is")}, 0)))
		}
		must(b, s.enc.End(s.boundary(), false))
		must(b, s.enc.Flush())
	}
	path := filepath.Join(b.TempDir(), "replica.db")
	must(b, snap.Restore(context.Background(), path, func(int64) {}))
	g, err := openGuard(path, guardOptions{cacheBytes: 24 << 20, checkpointBytes: 40 << 20, hold: true, rowSums: sums})
	must(b, err)
	defer func() { must(b, g.close()) }()
	must(b, claim(g.conn, snap.At, time.Now()))
	a, err := newApplier(g, b.TempDir(), time.Now)
	must(b, err)
	if sums {
		must(b, a.w.prove(newRowSums()))
	}
	ctx := context.Background()
	b.ReportAllocs()
	b.ResetTimer()
	busy := cpuTime(b)
	for _, rec := range s.log.all()[snap.At.LSN:] {
		must(b, a.add(ctx, rec))
		if a.records >= group {
			must(b, a.commit(ctx))
			must(b, g.rest(ctx, true))
		}
	}
	must(b, a.commit(ctx))
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-busy)/float64(n), "cpu-ns/row")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
	must(b, a.rollback())
	got, err := g.conn.QueryInt("SELECT count(*) FROM t")
	must(b, err)
	if got != int64(n) {
		b.Fatalf("%d rows, want %d", got, n)
	}
	_, err = g.control.Checkpoint(sqlite.Passive)
	must(b, err)
}
