package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// cleanupTime bounds the removal of chunks after a failed Make, and stopTime after one
// that was cancelled, for whose end somebody waits; Retain finds what is left.
const (
	cleanupTime = 30 * time.Second
	stopTime    = 3 * time.Second
)

// Make copies src into the store as a new snapshot and returns its manifest.
// m carries what [Manifest] says; its other members are ignored. When Make fails no snapshot is listed, and the chunks it wrote are
// removed as far as the store allows.
//
// While it runs, [Retain] on the same store must not take it for a leftover: it
// grants an hour, and beyond that wants the id, which the first Progress tells.
func Make(ctx context.Context, store Store, src Source, m Manifest, o Options) (Manifest, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Manifest{}, err
	}
	k, err := newMaker(store, src, m, o)
	if err != nil {
		return Manifest{}, err
	}
	if err := k.run(ctx); err != nil {
		return Manifest{}, errors.Join(fmt.Errorf("snapshot: make %s: %w", k.m.ID, err), k.undo(ctx))
	}
	return k.m, nil
}

// A maker is one run of Make.
type maker struct {
	store    Store
	src      Source
	o        Options
	m        Manifest // while workers run only its chunks change, each by one of them
	encoding string   // of the text, once page 1 was read
	meter    *meter
}

func newMaker(store Store, src Source, m Manifest, o Options) (*maker, error) {
	now := o.Clock.Now().UTC()
	id, err := newID(m.Position.LSN, now)
	if err != nil {
		return nil, err
	}
	m.Format, m.ID, m.CreatedAt = Version, id, now
	m.PageSize, m.Pages = src.PageSize(), src.Pages()
	if !validPageSize(m.PageSize) {
		return nil, fmt.Errorf("snapshot: make: pages of %d bytes, want a power of two from 512 to 65536", m.PageSize)
	}
	m.Codec = o.Codec
	m.ChunkBytes = max(o.ChunkBytes/m.PageSize, 1) * m.PageSize
	n := chunkCount(m.Size(), m.ChunkBytes)
	if n > maxChunks {
		return nil, fmt.Errorf("snapshot: make: %d chunks of %d bytes, the most is %d; use larger chunks", n, m.ChunkBytes, maxChunks)
	}
	m.Chunks = make([]Chunk, n)
	for i := range m.Chunks {
		c := Chunk{Index: i + 1}
		c.Bytes = int(min(int64(m.ChunkBytes), m.Size()-m.offset(c)))
		m.Chunks[i] = c
	}
	return &maker{store: store, src: src, o: o, m: m, encoding: "UTF-8", meter: newMeter(o, m)}, nil
}

// A page run is a chunk on its way from the reader to a worker.
type pageRun struct {
	chunk *Chunk
	raw   []byte
}

// run moves every chunk, then writes the manifest.
//
// One goroutine reads ahead into a few buffers; each worker takes a full one,
// packs it into a buffer of its own, gives the first back and stores the
// second. So disk, processors and network are busy at once, and a slow store
// stops the reader instead of filling memory.
func (k *maker) run(ctx context.Context) error {
	buffer := k.o.Codec.maxStored(k.m.largestChunk())
	ahead := min(max(bufferBudget/buffer/2, 1), 3, len(k.m.Chunks))
	workers := min(k.o.workers((bufferBudget-ahead*buffer)/(buffer+k.o.Codec.scratch())), len(k.m.Chunks))
	packer, err := newPacker(k.o.Codec, max(workers, 1))
	if err != nil {
		return err
	}
	defer packer.close()

	free := make(chan []byte, ahead)
	for range ahead {
		free <- make([]byte, 0, buffer)
	}
	full := make(chan pageRun)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(full)
		return k.read(gctx, free, full)
	})
	for range workers {
		g.Go(func() error { return k.work(gctx, packer, make([]byte, 0, buffer), free, full) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return k.publish(ctx)
}

// read fills free buffers with the pages, in order.
func (k *maker) read(ctx context.Context, free <-chan []byte, full chan<- pageRun) error {
	for i := range k.m.Chunks {
		run := pageRun{chunk: &k.m.Chunks[i]}
		select {
		case run.raw = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		run.raw = run.raw[:run.chunk.Bytes]
		first := uint32(k.m.offset(*run.chunk)/int64(k.m.PageSize)) + 1
		if err := readChunk(ctx, k.src, first, run.raw); err != nil {
			return err
		}
		if i == 0 {
			var err error
			if k.encoding, err = checkHeader(run.raw, k.m.PageSize, k.m.Pages); err != nil {
				return fmt.Errorf("snapshot: source: %w", err)
			}
		}
		select {
		case full <- run:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// work packs and stores page runs until there are no more.
func (k *maker) work(ctx context.Context, p *packer, spare []byte, free chan<- []byte, full <-chan pageRun) error {
	for run := range full {
		c := run.chunk
		stored := p.pack(run.raw, spare)
		c.Sum, c.Stored, c.StoredSum = sumOf(run.raw), len(stored), sumOf(stored)
		if k.o.Codec == None { // stored is the reader's buffer: keep it and hand over ours
			spare, run.raw = run.raw, spare
		}
		free <- run.raw // there is room for every buffer
		if err := put(ctx, k.store, k.o.Clock, k.m.chunkName(*c), stored); err != nil {
			return err
		}
		k.meter.add(int64(c.Bytes), int64(c.Stored), 0)
	}
	return nil
}

// publish writes the manifest, and with it makes the snapshot exist. First it
// asks whether the chunks are still there: a make that was suspended for hours
// may have been taken for a leftover and cleaned away.
func (k *maker) publish(ctx context.Context) error {
	var names []string
	err := retry(ctx, k.o.Clock, func() (err error) {
		names, err = k.store.List(ctx, k.m.ID+"/")
		return err
	})
	if err != nil {
		return fmt.Errorf("snapshot: list %s: %w", k.m.ID, err)
	}
	if missing := missingChunks(k.m, names); len(missing) > 0 {
		return fmt.Errorf("%w: %s vanished from the store before the manifest was written", ErrDamaged, strings.Join(missing, ", "))
	}
	k.m.Encoding = k.encoding
	b, err := seal(&k.m)
	if err != nil {
		return err
	}
	return put(ctx, k.store, k.o.Clock, manifestOf(k.m.ID), b)
}

// undo removes what a failed make has stored. The manifest goes first, because
// a Put that failed may have happened; as long as it may be there, the chunks
// stay, and the snapshot is whole.
func (k *maker) undo(ctx context.Context) error {
	patience := cleanupTime
	if ctx.Err() != nil {
		patience = stopTime
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := remove(ctx, k.store, manifestOf(k.m.ID)); err != nil {
		return err
	}
	return removeAll(ctx, k.store, k.m.ID)
}

// removeAll deletes every object of a snapshot whose manifest is gone.
func removeAll(ctx context.Context, store Store, id string) error {
	names, err := store.List(ctx, id+"/")
	if err != nil {
		return fmt.Errorf("snapshot: list %s: %w", id, err)
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, remove(ctx, store, name))
	}
	return errors.Join(errs...)
}

// missingChunks returns the names of m's chunks that are not among names.
func missingChunks(m Manifest, names []string) (missing []string) {
	have := make(map[string]bool, len(names))
	for _, n := range names {
		have[n] = true
	}
	for _, c := range m.Chunks {
		if n := m.chunkName(c); !have[n] {
			missing = append(missing, n)
		}
	}
	return missing
}
