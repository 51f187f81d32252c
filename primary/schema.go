package primary

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// layouts tells what the records of a table mean, from its CREATE TABLE text.
type layouts interface {
	Describe(name, createSQL string) (sqlite.Table, error)
	Close() error
}

func newLayouts() (layouts, error) {
	s, err := sqlite.NewScratch()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// errReservedName: the source has an object whose name is ours.
var errReservedName = errors.New("reserved name")

// reservedPrefix starts the names of the tables that replicas keep for themselves.
const reservedPrefix = "_replicator_"

// Types of the rows of sqlite_schema.
const (
	typeTable   = "table"
	typeIndex   = "index"
	typeView    = "view"
	typeTrigger = "trigger"
)

// A tree is the b-tree of a table.
type tree struct {
	root  uint32
	table *cdc.Table
}

// An object is a row of sqlite_schema.
type object struct {
	row  sqlitefile.SchemaRow
	tree *tree // of an ordinary table
}

func (o *object) virtual() bool { return o.row.Type == typeTable && o.row.Root == 0 }

func (o *object) public() *cdc.SchemaObject {
	return &cdc.SchemaObject{Type: o.row.Type, Name: o.row.Name, Table: o.row.Table, SQL: o.row.SQL, Virtual: o.virtual()}
}

// kind tells objects apart of which one cannot become the other.
func (o *object) kind() string {
	switch {
	case o.virtual():
		return "virtual table"
	case o.row.Name == sequenceTable: // ALTER TABLE neither renames it nor anything to it
		return sequenceTable
	}
	return o.row.Type
}

// sameText reports whether nothing of an object changed but where it is stored.
func sameText(a, b *object) bool {
	return a.row.Type == b.row.Type && a.row.Name == b.row.Name && a.row.Table == b.row.Table && a.row.SQL == b.row.SQL
}

// A schema is what sqlite_schema says.
type schema struct {
	objects map[int64]*object // by rowid
	trees   map[uint32]*tree  // by root page
}

// schemaTree is the b-tree of sqlite_schema itself, which no row names.
var schemaTree = &tree{root: sqlitefile.SchemaRoot, table: &cdc.Table{Name: "sqlite_schema"}}

func newSchema() *schema {
	return &schema{objects: make(map[int64]*object), trees: map[uint32]*tree{schemaTree.root: schemaTree}}
}

func (s *schema) add(o *object) error {
	if o.tree != nil {
		if other := s.trees[o.tree.root]; other != nil {
			return fmt.Errorf("%w: tables %q and %q share root page %d", errInconsistent, other.table.Name, o.row.Name, o.tree.root)
		}
		s.trees[o.tree.root] = o.tree
	}
	s.objects[o.row.Rowid] = o
	return nil
}

func (s *schema) remove(o *object) {
	delete(s.objects, o.row.Rowid)
	if o.tree != nil {
		delete(s.trees, o.tree.root)
	}
}

// roots returns the root pages of all tables, sqlite_schema first.
func (s *schema) roots() []uint32 { return slices.Sorted(maps.Keys(s.trees)) }

// readSchema reads all of sqlite_schema.
func readSchema(s *side, e sqlitefile.Encoding, l layouts) (*schema, error) {
	schema := newSchema()
	var buf []byte
	visit := func(p sqlitefile.Page, _ uint32) error {
		if p.Type() != sqlitefile.LeafTable {
			return nil
		}
		for i := range p.Cells() {
			c, err := p.Cell(i)
			if err != nil {
				return err
			}
			record, err := sqlitefile.Payload(buf, s.src, c, s.usable)
			if err != nil {
				return err
			}
			row, err := sqlitefile.ParseSchemaRow(c.Rowid, record, e)
			if err != nil {
				return onPage(p, err)
			}
			o, err := newObject(row, s, l)
			if err != nil {
				return onPage(p, err)
			}
			if err := schema.add(o); err != nil {
				return onPage(p, err)
			}
		}
		return nil
	}
	all := func(uint32, uint32) (bool, error) { return true, nil }
	w := treeWalk{side: s, visit: visit, below: all}
	if err := w.walk(sqlitefile.SchemaRoot, sqlitefile.Page{}, 1); err != nil {
		return nil, fmt.Errorf("sqlite_schema: %w", err)
	}
	return schema, nil
}

// compare reports a difference between two schemas.
func (s *schema) compare(other *schema) error {
	for rowid, o := range s.objects {
		p := other.objects[rowid]
		if p == nil || o.row != p.row {
			return fmt.Errorf("%w: sqlite_schema row %d (%s %s) is not as known", errInconsistent, rowid, o.row.Type, o.row.Name)
		}
		if o.tree != nil && (p.tree == nil || o.tree.root != p.tree.root || *o.tree.table != *p.tree.table) {
			return fmt.Errorf("%w: table %s is not as known", errInconsistent, o.row.Name)
		}
	}
	if len(s.objects) != len(other.objects) || len(s.trees) != len(other.trees) {
		return fmt.Errorf("%w: sqlite_schema has %d rows and %d tables, known are %d and %d", errInconsistent,
			len(s.objects), len(s.trees), len(other.objects), len(other.trees))
	}
	return nil
}

// newObject makes an object of a row; s is the state that the row is in.
func newObject(row sqlitefile.SchemaRow, s *side, l layouts) (*object, error) {
	if len(row.Name) >= len(reservedPrefix) && strings.EqualFold(row.Name[:len(reservedPrefix)], reservedPrefix) {
		return nil, fmt.Errorf("%w: source has %s %s: names beginning with %s are reserved; drop or rename it",
			errReservedName, row.Type, row.Name, reservedPrefix)
	}
	o := &object{row: row}
	switch row.Type {
	case typeIndex, typeView, typeTrigger:
		return o, nil
	case typeTable:
	default:
		return nil, fmt.Errorf("%w: sqlite_schema row %d is of no known type", errInconsistent, row.Rowid)
	}
	if !strings.EqualFold(row.Name, row.Table) { // which SQLite reads only as long as it need not
		return nil, fmt.Errorf("%w: sqlite_schema row %d: a table that is said to belong to another", errInconsistent, row.Rowid)
	}
	if row.Root == 0 {
		return o, nil
	}
	p, err := rootPage(s, row.Root)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", row.Name, err)
	}
	o.tree = &tree{root: row.Root, table: &cdc.Table{Name: row.Name}}
	if p.Type().Table() {
		return o, nil
	}
	layout, err := l.Describe(row.Name, row.SQL)
	if err != nil {
		return nil, fmt.Errorf("table %s is WITHOUT ROWID and its key cannot be told: %w", row.Name, err)
	}
	if !layout.WithoutRowid {
		return nil, fmt.Errorf("%w: table %s: root page %d is a %v page", errInconsistent, row.Name, row.Root, p.Type())
	}
	o.tree.table.WithoutRowid, o.tree.table.Key = true, layout.Key
	return o, nil
}

