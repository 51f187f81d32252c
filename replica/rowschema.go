package replica

import (
	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// touchSchema is touch for a schema change.
func (s *rowSums) touchSchema(c *cdc.SchemaChange, lsn cdc.LSN) {
	for _, o := range []*cdc.SchemaObject{c.Old, c.New} {
		if o != nil && o.Type == "table" {
			s.touch(o.Name, lsn)
		}
	}
}

// A sumEdit follows the row-set hashes through one run of schema changes.
type sumEdit struct {
	sums   *rowSums
	drops  []*cdc.SchemaObject
	edits  []editedTable
	create []*cdc.SchemaObject
}

// An editedTable is a table whose name or text changes; its rows stay.
type editedTable struct {
	sum    *rowSum
	change *cdc.SchemaChange
	before sqlite.Table
	err    error // why before is not known
}

// edit notes how the tables are before the schema changes in run; done is called
// after them. Changes to their rows must have been added.
func (s *rowSums) edit(c *sqlite.Conn, run []*cdc.SchemaChange) (*sumEdit, error) {
	if s == nil {
		return nil, nil
	}
	drops, edits, creates := sortChanges(run)
	e := &sumEdit{sums: s, drops: drops, create: creates}
	for _, ch := range edits {
		if ch.Old.Type != "table" {
			continue
		}
		if sum := s.lookup(ch.Old.Name); sum != nil {
			before, err := c.Table(ch.Old.Name)
			if err != nil && !declined(c, err) {
				return nil, err
			}
			e.edits = append(e.edits, editedTable{sum, ch, before, err})
		}
	}
	return e, nil
}

// done makes the changes. A dropped table forgets its hash, a renamed one keeps
// it, a new one has that of no rows. One whose rows may now read otherwise is
// unknown; in doubt it is.
func (e *sumEdit) done(c *sqlite.Conn) error {
	if e == nil {
		return nil
	}
	p := &e.sums.pending
	for _, o := range e.drops {
		if o.Type == "table" {
			p.names[o.Name] = nil
		}
	}
	for _, t := range e.edits {
		if t.change.Old.Name != t.change.New.Name {
			p.names[t.change.Old.Name] = nil
		}
	}
	for _, t := range e.edits { // after all of those: names may be swapped
		if t.change.Old.Name != t.change.New.Name {
			p.names[t.change.New.Name] = t.sum
		}
		after, err := c.Table(t.change.New.Name)
		if err != nil && !declined(c, err) {
			return err
		}
		if t.err != nil || err != nil || !t.before.SameLayout(after) || t.before.SumsRowid() != after.SumsRowid() {
			p.unknown[t.sum] = true
		}
	}
	for _, o := range e.create {
		if o.Type != "table" || o.Virtual || o.Name == sequenceTable && e.sums.lookup(o.Name) != nil {
			continue
		}
		p.names[o.Name] = &rowSum{name: o.Name, known: true}
	}
	return nil
}
