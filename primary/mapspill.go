package primary

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/zeebo/xxh3"
)

// A mapSpill is where blocks of a pageMap are that have no room in memory. Where
// there is no room for them on the disk either, they stay in memory.
type mapSpill struct {
	open func(bytes int64) (blockFile, error) // makes the file; bytes are what it may come to
	room int                                  // blocks that stay in memory
	file blockFile                            // nil until it is needed
	full error                                // why nothing more is written
	log  *slog.Logger
}

// A blockFile holds blocks, each at its number times its size.
type blockFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// inDir gives files without a name in dir.
func inDir(dir string) func(int64) (blockFile, error) {
	return func(bytes int64) (blockFile, error) {
		if err := roomFor(dir, bytes); err != nil {
			return nil, err
		}
		return unnamed(dir, "pages-*.spill")
	}
}

func offsetOf(i int) int64 { return int64(i) * int64(len(mapBlock{})) }

// room gives memory for one more block, of any content.
func (m *pageMap) room() *mapBlock {
	if s := m.spill; s != nil && m.held >= s.room && s.full == nil {
		if b := m.evict(); b != nil {
			return b
		}
	}
	m.held++
	return new(mapBlock)
}

// evict takes the memory of a block that was not used for a while; nil: of none.
func (m *pageMap) evict() *mapBlock {
	for {
		if m.hand++; m.hand >= len(m.blocks) {
			m.hand = 0
		}
		r := &m.blocks[m.hand]
		switch {
		case r.block == nil:
			continue
		case r.used:
			r.used = false
			continue
		case !r.stored && m.sum(m.hand) != emptySum:
			if err := m.write(m.hand, r.block); err != nil {
				m.spill.full = err
				m.spill.log.Warn("the map of the database's pages stays in memory", "pages", m.count, "err", err)
				return nil
			}
			r.stored = true
		}
		b := r.block
		r.block = nil
		return b
	}
}

func (m *pageMap) write(i int, b *mapBlock) (err error) {
	if s := m.spill; s.file == nil {
		if s.file, err = s.open(offsetOf(len(m.blocks))); err != nil {
			s.file = nil
			return err
		}
	}
	_, err = m.spill.file.WriteAt(b[:], offsetOf(i))
	return err
}

// fetch brings a block into memory. What it cannot read is lost, and the map with it.
func (m *pageMap) fetch(i int) {
	b := m.room()
	if err := m.read(i, b); err != nil {
		if m.held--; m.lost == nil {
			m.lost = fmt.Errorf("page map: %w", err)
		}
		return
	}
	m.blocks[i].block = b
}

// read reads a block from the file, unless it is not what was written there.
func (m *pageMap) read(i int, b *mapBlock) error {
	if _, err := m.spill.file.ReadAt(b[:], offsetOf(i)); err != nil {
		return fmt.Errorf("read block %d back: %w", i, err)
	}
	if xxh3.Hash(b[:]) != m.blocks[i].sum {
		return fmt.Errorf("block %d is not as it was written", i)
	}
	return nil
}

// close releases the file.
func (m *pageMap) close() error {
	if m.spill == nil || m.spill.file == nil {
		return nil
	}
	err := m.spill.file.Close()
	m.spill.file = nil
	return err
}
