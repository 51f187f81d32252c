package primary

import (
	"errors"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A history is a database in two states that differ in every way.
type history struct{ before, after *image }

func makeHistory(t testing.TB, setup string) history {
	s := newSubject(t, 9, setup+randomSetup+`CREATE TABLE w(k INT PRIMARY KEY, v, c) WITHOUT ROWID;
		WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) INSERT INTO base SELECT i, printf('%.*c', i%7*100, 'x'), i FROM n;
		INSERT INTO w SELECT * FROM base; CREATE INDEX bi ON base(c); CREATE TABLE gone AS SELECT * FROM w;
		INSERT INTO fts VALUES('some words to be found'); INSERT INTO box VALUES(1,2,3)`)
	h := history{before: s.before}
	s.exec(`BEGIN; DELETE FROM base WHERE k BETWEEN 50 AND 220; UPDATE base SET v=v||'more' WHERE k%5=0; UPDATE w SET c=c+1 WHERE k%9=0;
		DELETE FROM w WHERE k>200; INSERT INTO base VALUES(1000,zeroblob(9000),1); DROP TABLE gone; CREATE TABLE fresh(a, b);
		INSERT INTO fresh SELECT k, v FROM base; ALTER TABLE w RENAME TO w2; INSERT INTO fts VALUES('other words'); DELETE FROM box; COMMIT`)
	h.after = s.read()
	return h
}

func histories(t testing.TB) []history {
	return []history{
		makeHistory(t, "PRAGMA page_size=512; PRAGMA auto_vacuum=1;"),
		makeHistory(t, "PRAGMA page_size=1024; PRAGMA encoding='UTF-16';"),
	}
}

// spoil changes n bytes of the pages that differ, and sometimes what is written.
func (h history) spoil(rnd *rand.Rand, n int) (*image, []uint32) {
	written := h.after.differing(h.before)
	after := &image{data: append([]byte(nil), h.after.data...), pageSize: h.after.pageSize}
	for range n {
		page := written[rnd.IntN(len(written))]
		at := rnd.IntN(h.after.pageSize)
		if rnd.IntN(2) == 0 {
			at = rnd.IntN(40) // b-tree headers, cell pointers, links of chains
		}
		b := byte(rnd.IntN(256))
		switch rnd.IntN(3) {
		case 0:
			b = byte(1 + rnd.IntN(int(min(after.count(), 255)))) // a page that exists
		case 1:
			b = []byte{0, 2, 5, 10, 13, 0x7f, 0x80, 0xff}[rnd.IntN(8)]
		}
		after.data[int(page-1)*h.after.pageSize+at] = b
	}
	if rnd.IntN(4) == 0 {
		written = written[:rnd.IntN(len(written))]
	}
	return after, written
}

// placed is how an error tells where the damage is.
var placed = regexp.MustCompile(`\bpages? [0-9]+\b`)

// decodeSpoiled checks that damage makes an error or an answer.
func decodeSpoiled(t testing.TB, d *decoder, s *sorter, h history, after *image, written []uint32, count uint32) {
	if err := d.load(h.before, h.before.count()); err != nil {
		t.Fatal(err)
	}
	s.reset()
	err := d.transaction(h.before, after, written, count, s)
	if err == nil {
		// What was accepted must be good enough to go on from.
		s.reset()
		err = d.transaction(after, h.after, h.after.differing(after), h.after.count(), s)
	}
	known := errors.Is(err, errInconsistent) || errors.Is(err, errHeaderChanged) || errors.Is(err, errReservedName)
	if errors.Is(err, errInconsistent) && !placed.MatchString(err.Error()) {
		t.Errorf("%v names no page", err)
	}
	if err != nil && !known {
		t.Logf("%v", err) // Describe may refuse a damaged CREATE TABLE
		if errors.Is(err, sqlitefile.ErrCorrupt) {
			t.Errorf("%v is not marked as inconsistent", err)
		}
	}
}

func TestDamage(t *testing.T) {
	const seed = 11
	rounds := 1500
	if n, err := strconv.Atoi(os.Getenv("DECODE_DAMAGE")); err == nil {
		rounds = n
	}
	rnd := rand.New(rand.NewPCG(seed, 2))
	t.Logf("seed %d", seed)
	d, s := newTestDecoder(t), newSorter(t.TempDir(), 1<<20)
	for _, h := range histories(t) {
		for range rounds {
			after, written := h.spoil(rnd, 1+rnd.IntN(6))
			count := after.count()
			if rnd.IntN(20) == 0 {
				count = 1 + uint32(rnd.IntN(int(count)))
			}
			decodeSpoiled(t, d, s, h, after, written, count)
			if err := d.load(after, count); err == nil { // the first state may be damaged too
				s.reset()
				_ = d.transaction(after, h.after, h.after.differing(after), h.after.count(), s)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint32(3), []byte{13, 0, 0})
	f.Add(uint64(2), uint8(3), uint32(9), []byte{0, 0, 0, 9})
	f.Add(uint64(3), uint8(0), uint32(1), []byte{5, 0, 0, 0, 1, 2})
	list := histories(f)
	d, s := newTestDecoder(f), newSorter(f.TempDir(), 1<<20)
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, at uint32, patch []byte) {
		h := list[seed%uint64(len(list))]
		after, written := h.spoil(rand.New(rand.NewPCG(seed, 3)), int(n%8))
		off := int(at % uint32(len(after.data)))
		copy(after.data[off:], patch)
		written = append(written, uint32(off/after.pageSize)+1)
		decodeSpoiled(t, d, s, h, after, written, after.count())
	})
}
