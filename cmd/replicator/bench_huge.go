package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// hugeScenario writes one large transaction after the other, each with nodes of its
// own, and looks at what the nodes take in memory.
func hugeScenario(ctx context.Context, b *bench) error {
	few := max(b.scale.hugeBytes/hugeValue, 1)
	for _, of := range []struct {
		name string
		rows int64
		body string // SQL
	}{
		{count(b.scale.hugeRows, "small row"), int64(b.scale.hugeRows), "hex(randomblob(20))"},
		{fmt.Sprintf("%s in %d rows", size(few*hugeValue), few), few, fmt.Sprintf("hex(randomblob(%d))", hugeValue/2)},
	} {
		if err := huge(ctx, b, of.name, of.rows, of.body); err != nil {
			return err
		}
	}
	return nil
}

// hugeValue is the size of a large value in bytes.
const hugeValue = 8 << 20

func huge(ctx context.Context, b *bench, name string, rows int64, body string) error {
	base, err := b.smallBase()
	if err != nil {
		return err
	}
	s, err := b.prepare(ctx, base, trial{primary: true, replicas: 1})
	if err != nil {
		return err
	}
	wrote, err := writeHuge(s.sources[0], rows, body)
	if err != nil {
		return err
	}
	began := time.Now()
	at, err := s.primary.sync(ctx, databaseName(0))
	if err != nil {
		return err
	}
	captured := time.Since(began).Seconds()
	if err := s.replicas[0].reach(ctx, databaseName(0), at); err != nil {
		return err
	}
	var o outcome
	if err := errors.Join(s.weigh(&o), s.compare()); err != nil {
		return err
	}
	b.out.add(name+", written", wrote.Seconds(), "s", "SQLite WAL "+size(fileSize(s.sources[0]+"-wal")))
	b.out.add(name+", captured and published", captured, "s", "after its commit")
	b.out.add(name+", complete", time.Since(began).Seconds(), "s", "after its commit")
	b.mem(name+", ", o)
	return b.remove(s)
}

// writeHuge writes one transaction. Without the index, whose random keys would make
// SQLite write its pages many times over.
func writeHuge(path string, rows int64, body string) (took time.Duration, err error) {
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Exec("DROP INDEX t_k"); err != nil {
		return 0, err
	}
	began := time.Now()
	err = c.Exec(fmt.Sprintf(`INSERT INTO t (k, at, body)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT hex(randomblob(4)), i, %s FROM n`, rows, body))
	return time.Since(began), err
}
