package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// growthScenario shows what grows with the size of a database, and what must not.
func growthScenario(ctx context.Context, b *bench) error {
	for _, size := range b.scale.growth {
		base := filepath.Join(b.lab.dir, fmt.Sprintf("%d.db", size))
		if err := makeDatabase(base, int(size/seedRowSize)); err != nil {
			return err
		}
		if err := errors.Join(growth(ctx, b, base, size), os.Remove(base)); err != nil {
			return err
		}
	}
	return nil
}

// growth takes a database from the start of a primary until a replica has it, and
// then writes a little.
func growth(ctx context.Context, b *bench, base string, size int64) error {
	name := fmt.Sprintf("%d MiB", size>>20)
	s, began, err := b.large(ctx, base)
	if err != nil {
		return err
	}
	if _, err := s.primary.sync(ctx, databaseName(0)); err != nil {
		return err
	}
	b.out.add(name+", capture start", time.Since(began).Seconds(), "s", "until a sync is answered")
	if err := s.primary.until(ctx, snapshotted); err != nil {
		return err
	}
	b.out.add(name+", first snapshot", time.Since(began).Seconds(), "s", "from the start of the primary")
	began = time.Now()
	if err := b.seeded(ctx, s); err != nil {
		return err
	}
	b.out.add(name+", new replica", time.Since(began).Seconds(), "s", "a snapshot is there; from the start of the replica")
	o, err := b.observe(ctx, s, trial{
		job:    writeJob{rows: 1, rate: growthRate, synchronous: "NORMAL", window: b.scale.window},
		reader: true,
	})
	if err != nil {
		return err
	}
	b.out.add(name+", lag, p50", o.lag.P50, "ms", fmt.Sprintf("at %d tx/s", growthRate))
	b.out.add(name+", lag, p99", o.lag.P99, "ms", "")
	b.out.add(name+", CPU of the primary", 100*o.primaryCPU, "% of a core", "")
	b.out.add(name+", CPU of the replica", 100*o.replicaCPU, "% of a core", "")
	b.mem(name+", ", o)
	return b.remove(s)
}

// growthRate is how many transactions a second the program writes into each size.
const growthRate = 200
