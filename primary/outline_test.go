package primary

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// letters are such as no word of a report has two of in a row.
const letters = "QXZJVWK"

// planted fills tables of every shape with rows that consist of letters, under rowids
// that are long enough to be told from other numbers.
func planted(t *testing.T, rnd *rand.Rand, pageSize int) *subject {
	t.Helper()
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[rnd.IntN(len(letters))]
		}
		return string(b)
	}
	sql := fmt.Sprintf(`PRAGMA page_size=%d; CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID;
		CREATE TABLE five(a,b,c,d,e); CREATE INDEX ti ON t(v);`, pageSize)
	for i := range 80 {
		id := fmt.Sprint(7_000_000_000_000 + rnd.Int64N(1_000_000_000_000)) // 13 digits
		sql += fmt.Sprintf("INSERT INTO t VALUES(%s,'%s'); INSERT INTO w VALUES('%s%d','%s'); INSERT INTO five VALUES('%s','%s','%s',3,'%s');",
			id, word(1+rnd.IntN(3*pageSize*(i%2)+60)), word(9), i, word(1+rnd.IntN(pageSize)), word(5), word(6), word(7), word(8))
	}
	return newSubject(t, rnd.Uint64(), sql)
}

// unstructure makes a page claim to be a b-tree page, with cells anywhere.
func unstructure(page []byte, number uint32, rnd *rand.Rand) {
	head := page
	if number == 1 {
		head = page[sqlitefile.HeaderSize:]
	}
	head[0] = []byte{2, 5, 10, 13}[rnd.IntN(4)]
	cells := 1 + rnd.IntN(60)
	binary.BigEndian.PutUint16(head[3:], uint16(cells))
	for i := range cells {
		binary.BigEndian.PutUint16(head[12+2*i:], uint16(rnd.IntN(len(page))))
	}
}

// TestReportsHoldNoRows: whatever is damaged, nothing of a row is in a report: no two
// letters of one that stand together, no five in hexadecimal, and no rowid.
func TestReportsHoldNoRows(t *testing.T) {
	const seed = 5
	rnd := rand.New(rand.NewPCG(seed, 4))
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	leaks := regexp.MustCompile(`[QXZJVWK]{2}|(?i:(51|58|5a|4a|56|57|4b){5})|[0-9]{13}`)
	told := 0
	for _, pageSize := range []int{512, 4096, 65536} {
		s := planted(t, rnd, pageSize)
		h := history{before: s.before}
		s.exec("BEGIN; DELETE FROM t WHERE id%3=0; UPDATE w SET v=v||k; COMMIT")
		h.after = s.read()
		for range rounds {
			after, written := h.spoil(rnd, 1+rnd.IntN(6))
			for range rnd.IntN(4) {
				n := 1 + uint32(rnd.IntN(int(after.count())))
				page, err := after.Page(n)
				noError(t, err)
				unstructure(page, n, rnd)
				written = append(written, n)
			}
			noError(t, s.decoder.load(h.before, h.before.count()))
			s.sorter.reset()
			because := s.decoder.transaction(h.before, after, written, after.count(), s.sorter)
			if because == nil {
				because = errInconsistent
			}
			old, next := newSide(h.before, s.decoder.head, h.before.count()), newSide(after, s.decoder.head, after.count())
			r := bugReport{About: aboutReport, What: because.Error(), evidence: s.decoder.evidence(&old, &next, because, written)}
			text, err := json.MarshalIndent(r, "", " ")
			noError(t, err)
			if leak := leaks.Find(text); leak != nil {
				t.Fatalf("seed %d: %q is in the report:\n%s", seed, leak, text)
			}
			if len(text) > reportMost {
				t.Errorf("a report of %d bytes, more than %d", len(text), reportMost)
			}
			told += len(r.Before) + len(r.After)
		}
	}
	if told < 10*rounds {
		t.Errorf("%d pages are told of in %d reports", told, 3*rounds)
	}
}

// TestOutline: what is told of a page is its structure.
func TestOutline(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill(1, 40, 20)+"; INSERT INTO t VALUES(100, zeroblob(2000))")
	state := newSide(s.before, s.decoder.head, s.before.count())
	o := &outliner{state, []byte("key")}
	var inner, overflow, next bool
	for n := uint32(2); n <= state.count; n++ {
		out, all := o.outline(n), ""
		kind, _ := s.decoder.pages.at(n)
		all = fmt.Sprint(out)
		inner = inner || out.Type == "interior table" && strings.Contains(all, "child 3, tag ")
		overflow = overflow || out.Type == "leaf table" && strings.Contains(all, "payload of 2004 bytes, ") && strings.Contains(all, "overflow page ")
		next = next || out.Type == "not of a b-tree" && kind == chainHead && out.Next == fmt.Sprint(n+1)
		if again := o.outline(n); again.Tag != out.Tag || out.Tag == "" {
			t.Errorf("page %d has the tags %q and %q", n, out.Tag, again.Tag)
		}
	}
	if !inner || !overflow || !next {
		t.Errorf("an interior page: %v, a cell that overflows: %v, an overflow page: %v", inner, overflow, next)
	}
	if out := o.outline(state.count + 1); out.Type != "beyond the database" {
		t.Errorf("a page that is not there: %+v", out)
	}
	if got := o.pageNumber(state.count + 1); got != "beyond the database" {
		t.Errorf("a number that is no page's: %s", got)
	}
}
