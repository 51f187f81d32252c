package primary

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A place in the order of operations inside a transaction, over all tables. A
// consumer relies on it: old rows leave before the schema changes under them, and
// new rows come after it; a dropped index is gone before rows collide in it, and a
// new one is built once, over all rows; sqlite_sequence comes last, because
// applying the rows moves it.
const (
	slotTables = iota
	slotDeletes
	slotDropTriggers
	slotDropViews
	slotDropIndexes
	slotDropVirtual
	slotDropTables
	slotEdits
	slotCreateTables
	slotCreateVirtual
	slotCreateViews
	slotCreateTriggers
	slotValues // user_version and application_id
	slotUpdates
	slotInserts
	slotCreateIndexes
	slotSequence // and the next two: deletes, updates, inserts
	slots        = slotSequence + 3
)

// A sorter brings the changes of one transaction into order, encoded. It holds
// limit bytes in memory and the rest in unlinked temporary files. One sorter
// serves one transaction after another: reset comes between them.
type sorter struct {
	dir   string
	limit int64 // bytes in memory

	buckets [slots]bucket
	held    int64 // bytes in memory, of all buckets
	onDisk  int64
	most    int64 // bytes that may be collected; 0: any number

	tables  map[*cdc.Table]int // ordinal of each table declared so far
	last    *cdc.Table         // most changes are of the table of the one before
	ordinal int                // of last
	op      []byte
}

// newSorter returns a sorter that makes its files in dir.
func newSorter(dir string, limit int64) *sorter {
	return &sorter{dir: dir, limit: limit, tables: make(map[*cdc.Table]int)}
}

// change takes one change, as a changeSink.
func (s *sorter) change(c *cdc.Change) error {
	slot, err := s.place(c)
	if err != nil {
		return err
	}
	return s.put(slot, c, s.ordinal)
}

// large implements largeSink: the row goes to disk as it is read.
func (s *sorter) large(c *cdc.Change, old, new *cursor) error {
	slot, err := s.place(c)
	if err != nil {
		return err
	}
	return s.putLarge(&s.buckets[slot], c, s.ordinal, old.image(), new.image())
}

// place gives the slot of c, and makes its table the last one.
func (s *sorter) place(c *cdc.Change) (slot int, err error) {
	if slot, err = slotOf(c); err != nil {
		return 0, err
	}
	if s.most > 0 && s.held+s.onDisk > s.most {
		return 0, fmt.Errorf("decode: the changes come to more than %d bytes", s.most)
	}
	if c.Table != nil && c.Table != s.last {
		err = s.declare(c.Table)
	}
	return slot, err
}

// declare makes t the last table, and gives it an ordinal if it has none yet.
func (s *sorter) declare(t *cdc.Table) error {
	n, ok := s.tables[t]
	if !ok {
		if n = len(s.tables); n == cdc.MaxTables {
			return fmt.Errorf("decode: a transaction changes rows of more than %d tables", cdc.MaxTables)
		}
		s.tables[t] = n
		if err := s.put(slotTables, &cdc.Change{Op: cdc.OpTable, Table: t}, 0); err != nil {
			return err
		}
	}
	s.last, s.ordinal = t, n
	return nil
}

func (s *sorter) put(slot int, c *cdc.Change, ordinal int) error {
	if int64(len(c.Old)+len(c.New)) > s.limit/largeShare {
		image := func(b []byte) cdc.Image { return cdc.Image{Size: len(b), From: bytes.NewReader(b)} }
		return s.putLarge(&s.buckets[slot], c, ordinal, image(c.Old), image(c.New))
	}
	s.op = cdc.AppendOp(s.op[:0], c, ordinal)
	b := &s.buckets[slot]
	before := len(b.buf)
	b.buf = cdc.AppendFramed(b.buf, s.op)
	s.held += int64(len(b.buf) - before)
	if s.held <= s.limit {
		return nil
	}
	return s.spill(b)
}

// largeShare is the part of the memory from which on a change passes it by.
const largeShare = 4

// putLarge writes a change of a large row to disk without a copy in memory.
func (s *sorter) putLarge(b *bucket, c *cdc.Change, ordinal int, old, new cdc.Image) error {
	before := b.size
	n, err := b.spill(s.dir)
	if err == nil {
		err = b.write(cdc.OpReader(c, ordinal, old, new))
	}
	if err != nil {
		return s.full(err)
	}
	s.held -= n
	s.onDisk += b.size - before
	return nil
}

func (s *sorter) full(err error) error {
	return fmt.Errorf("decode: spill a large transaction to %s: %w", s.dir, err)
}

