package sqlite

import (
	"errors"
	"fmt"
)

// A Scratch describes tables from their CREATE TABLE text alone, in an in-memory
// database of its own. Like a Conn it is for one goroutine at a time.
//
// It reads the text as SQLite reads it when it opens a file: names that begin with
// sqlite_ are fine, and so are functions and collations that this program does not
// know. It cannot describe text that SQLite itself would call a malformed schema,
// and reports Table.UnknownCollations only of automatic indexes.
type Scratch struct {
	c         *Conn
	constants map[string]*constants // by encoding
}

// NewScratch opens the in-memory database.
func NewScratch() (*Scratch, error) {
	c, err := open(memory, Options{})
	if err != nil {
		return nil, fmt.Errorf("sqlite: scratch: %w", err)
	}
	// One table whose schema row takes the text of each that is described.
	if err := c.Exec("CREATE TABLE scratch(a)"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Scratch{c, map[string]*constants{}}, nil
}

// Close frees the databases.
func (s *Scratch) Close() error {
	errs := []error{s.c.Close()}
	for _, k := range s.constants {
		errs = append(errs, k.c.Close())
	}
	return errors.Join(errs...)
}

// Describe returns the table that createSQL makes when it stands in a schema under
// name. It holds no data and has no explicit index.
func (s *Scratch) Describe(name, createSQL string) (Table, error) {
	if isVirtual(createSQL) {
		return Table{}, fmt.Errorf("sqlite: describe %q: %w", name, ErrNoTable)
	}
	if err := s.c.Exec("PRAGMA writable_schema=ON"); err != nil {
		return Table{}, err
	}
	err := s.c.Exec("UPDATE sqlite_schema SET type='table', name=?1, tbl_name=?1, sql=?2", name, createSQL)
	if err := errors.Join(err, s.c.ResetSchema()); err != nil {
		return Table{}, fmt.Errorf("sqlite: describe %q: %w", name, err)
	}
	t, err := s.c.Table(name)
	if err != nil {
		return Table{}, fmt.Errorf("sqlite: describe: %w", err)
	}
	return t, nil
}
