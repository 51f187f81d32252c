package primary

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// Errors of the decoder. After one of them the decoder stands where it stood
// before the transaction.
var (
	// errInconsistent: the pages do not fit together, or not with the map. The
	// caller falls back to a load, or to a comparison of all rows.
	errInconsistent = errors.New("decode: inconsistent")
	// errHeaderChanged: page size, usable size or text encoding is another one.
	// Rows cannot be compared across that; a new snapshot is needed.
	errHeaderChanged = errors.New("decode: page size or text encoding changed")
)

// A decoder turns the pages that a transaction wrote into the changes of rows and
// schema that it made. It compares the trees of all tables before and after, but
// looks only where something was written: cost grows with what changed.
//
// Between transactions it keeps a map that leads from a page to its table. It
// never parses a page of an index. Not safe for concurrent use.
type decoder struct {
	layouts layouts
	log     *slog.Logger

	head   sqlitefile.Header // completed, see headerOf
	loaded bool
	// unrelated: the next transaction leads to a state that did not come from the
	// one before it, see resync.
	unrelated bool
	pages     pageMap
	schema    *schema

	dirt      *dirt
	updates   mapUpdates
	rows      rowDiffer
	pairs     []treePair
	fallbacks int64                 // tables that were compared whole after an inconsistency
	doubts    func(treePair, error) // told of each of them; nil: nobody
}

func newDecoder(l layouts, log *slog.Logger) *decoder {
	d := &decoder{layouts: l, log: log, dirt: newDirt()}
	d.updates.least = minUpdates
	d.rows.keyed.maxPending, d.rows.keyed.maxPairs = maxPending, maxPairs
	d.rows.planner = newPlanner(d.dirt, &d.pages, &d.updates)
	return d
}

// close releases the layouts.
func (d *decoder) close() error { return errors.Join(d.layouts.Close(), d.pages.close()) }

// header returns the database header as of the last transaction.
func (d *decoder) header() sqlitefile.Header { return d.head }

// load takes a state of the database as the one before the next transaction.
func (d *decoder) load(state sqlitefile.Pages, pageCount uint32) error {
	d.loaded = false
	head, err := headerOf(state, pageCount)
	if err != nil {
		return inconsistent(err)
	}
	s := newSide(state, head, head.PageCount)
	schema, err := buildMap(&d.pages, &s, head.Encoding, d.layouts)
	if err := d.pages.lost; err != nil {
		return err
	}
	if err != nil {
		return inconsistent(err)
	}
	d.head, d.schema, d.loaded = head, schema, true
	return nil
}

// recall is load where the map is there already: that of state, whose header is head.
func (d *decoder) recall(state sqlitefile.Pages, head sqlitefile.Header) error {
	d.loaded = false
	s := newSide(state, head, head.PageCount)
	schema, err := readSchema(&s, head.Encoding, d.layouts)
	if err != nil {
		return inconsistent(err)
	}
	if err := d.pages.fits(schema); err != nil {
		return err
	}
	d.head, d.schema, d.loaded = head, schema, true
	return nil
}

// check builds the map from state, the one after the last transaction, and
// compares it with the map that the transactions have led to.
func (d *decoder) check(state sqlitefile.Pages, pageCount uint32) error {
	head, err := headerOf(state, pageCount)
	if err != nil {
		return inconsistent(err)
	}
	var fresh pageMap
	s := newSide(state, head, head.PageCount)
	schema, err := buildMap(&fresh, &s, head.Encoding, d.layouts)
	if err != nil {
		return inconsistent(err)
	}
	if head.PageCount != d.head.PageCount || head.Encoding != d.head.Encoding || head.PageSize != d.head.PageSize || head.Usable != d.head.Usable {
		return fmt.Errorf("%w: database of %d pages, decoded to %d", errInconsistent, head.PageCount, d.head.PageCount)
	}
	if err := schema.compare(d.schema); err != nil {
		return err
	}
	return d.pages.compare(&fresh)
}

// buildMap fills m and reads the schema.
func buildMap(m *pageMap, s *side, e sqlitefile.Encoding, l layouts) (*schema, error) {
	b := newMapBuilder(m, s)
	if err := b.add(sqlitefile.SchemaRoot); err != nil {
		return nil, fmt.Errorf("sqlite_schema: %w", err)
	}
	schema, err := readSchema(s, e, l)
	if err != nil {
		return nil, err
	}
	for _, root := range schema.roots()[1:] {
		if err := b.add(root); err != nil {
			return nil, fmt.Errorf("table %s: %w", schema.trees[root].table.Name, err)
		}
	}
	return schema, nil
}

