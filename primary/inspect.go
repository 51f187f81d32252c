package primary

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// An inspection proves the capture right while it runs: it builds the decoder's map
// anew from a frozen state and hashes rows of it, and compares both with what the
// transactions have led to.
//
// It costs a part of the time at most, whatever the size of the database: the next
// one waits inspectShare times as long as the last one took.
const (
	inspectShare = 20
	inspectFirst = time.Minute // the least time between two
	inspectWhole = 8 << 20     // bytes of the largest map that is inspected together with rows; a larger one takes turns with them
	inspectRoom  = 4 << 20     // bytes of the map built anew that are in memory
)

// A mapBelief is what the decoder believes of a state: of the map, the sums of its
// blocks. A copy would take as much memory again.
type mapBelief struct {
	head   sqlitefile.Header
	sums   []uint64
	schema *schema
}

func (d *decoder) belief() *mapBelief {
	return &mapBelief{
		head: d.head, sums: d.pages.sums(),
		schema: &schema{objects: maps.Clone(d.schema.objects), trees: maps.Clone(d.schema.trees)},
	}
}

// compare builds the map of a state in fresh and reports, as mismatch, how it differs
// from m. err says that the state cannot be read: that proves nothing against m.
func (m *mapBelief) compare(state sqlitefile.Pages, pageCount uint32, fresh *pageMap, l layouts) (mismatch, err error) {
	head, err := headerOf(state, pageCount)
	if err != nil {
		return nil, err
	}
	s := newSide(state, head, head.PageCount)
	schema, err := buildMap(fresh, &s, head.Encoding, l)
	if err := errors.Join(err, fresh.lost); err != nil {
		return nil, err
	}
	if head.PageCount != m.head.PageCount || head.Encoding != m.head.Encoding || head.PageSize != m.head.PageSize || head.Usable != m.head.Usable {
		return fmt.Errorf("database of %d pages, captured are %d", head.PageCount, m.head.PageCount), nil
	}
	mismatch = schema.compare(m.schema)
	for i, sum := range m.sums {
		if fresh.sum(i) != sum {
			first := uint32(i) * blockPages
			mismatch = errors.Join(mismatch, fmt.Errorf("what is known of pages %d to %d is not what they are", max(first, 1), min(first+blockPages-1, head.PageCount)))
		}
	}
	return mismatch, nil
}

// An inspection is the state and what is believed of it.
type inspection struct {
	belief *mapBelief
	job    *sumJob // the tables that have a hash
	sums   map[*summedTable]knownSum
	all    bool // every table has one
}

// A round is inspections until all that there is was inspected in one term: of a large
// database one takes a part.
type round struct {
	epoch  cdc.Epoch
	doubt  *doubt     // that stood when it began, in what may have become of the database file
	sound  *soundness // the snapshots that were complete when it began
	pages  bool       // the map is right
	tables map[*summedTable]bool
}

// goesOn reports whether what was proved so far is of the state at hand as well.
func (r *round) goesOn(epoch cdc.Epoch, standing *doubt) bool {
	return r != nil && r.epoch == epoch && r.doubt == standing
}

// add notes what an inspection has found right, and reports whether that is all.
func (r *round) add(in *inspection, pages bool) bool {
	r.pages = r.pages || pages
	whole := r.pages && in.all
	for _, task := range in.job.tables {
		r.tables[task.table] = r.tables[task.table] || task.done
		whole = whole && r.tables[task.table]
	}
	return whole
}

