package primary

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// Bounds of what the computation of bases costs others.
const (
	sumHold    = 10 * time.Second // summer.hold
	sumBackOff = 15 * time.Second // after a computation that failed
)

// errSumSpace ends a computation whose pin costs too much.
var errSumSpace = errors.New("the SQLite WAL grew past half of max_sqlite_wal while rows were hashed")

// A sumJob computes the bases of tables from one frozen state. Changes after that
// state are added up meanwhile, so that both together are the hash.
type sumJob struct {
	frozen *Frozen
	tables []sumTask // by root page
}

// A sumTask is one table of a job.
type sumTask struct {
	table *summedTable
	face  *face
	root  uint32
	base  cdc.RowSum
	done  bool
	err   error // the table cannot be hashed
}

// beginSums freezes the source for the tables that have no hash yet; nil when there
// are none.
func (c *capture) beginSums() (*sumJob, error) {
	if !slices.ContainsFunc(c.sums.missing(), func(t *summedTable) bool { return !t.unfit }) {
		return nil, nil
	}
	frozen, err := c.freeze()
	if err != nil {
		return nil, err
	}
	job := &sumJob{frozen: frozen}
	// Only now: the freeze has taken transactions.
	for _, o := range c.decoder.schema.objects {
		if o.tree == nil {
			continue
		}
		t := c.sums.tables[o.row.Name]
		if t == nil || t.known || t.unfit {
			continue
		}
		t.job, t.sum = job, cdc.RowSum{}
		job.tables = append(job.tables, sumTask{table: t, face: t.face, root: o.tree.root})
	}
	slices.SortFunc(job.tables, func(a, b sumTask) int { return cmp.Compare(a.root, b.root) })
	return job, nil
}

// missing are the tables without a hash.
func (s *rowSums) missing() (list []*summedTable) {
	if s.known == len(s.tables) {
		return nil
	}
	for _, t := range s.tables {
		if !t.known {
			list = append(list, t)
		}
	}
	return list
}

// finish takes the bases of a job. Tables that it did not come to have no hash as
// before; those that were dropped or changed meanwhile are not its any more.
func (s *rowSums) finish(job *sumJob) {
	for i := range job.tables {
		task := &job.tables[i]
		t := task.table
		if t.job != job || s.tables[t.face.name] != t {
			continue
		}
		t.job = nil
		switch {
		case task.err != nil:
			s.unfit(rowOf{t, t.face}, task.err)
		case task.done:
			t.sum, t.known = t.sum.Add(task.base), true
			s.known++
		}
	}
	s.want()
}

// refute takes away the hash of a table that an audit found wrong, so that it is
// computed anew.
func (s *rowSums) refute(k knownSum) {
	if t := k.table; t.known && s.tables[t.face.name] == t {
		s.unknown(t)
		s.want()
	}
}

// A SumStatus tells how far the row-set hashes are.
type SumStatus struct {
	Tables int `json:"tables"`
	Known  int `json:"known"` // tables whose hash is known
	// Damage tells of pages of the source that make no sense.
	Damage string `json:"damage,omitempty"`
	// Pages are the pages that the computation or inspection under way has read.
	Pages uint64 `json:"pages,omitempty"`
	// Inspections counts comparisons of what the capture believes with the database;
	// the mismatches that they and audits found are defects of the capture.
	Inspections   uint64 `json:"inspections"`
	Mismatches    uint64 `json:"mismatches"`     // tables whose hash was not that of their rows
	MapMismatches uint64 `json:"map_mismatches"` // times that the page map was wrong
}

// A summer computes the bases of the row-set hashes in the background, and inspects
// what the capture believes.
type summer struct {
	p *Pipeline

	inspected cdc.Position  // as of which the rows of all tables were inspected last; Run's own
	stamp     fileStamp     // of the database file when that inspection began; Run's own
	whole     int           // bytes of the largest map that is inspected together with rows
	pass      cdc.Position  // where the inspections began that come to all tables in turn; Run's own
	passStamp fileStamp     // of the database file then; Run's own
	hold      time.Duration // after which a job releases its pin, when a table is done
	from      uint32        // root page of the table with which the next inspection begins; Run's own
	rows      bool          // the next inspection of a large database is of rows, and not of the map; Run's own

	round *round // Run's own; nil: none is under way

	mu     sync.Mutex
	proved soundness               // the snapshots that were complete before the last whole round
	cancel context.CancelCauseFunc // of what is under way
	began  time.Time               // when that did
	took   time.Duration           // by what ended since lasted was called
	status SumStatus               // Tables and Known are the capture's
}