func readHeader(state sqlitefile.Pages) (sqlitefile.Header, error) {
	b, err := state.Page(1)
	if err != nil {
		return sqlitefile.Header{}, fmt.Errorf("page 1: %w", err)
	}
	h, err := sqlitefile.ParseHeader(b)
	if err != nil {
		err = fmt.Errorf("page 1: %w", err)
	}
	return h, err
}

// headerOf reads the header of a state that is said, by a commit frame or the size of its
// file, to have pageCount pages, and completes its PageCount. SQLite refers to none above
// the number in the header. That may be less: where the file was longer than its database
// (SQLITE_FCNTL_CHUNK_SIZE makes it so), commit frames count all of it.
func headerOf(state sqlitefile.Pages, pageCount uint32) (sqlitefile.Header, error) {
	h, err := readHeader(state)
	if err == nil && h.PageCount > pageCount {
		err = fmt.Errorf("%w: a database of %d pages, of %d by its header on page 1", errInconsistent, pageCount, h.PageCount)
	}
	if h.PageCount == 0 {
		h.PageCount = pageCount
	}
	return h, err
}

// inconsistent marks errors that the bytes of a database cause.
func inconsistent(err error) error {
	if errors.Is(err, sqlitefile.ErrCorrupt) && !errors.Is(err, errInconsistent) {
		return fmt.Errorf("%w: %w", errInconsistent, err)
	}
	return err
}

// transaction reports to out what changed from old to next, two states of the
// database. written are the pages that the transaction wrote, each once: it may
// name pages whose content is the same, but must miss none that changed.
// pageCount is what headerOf is told of next.
//
// The order in which changes are reported is fixed by the pages alone, but it is
// no order to apply them in. After an error out has seen a part of them.
func (d *decoder) transaction(old, next sqlitefile.Pages, written []uint32, pageCount uint32, out changeSink) error {
	err := d.tryTransaction(old, next, written, pageCount, out)
	if lost := d.pages.lost; lost != nil { // whatever came of it
		d.loaded = false
		return lost
	}
	return err
}

func (d *decoder) tryTransaction(old, next sqlitefile.Pages, written []uint32, pageCount uint32, out changeSink) error {
	if !d.loaded {
		return fmt.Errorf("%w: no state was loaded", errInconsistent)
	}
	defer d.rows.release()
	head := d.head
	if slices.Contains(written, 1) || pageCount != d.head.PageCount {
		var err error
		if head, err = d.nextHeader(next, pageCount); err != nil {
			return inconsistent(err)
		}
	}
	d.updates.begin(max(d.head.PageCount, head.PageCount))
	d.rows.old, d.rows.new = newSide(old, d.head, d.head.PageCount), newSide(next, head, head.PageCount)
	if err := d.dirt.collect(&d.pages, written, head.PageCount); err != nil {
		return err
	}
	for _, t := range d.dirt.order {
		if d.schema.trees[t.root] == nil {
			return fmt.Errorf("%w: page %d is mapped as the root of no table", errInconsistent, t.root)
		}
	}
	schema, err := d.decode(head, out)
	if err != nil {
		return inconsistent(err)
	}
	return inconsistent(d.commit(schema, head))
}

func (d *decoder) nextHeader(next sqlitefile.Pages, pageCount uint32) (sqlitefile.Header, error) {
	head, err := headerOf(next, pageCount)
	if err != nil {
		return head, err
	}
	if head.PageSize != d.head.PageSize || head.Usable != d.head.Usable || head.Encoding != d.head.Encoding {
		return head, fmt.Errorf("%w: pages of %d bytes, %d usable, %v; before: %d, %d, %v", errHeaderChanged,
			head.PageSize, head.Usable, head.Encoding, d.head.PageSize, d.head.Usable, d.head.Encoding)
	}
	return head, nil
}

// decode reports all changes, and returns those of the schema if there are any.
func (d *decoder) decode(head sqlitefile.Header, out changeSink) (*schemaDiff, error) {
	schema, err := d.decodeSchema(out)
	if err != nil {
		return nil, fmt.Errorf("sqlite_schema: %w", err)
	}
	// user_version and application_id live in the header alone: no row shows them.
	if head.UserVersion != d.head.UserVersion {
		if err := out.change(&cdc.Change{Op: cdc.OpUserVersion, Value: head.UserVersion}); err != nil {
			return nil, err
		}
	}
	if head.ApplicationID != d.head.ApplicationID {
		if err := out.change(&cdc.Change{Op: cdc.OpApplicationID, Value: head.ApplicationID}); err != nil {
			return nil, err
		}
	}
	for _, p := range d.treePairs(schema) {
		if err := d.compare(p, out); err != nil {
			return nil, fmt.Errorf("table %s: %w", cmp.Or(p.new, p.old).table.Name, err)
		}
	}
	if err := d.rows.clearChains(); err != nil {
		return nil, err
	}
	d.updates.sweep(&d.pages, &d.dirt.chains)
	return schema, d.updates.check(&d.pages, d.rows.new.count)
}

