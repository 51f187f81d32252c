package replica

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// errUnwritable is wrapped when the SQLite in this program cannot write a table
// of the source.
var errUnwritable = errors.New("replica: table that this program's SQLite cannot write")

// A target is a table made ready for batches.
type target struct {
	*sqlite.Target
	withoutRowid  bool
	autoincrement bool
	summing       bool // in tables.summing
}

// tables holds the targets of one connection under the present schema.
type tables struct {
	conn   *sqlite.Conn
	byName map[string]*target
	last   *cdc.Table // the change before was in this table
	target *target
	loans  []loan // to be given back before the commit

	sums    *rowSums
	summing []*target // whose rows may have changed since collectSums
}

func newTables(c *sqlite.Conn) *tables { return &tables{conn: c, byName: make(map[string]*target)} }

// reset forgets the targets, since the schema has changed.
func (t *tables) reset() {
	t.collectSums()
	clear(t.byName)
	t.last, t.target = nil, nil
	t.conn.ResetTargets()
}

// of finds the target of a change and checks that its rows have the same kind
// of key.
func (t *tables) of(table *cdc.Table) (*target, error) {
	if table == t.last {
		return t.target, nil
	}
	to, err := t.named(table.Name)
	if err != nil {
		return nil, err
	}
	if to.withoutRowid != table.WithoutRowid {
		return nil, fmt.Errorf("replica: table %q: WITHOUT ROWID is %t here and %t on the source: %w",
			table.Name, to.withoutRowid, table.WithoutRowid, sqlite.ErrDiverged)
	}
	t.last, t.target = table, to
	return to, nil
}

func (t *tables) named(name string) (*target, error) {
	to := t.byName[name]
	if to == nil {
		var err error
		if to, err = t.open(name); err != nil {
			return nil, fmt.Errorf("replica: table %q: %w", name, err)
		}
		t.byName[name] = to
	}
	if !to.summing && t.sums != nil {
		to.summing = true
		t.summing = append(t.summing, to)
	}
	return to, nil
}

// collectSums adds to the row-set hashes what the batches so far have changed. All
// changes must have been flushed.
func (t *tables) collectSums() {
	t.eachSum(func(table string, d cdc.RowSum) { t.sums.add(table, d) })
}

// forgetSums drops it, since it was rolled back.
func (t *tables) forgetSums() { t.eachSum(func(string, cdc.RowSum) {}) }

func (t *tables) eachSum(f func(table string, d cdc.RowSum)) {
	for _, to := range t.summing {
		to.summing = false
		f(to.Table().Name, to.TakeSum())
	}
	clear(t.summing)
	t.summing = t.summing[:0]
	t.last, t.target = nil, nil // the next change must pass by named
}

func (t *tables) open(name string) (*target, error) {
	shape, err := t.conn.Table(name)
	if errors.Is(err, sqlite.ErrNoTable) {
		return nil, fmt.Errorf("%w: %w", err, sqlite.ErrDiverged)
	}
	if err != nil {
		return nil, err
	}
	if len(shape.UnknownCollations) > 0 {
		return nil, fmt.Errorf("%w: its key uses the collation %s, which is not built in",
			errUnwritable, strings.Join(shape.UnknownCollations, ", "))
	}
	to, err := t.conn.Target(shape)
	if errors.Is(err, sqlite.ErrNoRowidName) {
		if shape, err = t.borrow(shape); err == nil {
			to, err = t.conn.Target(shape)
		}
	}
	if err != nil {
		return nil, err
	}
	return &target{
		Target: to, withoutRowid: shape.WithoutRowid,
		autoincrement: shape.RowidAlias >= 0 && strings.Contains(strings.ToUpper(shape.SQL), "AUTOINCREMENT"),
	}, nil
}
