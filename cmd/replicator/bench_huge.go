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
	keyed := max(b.scale.hugeRows/10, 1)
	for _, of := range []struct{ name, sql string }{
		{count(b.scale.hugeRows, "small row"), fmt.Sprintf(hugeInsert, int64(b.scale.hugeRows), "hex(randomblob(20))")},
		{count(keyed, "row") + " without rowid, random keys",
			fmt.Sprintf("CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w SELECT hex(randomblob(16)), i FROM (%s)", fmt.Sprintf(hugeNumbers, keyed))},
		{fmt.Sprintf("%s in %d rows", size(few*hugeValue), few), fmt.Sprintf(hugeInsert, few, fmt.Sprintf("hex(randomblob(%d))", hugeValue/2))},
		{"a text of " + size(b.scale.valueBytes), fmt.Sprintf(hugeInsert, 1, fmt.Sprintf("hex(randomblob(%d))", b.scale.valueBytes/2))},
		{"a blob of " + size(b.scale.valueBytes), fmt.Sprintf(hugeInsert, 1, fmt.Sprintf("randomblob(%d)", b.scale.valueBytes))},
	} {
		if err := huge(ctx, b, of.name, of.sql); err != nil {
			return err
		}
	}
	return nil
}

// Rows of the table t, without the index, whose random keys would make SQLite write its
// pages many times over.
const (
	hugeNumbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i FROM n"
	hugeInsert  = "DROP INDEX t_k; INSERT INTO t (k, at, body) SELECT hex(randomblob(4)), i, %[2]s FROM (" +
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %[1]d) SELECT i FROM n)"
)

// hugeValue is the size of a large value in bytes.
const hugeValue = 8 << 20

func huge(ctx context.Context, b *bench, name, sql string) error {
	base, err := b.smallBase()
	if err != nil {
		return err
	}
	s, err := b.prepare(ctx, base, trial{primary: true, replicas: 1})
	if err != nil {
		return err
	}
	wrote, err := writeHuge(s.sources[0], sql)
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

// writeHuge writes one transaction.
func writeHuge(path, sql string) (took time.Duration, err error) {
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	began := time.Now()
	err = c.Exec("BEGIN IMMEDIATE; " + sql + "; COMMIT")
	return time.Since(began), err
}
