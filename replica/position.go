package replica

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// reserved is how the names of this program's own tables begin. The source has
// none, and no change touches one.
const reserved = "_replicator_"

func isReserved(name string) bool {
	return len(name) >= len(reserved) && strings.EqualFold(name[:len(reserved)], reserved)
}

// A Mark is a position with what the boundary record there says of the history
// up to it.
type Mark struct {
	cdc.Position
	Transactions uint64    `json:"transactions"` // total since the lineage began
	Bytes        uint64    `json:"bytes"`        // total of operations, before compression
	CapturedAt   time.Time `json:"captured_at"`  // by the primary's clock
}

func markOf(at cdc.Position, b *cdc.Boundary) Mark {
	return Mark{Position: at, Transactions: b.Transactions, Bytes: b.Bytes, CapturedAt: b.CapturedAt}
}

// errMoved means that the row of the position is not the one last written: a
// stray writer, or a second daemon.
var errMoved = errors.New("replica: the position in the file is not the one that was last written there")

// errUnreadable means that the row of the position is there and says nothing.
var errUnreadable = errors.New("replica: the position in the file cannot be read")

// createTables makes this program's own tables. left_off lists indexes of the
// source that the replica cannot maintain; schema and sums are the file's seal.
func createTables(c *sqlite.Conn) error {
	err := c.Exec(`CREATE TABLE IF NOT EXISTS _replicator_position(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  lineage TEXT NOT NULL, epoch INTEGER NOT NULL, lsn INTEGER NOT NULL, hash TEXT NOT NULL,
  transactions INTEGER NOT NULL, bytes INTEGER NOT NULL, captured_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS _replicator_left_off(
  name TEXT PRIMARY KEY, tbl TEXT NOT NULL, sql TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS _replicator_schema(id INTEGER PRIMARY KEY CHECK(id = 1), sum TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS _replicator_sums(tbl TEXT PRIMARY KEY, lsn INTEGER NOT NULL, sum BLOB NOT NULL)`)
	if err != nil {
		return fmt.Errorf("replica: create position table: %w", err)
	}
	return nil
}

// setPosition writes the position whatever stood there: of a file just restored
// or just made equal to a snapshot.
func setPosition(c *sqlite.Conn, to Mark, now time.Time) error {
	err := c.Exec(`INSERT OR REPLACE INTO main._replicator_position
(id, lineage, epoch, lsn, hash, transactions, bytes, captured_at, updated_at) VALUES(1,?,?,?,?,?,?,?,?)`,
		append(columns(to), stamp(now))...)
	if err != nil {
		return fmt.Errorf("replica: write position %s: %w", to.Position, err)
	}
	return nil
}

// advance moves the position from one mark to the next. It names the old one,
// so that no second writer goes unnoticed.
func advance(c *sqlite.Conn, from, to Mark, now time.Time) error {
	rows := 0
	args := append(columns(to), stamp(now), uint64(from.LSN), from.Hash.String())
	err := c.Query(`UPDATE main._replicator_position
SET lineage=?, epoch=?, lsn=?, hash=?, transactions=?, bytes=?, captured_at=?, updated_at=?
WHERE lsn=? AND hash=? RETURNING 1`, args, func(sqlite.Row) error { rows++; return nil })
	if err != nil {
		return fmt.Errorf("replica: write position %s: %w", to.Position, err)
	}
	if rows != 1 {
		return fmt.Errorf("%w: no row at %s", errMoved, from.Position)
	}
	return nil
}

func columns(m Mark) []any {
	return []any{
		m.Lineage.String(), uint64(m.Epoch), uint64(m.LSN), m.Hash.String(),
		m.Transactions, m.Bytes, stamp(m.CapturedAt),
	}
}

// stamp writes a time so that text order is time order.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// readPosition reads the position. found is false when the file is not a
// replica: it has no such table or no row in it.
func readPosition(c *sqlite.Conn) (m Mark, found bool, err error) {
	n, err := c.QueryInt("SELECT count(*) FROM main.sqlite_schema WHERE type='table' AND name='_replicator_position'")
	if err != nil || n == 0 {
		return Mark{}, false, err
	}
	err = c.Query(`SELECT lineage, epoch, lsn, hash, transactions, bytes, captured_at
FROM main._replicator_position WHERE id=1`, nil, func(r sqlite.Row) (err error) {
		found = true
		m, err = scanMark(r)
		return err
	})
	if err != nil {
		return Mark{}, false, fmt.Errorf("replica: read position: %w", err)
	}
	return m, found, nil
}

func scanMark(r sqlite.Row) (Mark, error) {
	m := Mark{Transactions: uint64(r.Int(4)), Bytes: uint64(r.Int(5))}
	m.Epoch, m.LSN = cdc.Epoch(r.Int(1)), cdc.LSN(r.Int(2))
	var err error
	m.CapturedAt, err = time.Parse(time.RFC3339Nano, r.Text(6))
	err = errors.Join(err, m.Lineage.UnmarshalText([]byte(r.Text(0))), m.Hash.UnmarshalText([]byte(r.Text(3))))
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return m, err
}
