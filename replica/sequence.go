package replica

import (
	"bytes"
	"fmt"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

const sequenceTable = "sqlite_sequence"

// A sequence keeps sqlite_sequence exactly as the source has it. SQLite itself
// writes there when a row enters an AUTOINCREMENT table, and not always as it did
// on the source: an update that arrives as delete and insert raises the number,
// and rows made in another order get other rowids. So the true content is kept
// in a temporary table, which rolls back with everything else; before a commit
// the truth is restored, the changes of the source are applied to it, and it is
// taken over. All of that only when something touched the table.
type sequence struct {
	net     map[int64]*sqlite.Change // by rowid: what the transactions in hand did together
	order   []int64                  // of the first change of each rowid
	touched bool                     // a row entered an AUTOINCREMENT table
}

// A missing sqlite_sequence reads as empty.
const sequenceSchema = `DROP TABLE IF EXISTS temp._replicator_sequence;
CREATE TEMP TABLE _replicator_sequence(id INTEGER PRIMARY KEY, name, seq)`

// load takes the file's present content as the truth.
func (s *sequence) load(c *sqlite.Conn) error {
	s.reset()
	err := c.Exec(sequenceSchema)
	if err == nil {
		err = s.learn(c)
	}
	if err != nil {
		return fmt.Errorf("replica: read sqlite_sequence: %w", err)
	}
	return nil
}

// reset forgets what the transactions in hand did.
func (s *sequence) reset() { s.net, s.order, s.touched = nil, nil, false }

// add notes a change of the source. Changes of one row become one.
func (s *sequence) add(c *cdc.Change) {
	if s.net == nil {
		s.net = make(map[int64]*sqlite.Change)
	}
	n := s.net[c.Rowid]
	if n == nil {
		n = &sqlite.Change{Rowid: c.Rowid, Old: bytes.Clone(c.Old)}
		s.net[c.Rowid] = n
		s.order = append(s.order, c.Rowid)
	}
	n.New = bytes.Clone(c.New)
}

// dropped notes that the source has dropped sqlite_sequence, as a VACUUM or a
// resync does, perhaps to make it anew: no row of it is true any more.
func (s *sequence) dropped(c *sqlite.Conn) error {
	s.net, s.order, s.touched = nil, nil, true
	return c.Exec("DELETE FROM temp._replicator_sequence")
}

// settle makes sqlite_sequence what the source has after the transactions in
// hand.
func (s *sequence) settle(c *sqlite.Conn, tables *tables) error {
	if !s.touched && len(s.order) == 0 {
		return nil
	}
	have, err := c.HasTable(sequenceTable)
	if err != nil || !have {
		s.reset()
		return err
	}
	if err := c.Exec(restoreSequence); err != nil {
		return fmt.Errorf("replica: restore sqlite_sequence: %w", err)
	}
	if len(s.order) > 0 {
		if err := s.apply(c, tables); err != nil {
			return err
		}
		if err := s.learn(c); err != nil {
			return fmt.Errorf("replica: read sqlite_sequence: %w", err)
		}
	}
	s.reset()
	return nil
}

const restoreSequence = `DELETE FROM main.sqlite_sequence WHERE NOT EXISTS (SELECT 1 FROM temp._replicator_sequence t
  WHERE t.id=sqlite_sequence.rowid AND t.name IS sqlite_sequence.name AND t.seq IS sqlite_sequence.seq);
INSERT INTO main.sqlite_sequence(rowid, name, seq) SELECT id, name, seq FROM temp._replicator_sequence t
  WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_sequence s WHERE s.rowid=t.id)`

// learn takes the content of the file as the truth.
func (s *sequence) learn(c *sqlite.Conn) error {
	have, err := c.HasTable(sequenceTable)
	if err != nil {
		return err
	}
	sql := "DELETE FROM temp._replicator_sequence"
	if have {
		sql += ";INSERT INTO temp._replicator_sequence SELECT rowid, name, seq FROM main.sqlite_sequence"
	}
	return c.Exec(sql)
}

func (s *sequence) apply(c *sqlite.Conn, tables *tables) error {
	t, err := tables.named(sequenceTable)
	if err != nil {
		return err
	}
	var batch []sqlite.Change
	for _, rowid := range s.order {
		n := s.net[rowid]
		n.Table = t.Target
		switch {
		case n.Old != nil && n.New != nil:
			n.Op = sqlite.Update
		case n.Old != nil:
			n.Op = sqlite.Delete
		case n.New != nil:
			n.Op = sqlite.Insert
		default: // came and went
			continue
		}
		batch = append(batch, *n)
	}
	if _, err := c.Apply(batch); err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	return nil
}