// Run computes bases whenever one is wanted, and inspects from time to time.
func (s *summer) Run(ctx context.Context, wanted <-chan struct{}) error {
	inspect := time.NewTimer(inspectFirst)
	defer inspect.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-inspect.C:
			if err := s.inspect(ctx); err != nil && ctx.Err() == nil {
				s.uninspected(err)
			}
			inspect.Reset(max(inspectFirst, inspectShare*s.lasted()))
			continue
		case <-wanted:
		}
		for failed := true; failed; {
			err := s.once(ctx)
			pause := s.lasted() // without a pin, so that the SQLite WAL can start over
			if failed = err != nil; failed && ctx.Err() == nil {
				s.p.o.Logger.Info("row-set hashes are computed later", "err", err)
				pause = sumBackOff
			}
			if err := sleep(ctx, pause); err != nil {
				return err
			}
		}
	}
}

// uninspected notes why an inspection came to no end: a source that makes no sense is
// an error of the database.
func (s *summer) uninspected(err error) {
	if !errors.Is(inconsistent(err), errInconsistent) {
		s.p.o.Logger.Info("the capture is inspected later", "err", err)
		return
	}
	err = fmt.Errorf("the source is damaged, replicas may differ; run PRAGMA integrity_check: %w", err)
	s.p.o.Logger.Error("the capture cannot be inspected", "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Damage = err.Error()
}

// once runs one job: until all tables are done, or the pin was held for long
// enough.
func (s *summer) once(ctx context.Context) error {
	during, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var job *sumJob
	err := s.p.ask(ctx, func(c *capture) (err error) {
		if job, err = c.beginSums(); job != nil {
			s.begin(cancel)
		}
		return err
	})
	if err != nil || job == nil {
		return err
	}
	err = errors.Join(s.compute(during, job), job.frozen.Close())
	s.begin(nil)
	// Also of a job that was interrupted: some tables may be done.
	return errors.Join(err, s.p.ask(ctx, func(c *capture) error {
		c.sums.finish(job)
		return nil
	}))
}

// compute sums up the tables of a job, one after another.
func (s *summer) compute(ctx context.Context, job *sumJob) (err error) {
	scratch, err := sqlite.NewScratch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Close()) }()
	f := job.frozen
	began := s.p.o.Clock()
	rest := s.rests()
	for i := range job.tables {
		task := &job.tables[i]
		if i > 0 && s.p.o.Clock().Sub(began) > s.hold {
			return nil
		}
		hasher, err := hasherFor(scratch, task.face.name, task.face.sql, f.Header.Encoding)
		if err != nil {
			task.err = err
			continue
		}
		walk := tableSummer{side: newSide(newScan(f.view), f.Header, f.view.pages), hasher: hasher}
		walk.page = func() error {
			s.count()
			return rest.rest(ctx)
		}
		if task.base, err = walk.sum(ctx, task.root); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			task.err = err
			continue
		}
		task.done = true
	}
	return nil
}

// begin notes what interrupt shall cancel; nil: nothing.
func (s *summer) begin(cancel context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel, s.status.Pages = cancel, 0
	if now := s.p.o.Clock(); cancel != nil {
		s.began = now
	} else {
		s.took = now.Sub(s.began)
	}
}

// lasted is how long what ended since the last call took, from its frozen state on. To
// wait for a term, which may be for hours, costs nobody anything, and asks for no rest.
func (s *summer) lasted() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.took = 0 }()
	return s.took
}

// interrupt ends the job under way, if there is one.
func (s *summer) interrupt(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel(why)
	}
}

// reading reports whether a job may hold a pin.
func (s *summer) reading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cancel != nil
}

func (s *summer) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Pages++
}

// state completes what the capture knows.
func (s *summer) state(of SumStatus) SumStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.Tables, out.Known, out.Damage = of.Tables, of.Known, cmp.Or(of.Damage, out.Damage)
	return out
}

// verify compares the hashes as of a frozen state with the content of its tables.
// A difference is a defect of the capture: it is said loudly, counted, and the hash
// computed anew, so that replicas that were led wrong find out. It returns how many
// were wrong.
func (s *summer) verify(ctx context.Context, at cdc.Position, sums []knownSum, content []sqlite.TableSum) int {
	byName := make(map[string]cdc.RowSum, len(content))
	for _, t := range content {
		byName[t.Name] = t.Sum
	}
	var wrong []knownSum
	var facts []sumFacts
	for _, k := range sums {
		if got, ok := byName[k.name]; !ok || got != k.sum {
			wrong = append(wrong, k)
			facts = append(facts, sumFacts{Table: k.name, Have: k.sum.String(), Want: got.String()})
			s.p.o.Logger.Error("the captured changes of a table do not add up to its rows: replicas may differ; "+
				"please report this", "table", k.name, "lsn", at.LSN, "have", k.sum, "want", got)
		}
	}
	if len(wrong) == 0 {
		return 0
	}
	err := s.p.ask(ctx, func(c *capture) error {
		for _, k := range wrong {
			c.sums.refute(k)
		}
		c.reportSums(at, facts)
		return c.encoder.Flush()
	})
	if err != nil {
		s.p.o.Logger.Warn("wrong row-set hashes stay until the next audit", "err", err)
	}
	s.mu.Lock()
	s.status.Mismatches += uint64(len(wrong))
	s.mu.Unlock()
	s.p.changed.notify()
	return len(wrong)
}
