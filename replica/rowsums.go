package replica

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// ErrRowSum is wrapped by a Divergence that no single change has shown: the rows of
// a table, as their hash tells, are not those of the source.
var ErrRowSum = errors.New("the rows of the table are not those of the source: a program or a disk has changed one, or a change was missed")

// rowSums keeps the row-set hash of every table of the file (FORMAT.md of package
// cdc) and compares it with what the primary says of its own. The hash of a table is
// that of all its rows at one moment, its base, plus what every change since did to
// it. A table that the replica creates has the base 0. The base of any other is
// unknown, and nothing is compared, until the auditor has read it.
//
// Changes and commits are for the goroutine that applies; the rest may be called
// concurrently. A nil *rowSums keeps nothing. Memory: some 200 bytes a table.
type rowSums struct {
	pending pendingSums          // of the open SQLite transaction
	claims  map[string]hashClaim // of the records in it, by table

	mu      sync.Mutex // guards what follows, which is as of the last commit
	byName  map[string]*rowSum
	queue   []*rowSum // for the auditor
	scanned uint64    // rows of the table that is being read
	audited time.Time // when the last pass over all tables ended; zero: none has
}

// A rowSum is the hash of one table, whatever its name.
type rowSum struct {
	name   string
	live   bool       // the file has it
	change cdc.RowSum // by every change since the entry was made
	base   cdc.RowSum // while known: base + change is the hash
	known  bool
	era    int       // how often the hash lost its meaning; a base of another era is none
	claim  hashClaim // of the table as it is
	proved cdc.LSN
}

func (e *rowSum) sum() cdc.RowSum { return e.base.Add(e.change) }

// A hashClaim is the hash that a record gives for a table, or the file itself.
type hashClaim struct {
	sum cdc.RowSum
	lsn cdc.LSN // 0: there is none
	own bool    // the file's
}

// pendingSums is what the open SQLite transaction does, until it is committed.
type pendingSums struct {
	names   map[string]*rowSum // tables made and renamed; nil: gone
	change  map[*rowSum]cdc.RowSum
	unknown map[*rowSum]bool // what their rows mean has changed
}

func newRowSums() *rowSums {
	return &rowSums{
		pending: pendingSums{names: make(map[string]*rowSum), change: make(map[*rowSum]cdc.RowSum), unknown: make(map[*rowSum]bool)},
		claims:  make(map[string]hashClaim),
	}
}