// spill writes the biggest buckets to disk, until half of the memory is free for
// what comes. current keeps its buffer.
func (s *sorter) spill(current *bucket) error {
	for s.held > s.limit/2 {
		biggest := &s.buckets[0]
		for i := range s.buckets {
			if len(s.buckets[i].buf) > len(biggest.buf) {
				biggest = &s.buckets[i]
			}
		}
		n, err := biggest.spill(s.dir)
		if err != nil {
			return s.full(err)
		}
		s.held -= n
		s.onDisk += n
		if biggest != current {
			biggest.buf = nil
		}
	}
	return nil
}

// An opSink takes the encoded operations of a transaction. *cdc.Encoder is one.
type opSink interface {
	Op(op []byte) error // op is valid during the call
	// OpFrom takes an operation of size bytes that r gives.
	OpFrom(r io.Reader, size int) error
}

// drain passes on every operation, in order.
func (s *sorter) drain(to opSink) error {
	for i := range s.buckets {
		var err error
		if s.op, err = s.buckets[i].each(s.op, to); err != nil {
			return err
		}
	}
	return nil
}

// spilled returns the bytes that the transaction takes on disk.
func (s *sorter) spilled() int64 { return s.onDisk }

// empty reports whether no change was taken.
func (s *sorter) empty() bool { return s.held == 0 && s.onDisk == 0 }

// reset forgets the transaction and frees its space on disk.
func (s *sorter) reset() {
	keep := 2 * s.limit // bytes of buffers, so that the next transaction need not allocate
	for i := range s.buckets {
		s.buckets[i].reset(keep)
		keep -= int64(cap(s.buckets[i].buf))
	}
	clear(s.tables)
	s.held, s.onDisk, s.last, s.ordinal = 0, 0, nil, 0
	if cap(s.op) > keepBuffer {
		s.op = nil
	}
}

// close frees what the sorter holds on disk.
func (s *sorter) close() error {
	s.reset()
	return nil
}

func slotOf(c *cdc.Change) (int, error) {
	switch c.Op {
	case cdc.OpSchema:
		return slotOfSchema(c.Schema)
	case cdc.OpUserVersion, cdc.OpApplicationID:
		return slotValues, nil
	}
	slot, inSequence := slotDeletes, slotSequence
	switch c.Op {
	case cdc.OpDelete:
	case cdc.OpUpdate:
		slot, inSequence = slotUpdates, slotSequence+1
	case cdc.OpInsert:
		slot, inSequence = slotInserts, slotSequence+2
	default:
		return 0, fmt.Errorf("decode: %v has no place in a transaction", c.Op)
	}
	if c.Table.Name == sequenceTable {
		return inSequence, nil
	}
	return slot, nil
}

// sequenceTable holds the counters of AUTOINCREMENT; SQLite writes the name so.
const sequenceTable = "sqlite_sequence"

func slotOfSchema(c *cdc.SchemaChange) (int, error) {
	o, drops := c.New, false
	if o == nil {
		o, drops = c.Old, true
	}
	if o == nil {
		return 0, fmt.Errorf("decode: a schema change without an object")
	}
	pick := func(drop, create int) (int, error) {
		switch {
		case drops:
			return drop, nil
		case c.Old != nil:
			return slotEdits, nil
		}
		return create, nil
	}
	switch {
	case o.Virtual:
		return pick(slotDropVirtual, slotCreateVirtual)
	case o.Type == typeTable:
		return pick(slotDropTables, slotCreateTables)
	case o.Type == typeIndex:
		return pick(slotDropIndexes, slotCreateIndexes)
	case o.Type == typeView:
		return pick(slotDropViews, slotCreateViews)
	case o.Type == typeTrigger:
		return pick(slotDropTriggers, slotCreateTriggers)
	}
	return 0, fmt.Errorf("decode: schema object %s is of type %q", o.Name, strings.ToValidUTF8(o.Type, "?"))
}

// sortChanges gives a fixed order to changes, which may come from a map.
func sortChanges(changes []cdc.SchemaChange) []cdc.SchemaChange {
	slices.SortStableFunc(changes, func(x, y cdc.SchemaChange) int {
		a, b := cmp.Or(x.Old, x.New), cmp.Or(y.Old, y.New)
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	// A name must be free before another object takes it, which only a circle of
	// renames makes impossible.
	holder := make(map[string]int)
	for i, c := range changes {
		if c.Old != nil && c.New != nil && c.Old.Name != c.New.Name {
			holder[c.Old.Name] = i
		}
	}
	sorted, done := make([]cdc.SchemaChange, 0, len(changes)), make([]bool, len(changes))
	var chain []int
	for i := range changes {
		for chain = chain[:0]; !done[i]; i = holder[changes[i].New.Name] {
			chain, done[i] = append(chain, i), true
			if changes[i].Old == nil || changes[i].New == nil {
				break
			}
			if _, held := holder[changes[i].New.Name]; !held {
				break
			}
		}
		for _, j := range slices.Backward(chain) {
			sorted = append(sorted, changes[j])
		}
	}
	return sorted
}
