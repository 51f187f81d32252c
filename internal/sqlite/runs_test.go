package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// series is a table of the numbers from 1 to n.
func series(n int) string {
	return fmt.Sprintf("(WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value+1 FROM s WHERE value<%d) SELECT value FROM s)", n)
}

// upto reads runs and gives where they end and how many rows they have.
func upto(t *testing.T, r *RunReader, first, last int64, size, most int) (ends []string, sum TableSum) {
	t.Helper()
	runs, err := r.Read(context.Background(), first, last, size, most)
	must(t, err)
	for _, run := range runs {
		ends = append(ends, fmt.Sprint(run.Upto, ":", run.Rows))
		sum.Rows += run.Rows
		sum.Sum[0] += run.Sum[0]
		sum.Sum[1] += run.Sum[1]
	}
	return ends, sum
}

func TestRuns(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, fmt.Sprintf("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(%d,1),(-5,2),(0,3),(7,4),(8,5),(%d,6)", math.MinInt64+1, math.MaxInt64))
	r, err := c.Runs("T")
	must(t, err)
	defer r.Close()
	least, most := fmt.Sprint(math.MinInt64+1), fmt.Sprint(math.MaxInt64)
	for _, tt := range []struct {
		first, last int64
		size, most  int
		want        string
	}{
		{math.MinInt64, math.MaxInt64, 100, 9, most + ":6"},
		{math.MinInt64, math.MaxInt64, 2, 9, "-5:2 7:2 " + most + ":2"},
		{math.MinInt64, math.MaxInt64, 2, 2, "-5:2 7:2"},
		{math.MinInt64, 0, 1, 9, least + ":1 -5:1 0:1"},
		{1, 6, 1, 9, "6:0"},
		{-4, 7, 9, 1, "7:2"},
		{0, 7, 0, 0, "0:1"}, // a run of a row, in any case
	} {
		if ends, _ := upto(t, r, tt.first, tt.last, tt.size, tt.most); strings.Join(ends, " ") != tt.want {
			t.Errorf("%d to %d in runs of %d, at most %d: %v, want %s", tt.first, tt.last, tt.size, tt.most, ends, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Read(ctx, 0, 1, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The runs of a table are its sum, whatever its shape.
func TestRunsAddUp(t *testing.T) {
	c, _ := openTest(t, Options{})
	wide := make([]string, maxColumns)
	for i := range wide {
		wide[i] = fmt.Sprint("c", i)
	}
	mustExec(t, c, `CREATE TABLE plain(a, b DEFAULT 7); INSERT INTO plain(a) SELECT value FROM `+series(1000)+`;
		CREATE TABLE "odd ""name"(rowid, v REAL, g AS (v+1)); INSERT INTO "odd ""name" VALUES(1,2),(1,3),(NULL,4);
		CREATE TABLE long(v); INSERT INTO long SELECT zeroblob(9<<20) FROM `+series(5)+`;
		CREATE TABLE empty(a INTEGER PRIMARY KEY);
		CREATE TABLE wide(`+strings.Join(wide, ",")+"); INSERT INTO wide(c0,c1999) VALUES(1,2),(3,4),(5,6)")
	for _, name := range []string{"plain", `odd "name`, "long", "empty", "wide"} {
		r, err := c.Runs(name)
		must(t, err)
		want, err := c.SumTable(context.Background(), name)
		must(t, err)
		for _, size := range []int{1, 3, 1 << 20} {
			ends, got := upto(t, r, math.MinInt64, math.MaxInt64, size, 1<<20)
			if got.Name = want.Name; got != want {
				t.Errorf("%s in runs of %d: %v, want %v", name, size, got, want)
			}
			if name == "long" && size > 5 && !slices.Equal(ends[:2], []string{"2:2", "4:2"}) {
				t.Errorf("long rows make the runs %v", ends)
			}
		}
		r.Close()
		r.Close()
	}
}

func TestRunsNeedRowids(t *testing.T) {
	c, _ := openTest(t, Options{})
	mustExec(t, c, "CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID; CREATE TABLE taken(rowid, oid, _rowid_)")
	for _, name := range []string{"w", "taken"} {
		if _, err := c.Runs(name); !errors.Is(err, ErrNoRowid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Runs("none"); !errors.Is(err, ErrNoTable) {
		t.Errorf("no table: %v", err)
	}
}

// TestContentTellsHowMuchItRead: pages of rows as they come to the cache, and long
// values that never do.
func TestContentTellsHowMuchItRead(t *testing.T) {
	for name, sql := range map[string]string{
		"short rows":  "INSERT INTO t SELECT value, 'some text of a row', value FROM " + series(100000),
		"long values": "INSERT INTO t SELECT value, zeroblob(300000), 1 FROM " + series(40),
	} {
		c, path := openTest(t, Options{})
		mustExec(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); "+sql+"; PRAGMA wal_checkpoint(TRUNCATE)")
		must(t, c.Close())
		c = reopen(t, path, Options{ReadOnly: true})
		size, err := c.QueryInt("SELECT page_count*page_size FROM pragma_page_count, pragma_page_size")
		must(t, err)
		var seen []Read
		_, _, err = c.Content(context.Background(), func(r Read) { seen = append(seen, r) })
		must(t, err)
		last := seen[len(seen)-1]
		if !slices.IsSortedFunc(seen, func(a, b Read) int { return int(a.Bytes - b.Bytes) }) || last.Bytes < size*8/10 || last.Bytes > size*11/10 {
			t.Errorf("%s: %s of %d bytes", name, cmp.Diff(nil, seen), size)
		}
	}
}