func rootPage(s *side, root uint32) (sqlitefile.Page, error) {
	if err := s.valid(root, sqlitefile.SchemaRoot); err != nil {
		return sqlitefile.Page{}, err
	}
	return s.page(root)
}

// A rowEdit is a change of one row of sqlite_schema; a nil side is no row.
type rowEdit struct{ old, new *object }

// schemaRows collects the changes of sqlite_schema.
type schemaRows struct {
	schema   *schema
	side     *side // the state after
	encoding sqlitefile.Encoding
	layouts  layouts
	edits    []rowEdit
}

func (s *schemaRows) change(c *cdc.Change) error {
	var e rowEdit
	if c.Op != cdc.OpInsert {
		if e.old = s.schema.objects[c.Rowid]; e.old == nil {
			return fmt.Errorf("%w: sqlite_schema had a row %d that is not known", errInconsistent, c.Rowid)
		}
	}
	if c.Op != cdc.OpDelete {
		row, err := sqlitefile.ParseSchemaRow(c.Rowid, c.New, s.encoding)
		if err != nil {
			return err
		}
		if e.new, err = newObject(row, s.side, s.layouts); err != nil {
			return err
		}
	}
	s.edits = append(s.edits, e)
	return nil
}

// pairEdits finds which object became which.
//
// A row keeps its rowid when ALTER TABLE renames the object, so the rowid goes
// first: matching by name or root page would take a table that was renamed to the
// name, or moved to the root page, of a dropped one for that one. But VACUUM
// numbers the rows anew: then every object is there with the name it had.
func pairEdits(edits []rowEdit, byName bool) []rowEdit {
	var pairs []rowEdit
	var gone, come []*object
	for _, e := range edits {
		if e.old != nil && e.new != nil && e.old.kind() == e.new.kind() && !byName {
			pairs = append(pairs, e)
			continue
		}
		if e.old != nil {
			gone = append(gone, e.old)
		}
		if e.new != nil {
			come = append(come, e.new)
		}
	}
	left := make(map[[2]string]*object, len(gone))
	for _, o := range gone {
		left[[2]string{o.kind(), o.row.Name}] = o
	}
	for _, o := range come {
		name := [2]string{o.kind(), o.row.Name}
		pairs = append(pairs, rowEdit{old: left[name], new: o})
		delete(left, name)
	}
	for _, o := range gone {
		if name := [2]string{o.kind(), o.row.Name}; left[name] == o {
			pairs = append(pairs, rowEdit{old: o})
		}
	}
	return pairs
}

