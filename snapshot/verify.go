package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"
)

// Verify fetches every chunk of m and compares it with the manifest, as stored
// and as unpacked. The error names every damaged chunk and wraps ErrDamaged;
// when the store failed instead, it wraps only that.
func Verify(ctx context.Context, store Store, m Manifest, o Options) error {
	f, err := newFetcher(store, m, o)
	if err != nil {
		return err
	}
	defer f.packer.close()
	damaged := make([]error, len(m.Chunks)) // each worker writes those of its chunks
	err = f.each(ctx, func(ctx context.Context, c Chunk, spare []byte) error {
		_, err := f.fetch(ctx, c, spare)
		if errors.Is(err, ErrDamaged) {
			damaged[c.Index-1], err = err, nil
		}
		if err == nil {
			f.meter.add(int64(c.Bytes), int64(c.Stored), 0)
		}
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(damaged...)
}

// A fetcher brings chunks of one snapshot from the store.
type fetcher struct {
	store   Store
	m       Manifest
	o       Options
	packer  *packer
	meter   *meter
	workers int
}

// newFetcher checks m again, because a caller can hold one that was never parsed.
func newFetcher(store Store, m Manifest, o Options) (*fetcher, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: manifest %q: %w", ErrDamaged, m.ID, err)
	}
	each := m.Codec.maxStored(m.largestChunk()) + m.largestChunk() + m.Codec.scratch()
	workers := o.workers(bufferBudget / each)
	packer, err := newPacker(m.Codec, workers)
	if err != nil {
		return nil, err
	}
	return &fetcher{store: store, m: m, o: o, packer: packer, meter: newMeter(o, m), workers: workers}, nil
}

// each calls f for every chunk, from several goroutines, each with a buffer of
// its own that holds the largest. The first error ends it.
func (f *fetcher) each(ctx context.Context, visit func(ctx context.Context, c Chunk, spare []byte) error) error {
	g, gctx := errgroup.WithContext(ctx)
	chunks := make(chan Chunk)
	g.Go(func() error {
		defer close(chunks)
		for _, c := range f.m.Chunks {
			select {
			case chunks <- c:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	for range min(f.workers, len(f.m.Chunks)) {
		g.Go(func() error {
			spare := make([]byte, f.m.largestChunk())
			for c := range chunks {
				if err := visit(gctx, c, spare); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// fetch returns the pages of a chunk, in spare or in a slice of their own.
func (f *fetcher) fetch(ctx context.Context, c Chunk, spare []byte) ([]byte, error) {
	name := f.m.chunkName(c)
	stored, err := get(ctx, f.store, f.o.Clock, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, f.missing(ctx, name, err)
	}
	if err != nil {
		return nil, err
	}
	if len(stored) != c.Stored {
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrDamaged, name, len(stored), c.Stored)
	}
	if sum := sumOf(stored); sum != c.StoredSum {
		return nil, fmt.Errorf("%w: %s has sum %s as stored, want %s", ErrDamaged, name, sum, c.StoredSum)
	}
	raw, err := f.packer.unpack(stored, spare, c.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	if sum := sumOf(raw); sum != c.Sum {
		return nil, fmt.Errorf("%w: %s unpacks to sum %s, want %s", ErrDamaged, name, sum, c.Sum)
	}
	return raw, nil
}

// missing tells a chunk that was lost from a snapshot that is not there any more: of that
// the manifest goes first.
func (f *fetcher) missing(ctx context.Context, chunk string, absent error) error {
	_, err := get(ctx, f.store, f.o.Clock, manifestOf(f.m.ID))
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s is missing: %w", ErrDamaged, chunk, absent)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s: %w", ErrGone, f.m.ID, err)
	}
	return err
}