// beginInspection freezes the source. Tables from root page `from` on come first,
// because there may not be time for all.
func (c *capture) beginInspection(from uint32) (*inspection, error) {
	frozen, err := c.freeze()
	if err != nil {
		return nil, err
	}
	in := &inspection{belief: c.decoder.belief(), job: &sumJob{frozen: frozen}, sums: map[*summedTable]knownSum{}, all: c.sums.known == len(c.sums.tables)}
	for _, k := range frozen.sums {
		in.sums[k.table] = k
	}
	for _, o := range c.decoder.schema.objects {
		if o.tree == nil {
			continue
		}
		if t := c.sums.tables[o.row.Name]; t != nil && t.known {
			in.job.tables = append(in.job.tables, sumTask{table: t, face: t.face, root: o.tree.root})
		}
	}
	slices.SortFunc(in.job.tables, func(a, b sumTask) int { return cmp.Compare(a.root-from, b.root-from) })
	return in, nil
}

// A pacedPages reads pages at leisure.
type pacedPages struct {
	sqlitefile.Pages
	before func() error
}

func (p *pacedPages) Page(n uint32) ([]byte, error) {
	if err := p.before(); err != nil {
		return nil, err
	}
	return p.Pages.Page(n)
}

// inspect runs one inspection, unless nothing was captured since the last, which came to
// all tables, and the database file was not written to. Where only the latter is so, or no checkpoint has
// written to it, and the rows are not what they were, no SQLite did it, and the term ends
// in doubt.
func (s *summer) inspect(ctx context.Context) error {
	during, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var in *inspection
	var stamp fileStamp
	still := false // nothing was captured since the last
	err := s.p.ask(ctx, func(c *capture) (err error) {
		if stamp, err = c.sight(); err != nil {
			return err
		}
		at, standing := c.encoder.Position(), c.doubts.standing()
		still = at == s.inspected
		if still && stamp == s.stamp && standing == nil {
			return nil
		}
		if !s.round.goesOn(at.Epoch, standing) {
			s.round = &round{epoch: at.Epoch, doubt: standing, sound: c.complete(), tables: map[*summedTable]bool{}}
		}
		if in, err = c.beginInspection(s.from); in != nil {
			s.begin(cancel)
		}
		return err
	})
	if err != nil || in == nil {
		return err
	}
	frozen := in.job.frozen
	pages, rows, mismatch, err := s.readFrozen(during, in)
	if err != nil {
		return err
	}
	var sums []knownSum
	var content []sqlite.TableSum
	var unread error
	if rows {
		sums, content, unread = s.computed(in, stamp)
	}
	s.inspectedSome(pages && rows && unread == nil)
	if mismatch != nil { // noted before anything is done about it
		mismatch = fmt.Errorf("%w: the map of the pages was wrong: %w", errUndecodable, mismatch)
		err = s.p.doubts.raise(mismatch, s.sound())
	}
	wrong := s.verify(ctx, frozen.At, sums, content)
	switch {
	case mismatch != nil:
		return errors.Join(err, s.refuteMap(ctx, frozen.At, mismatch))
	case wrong > 0:
		return errors.Join(s.refuteRows(ctx, still), unread)
	case unread != nil:
		return unread
	case s.round.add(in, pages):
		s.prove()
	}
	return nil
}

// readFrozen reads the map, rows, or both, and lets go of the frozen state.
func (s *summer) readFrozen(ctx context.Context, in *inspection) (pages, rows bool, mismatch, err error) {
	pages, rows = true, true
	if int(in.belief.head.PageCount)*mapSize > s.whole { // a source in heavy use leaves little time for either
		pages, rows = !s.rows, s.rows
		s.rows = !s.rows
	}
	if pages {
		mismatch, err = s.inspectMap(ctx, in)
	}
	if rows && err == nil {
		err = s.compute(ctx, in.job)
	}
	err = errors.Join(err, in.job.frozen.Close())
	s.begin(nil)
	return pages, rows, mismatch, err
}

// inspectedSome counts an inspection. sound says that nothing of the source was unreadable.
func (s *summer) inspectedSome(sound bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Inspections++
	if sound {
		s.status.Damage = ""
	}
}

// prove ends a round: what was doubted is right, and so are the snapshots from before it.
func (s *summer) prove() {
	s.p.doubts.settle(s.round.doubt)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proved, s.round, s.status.Damage = *s.round.sound, nil, ""
}

