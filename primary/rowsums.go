package primary

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A rowSums keeps the row-set hash of each table of a source (cdc's FORMAT.md). The
// hash of a table that was there before the capture is its base, computed in the
// background from a frozen state, and the changes since: see summer. It belongs to
// the goroutine that owns the capture, and outlives terms: as long as the history
// goes on where it ended, so do the hashes.
//
// It never fails a capture: a table whose rows cannot be hashed has no hash.
type rowSums struct {
	logger  *slog.Logger
	wanted  chan struct{} // has an element when the base of some table is wanted
	scratch *sqlite.Scratch

	encoding sqlitefile.Encoding
	tables   map[string]*summedTable // by name, after the last whole transaction
	known    int                     // of them
	at       cdc.Position            // the boundary as of which they are, if durable
	durable  bool

	// The transaction in hand.
	come    map[string]arrival // created, renamed or edited tables, by new name
	gone    map[string]bool    // dropped, renamed or edited ones, by old name
	touched []*summedTable
	lost    bool       // a table lost its hash
	last    *cdc.Table // most changes are of the table of the one before
	lastOp  cdc.Op
	lastRow rowOf
	changed []cdc.TableHash // what end returned
	where   func() uint32   // page of the row at hand, for errors; nil: not known
}

// A summedTable is one table through all its names.
type summedTable struct {
	face  *face
	known bool
	job   *sumJob    // computes the base; nil: nobody does
	sum   cdc.RowSum // known: of the table; with a job: of what changed since the job's state
	delta cdc.RowSum // of the transaction in hand
	dirty bool       // touched by it
	unfit bool       // its rows cannot be hashed
	// damage is why, where the bytes of the source are to blame.
	damage error
}

// counts reports whether changes of the table must be added up.
func (t *summedTable) counts() bool { return t.known || t.job != nil }

// A face is what a table looks like between two schema changes.
type face struct {
	name, sql string
	hasher    *rowHasher // nil until a row is hashed
}

// An arrival is a table that has a new face.
type arrival struct {
	table *summedTable
	face  *face
}

// A rowOf is a table under the face of the rows at hand; table is nil when they do
// not count.
type rowOf struct {
	table *summedTable
	face  *face
}

func newRowSums(logger *slog.Logger) *rowSums {
	return &rowSums{
		logger: logger, wanted: make(chan struct{}, 1), tables: map[string]*summedTable{},
		come: map[string]arrival{}, gone: map[string]bool{},
	}
}

// open begins a term at position tail: hashes that are not exactly of that boundary
// are forgotten.
func (s *rowSums) open(tail cdc.Position) (err error) {
	s.rollback()
	if !s.durable || s.at != tail {
		s.forget()
	}
	s.scratch, err = sqlite.NewScratch()
	return err
}

func (s *rowSums) close() error {
	if s.scratch == nil {
		return nil
	}
	err := s.scratch.Close()
	s.scratch, s.where = nil, nil
	return err
}

// forget makes all hashes unknown.
func (s *rowSums) forget() {
	for _, t := range s.tables {
		t.known, t.job, t.unfit, t.damage = false, nil, false, nil
	}
	s.known = 0
	s.want()
}

// want wakes the one who computes bases, if there is a table without a hash.
func (s *rowSums) want() {
	if s.known == len(s.tables) {
		return
	}
	select {
	case s.wanted <- struct{}{}:
	default:
	}
}

// load takes a schema as the one before the next transaction. Tables that are known
// as they are keep their hashes.
func (s *rowSums) load(schema *schema, e sqlitefile.Encoding) {
	s.rollback()
	if e != s.encoding {
		s.tables, s.encoding = map[string]*summedTable{}, e
	}
	before := s.tables
	s.tables, s.known = make(map[string]*summedTable, len(before)), 0
	for _, o := range schema.objects {
		if o.tree == nil {
			continue
		}
		t := before[o.row.Name]
		if t == nil || t.face.sql != o.row.SQL {
			t = &summedTable{face: &face{name: o.row.Name, sql: o.row.SQL}}
		}
		s.put(t)
	}
	s.want()
}

// recall takes the hashes that a term before has left, of the state at hand.
func (s *rowSums) recall(list []savedSum) {
	for _, k := range list {
		if t := s.tables[string(k.Table)]; t != nil && !t.known {
			t.sum, t.known = k.Sum, true
			s.known++
		}
	}
}

func (s *rowSums) put(t *summedTable) {
	s.tables[t.face.name] = t
	if t.known {
		s.known++
	}
}

// rollback forgets the transaction in hand.
func (s *rowSums) rollback() {
	for _, t := range s.touched {
		t.delta, t.dirty = cdc.RowSum{}, false
	}
	clear(s.come)
	clear(s.gone)
	s.touched, s.lost, s.last, s.lastRow = s.touched[:0], false, nil, rowOf{}
}

// A summingSink adds up what it passes on.
type summingSink struct {
	sums *rowSums
	next largeSink
}

func (s *summingSink) change(c *cdc.Change) error {
	s.sums.change(c)
	return s.next.change(c)
}

// large implements largeSink, if next does. Whether the row is there as a whole next
// finds out first: one that is not is no change.
func (s *summingSink) large(c *cdc.Change, old, new *cursor) error {
	if err := s.next.large(c, old, new); err != nil {
		return err
	}
	s.sums.changeRow(c, old, new)
	return nil
}

// change adds one change of the transaction in hand. Those of the schema come
// before those of rows.
func (s *rowSums) change(c *cdc.Change) {
	switch c.Op {
	case cdc.OpSchema:
		s.schemaChange(c.Schema)
	case cdc.OpDelete, cdc.OpUpdate, cdc.OpInsert:
		s.changeRow(c, nil, nil)
	}
}

// changeRow adds a change of a row. Its images are those of c or, of a large one, where
// old and new stand.
func (s *rowSums) changeRow(c *cdc.Change, old, new *cursor) {
	if c.Table != s.last || c.Op != s.lastOp {
		s.last, s.lastOp, s.lastRow = c.Table, c.Op, s.find(c)
	}
	row := s.lastRow
	if row.table == nil {
		return
	}
	if err := row.table.add(row.face.hasher, c, old, new); err != nil {
		if !c.Table.WithoutRowid {
			err = fmt.Errorf("row %d: %w", c.Rowid, err)
		}
		if s.where != nil {
			err = fmt.Errorf("page %d: %w", s.where(), err)
		}
		s.unfit(row, err)
		s.lastRow.table = nil
	}
}

// find returns the table of a change of rows: old rows go by the name before the
// transaction, new ones by the name after it.
func (s *rowSums) find(c *cdc.Change) rowOf {
	name := c.Table.Name
	t := s.tables[name]
	row := rowOf{table: t}
	if t != nil {
		row.face = t.face
	}
	if c.Op != cdc.OpDelete {
		if a, ok := s.come[name]; ok {
			row = rowOf(a)
		} else if s.gone[name] {
			return rowOf{}
		}
	}
	if row.table == nil || row.table.unfit || !row.table.counts() {
		return rowOf{}
	}
	if err := s.prepare(row.face); err != nil {
		s.unfit(row, err)
		return rowOf{}
	}
	if !row.table.dirty {
		row.table.dirty = true
		s.touched = append(s.touched, row.table)
	}
	return row
}

// prepare makes the hasher of a face.
func (s *rowSums) prepare(f *face) (err error) {
	if f.hasher == nil {
		f.hasher, err = hasherFor(s.scratch, f.name, f.sql, s.encoding)
	}
	return err
}

// hasherFor makes the hasher of a table from its text.
func hasherFor(scratch *sqlite.Scratch, name, sql string, e sqlitefile.Encoding) (*rowHasher, error) {
	shape, err := scratch.Describe(name, sql)
	if err != nil {
		return nil, err
	}
	missing, err := scratch.Missing(shape, e.String())
	if err != nil {
		return nil, err
	}
	return newRowHasher(shape, missing), nil
}

// add adds a change of a row. After an error the table has no hash.
func (t *summedTable) add(by *rowHasher, c *cdc.Change, old, new *cursor) error {
	if c.Op != cdc.OpInsert {
		h, err := by.image(c.Rowid, c.Old, old)
		if err != nil {
			return err
		}
		t.delta = t.delta.Sub(h)
	}
	if c.Op != cdc.OpDelete {
		h, err := by.image(c.Rowid, c.New, new)
		if err != nil {
			return err
		}
		t.delta = t.delta.Add(h)
	}
	return nil
}

// unfit gives up a table until the next term. One that the transaction in hand has
// made has no face of its own yet.
func (s *rowSums) unfit(row rowOf, err error) {
	t, name := row.table, row.face.name
	if errors.Is(err, sqlitefile.ErrCorrupt) {
		t.damage = fmt.Errorf("table %s of the source is damaged, replicas may differ; run PRAGMA integrity_check: %w", name, err)
		s.logger.Error("the source is damaged", "table", name, "err", t.damage)
	} else {
		s.logger.Warn("the rows of a table cannot be hashed; it is replicated without", "table", name, "err", err)
	}
	s.unknown(t)
	t.unfit = true
}

// damage tells which table of the source is known to be damaged, the first by name;
// empty: none.
func (s *rowSums) damage() string {
	if s.known == len(s.tables) {
		return ""
	}
	first, why := "", ""
	for name, t := range s.tables { // asked for at each look at the source
		if t.damage != nil && (why == "" || name < first) {
			first, why = name, t.damage.Error()
		}
	}
	return why
}

func (s *rowSums) unknown(t *summedTable) {
	if t.known && t.face != nil { // a new one does not count yet
		s.known--
	}
	t.known, t.job, s.lost = false, nil, true
}

func (s *rowSums) schemaChange(c *cdc.SchemaChange) {
	var t *summedTable
	if o := c.Old; o != nil && o.Type == typeTable && !o.Virtual {
		t = s.tables[o.Name]
		s.gone[o.Name] = true
	}
	o := c.New
	if o == nil || o.Type != typeTable || o.Virtual {
		return
	}
	if t == nil {
		t = &summedTable{known: c.Old == nil} // a new table is empty
	}
	s.come[o.Name] = arrival{t, &face{name: o.Name, sql: o.SQL}}
}

// moved reports whether hashes that were stated before the transaction in hand may
// be wrong after it without it saying so: tables have other names, or no hash.
func (s *rowSums) moved() bool { return len(s.gone) > 0 || s.lost }

// end takes the transaction in hand as whole and returns the hashes of the tables
// that it changed, as far as they are known, sorted by name. They are valid until
// the next end.
func (s *rowSums) end() []cdc.TableHash {
	s.durable = false
	for _, t := range s.touched {
		t.sum = t.sum.Add(t.delta)
	}
	if len(s.come)+len(s.gone) > 0 {
		s.rename()
	}
	changed := s.changed[:0]
	for _, t := range s.touched {
		if t.known && s.tables[t.face.name] == t {
			changed = append(changed, cdc.TableHash{Table: t.face.name, Sum: t.sum.Bytes()})
		}
	}
	s.rollback()
	slices.SortFunc(changed, func(a, b cdc.TableHash) int { return cmp.Compare(a.Table, b.Table) })
	s.changed = changed
	return changed
}

// rename makes the tables those after the transaction in hand.
func (s *rowSums) rename() {
	for name := range s.gone {
		if t := s.tables[name]; t != nil {
			delete(s.tables, name)
			if t.known {
				s.known--
			}
		}
	}
	for _, a := range s.come {
		if a.table.face != nil && a.table.counts() && !s.carries(a.table.face, a.face) {
			a.table.known, a.table.job = false, nil
		}
		a.table.face = a.face
		s.put(a.table)
	}
	s.want()
}

// carries reports whether the rows of a table have the same hashes before and after
// its text changed.
func (s *rowSums) carries(before, after *face) bool {
	if err := errors.Join(s.prepare(before), s.prepare(after)); err != nil {
		return false
	}
	return after.hasher.extends(before.hasher)
}

// reached notes that everything up to p is durable.
func (s *rowSums) reached(p cdc.Position) { s.at, s.durable = p, true }

// A knownSum is the hash of a table at some moment.
type knownSum struct {
	table *summedTable
	name  string
	sum   cdc.RowSum
}

// list returns the known hashes, sorted by name.
func (s *rowSums) list() []knownSum {
	list := make([]knownSum, 0, s.known)
	for name, t := range s.tables {
		if t.known {
			list = append(list, knownSum{t, name, t.sum})
		}
	}
	slices.SortFunc(list, func(a, b knownSum) int { return cmp.Compare(a.name, b.name) })
	return list
}