// renumbered reports whether edits changed nothing but numbers. Two tables that
// swapped their names look like that too, but for their order, which VACUUM keeps.
// sqlite_sequence is left out: VACUUM moves it, and drops it when no table needs it.
func renumbered(edits []rowEdit) bool {
	var gone, come []*object
	for _, e := range edits {
		if e.old != nil && e.old.row.Name != sequenceTable {
			gone = append(gone, e.old)
		}
		if e.new != nil && e.new.row.Name != sequenceTable {
			come = append(come, e.new)
		}
	}
	if len(gone) != len(come) {
		return false
	}
	return sameObjects(gone, come) && slices.Equal(tableNames(gone), tableNames(come))
}

func sameObjects(a, b []*object) bool {
	count := make(map[cdc.SchemaObject]int, len(a))
	for _, o := range a {
		count[*o.public()]++
	}
	for _, o := range b {
		if count[*o.public()]--; count[*o.public()] < 0 {
			return false
		}
	}
	return true
}

// tableNames returns the names of the tables in the order of their rowids.
func tableNames(objects []*object) []string {
	var tables []*object
	for _, o := range objects {
		if o.tree != nil {
			tables = append(tables, o)
		}
	}
	slices.SortFunc(tables, func(x, y *object) int { return cmp.Compare(x.row.Rowid, y.row.Rowid) })
	names := make([]string, len(tables))
	for i, o := range tables {
		names[i] = o.row.Name
	}
	return names
}

// A treePair is a table before and after; a nil side is none. With both, rows
// that are equal are the same row.
type treePair struct{ old, new *tree }

// A schemaDiff is what a transaction did to the schema.
type schemaDiff struct {
	edits   []rowEdit // rows of sqlite_schema as they were written
	changes []cdc.SchemaChange
	trees   []treePair
	taken   map[*tree]bool // old trees that are in trees
}

