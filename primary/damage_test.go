package primary

import (
	"encoding/binary"
	"errors"
	"regexp"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// damaged decodes what edit makes of the rows of table t: edit is called with each
// leaf of it until it returns true.
func damaged(t *testing.T, setup string, edit func(p sqlitefile.Page, page []byte) bool) error {
	t.Helper()
	s := newSubject(t, 1, "PRAGMA page_size=512; "+setup)
	after := &image{data: append([]byte(nil), s.before.data...), pageSize: s.before.pageSize}
	for n := uint32(2); n <= after.count(); n++ {
		page, err := after.Page(n)
		noError(t, err)
		if kind, _ := s.decoder.pages.at(n); kind != treePage || sqlitefile.PageType(page[0]).Interior() {
			continue
		}
		p, err := sqlitefile.ParsePage(page, n, 512)
		noError(t, err)
		if edit(p, page) {
			err := s.decoder.transaction(s.before, after, []uint32{n}, after.count(), s.sorter)
			if err == nil || !whereabouts.MatchString(err.Error()) {
				t.Errorf("it says not where the damage is: %v", err)
			}
			return err
		}
	}
	t.Fatal("nothing was edited")
	return nil
}

// whereabouts are where damage was found.
var whereabouts = regexp.MustCompile(`(page|row|rowid) [0-9]+`)

// TestPageWithoutCells: SQLite reads no such page. Its rows were not deleted.
func TestPageWithoutCells(t *testing.T) {
	err := damaged(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill(1, 100, 50), func(_ sqlitefile.Page, page []byte) bool {
		binary.BigEndian.PutUint16(page[3:], 0)
		return true
	})
	if !errors.Is(err, errInconsistent) {
		t.Errorf("rows of a page without cells: %v", err)
	}
}

// TestSharedChain: two rows with one overflow chain are damage, and were the way to
// lose the changes of one of them.
func TestSharedChain(t *testing.T) {
	for _, c := range []struct {
		name  string
		table string
		apart int // rows between the two
	}{
		{"of a rowid table", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", 30},
		{"of a keyed table", "CREATE TABLE t(id INTEGER PRIMARY KEY, v) WITHOUT ROWID", 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := 0
			var first []byte // the link to the chain of some row
			err := damaged(t, c.table+"; "+fill(1, 40, 600), func(p sqlitefile.Page, _ []byte) bool {
				for i := range p.Cells() {
					cell, err := p.Cell(i)
					noError(t, err)
					link := cell.Raw[len(cell.Raw)-4:]
					if cell.Overflow == 0 {
						continue
					}
					if seen++; seen == 1 {
						first = link
					} else if seen > c.apart {
						copy(link, first)
						return true
					}
				}
				return false
			})
			if !errors.Is(err, errInconsistent) {
				t.Errorf("two rows with one chain: %v", err)
			}
		})
	}
}

// TestInspectionFindsDamage that no transaction came by.
func TestInspectionFindsDamage(t *testing.T) {
	b := newBench(t, sumTables)
	b.start()
	b.sync()
	b.known()
	noError(t, b.p.ask(b.ctx, func(c *capture) error {
		v, root := c.follower.view, c.decoder.schema.roots()[1]
		before := v.frames.clone()
		v.frames.clear()
		for _, s := range before.slots {
			if page := uint32(s >> 32); s != 0 && page != root {
				v.frames.put(page, uint32(s))
			}
		}
		v.kept = map[uint32][]byte{root: make([]byte, v.pageSize)}
		return nil
	}))
	err := b.p.summer.inspect(b.ctx)
	if !errors.Is(inconsistent(err), errInconsistent) {
		t.Fatalf("a page of zeros: %v", err)
	}
	b.p.summer.uninspected(err)
	if s := b.p.Status(); s.Error == "" {
		t.Error("nobody says that the source is damaged")
	}
}

// TestPageCutOff: SQLite believes its pointer map about what lies at the end of the
// database. A page that a table still refers to was not deleted with its rows.
func TestPageCutOff(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(a); "+fill(1, 100, 50))
	last := s.before.count()
	if kind, _ := s.decoder.pages.at(last); kind != treePage {
		t.Fatalf("the last page is %v", kind)
	}
	after := &image{data: append([]byte(nil), s.before.data[:(last-1)*512]...), pageSize: 512}
	binary.BigEndian.PutUint32(after.data[28:], last-1)
	err := s.decoder.transaction(s.before, after, []uint32{1}, last-1, s.sorter)
	if !errors.Is(err, errInconsistent) {
		t.Errorf("the database ends before a page of a table: %v", err)
	}
}

// TestSizeInDoubt: SQLite reads no page above the number in the header, and a commit
// frame may say another one.
func TestSizeInDoubt(t *testing.T) {
	s := newSubject(t, 1, "PRAGMA page_size=512; CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill(1, 100, 50))
	after := &image{data: append([]byte(nil), s.before.data...), pageSize: 512}
	binary.BigEndian.PutUint32(after.data[28:], after.count()-1)
	if err := s.decoder.transaction(s.before, after, []uint32{1}, after.count(), s.sorter); !errors.Is(err, errInconsistent) {
		t.Errorf("a transaction: %v", err)
	}
	if err := s.decoder.load(after, after.count()); !errors.Is(err, errInconsistent) {
		t.Errorf("a state: %v", err)
	}
}
