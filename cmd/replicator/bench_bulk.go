package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sqlite-replicator/replicator/internal/config"
)

func bulkJob(rows, perTx int) writeJob {
	return writeJob{rows: perTx, transactions: max(rows/perTx, 1), synchronous: "NORMAL"}
}

func bulkScenario(ctx context.Context, b *bench) error {
	job := bulkJob(b.scale.bulk, 100)
	alone, err := b.try(ctx, trial{job: job})
	if err != nil {
		return err
	}
	o, err := b.try(ctx, trial{job: job, primary: true, replicas: 1})
	if err != nil {
		return err
	}
	rows := float64(o.write.Rows)
	b.out.against("end to end", rows/o.seconds(), rows/alone.write.Seconds, "rows/s",
		fmt.Sprintf("limit: the program alone; %s rows, 100 a transaction", number(uint64(o.write.Rows))))
	b.out.against("the program", rows/o.write.Seconds, rows/alone.write.Seconds, "rows/s", backlogNote([]outcome{o}, 1))
	b.out.add("complete after the program's end", o.complete, "s", "")
	raw := fmt.Sprintf("limit: the values of a row, %d bytes", benchRowSize)
	b.out.against("change log", float64(o.logBytes)/rows, benchRowSize, "bytes/row", raw)
	b.out.against("stream", float64(o.stored)/rows, benchRowSize, "bytes/row", raw)
	b.out.add("CPU of the primary", 100*o.primaryCPU, "% of a core", "")
	b.out.add("CPU of the replica", 100*o.replicaCPU, "% of a core", "")
	b.mem("", o)
	return nil
}

func catchupScenario(ctx context.Context, b *bench) error {
	const fewer = 5 // times, of single-row transactions: it is the writing that takes its time
	for _, of := range []struct{ rows, perTx int }{{b.scale.behind, 100}, {b.scale.behind / fewer, 1}} {
		if err := catchup(ctx, b, of.rows, of.perTx); err != nil {
			return err
		}
	}
	return nil
}

// catchup stops a replica, writes, starts it again, and then replays the same
// change log without a replica.
func catchup(ctx context.Context, b *bench, rows, perTx int) error {
	base, err := b.base()
	if err != nil {
		return err
	}
	s, err := b.prepare(ctx, base, trial{primary: true, replicas: 1})
	if err != nil {
		return err
	}
	r := s.replicas[0]
	r.stop()
	if _, err := b.write(ctx, bulkJob(rows, perTx), s.sources); err != nil {
		return err
	}
	at, err := s.primary.sync(ctx, databaseName(0))
	if err != nil {
		return err
	}
	began := time.Now()
	if err := r.start(ctx, b.lab, config.RoleReplica); err != nil {
		return err
	}
	if err := r.reach(ctx, databaseName(0), at); err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	memory, err := peakRSS(r.pid())
	if err != nil {
		return err
	}
	if err := s.compare(); err != nil {
		return err
	}
	r.stop()
	s.primary.stop()
	plain, err := b.replay(ctx, base, s)
	if err != nil {
		return err
	}
	if plain.Rows != rows {
		return fmt.Errorf("the change log has %d rows, want %d", plain.Rows, rows)
	}
	name := fmt.Sprintf("%s rows, %d a transaction", number(uint64(rows)), perTx)
	b.out.against(name, float64(rows)/took, float64(rows)/plain.Seconds, "rows/s", "limit: plain replay of the change log; from the start of the process")
	b.out.add("  replica, most memory", memory, "MiB", "")
	return b.remove(s)
}

// replay applies the change log of s to another copy of base.
func (b *bench) replay(ctx context.Context, base string, s *setup) (r writeResult, err error) {
	file := filepath.Join(s.dir, "replayed.db")
	if _, err := copyFile(base, file); err != nil {
		return r, err
	}
	p, err := b.lab.start("bench-replay", "--log", filepath.Join(s.primary.data, databaseName(0), "log"), file)
	if err == nil {
		err = p.result(ctx, &r)
	}
	if err != nil {
		return r, err
	}
	want, err := countRows(s.copies[0][0])
	got, cerr := countRows(file)
	if err = errors.Join(err, cerr); err == nil && got != want {
		err = fmt.Errorf("the plain replay has %d rows, the replica %d", got, want)
	}
	return r, err
}

func replicasScenario(ctx context.Context, b *bench) error {
	const fewer = 5 // times than in bulk: it is about their number
	job := bulkJob(b.scale.bulk/fewer, 100)
	alone, err := b.try(ctx, trial{job: job})
	if err != nil {
		return err
	}
	var all []outcome
	for _, n := range b.scale.replicaSteps {
		o, err := b.try(ctx, trial{job: job, primary: true, replicas: n})
		if err != nil {
			return err
		}
		all = append(all, o)
		rows := float64(o.write.Rows)
		b.out.against(count(n, "replica"), rows/o.seconds(), rows/alone.write.Seconds, "rows/s",
			fmt.Sprintf("until each has all %s; limit: the program alone; CPU: primary %.0f %%, replicas %.0f %% of a core",
				number(uint64(o.write.Rows)), 100*o.primaryCPU, 100*o.replicaCPU))
	}
	b.mem("", all...)
	return nil
}
