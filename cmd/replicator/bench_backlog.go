package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// backlogScenario stops a primary as it is, its pin in place, lets a program write, and
// then lets the primary go on. The program changes one row of a page, and page after
// page of a large database: most of what it leaves in the SQLite WAL is not news.
func backlogScenario(ctx context.Context, b *bench) error {
	base := filepath.Join(b.lab.dir, "large.db")
	if err := makeDatabase(base, int(b.scale.seedBytes/seedRowSize)); err != nil {
		return err
	}
	s, _, err := b.large(ctx, base, "capture: {max_sqlite_wal: 1TiB}")
	if err != nil {
		return err
	}
	if err := b.seeded(ctx, s); err != nil {
		return err
	}
	if err := s.primary.until(ctx, snapshotted); err != nil {
		return err
	}
	rows, wrote, err := b.whileItStands(ctx, s)
	if err != nil {
		return err
	}
	began := time.Now()
	left := fileSize(s.sources[0] + "-wal")
	at, err := s.primary.sync(ctx, databaseName(0))
	if err != nil {
		return err
	}
	captured := time.Since(began)
	if err := s.replicas[0].reach(ctx, databaseName(0), at); err != nil {
		return err
	}
	complete := time.Since(began)
	var o outcome
	if err := errors.Join(s.weigh(&o), s.compare()); err != nil {
		return err
	}
	b.out.add("SQLite WAL found", float64(left)/(1<<30), "GiB", fmt.Sprintf("%s changed in %.0f s", count(int(rows), "row"), wrote.Seconds()))
	b.out.add("captured and published", captured.Seconds(), "s", fmt.Sprintf("%.0f MiB of SQLite WAL a second", float64(left)/(1<<20)/captured.Seconds()))
	b.out.add("complete", complete.Seconds(), "s", "from the moment that the primary went on")
	b.mem("", o)
	return b.remove(s)
}

// whileItStands writes as much as the scale says while the primary is stopped, and
// returns how many rows that changed.
func (b *bench) whileItStands(ctx context.Context, s *setup) (rows int64, took time.Duration, err error) {
	if err := s.primary.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.primary.cmd.Process.Signal(syscall.SIGCONT)) }()
	began := time.Now()
	rows, err = writeSparsely(ctx, s.sources[0], b.scale.backlogBytes)
	return rows, time.Since(began), err
}

// sparseStep is how many rows of the bench's table share a leaf page, about, and
// sparseSpan how many rows a transaction passes over.
const (
	sparseStep = 30
	sparseSpan = 100_000
)

// writeSparsely changes each row that is sparseStep after the last, over and over, until
// the SQLite WAL has the given size in bytes.
func writeSparsely(ctx context.Context, path string, bytes int64) (rows int64, err error) {
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	last, err := c.QueryInt("SELECT max(id) FROM t")
	if err != nil {
		return 0, err
	}
	for pass := int64(0); ; pass++ {
		for from := int64(0); from < last; from += sparseSpan {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if fileSize(path+"-wal") >= bytes {
				return c.QueryInt("SELECT total_changes()")
			}
			err := c.Exec("UPDATE t SET at = at + 1 WHERE id BETWEEN ? AND ? AND id % ? = ?", from, from+sparseSpan-1, sparseStep, pass%sparseStep)
			if err != nil {
				return 0, err
			}
		}
	}
}
