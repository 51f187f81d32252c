package wal

import (
	"fmt"
	"testing"

	"github.com/sqlite-replicator/replicator/cdc"
)

// records makes n commit records of about size bytes each.
func records(b *testing.B, n, size int) (recs [][]byte, heads []cdc.Head, bounds []*cdc.Boundary) {
	b.Helper()
	w := &writer{}
	t := cdc.Tail{Next: 1, Boundary: cdc.Boundary{Lineage: cdc.ID{1}}}
	w.enc = cdc.NewEncoder(t, 1, cdc.ID{2}, func(rec []byte, h cdc.Head, bound *cdc.Boundary) error {
		recs, heads, bounds = append(recs, append([]byte(nil), rec...)), append(heads, h), append(bounds, bound)
		return nil
	})
	for range n {
		must(b, w.commit(size))
	}
	return recs, heads, bounds
}

// Records per second through Append with a Sync after each group.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ size, group int }{{100, 1}, {100, 100}, {64 << 10, 1}, {64 << 10, 16}} {
		b.Run(fmt.Sprintf("size=%d/group=%d", c.size, c.group), func(b *testing.B) {
			const n = 1600
			recs, heads, bounds := records(b, n, c.size)
			b.ReportAllocs()
			b.SetBytes(int64(len(recs[0])))
			i := n
			var l *Log
			for b.Loop() {
				if i == n { // a log takes each record once
					b.StopTimer()
					if l != nil {
						must(b, l.Close())
					}
					l, i = open(b, nil, b.TempDir(), 0), 0
					b.StartTimer()
				}
				must(b, l.Append(recs[i], heads[i], bounds[i]))
				if i++; i%c.group == 0 {
					must(b, l.Sync())
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			recs, heads, bounds := records(b, 1000, size)
			l := open(b, nil, b.TempDir(), 0)
			for i := range recs {
				must(b, l.Append(recs[i], heads[i], bounds[i]))
			}
			must(b, l.Sync())
			b.ReportAllocs()
			b.SetBytes(int64(len(recs[0])))
			var r *Reader
			for i := 0; b.Loop(); i++ {
				if i%len(recs) == 0 {
					if r != nil {
						must(b, r.Close())
					}
					var err error
					r, err = l.Reader(1)
					must(b, err)
				}
				if _, _, err := r.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			must(b, r.Close())
		})
	}
}

func BenchmarkLag(b *testing.B) {
	recs, heads, bounds := records(b, 1000, 100)
	l := open(b, nil, b.TempDir(), 0)
	for i := range recs {
		must(b, l.Append(recs[i], heads[i], bounds[i]))
	}
	must(b, l.Sync())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Lag(500); err != nil {
			b.Fatal(err)
		}
	}
}
