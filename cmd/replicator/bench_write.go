package main

import (
	"context"
	"fmt"

	"github.com/sqlite-replicator/replicator/internal/config"
)

// mostSQLiteWALCounts is the size of the SQLite WAL above which a flat-out writer
// proves nothing: it is several times faster when nobody checkpoints.
const mostSQLiteWALCounts = 256 << 20

// turnoverFrames is what a program that sets wal_autocheckpoint to the primary's
// turnover_size would set: the fairer of the two limits, because the primary
// checkpoints that rarely, too.
func turnoverFrames() int {
	const frame = 4096
	return int(config.DefaultPrimary().Capture.TurnoverSize) / frame
}

func writerScenario(ctx context.Context, b *bench) error {
	var all []outcome
	for _, rows := range []int{1, 100} {
		for _, synchronous := range []string{"NORMAL", "FULL"} {
			o, err := writerPairs(ctx, b, rows, synchronous)
			if err != nil {
				return err
			}
			all = append(all, o...)
		}
	}
	b.mem("", all...)
	return nil
}

// writerPairs runs the program alone, alone with rarer checkpoints, beside a pin, with a
// primary, and with a primary and a replica, one right after the other.
func writerPairs(ctx context.Context, b *bench, rows int, synchronous string) (attached []outcome, err error) {
	job := writeJob{rows: rows, synchronous: synchronous, window: b.scale.window}
	rare := job
	rare.checkpoint = turnoverFrames()
	variants := []trial{{job: job}, {job: rare}, {job: job, pin: true}, {job: job, primary: true}, {job: job, primary: true, replicas: 1}}
	runs := make([][]outcome, len(variants))
	for range b.scale.pairs {
		for i, v := range variants {
			o, err := b.try(ctx, v)
			if err != nil {
				return nil, err
			}
			runs[i] = append(runs[i], o)
		}
	}
	name := fmt.Sprintf("%s/tx, %s", count(rows, "row"), synchronous)
	for i, who := range []string{"primary", "primary and replica"} {
		with := runs[3+i]
		b.out.pairs(name+", "+who, rates(with), rates(runs[0]), "tx/s", backlogNote(with, b.scale.pairs))
		b.out.pairs("  the same", rates(with), rates(runs[1]), "tx/s", fmt.Sprintf("limit: alone, wal_autocheckpoint = %d", rare.checkpoint))
		b.out.pairs("  the same", rates(with), rates(runs[2]), "tx/s", "limit: beside a program that only keeps a pin, and moves it; "+walNote(runs[2]))
	}
	return append(runs[3], runs[4]...), nil
}

// walNote says how large the SQLite WAL became.
func walNote(outcomes []outcome) string {
	wal := int64(0)
	for _, o := range outcomes {
		wal = max(wal, o.sqliteWAL)
	}
	return "SQLite WAL <= " + size(wal)
}

func rates(outcomes []outcome) (r []float64) {
	for _, o := range outcomes {
		r = append(r, o.write.perSecond())
	}
	return r
}

// backlogNote says what makes a writer's figure worth something: how large the
// SQLite WAL became and how much was left to do.
func backlogNote(outcomes []outcome, pairs int) string {
	uncaptured, unapplied, complete, largest := 0.0, 0.0, 0.0, int64(0)
	for _, o := range outcomes {
		largest, complete = max(largest, o.sqliteWAL), max(complete, o.complete)
		uncaptured = max(uncaptured, float64(o.uncaptured)/o.write.Seconds)
		unapplied = max(unapplied, float64(o.unapplied)/o.write.Seconds)
	}
	note := fmt.Sprintf("%s; backlog of the capture +%s tx/s", walNote(outcomes), short(uncaptured))
	if unapplied > 0 {
		note += fmt.Sprintf(", of the replica +%s tx/s", short(unapplied))
	}
	note += fmt.Sprintf("; complete after %s s", short(complete))
	if pairs > 1 {
		note += fmt.Sprintf("; median of %d, worst note", pairs)
	}
	if largest > mostSQLiteWALCounts {
		note = "DOES NOT COUNT, the SQLite WAL grew too large: " + note
	}
	return note
}

func stallScenario(ctx context.Context, b *bench) error {
	const rate = 1000
	alone := trial{job: writeJob{rows: 1, rate: rate, synchronous: "NORMAL", window: b.scale.window}}
	attached := alone
	attached.primary, attached.replicas = true, 1
	var p50, p99, most [2][]float64
	var all []outcome
	for range b.scale.pairs {
		for i, t := range []trial{attached, alone} {
			o, err := b.try(ctx, t)
			if err != nil {
				return err
			}
			c := o.write.Commit
			p50[i], p99[i], most[i] = append(p50[i], c.P50), append(p99[i], c.P99), append(most[i], c.Max)
			all = append(all, o)
		}
	}
	note := fmt.Sprintf("one transaction, primary and replica; %s tx/s reached, alone %s", short(all[0].write.perSecond()), short(all[1].write.perSecond()))
	b.out.pairs("p50", p50[0], p50[1], "ms", note)
	b.out.pairs("p99", p99[0], p99[1], "ms", "")
	b.out.pairs("longest", most[0], most[1], "ms", "")
	b.mem("", all...)
	return nil
}

func lagScenario(ctx context.Context, b *bench) error {
	var all []outcome
	for _, rate := range b.scale.lagRates {
		t := trial{job: writeJob{rows: 1, rate: rate, synchronous: "NORMAL", window: b.scale.window}, reader: true}
		alone, err := b.try(ctx, t)
		if err != nil {
			return err
		}
		t.primary, t.replicas = true, 1
		o, err := b.try(ctx, t)
		if err != nil {
			return err
		}
		all = append(all, o)
		name := fmt.Sprintf("%d tx/s", rate)
		if rate == 0 {
			name = "flat out"
		}
		note := fmt.Sprintf("limit: a reader of the source itself; %s tx/s reached", short(o.write.perSecond()))
		b.out.against(name+", p50", o.lag.P50, alone.lag.P50, "ms", note)
		b.out.against(name+", p99", o.lag.P99, alone.lag.P99, "ms", "")
		b.out.against(name+", longest", o.lag.Max, alone.lag.Max, "ms", "")
		b.out.add(name+", CPU of the primary", 100*o.primaryCPU, "% of a core", "")
		b.out.add(name+", CPU of the replica", 100*o.replicaCPU, "% of a core", "")
	}
	b.mem("", all...)
	return nil
}