// diffSchema decides for each object that was edited whether it was carried over.
// With byName the two states have no history in common, so that the rowids of
// sqlite_schema say nothing.
func diffSchema(s *schema, edits []rowEdit, l layouts, byName bool) *schemaDiff {
	d := &schemaDiff{edits: edits, taken: make(map[*tree]bool)}
	replaced := make(map[string]bool) // tables and views that are dropped, with or without a successor
	var owned []rowEdit               // indexes and triggers
	for _, p := range pairEdits(edits, byName || renumbered(edits)) {
		if p.old != nil && (p.old.row.Type == typeIndex || p.old.row.Type == typeTrigger) ||
			p.new != nil && (p.new.row.Type == typeIndex || p.new.row.Type == typeTrigger) {
			owned = append(owned, p)
			continue
		}
		carried := p.old != nil && p.new != nil && carries(p.old, p.new, l)
		if p.old != nil && !carried {
			replaced[p.old.row.Name] = true
		}
		d.object(p, carried)
	}
	for _, p := range append(owned, untouched(s, edits, replaced)...) {
		carried := p.old != nil && p.new != nil && !replaced[p.old.row.Table] &&
			(sameText(p.old, p.new) || p.old.row.Type == typeTrigger)
		d.object(p, carried)
	}
	return d
}

// untouched returns the indexes and triggers of replaced tables whose own rows in
// sqlite_schema were not edited: they go with the table and come back after it.
func untouched(s *schema, edits []rowEdit, replaced map[string]bool) []rowEdit {
	if len(replaced) == 0 {
		return nil
	}
	edited := make(map[*object]bool, len(edits))
	for _, e := range edits {
		edited[e.old] = true
	}
	var list []rowEdit
	for _, o := range s.objects {
		if (o.row.Type == typeIndex || o.row.Type == typeTrigger) && replaced[o.row.Table] && !edited[o] {
			list = append(list, rowEdit{old: o, new: o})
		}
	}
	return list
}

// carries reports whether the rows of old are rows of new as they are stored. In
// doubt they are not: the table is filled anew.
func carries(before, after *object, l layouts) bool {
	if sameText(before, after) || before.tree == nil {
		return true
	}
	if before.tree.table.WithoutRowid != after.tree.table.WithoutRowid {
		return false
	}
	a, err := l.Describe(before.row.Name, before.row.SQL)
	if err != nil {
		return false
	}
	b, err := l.Describe(after.row.Name, after.row.SQL)
	return err == nil && a.SameLayout(b)
}

// object adds what became of one object.
func (d *schemaDiff) object(p rowEdit, carried bool) {
	if carried {
		if !sameText(p.old, p.new) {
			d.changes = append(d.changes, cdc.SchemaChange{Old: p.old.public(), New: p.new.public()})
		}
		if p.new.tree != nil {
			d.pair(p.old.tree, p.new.tree)
		}
		return
	}
	if p.old != nil {
		d.drop(p.old)
	}
	if p.new != nil {
		d.create(p.new)
	}
}

func (d *schemaDiff) drop(o *object) {
	if o.row.Type != typeIndex || o.row.HasSQL { // an automatic index comes and goes with its table
		d.changes = append(d.changes, cdc.SchemaChange{Old: o.public()})
	}
	if o.tree != nil {
		d.pair(o.tree, nil)
	}
}

func (d *schemaDiff) create(o *object) {
	if o.row.Type != typeIndex || o.row.HasSQL {
		d.changes = append(d.changes, cdc.SchemaChange{New: o.public()})
	}
	if o.tree != nil {
		d.pair(nil, o.tree)
	}
}

// pair adds a table. One that keeps its name keeps its *cdc.Table.
func (d *schemaDiff) pair(before, after *tree) {
	if before != nil {
		d.taken[before] = true
		if after != nil && *before.table == *after.table {
			after.table = before.table
		}
	}
	d.trees = append(d.trees, treePair{before, after})
}

// apply makes s the schema after the transaction.
func (d *schemaDiff) apply(s *schema) error {
	for _, e := range d.edits {
		if e.old != nil {
			s.remove(e.old)
		}
	}
	for _, e := range d.edits {
		if e.new != nil {
			if err := s.add(e.new); err != nil {
				return err
			}
		}
	}
	return nil
}