// load forgets everything: all tables of the file are unknown.
func (s *rowSums) load(c *sqlite.Conn) error {
	if s == nil {
		return nil
	}
	var all []*rowSum
	byName := make(map[string]*rowSum)
	err := c.Query("SELECT name FROM main.sqlite_schema WHERE type='table' AND rootpage>0 ORDER BY name", nil, func(r sqlite.Row) error {
		if e := (&rowSum{name: r.Text(0), live: true}); !isReserved(e.name) {
			byName[e.name] = e
			all = append(all, e)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("replica: list tables: %w", err)
	}
	s.forgetClaims()
	s.abandon()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName, s.queue, s.scanned, s.audited = byName, all, 0, time.Time{}
	return nil
}

// abandon forgets what the open SQLite transaction did.
func (s *rowSums) abandon() {
	if s == nil {
		return
	}
	clear(s.pending.names)
	clear(s.pending.change)
	clear(s.pending.unknown)
}

// save gives what restore goes back to when a savepoint is rolled back.
func (s *rowSums) save() pendingSums {
	if s == nil {
		return pendingSums{}
	}
	p := &s.pending
	return pendingSums{names: maps.Clone(p.names), change: maps.Clone(p.change), unknown: maps.Clone(p.unknown)}
}

func (s *rowSums) restore(p pendingSums) {
	if s != nil {
		s.pending = p
	}
}

// lookup finds a table by its name in the open SQLite transaction. Only the
// goroutine that applies writes byName, so that it reads without the lock.
func (s *rowSums) lookup(name string) *rowSum {
	if e, ok := s.pending.names[name]; ok {
		return e
	}
	return s.byName[name]
}

// add notes by how much a table's hash has changed.
func (s *rowSums) add(table string, d cdc.RowSum) {
	if e := s.lookup(table); e != nil && d != (cdc.RowSum{}) {
		s.pending.change[e] = s.pending.change[e].Add(d)
	}
}

// touch drops the claim of an earlier record about a table which the record lsn
// changes.
func (s *rowSums) touch(table string, lsn cdc.LSN) {
	if s == nil {
		return
	}
	if c, ok := s.claims[table]; ok && c.lsn < lsn {
		delete(s.claims, table)
	}
}

// hear takes the claims of a record whose operations have been carried out.
func (s *rowSums) hear(lsn cdc.LSN, tables []cdc.TableHash) {
	if s == nil {
		return
	}
	for _, t := range tables {
		s.claims[t.Table] = hashClaim{sum: cdc.RowSumOf(t.Sum), lsn: lsn}
	}
}

func (s *rowSums) forgetClaims() {
	if s != nil {
		clear(s.claims)
	}
}

// commit compares the hashes that the records claim with ours, which must be
// complete, and commits with write only when they are equal. No base is taken in
// between, so that whoever holds s.mu sees the file as s describes it.
func (s *rowSums) commit(write func() error) error {
	if s == nil {
		return write()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.compare(); d != nil {
		return d
	}
	if err := write(); err != nil {
		return err
	}
	s.merge()
	return nil
}

// compare returns the first claim that does not hold.
func (s *rowSums) compare() *Divergence {
	var worst *Divergence
	for name, c := range s.claims {
		e := s.lookup(name)
		if e == nil || !e.known || s.pending.unknown[e] || e.sum().Add(s.pending.change[e]) == c.sum {
			continue
		}
		if worst == nil || c.lsn < worst.LSN || c.lsn == worst.LSN && name < worst.Table {
			worst = &Divergence{LSN: c.lsn, Table: name, err: ErrRowSum}
		}
	}
	return worst
}

// merge makes what was pending the state of the file.
func (s *rowSums) merge() {
	s.rename()
	for e, d := range s.pending.change {
		if d != (cdc.RowSum{}) {
			e.change, e.claim = e.change.Add(d), hashClaim{}
		}
	}
	for e := range s.pending.unknown {
		e.known, e.claim, e.era = false, hashClaim{}, e.era+1
		if e.live {
			s.queue = append(s.queue, e)
		}
	}
	for name, c := range s.claims {
		e := s.byName[name]
		if e == nil {
			continue
		}
		e.claim = c
		if e.known { // compare has seen it
			e.proved = c.lsn
		}
	}
	clear(s.claims)
	s.abandon()
}

// rename gives the tables their names. Names may have been swapped.
func (s *rowSums) rename() {
	var left []*rowSum
	for name := range s.pending.names {
		if e := s.byName[name]; e != nil {
			left = append(left, e)
			delete(s.byName, name)
		}
	}
	for name, e := range s.pending.names {
		if e != nil {
			e.name, e.live = name, true
			s.byName[name] = e
		}
	}
	for _, e := range left {
		e.live = s.byName[e.name] == e
	}
}

// A Verification says for how many tables the replica knows that their rows are
// the source's.
type Verification struct {
	Tables   int `json:"tables"`
	Known    int `json:"known"`    // the row-set hash is known: read from all rows, and kept since
	Verified int `json:"verified"` // the primary has given a hash, and it was ours
	// OldestLSN is the smallest VerifiedLSN of the verified tables; 0: there are none.
	OldestLSN cdc.LSN `json:"oldest_verified_lsn"`
	// Scanned are the rows read of the table that is being read; 0: none is.
	Scanned   uint64     `json:"scanned_rows"`
	AuditedAt *time.Time `json:"audited_at"` // when all tables had been read; null: not yet
}

// A TableState is what the replica knows of the rows of one table.
type TableState struct {
	Table string `json:"table"`
	Known bool   `json:"known"` // its row-set hash
	// VerifiedLSN is where the hash that the primary gave was ours for the last time;
	// 0: not since the file was opened or seeded. What has not changed is as it was.
	VerifiedLSN cdc.LSN `json:"verified_lsn"`
}

func (s *rowSums) status() *Verification {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := Verification{Tables: len(s.byName), Scanned: s.scanned}
	for _, e := range s.byName {
		if e.known {
			v.Known++
		}
		if e.proved == 0 {
			continue
		}
		v.Verified++
		if v.OldestLSN == 0 || e.proved < v.OldestLSN {
			v.OldestLSN = e.proved
		}
	}
	if at := s.audited; !at.IsZero() {
		v.AuditedAt = &at
	}
	return &v
}

// proved reports whether a claim about the table has held since load.
func (s *rowSums) proved(table string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byName[table]
	return e != nil && e.proved > 0
}

func (s *rowSums) tables() []TableState {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]TableState, 0, len(s.byName))
	for _, e := range s.byName {
		all = append(all, TableState{Table: e.name, Known: e.known, VerifiedLSN: e.proved})
	}
	slices.SortFunc(all, func(a, b TableState) int { return strings.Compare(a.Table, b.Table) })
	return all
}

// Tables tells, sorted by name, how far the rows of each table are proved; nil
// without Apply.VerifyRows. It may be called concurrently.
func (r *Replica) Tables() []TableState { return r.sums.tables() }
