package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlite-replicator/replicator/internal/config"
)

type benchOptions struct {
	dir, scale, json string
	backlog, value   string
	only             []string
	keep, pprof      bool
}

func newBench(e *environment) *cobra.Command {
	var o benchOptions
	cmd := command(e, "bench", "Measure this machine: real processes, real files, against SQLite alone", o.run)
	cmd.Long = "bench starts primaries, replicas, programs that write and programs that read, each a process of its own, and\n" +
		"compares what they do with what SQLite does alone on the same disk in the same run. It judges nothing.\n" +
		"BENCHMARKS.md says how each figure is measured.\n\nScenarios:\n" + scenarioList()
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "where a new folder for the files is made; without it where temporary files are. Its disk is what is measured")
	f.StringVar(&o.scale, "scale", "small", "small, which shows that it works, or full, for figures")
	f.StringSliceVar(&o.only, "only", nil, "names of scenarios, separated by commas; without it all")
	f.StringVar(&o.json, "json", "", "file for the results as JSON")
	f.StringVar(&o.backlog, "backlog", "", "SQLite WAL of the scenario backlog, as 20GiB; without it the scale's")
	f.StringVar(&o.value, "value", "", "size of one text and one blob of the scenario huge, as 999MB; without it the scale's")
	f.BoolVar(&o.keep, "keep", false, "leave the files of each scenario")
	f.BoolVar(&o.pprof, "pprof", false, "the daemons serve /debug/pprof; their addresses are in their logs")
	return cmd
}

// A scenario measures one thing. What it adds to the bench is its result.
type scenario struct {
	name, what string
	run        func(ctx context.Context, b *bench) error
}

// scenarios come in the order in which they run.
func scenarios() []scenario {
	return []scenario{
		{"writer", "a program that writes as fast as it can, with and without replicator", writerScenario},
		{"stall", "a program that writes 1,000 transactions a second: the time each takes", stallScenario},
		{"lag", "from a commit until a reader of the replica's file sees it", lagScenario},
		{"longread", "a read transaction on the replica that stays open while a program writes", longReadScenario},
		{"bulk", "many rows, 100 a transaction, until the replica has the last one", bulkScenario},
		{"catchup", "a replica that was away, against a plain replay of the same changes", catchupScenario},
		{"seed", "capture start, first snapshot and a new replica of a large database", seedScenario},
		{"growth", "the same, and lag, for databases of several sizes", growthScenario},
		{"huge", "a transaction of many rows, and one of few large ones: memory of the daemons", hugeScenario},
		{"backlog", "a primary that stood still while a program wrote on: time and memory until all is complete", backlogScenario},
		{"bytes", "what a row takes in the change log and in the stream, with each compression", bytesScenario},
		{"tables", "a schema of many tables, made, written and dropped one by one", tablesScenario},
		{"idle", "CPU time of daemons that have nothing to do", idleScenario},
		{"databases", "many databases that are written at the same time", databasesScenario},
		{"replicas", "several replicas of one database", replicasScenario},
	}
}

func scenarioList() string {
	var b strings.Builder
	for _, s := range scenarios() {
		fmt.Fprintf(&b, "  %-10s %s\n", s.name, s.what)
	}
	return strings.TrimRight(b.String(), "\n")
}

// choose gives the scenarios of --only, in their own order.
func choose(only []string) (chosen []scenario, err error) {
	if len(only) == 0 {
		return scenarios(), nil
	}
	wanted := map[string]bool{}
	for _, name := range only {
		wanted[name] = true
	}
	for _, s := range scenarios() {
		if wanted[s.name] {
			chosen = append(chosen, s)
			delete(wanted, s.name)
		}
	}
	for name := range wanted {
		return nil, usagef("--only names %q; the scenarios are:\n%s", name, scenarioList())
	}
	return chosen, nil
}

// A benchScale says how much of everything.
type benchScale struct {
	pairs        int           // times that a pair is repeated; the median counts
	window       time.Duration // of each run of a writer
	prefill      int           // rows that are there before a writer begins
	bulk         int           // rows of the scenarios that write a given number
	behind       int           // rows that a replica has missed
	seedBytes    int64         // size of the large database
	growth       []int64       // sizes of databases
	hugeRows     int           // rows of the transaction of many
	hugeBytes    int64         // size of the transaction of few
	valueBytes   int64         // size of one value
	backlogBytes int64         // of SQLite WAL that a primary finds when it goes on
	tableSteps   []int         // numbers of tables
	idle         time.Duration // window of the idle daemons
	idleSteps    []int         // numbers of databases of the idle daemons
	busyMany     int           // databases that are written at once
	lagRates     []int         // transactions a second; 0 is as fast as it goes
	replicaSteps []int         // numbers of replicas
	fsyncs       int           // samples of the disk before each scenario
}