// decodeSchema reports the changes of the schema. It returns nil if there are none.
func (d *decoder) decodeSchema(out changeSink) (*schemaDiff, error) {
	if d.dirt.byRoot[sqlitefile.SchemaRoot] == nil {
		return nil, nil
	}
	rows := schemaRows{schema: d.schema, side: &d.rows.new, encoding: d.head.Encoding, layouts: d.layouts}
	if err := d.compare(treePair{schemaTree, schemaTree}, &rows); err != nil || len(rows.edits) == 0 {
		return nil, err
	}
	schema := diffSchema(d.schema, rows.edits, d.layouts, d.unrelated)
	schema.changes = sortChanges(schema.changes)
	for i := range schema.changes {
		if err := out.change(&cdc.Change{Op: cdc.OpSchema, Schema: &schema.changes[i]}); err != nil {
			return nil, err
		}
	}
	return schema, nil
}

// treePairs returns the tables to compare, sorted by root page.
func (d *decoder) treePairs(schema *schemaDiff) []treePair {
	d.pairs = d.pairs[:0]
	for _, t := range d.dirt.order {
		tree := d.schema.trees[t.root]
		if t.root != sqlitefile.SchemaRoot && (schema == nil || !schema.taken[tree]) {
			d.pairs = append(d.pairs, treePair{tree, tree})
		}
	}
	if schema == nil {
		return d.pairs // in the order of dirt
	}
	d.pairs = append(d.pairs, schema.trees...)
	root := func(t *tree) uint32 {
		if t == nil {
			return 0
		}
		return t.root
	}
	slices.SortFunc(d.pairs, func(x, y treePair) int {
		return cmp.Or(cmp.Compare(root(x.new), root(y.new)), cmp.Compare(root(x.old), root(y.old)))
	})
	return d.pairs
}

// compare reports the changes of one table.
func (d *decoder) compare(p treePair, out changeSink) error {
	if p.new == nil {
		return d.drop(p.old, out)
	}
	var oldRoot uint32
	var from *cdc.Table
	var dirty *dirtyTree
	if p.old != nil {
		oldRoot, from = p.old.root, p.old.table
		dirty = d.dirt.byRoot[oldRoot]
	}
	if oldRoot == p.new.root && dirty == nil {
		return nil // only its row in sqlite_schema changed
	}
	plan, err := d.plan(oldRoot, p.new.root, dirty)
	if err := inconsistent(err); errors.Is(err, errInconsistent) {
		d.fallbacks++
		d.log.Warn("decode: comparing a whole table", "table", p.new.table.Name, "err", err)
		if d.doubts != nil {
			d.doubts(p, err)
		}
		if plan, err = d.rows.walk(oldRoot, p.new.root, true); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return d.rows.diff(plan, from, p.new.table, out)
}

// walkShare is the part of a database that is read to forget a dropped table.
// Reading a page takes some hundred times longer than passing by it in the map.
const walkShare = 256

// drop forgets the pages of a dropped table. A big one is not read for that: the
// map is searched for its pages.
func (d *decoder) drop(t *tree, out changeSink) error {
	plan, err := d.rows.walkDropped(t.root, int(d.head.PageCount/walkShare)+1)
	if errors.Is(err, errBudget) {
		d.updates.dropped = append(d.updates.dropped, t.root)
		return nil
	}
	if err != nil {
		return err
	}
	return d.rows.diff(plan, t.table, nil, out)
}

func (d *decoder) plan(oldRoot, newRoot uint32, dirty *dirtyTree) (plan, error) {
	if oldRoot == newRoot {
		if p, ok, err := d.rows.inPlace(dirty); ok || err != nil {
			return p, err
		}
	}
	return d.rows.walk(oldRoot, newRoot, false)
}

// commit makes the state after the transaction the one before the next.
func (d *decoder) commit(schema *schemaDiff, head sqlitefile.Header) error {
	d.loaded = false
	if err := d.pages.lost; err != nil { // which a map that is built anew no longer tells
		return err
	}
	if schema != nil {
		if err := schema.apply(d.schema); err != nil {
			return err
		}
	}
	if d.updates.rebuild {
		b := newMapBuilder(&d.pages, &d.rows.new)
		for _, root := range d.schema.roots() {
			if err := b.add(root); err != nil {
				return err
			}
		}
	} else {
		d.updates.apply(&d.pages, head.PageCount)
	}
	d.head, d.loaded = head, true
	return nil
}
