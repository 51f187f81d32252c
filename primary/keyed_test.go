package primary

import (
	"fmt"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// countedPages counts the pages that are read.
type countedPages struct {
	sqlitefile.Pages
	n *int
}

func (c countedPages) Page(n uint32) ([]byte, error) {
	*c.n++
	return c.Pages.Page(n)
}

// TestKeyedPasses: where more rows of a WITHOUT ROWID table change in one transaction than
// are held at a time, the pages are read about as often as rows are held times over.
func TestKeyedPasses(t *testing.T) {
	const rows = 20_000
	for _, times := range []int{1, 9, 70} {
		s := newSubject(t, 1, fmt.Sprintf("CREATE TABLE t(k TEXT PRIMARY KEY, v) WITHOUT ROWID; WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) "+
			"INSERT INTO t SELECT printf('%%09d',i), i*i FROM n", rows))
		s.exec("DELETE FROM t")
		after := s.read()
		n, most := 0, (2*(times*9/8+4)+3)*int(s.before.count())
		s.decoder.rows.keyed.maxPending = rows / times
		deleted := &failAfter{rows + 10}
		noError(t, s.decoder.transaction(countedPages{s.before, &n}, countedPages{after, &n}, after.differing(s.before), after.count(), deleted))
		if left := deleted.n; left > 10 || n > most {
			t.Errorf("%d rows, %d at a time: %d pages read, at most %d are in order; %d changes are missing", rows, rows/times, n, most, left-10)
		}
	}
}