var benchScales = map[string]benchScale{
	"small": {
		pairs: 1, window: 400 * time.Millisecond, prefill: 1000, bulk: 10_000, behind: 10_000, seedBytes: 8 << 20, growth: []int64{1 << 20, 4 << 20},
		hugeRows: 20_000, hugeBytes: 16 << 20, valueBytes: 4 << 20, backlogBytes: 32 << 20, tableSteps: []int{100},
		idle: time.Second, idleSteps: []int{1, 5}, busyMany: 5, lagRates: []int{200}, replicaSteps: []int{2}, fsyncs: 10,
	},
	"full": {
		pairs: 3, window: 5 * time.Second, prefill: 100_000, bulk: 1_000_000, behind: 5_000_000, seedBytes: 1 << 30, growth: []int64{64 << 20, 1 << 30, 4 << 30},
		hugeRows: 10_000_000, hugeBytes: 768 << 20, valueBytes: 100 << 20, backlogBytes: 4 << 30, tableSteps: []int{1000, 4000, 10_000},
		idle: 20 * time.Second, idleSteps: []int{1, 100, 200}, busyMany: 100, lagRates: []int{200, 5000, 0}, replicaSteps: []int{1, 2, 4, 10, 50}, fsyncs: 200,
	},
}

// A bench is what a scenario works with.
type bench struct {
	lab   *lab // processes and folders
	scale benchScale
	out   *benchResult // of this scenario
}

func (o *benchOptions) run(ctx context.Context, e *environment) (err error) {
	scale, known := benchScales[o.scale]
	if !known {
		return usagef("--scale is %q, want small or full", o.scale)
	}
	for flag, size := range map[string]struct {
		text string
		into *int64
	}{"--backlog": {o.backlog, &scale.backlogBytes}, "--value": {o.value, &scale.valueBytes}} {
		if err := sizeFlag(flag, size.text, size.into); err != nil {
			return err
		}
	}
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	dir, err := o.folder()
	if err != nil {
		return fmt.Errorf("folder of the bench: %w", err)
	}
	switch {
	case o.keep:
	case o.dir == "":
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	default:
		defer func() { _ = os.Remove(dir) }() // unless a scenario that failed has left its logs
	}
	report := newBenchReport(e, o.scale, dir)
	report.printHost(e.stdout)
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(e.stdout, "\n%s: %s\n", s.name, s.what)
		r := o.measure(ctx, e, s, scale, filepath.Join(dir, s.name))
		report.Results = append(report.Results, r)
		r.print(e.stdout)
	}
	report.finish(e)
	if o.json != "" {
		err = report.write(o.json)
	}
	return errors.Join(err, report.failure())
}

// sizeFlag reads a flag that may be left out.
func sizeFlag(flag, text string, into *int64) error {
	if text == "" {
		return nil
	}
	size, err := config.ParseSize(text)
	if err != nil {
		return usagef("%s is %q: %v", flag, text, err)
	}
	*into = int64(size)
	return nil
}

// folder makes a new one: what else is in --dir may be somebody's databases.
func (o *benchOptions) folder() (string, error) {
	within := cmp.Or(o.dir, os.TempDir())
	if err := os.MkdirAll(within, 0o700); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(within, "replicator-bench-")
	if err != nil {
		return "", err
	}
	return filepath.Abs(dir)
}

// measure runs one scenario. What fails becomes part of its result: the others
// are worth having all the same.
func (o *benchOptions) measure(ctx context.Context, e *environment, s scenario, scale benchScale, dir string) *benchResult {
	r := &benchResult{Scenario: s.name, What: s.what, Load: [2]string{loadAverage()}}
	began := e.clock()
	l, err := newLab(e, dir, o.pprof)
	if err == nil {
		r.Fsync, err = probeDisk(dir, scale.fsyncs)
	}
	if err == nil {
		err = s.run(ctx, &bench{lab: l, scale: scale, out: r})
	}
	l.close()
	if err != nil {
		r.Error = err.Error()
	}
	if err == nil && !o.keep {
		err = os.RemoveAll(dir)
	}
	if err != nil && r.Error == "" {
		r.Error = err.Error()
	}
	r.Seconds, r.Load[1] = e.clock().Sub(began).Seconds(), loadAverage()
	return r
}
