package primary

import (
	"context"
	"fmt"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A tableSummer sums the rows of a table by a walk over its b-tree. It holds a row of
// keepBuffer bytes at most in memory, and a bit for each page.
type tableSummer struct {
	side
	hasher *rowHasher
	page   func() error // called before each page, unless nil: to pace, to count
	buf    []byte
	total  cdc.RowSum
}

// sum returns the sum of the table at root.
func (s *tableSummer) sum(ctx context.Context, root uint32) (cdc.RowSum, error) {
	s.total = cdc.RowSum{}
	err := sqlitefile.Walk(s.src, root, s.usable, s.count, func(p sqlitefile.Page, _ uint32) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.page != nil {
			if err := s.page(); err != nil {
				return err
			}
		}
		return s.addPage(p)
	})
	return s.total, err
}

func (s *tableSummer) addPage(p sqlitefile.Page) error {
	if !holdsRows(p.Type()) {
		return nil
	}
	for i := range p.Cells() {
		cell, err := p.Cell(i)
		if err != nil {
			return err
		}
		row, err := s.row(cell)
		if err != nil {
			return fmt.Errorf("page %d: %w", p.Number(), err)
		}
		s.total = s.total.Add(row)
	}
	return nil
}

// row hashes one row. A large one is read piece by piece.
func (s *tableSummer) row(cell sqlitefile.Cell) (cdc.RowSum, error) {
	if cell.PayloadSize > keepBuffer {
		from := sqlitefile.NewPayloadReader(s.src, cell, s.usable)
		return s.hasher.hashFrom(cell.Rowid, cdc.Image{Size: int(cell.PayloadSize), From: from}, streamWindow)
	}
	record, err := sqlitefile.Payload(s.buf, s.src, cell, s.usable)
	if err != nil {
		return cdc.RowSum{}, err
	}
	if cell.Overflow != 0 {
		s.buf = record
	}
	return s.hasher.hash(cell.Rowid, record)
}
