package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// seedRowSize is what a row takes in the file with its share of the index, in
// bytes, about.
const seedRowSize = 163

func seedScenario(ctx context.Context, b *bench) error {
	base := filepath.Join(b.lab.dir, "large.db")
	if err := makeDatabase(base, int(b.scale.seedBytes/seedRowSize)); err != nil {
		return err
	}
	copied, err := copyFile(base, base+".copy")
	if err != nil {
		return err
	}
	if err := os.Remove(base + ".copy"); err != nil {
		return err
	}
	limit := copied.Seconds()
	bytes := fileSize(base)
	b.out.add("database", float64(bytes)/(1<<20), "MiB", fmt.Sprintf("limit below: cp and fsync of it, %s MiB/s", short(float64(bytes)/(1<<20)/limit)))
	if err := seedWithSnapshot(ctx, b, base, limit); err != nil {
		return err
	}
	return seedFromNothing(ctx, b, base, limit)
}

// seedWithSnapshot starts the primary alone, waits for its first snapshot, and
// then starts a replica.
func seedWithSnapshot(ctx context.Context, b *bench, base string, limit float64) error {
	s, began, err := b.large(ctx, base)
	if err != nil {
		return err
	}
	if _, err := s.primary.sync(ctx, databaseName(0)); err != nil {
		return err
	}
	b.out.against("capture start", time.Since(began).Seconds(), limit, "s", "until a sync is answered; the snapshot is being made meanwhile")
	if err := s.primary.until(ctx, snapshotted); err != nil {
		return err
	}
	b.out.against("first snapshot", time.Since(began).Seconds(), limit, "s", "from the start of the primary")
	began = time.Now()
	if err := b.seeded(ctx, s); err != nil {
		return err
	}
	b.out.against("new replica, a snapshot is there", time.Since(began).Seconds(), limit, "s", "from the start of the replica")
	var o outcome
	if err := s.weigh(&o); err != nil {
		return err
	}
	b.mem("", o)
	return b.remove(s)
}

// seedFromNothing starts both at the same time.
func seedFromNothing(ctx context.Context, b *bench, base string, limit float64) error {
	s, began, err := b.large(ctx, base)
	if err != nil {
		return err
	}
	if err := b.seeded(ctx, s); err != nil {
		return err
	}
	b.out.against("new replica, no snapshot yet", time.Since(began).Seconds(), limit, "s", "from the start of the primary: snapshot and restore")
	return b.remove(s)
}

// large starts a primary on a copy of the large database, with further settings.
func (b *bench) large(ctx context.Context, base string, settings ...string) (s *setup, began time.Time, err error) {
	s = &setup{}
	if s.dir, err = b.lab.folder(); err != nil {
		return s, began, err
	}
	s.sources = []string{filepath.Join(s.dir, databaseName(0)+".db")}
	if _, err := copyFile(base, s.sources[0]); err != nil {
		return s, began, err
	}
	began = time.Now()
	s.primary, err = b.lab.primary(ctx, filepath.Join(s.dir, "primary"), s.sources, settings...)
	return s, began, err
}

// seeded starts a replica and waits until it has everything.
func (b *bench) seeded(ctx context.Context, s *setup) error {
	if err := b.join(ctx, s); err != nil {
		return err
	}
	at, err := s.primary.sync(ctx, databaseName(0))
	if err != nil {
		return err
	}
	if err := s.replicas[0].reach(ctx, databaseName(0), at); err != nil {
		return err
	}
	return s.replicas[0].until(ctx, streaming)
}
