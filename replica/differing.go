package replica

import (
	"context"
	"math"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A RowSource hashes the rows of one table by rowid, as sqlite.RunReader.Read says.
type RowSource interface {
	Read(ctx context.Context, first, last int64, size, most int) ([]sqlite.RowRun, error)
}

// A RowFault says in what a row of the replica differs.
type RowFault string

// The faults.
const (
	RowDiffers RowFault = "differs"
	RowMissing RowFault = "missing" // the source has it
	RowExtra   RowFault = "extra"   // the source does not have it
)

// A DifferingRow is a row of the replica that is not the source's.
type DifferingRow struct {
	Rowid int64
	Fault RowFault
}

// DifferingRows are the rows of a table that differ, by rowid.
type DifferingRows struct {
	First []DifferingRow // MaxNamed at most
	Count int            // of all of them
	More  bool           // counting stopped at MaxCounted
}

// What a search for differing rows is content with.
const (
	MaxNamed   = 20
	MaxCounted = 10_000
)

// Sizes of what is asked for at once.
const (
	runRows  = 256  // rows of a run: what is read again where one of them differs
	runsRead = 256  // runs
	rowsRead = 1024 // rows, one by one
)

// FindDiffering compares a table here and at the source. It compares runs of rows, and
// those that differ row by row; it holds no more than one answer of each side. progress
// learns how many rows of the source are done.
func FindDiffering(ctx context.Context, here, there RowSource, progress func(rows uint64)) (DifferingRows, error) {
	f := finder{here: here, there: there}
	done := uint64(0)
	for first := int64(math.MinInt64); ; {
		runs, err := there.Read(ctx, first, math.MaxInt64, runRows, runsRead)
		if err != nil {
			return f.found, err
		}
		for _, run := range runs {
			if err := f.compare(ctx, first, run); err != nil || f.found.More || run.Upto == math.MaxInt64 {
				return f.found, err
			}
			done += run.Rows
			progress(done)
			first = run.Upto + 1
		}
	}
}

// A finder is one search.
type finder struct {
	here, there RowSource
	found       DifferingRows
}

// compare compares the rows from the rowid first on with a run of the source.
func (f *finder) compare(ctx context.Context, first int64, run sqlite.RowRun) error {
	mine, err := f.here.Read(ctx, first, run.Upto, int(run.Rows)+1, runsRead)
	if err != nil {
		return err
	}
	var sum sqlite.RowRun
	for _, m := range mine {
		sum.Upto, sum.Rows = m.Upto, sum.Rows+m.Rows
		sum.Sum[0] += m.Sum[0]
		sum.Sum[1] += m.Sum[1]
	}
	if sum == run {
		return nil
	}
	return f.merge(ctx, rowCursor{of: f.here, next: first, last: run.Upto}, rowCursor{of: f.there, next: first, last: run.Upto})
}

// merge compares rows one by one, in the order of their rowids.
func (f *finder) merge(ctx context.Context, here, there rowCursor) error {
	for !f.found.More {
		if err := here.fill(ctx); err != nil {
			return err
		}
		if err := there.fill(ctx); err != nil {
			return err
		}
		h, t := here.row(), there.row()
		switch {
		case h == nil && t == nil:
			return nil
		case t == nil || h != nil && h.Upto < t.Upto:
			f.note(h.Upto, RowExtra)
			here.take()
		case h == nil || t.Upto < h.Upto:
			f.note(t.Upto, RowMissing)
			there.take()
		default:
			if h.Sum != t.Sum {
				f.note(h.Upto, RowDiffers)
			}
			here.take()
			there.take()
		}
	}
	return nil
}

func (f *finder) note(rowid int64, fault RowFault) {
	if f.found.Count == MaxCounted {
		f.found.More = true
		return
	}
	f.found.Count++
	if len(f.found.First) < MaxNamed {
		f.found.First = append(f.found.First, DifferingRow{rowid, fault})
	}
}

// A rowCursor reads rows one by one.
type rowCursor struct {
	of         RowSource
	next, last int64
	rows       []sqlite.RowRun // that were read and not taken
	ended      bool            // there are no more to read
}

// fill reads rows if none is at hand.
func (c *rowCursor) fill(ctx context.Context) (err error) {
	if len(c.rows) > 0 || c.ended {
		return nil
	}
	if c.rows, err = c.of.Read(ctx, c.next, c.last, 1, rowsRead); err != nil {
		return err
	}
	end := c.rows[len(c.rows)-1]
	if c.ended = end.Upto == c.last; !c.ended {
		c.next = end.Upto + 1
	}
	if end.Rows == 0 { // no row, but the end of the range
		c.rows = c.rows[:len(c.rows)-1]
	}
	return nil
}

// row is the row at hand, nil at the end.
func (c *rowCursor) row() *sqlite.RowRun {
	if len(c.rows) == 0 {
		return nil
	}
	return &c.rows[0]
}

func (c *rowCursor) take() { c.rows = c.rows[1:] }