// sound are the snapshots that were complete before all was proved right the last time.
func (s *summer) sound() *soundness {
	s.mu.Lock()
	defer s.mu.Unlock()
	proved := s.proved
	return &proved
}

func (s *summer) inspectMap(ctx context.Context, in *inspection) (mismatch, err error) {
	l, err := newLayouts()
	if err != nil {
		return nil, err
	}
	fresh := newPageMap(s.p.o.Dir, inspectRoom, s.p.o.Logger)
	defer func() { err = errors.Join(err, l.Close(), fresh.close()) }()
	f := in.job.frozen
	r := s.rests()
	mismatch, err = in.belief.compare(&pacedPages{newScan(f.view), func() error {
		s.count()
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return r.rest(ctx)
	}}, f.view.pages, &fresh, l)
	if mismatch != nil { // of which sums tell no page
		err = errors.Join(err, s.p.ask(ctx, func(c *capture) error {
			if now := c.decoder.pages.compare(&fresh); now != nil {
				mismatch = fmt.Errorf("%w; by now %w", mismatch, now)
			}
			return nil
		}))
	}
	return mismatch, err
}

// computed gives the hashes that were computed, in pairs with those believed, and notes
// where the next inspection begins. unread says why a table that once had a hash has rows
// that cannot be read now. stamp is of the database file when the inspection began.
func (s *summer) computed(in *inspection, stamp fileStamp) (sums []knownSum, content []sqlite.TableSum, unread error) {
	at := in.job.frozen.At
	if s.from == 0 {
		s.pass, s.passStamp = at, stamp
	}
	s.from = 0
	for _, task := range in.job.tables {
		if task.done {
			sums = append(sums, in.sums[task.table])
			content = append(content, sqlite.TableSum{Name: task.face.name, Sum: task.base})
		} else if task.err == nil && s.from == 0 {
			s.from = task.root
		}
		if task.err != nil && unread == nil {
			unread = fmt.Errorf("table %s: %w", task.face.name, task.err)
		}
	}
	if s.from == 0 && s.pass == at { // one state, all of it
		s.inspected, s.stamp = at, s.passStamp
	}
	return sums, content, unread
}

// refuteRows ends the term if the rows were changed past SQLite: that is no defect of
// ours. still says that nothing was captured since they were right.
func (s *summer) refuteRows(ctx context.Context, still bool) error {
	seen := s.round.doubt
	s.round = nil
	switch {
	case seen != nil: // when it was done
		return s.endTerm(ctx, errPastSQLite, seen.Sound, func(*capture) {})
	case still:
		return s.endTerm(ctx, errPastSQLite, s.sound(), func(*capture) {})
	}
	return nil
}

// refuteMap ends the term: the next one compares the last state with the source as
// a whole, and so finds what may have been missed.
func (s *summer) refuteMap(ctx context.Context, at cdc.Position, mismatch error) error {
	s.p.o.Logger.Error("the map of the database's pages is wrong: changes may have been missed; please report this", "lsn", at.LSN, "err", mismatch)
	s.mu.Lock()
	s.status.MapMismatches++
	s.mu.Unlock()
	s.round = nil
	return s.endTerm(ctx, mismatch, s.sound(), func(c *capture) { c.reportMap(mismatch) })
}

// endTerm makes because the end of the term that is running, after report. It is a doubt
// at once, in all but the snapshots in sound: a term may take its time to hear of it.
func (s *summer) endTerm(ctx context.Context, because error, sound *soundness, report func(*capture)) error {
	err := s.p.doubts.raise(because, sound)
	end := func(c *capture) error {
		report(c)
		if s.p.doubts.standing() == nil { // another term has dealt with it
			return nil
		}
		return because
	}
	if asked := s.p.ask(ctx, end); asked != because {
		err = errors.Join(err, asked)
	}
	return err
}
