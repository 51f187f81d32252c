package replica

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// rowSource is a table t with what sql does to it.
func rowSource(t *testing.T, sql string) (*sqlite.Conn, *sqlite.RunReader) {
	t.Helper()
	c, err := sqlite.Open(filepath.Join(t.TempDir(), "rows.db"), sqlite.Options{Create: true})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	must(t, c.Exec("CREATE TABLE t(a INTEGER PRIMARY KEY, b); "+sql))
	r, err := c.Runs("t")
	must(t, err)
	t.Cleanup(r.Close)
	return c, r
}

// TestFindDiffering finds what maps of the rows say.
func TestFindDiffering(t *testing.T) {
	here, mine := rowSource(t, "")
	there, theirs := rowSource(t, "")
	rowids := rapid.OneOf(rapid.Int64Range(-40, 40), rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64 - 1, math.MaxInt64}))
	rapid.Check(t, func(rt *rapid.T) {
		common := rapid.MapOf(rowids, rapid.IntRange(0, 9)).Draw(rt, "common")
		sides := [2]map[int64]int{}
		for i, c := range []*sqlite.Conn{here, there} {
			sides[i] = map[int64]int{}
			for a, b := range common {
				sides[i][a] = b
			}
			for a, b := range rapid.MapOfN(rowids, rapid.IntRange(0, 9), 0, 5).Draw(rt, "own") {
				sides[i][a] = b
			}
			must(rt, c.Exec("DELETE FROM t"))
			for a, b := range sides[i] {
				must(rt, c.Exec("INSERT INTO t VALUES(?,?)", a, b))
			}
		}
		want := DifferingRows{}
		for _, a := range sortedKeys(sides[0], sides[1]) {
			h, hok := sides[0][a]
			there, tok := sides[1][a]
			switch {
			case hok && !tok:
				want.First = append(want.First, DifferingRow{a, RowExtra})
			case tok && !hok:
				want.First = append(want.First, DifferingRow{a, RowMissing})
			case h != there:
				want.First = append(want.First, DifferingRow{a, RowDiffers})
			}
		}
		want.Count = len(want.First)
		got, err := FindDiffering(context.Background(), mine, theirs, func(uint64) {})
		must(rt, err)
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("here %v, there %v (-want +got):\n%s", sides[0], sides[1], diff)
		}
	})
}

func sortedKeys(maps ...map[int64]int) (keys []int64) {
	for _, m := range maps {
		for k := range m {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// TestFindDifferingInManyRows: more rows than one answer has, of which few are named
// and not too many are counted.
func TestFindDifferingInManyRows(t *testing.T) {
	rows := int64(runRows*runsRead + 3*runRows)
	all := fmt.Sprintf("INSERT INTO t SELECT value, 'v' FROM %s", series(1, int(rows)))
	_, theirs := rowSource(t, all)
	for _, tt := range []struct {
		name, sql string
		count     int
		more      bool
		first     DifferingRow
	}{
		{"equal", all, 0, false, DifferingRow{}},
		{"the last row", all + fmt.Sprintf("; DELETE FROM t WHERE a=%d", rows), 1, false, DifferingRow{rows, RowMissing}},
		{"one row in a thousand", all + "; UPDATE t SET b='w' WHERE a%1000=0", int(rows / 1000), false, DifferingRow{1000, RowDiffers}},
		{"rows in one gap", all + fmt.Sprintf("; INSERT INTO t SELECT -value, 'x' FROM %s", series(1, 5000)), 5000, false, DifferingRow{-5000, RowExtra}},
		{"no row at all", "", MaxCounted, true, DifferingRow{1, RowMissing}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, mine := rowSource(t, tt.sql)
			done := uint64(0)
			got, err := FindDiffering(t.Context(), mine, theirs, func(rows uint64) { done = rows })
			must(t, err)
			if got.Count != tt.count || got.More != tt.more || len(got.First) != min(tt.count, MaxNamed) || tt.count > 0 && got.First[0] != tt.first {
				t.Errorf("got %+v", got)
			}
			if !tt.more && done < uint64(rows-runRows) {
				t.Errorf("progress ends at %d of %d rows", done, rows)
			}
		})
	}
}

// TestFindDifferingBetweenNothing: two empty tables are equal.
func TestFindDifferingBetweenNothing(t *testing.T) {
	_, mine := rowSource(t, "")
	_, theirs := rowSource(t, "")
	if got, err := FindDiffering(t.Context(), mine, theirs, func(uint64) {}); err != nil || got.Count != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}
