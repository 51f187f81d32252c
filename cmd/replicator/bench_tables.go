package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
)

// tablesScenario shows whether a table costs the more, the more there are.
func tablesScenario(ctx context.Context, b *bench) error {
	for _, n := range b.scale.tableSteps {
		if err := tables(ctx, b, n); err != nil {
			return err
		}
	}
	return nil
}

// tables makes, writes and drops n tables, each in a transaction of its own.
func tables(ctx context.Context, b *bench, n int) error {
	base, err := b.smallBase()
	if err != nil {
		return err
	}
	s, err := b.prepare(ctx, base, trial{primary: true, replicas: 1})
	if err != nil {
		return err
	}
	for _, step := range []struct{ name, sql string }{
		{"made", "CREATE TABLE t%d(id INTEGER PRIMARY KEY, v TEXT UNIQUE)"},
		{"written", "INSERT INTO t%d(v) VALUES('x')"},
		{"dropped", "DROP TABLE t%d"},
	} {
		name := count(n, "table") + ", " + step.name
		if err := tableStep(ctx, b, s, name, n, step.sql); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if step.name == "written" {
			if err := joinTables(ctx, b, s, n); err != nil {
				return err
			}
		}
	}
	var o outcome
	if err := errors.Join(s.weigh(&o), s.compare()); err != nil {
		return err
	}
	b.mem(count(n, "table")+", ", o)
	return b.remove(s)
}

// tableStep runs a statement for each table and waits until all is replicated.
func tableStep(ctx context.Context, b *bench, s *setup, name string, n int, sql string) error {
	before, err := s.cpu()
	if err != nil {
		return err
	}
	took, err := eachTable(s.sources[0], n, sql)
	if err != nil {
		return err
	}
	began := time.Now()
	at, err := s.primary.sync(ctx, databaseName(0))
	if err != nil {
		return err
	}
	if err := s.replicas[0].reach(ctx, databaseName(0), at); err != nil {
		return err
	}
	complete := time.Since(began)
	after, err := s.cpu()
	if err != nil {
		return err
	}
	each := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(n) }
	b.out.against(name, each(took+complete), each(took), "ms/table", "limit: the program, beside replicator")
	b.out.add(name+", CPU of the primary", each(after[0]-before[0]), "ms/table", "")
	b.out.add(name+", CPU of the replica", each(after[1]-before[1]), "ms/table", "")
	return nil
}

func eachTable(path string, n int, sql string) (took time.Duration, err error) {
	c, err := sqlite.Open(path, sqlite.Options{Plain: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	began := time.Now()
	for i := range n {
		if err := c.Exec(fmt.Sprintf(sql, i)); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// joinTables adds a replica.
func joinTables(ctx context.Context, b *bench, s *setup, n int) error {
	began := time.Now()
	if err := b.join(ctx, s); err != nil {
		return err
	}
	if err := s.replicas[1].until(ctx, streaming); err != nil {
		return err
	}
	b.out.add(count(n, "table")+", new replica", time.Since(began).Seconds(), "s", "")
	return nil
}
