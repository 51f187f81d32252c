package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

func idleScenario(ctx context.Context, b *bench) error {
	for _, n := range b.scale.idleSteps {
		if err := idle(ctx, b, n); err != nil {
			return err
		}
	}
	return nil
}

// smallBase makes a database with a handful of rows.
func (b *bench) smallBase() (string, error) {
	const few = 100
	path := filepath.Join(b.lab.dir, "small.db")
	if fileSize(path) > 0 {
		return path, nil
	}
	return path, makeDatabase(path, few)
}

// idle measures daemons that have seeded everything and hear nothing more.
func idle(ctx context.Context, b *bench, databases int) error {
	base, err := b.smallBase()
	if err != nil {
		return err
	}
	s, err := b.prepare(ctx, base, trial{primary: true, replicas: 1, databases: databases})
	if err != nil {
		return err
	}
	if err := pause(ctx, b.scale.idle/2); err != nil { // what comes after a start is over
		return err
	}
	before, err := s.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, b.scale.idle); err != nil {
		return err
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	window := time.Since(began)
	name := count(databases, "database")
	note := fmt.Sprintf("within %s", span(window))
	b.out.add(name+", primary", 100*(after[0]-before[0]).Seconds()/window.Seconds(), "% of a core", note)
	b.out.add(name+", replica", 100*(after[1]-before[1]).Seconds()/window.Seconds(), "% of a core", note)
	var o outcome
	if err := s.weigh(&o); err != nil {
		return err
	}
	b.mem(name+", ", o)
	return b.remove(s)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func databasesScenario(ctx context.Context, b *bench) error {
	const rate = 20
	t := trial{
		job:       writeJob{rows: 1, rate: rate, synchronous: "NORMAL", window: b.scale.window},
		databases: b.scale.busyMany, reader: true,
	}
	var seen [2]outcome
	for i, attached := range []bool{false, true} {
		t.primary = attached
		if attached {
			t.replicas = 1
		}
		var err error
		if seen[i], err = b.tryOn(ctx, b.smallBase, t); err != nil {
			return err
		}
	}
	alone, o := seen[0], seen[1]
	n := count(t.databases, "database")
	b.out.against(n+", written", o.write.perSecond(), alone.write.perSecond(), "tx/s", fmt.Sprintf("wanted: %d in each", rate))
	b.out.against("one transaction, p50", o.write.Commit.P50, alone.write.Commit.P50, "ms", "")
	b.out.against("one transaction, p99", o.write.Commit.P99, alone.write.Commit.P99, "ms", "")
	b.out.against("lag of one database, p50", o.lag.P50, alone.lag.P50, "ms", "limit: a reader of the source itself")
	b.out.against("lag of one database, p99", o.lag.P99, alone.lag.P99, "ms", "")
	b.out.add("all complete after", o.complete, "s", "one database asked after the other")
	b.out.add("CPU of the primary", 100*o.primaryCPU, "% of a core", "")
	b.out.add("CPU of the replica", 100*o.replicaCPU, "% of a core", "")
	b.mem("", o)
	return nil
}
