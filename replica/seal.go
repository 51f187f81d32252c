package replica

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// A seal is what the file says of itself, so that a start finds what a stray program
// did while nobody looked. A hash of the schema is written in each transaction that
// changes it. The row-set hashes of the tables are written when the replica stops, and
// count for the LSN that they are of: after a crash they do not.

// errSealed means that the schema is not the one that was last written.
var errSealed = fmt.Errorf("%w: its schema has changed while the replica did not run", errStray)

// broken stands for the hash in a file that is known to be wrong. The LSN behind it is that
// of the oldest snapshot that can mend it, where an older one did not help.
const broken = "broken"

func brokenAt(min cdc.LSN) string { return fmt.Sprintf("%s %d", broken, min) }

// A brokenSeal says that a file was known to be wrong when the replica was stopped.
type brokenSeal struct{ min cdc.LSN } // of the snapshot; 0: any

func (e *brokenSeal) Error() string {
	if e.min > 0 {
		return fmt.Sprintf("replica: the file was known to differ from the source when the replica was stopped; no snapshot below LSN %d helps", e.min)
	}
	return errSealed.Error() + ", or it was stopped before it could be mended"
}

func (e *brokenSeal) Unwrap() error { return errSealed } // so that the file is mended before it is followed

// parseBroken gives nil for the hash of a schema.
func parseBroken(seal string) *brokenSeal {
	rest, ok := strings.CutPrefix(seal, broken)
	if !ok {
		return nil
	}
	min, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64) // without a number: 0
	return &brokenSeal{cdc.LSN(min)}
}

// sealSchema notes the schema as it is in the open transaction, unless SQLite's own
// count of schema changes is still the known one, and returns that.
func sealSchema(c *sqlite.Conn, known int64) (int64, error) {
	now, err := c.QueryInt("PRAGMA main.schema_version")
	if err != nil || now == known {
		return now, err
	}
	sum, err := schemaSum(c)
	if err == nil {
		err = writeSeal(c, sum)
	}
	return now, err
}

// unsealed is no count of schema changes: SQLite's has 32 bits.
const unsealed = -1 << 40

func schemaSum(c *sqlite.Conn) (string, error) {
	sum, err := c.SumSchema(context.Background())
	return fmt.Sprintf("%016x%016x", sum[0], sum[1]), err
}

func writeSeal(c *sqlite.Conn, sum string) error {
	err := c.Exec("INSERT OR REPLACE INTO main._replicator_schema(id, sum) VALUES(1,?)", sum)
	if err != nil {
		return fmt.Errorf("replica: seal: %w", err)
	}
	return nil
}

// readSeal gives the hash that was written last, "" in a file of a version of this
// program that wrote none.
func readSeal(c *sqlite.Conn) (sum string, err error) {
	n, err := c.QueryInt("SELECT count(*) FROM main.sqlite_schema WHERE type='table' AND name='_replicator_schema'")
	if err != nil || n == 0 {
		return "", err
	}
	err = c.Query("SELECT sum FROM main._replicator_schema WHERE id=1", nil, func(r sqlite.Row) error {
		sum = r.Text(0)
		return nil
	})
	return sum, err
}

// unseal compares the file with what it says of itself. The error is errSealed when
// its schema differs; rows that differ are the auditor's to find.
func (a *applier) unseal(ctx context.Context) error {
	c := a.guard.conn
	said, err := readSeal(c)
	if err != nil {
		return err
	}
	now, err := schemaSum(c)
	was := parseBroken(said)
	switch {
	case err != nil:
		return err
	case was != nil:
		return was
	case said != "" && said != now:
		return errSealed
	case said != "":
		a.cookie, err = c.QueryInt("PRAGMA main.schema_version")
		return errors.Join(err, a.w.sums.believe(c, a.mark.LSN))
	}
	if err := a.guard.lock(ctx); err != nil {
		return err
	}
	err = createTables(c)
	if err == nil {
		a.cookie, err = sealSchema(c, unsealed)
	}
	if err == nil {
		err = a.guard.commit()
	}
	return errors.Join(err, a.guard.rollback())
}

// seal writes what the next start compares the file with: wrong, unless it is "", in place
// of the hash of the schema. A file to which somebody has just written is marked, too.
func (a *applier) seal(ctx context.Context, wrong string) error {
	err := a.guard.lock(ctx)
	if errors.Is(err, errStray) {
		if wrong == "" {
			wrong = broken
		}
		err = a.guard.lock(ctx)
	}
	switch {
	case err != nil:
	case wrong != "":
		err = writeSeal(a.guard.conn, wrong)
	default:
		err = a.w.sums.write(a.guard.conn, a.mark.LSN)
	}
	if err == nil {
		err = a.guard.commit()
	}
	return errors.Join(err, a.guard.rollback())
}

// dropSums forgets the hashes in the file.
func dropSums(c *sqlite.Conn) error {
	if err := c.Exec("DELETE FROM main._replicator_sums"); err != nil {
		return fmt.Errorf("replica: seal: %w", err)
	}
	return nil
}

// write writes the hashes that are known, in place of those in the file.
func (s *rowSums) write(c *sqlite.Conn, at cdc.LSN) error {
	err := dropSums(c)
	if s == nil || err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.byName {
		if err == nil && e.known {
			sum := e.sum().Bytes()
			err = c.Exec("INSERT INTO main._replicator_sums(tbl, lsn, sum) VALUES(?,?,?)", name, uint64(at), sum[:])
		}
	}
	if err != nil {
		return fmt.Errorf("replica: seal: %w", err)
	}
	return nil
}

// believe takes the hashes that were written when the file was last closed at an LSN:
// the auditor compares the tables with them.
func (s *rowSums) believe(c *sqlite.Conn, at cdc.LSN) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.Query("SELECT tbl, sum FROM main._replicator_sums WHERE lsn=?", []any{uint64(at)}, func(r sqlite.Row) error {
		var sum [16]byte
		if e := s.byName[r.Text(0)]; e != nil && copy(sum[:], r.Blob(1)) == len(sum) {
			e.claim = hashClaim{sum: cdc.RowSumOf(sum), lsn: at, own: true}
		}
		return nil
	})
}
