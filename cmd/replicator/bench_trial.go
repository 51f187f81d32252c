package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/web"
)

// A trial is one run of a program that writes.
type trial struct {
	job       writeJob
	primary   bool // runs; else the program is alone with SQLite
	pin       bool // a program that only keeps a pin runs beside it
	replicas  int
	databases int      // 0 is 1
	settings  []string // further lines of the primary's configuration
	hold      bool     // a read transaction stays open on the first database of the first replica
	reader    bool     // watches the first database of the first replica or, without one, of the source
}

// An outcome is what a trial measured.
type outcome struct {
	write      writeResult
	lag        quantiles
	sqliteWAL  int64   // largest size of the first database's, in bytes
	replicaWAL int64   // the same, of the first replica
	uncaptured int     // transactions that the capture was behind when the writing ended
	unapplied  int     // transactions that the first replica was behind then
	complete   float64 // seconds from the end of the writing until every replica had everything
	primaryMem float64 // MiB, at most
	replicaMem float64 // MiB, at most, of the largest
	primaryCPU float64 // seconds per second of writing, until all was complete
	replicaCPU float64 // of all replicas together
	logBytes   int64   // of the change log
	stored     int64   // of the streams
}

// seconds is from the first write until every replica had everything.
func (o outcome) seconds() float64 { return o.write.Seconds + o.complete }

// setup is what a trial runs in.
type setup struct {
	dir      string
	sources  []string
	primary  *benchNode
	replicas []*benchNode
	copies   [][]string // files of each replica
}

// base makes the database that trials begin with, once a scenario.
func (b *bench) base() (string, error) {
	path := filepath.Join(b.lab.dir, "base.db")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, makeDatabase(path, b.scale.prefill)
}

// prepare copies databases and starts the nodes of a trial.
func (b *bench) prepare(ctx context.Context, base string, t trial) (s *setup, err error) {
	s = &setup{}
	if s.dir, err = b.lab.folder(); err != nil {
		return s, err
	}
	for i := range max(t.databases, 1) {
		s.sources = append(s.sources, filepath.Join(s.dir, databaseName(i)+".db"))
		if _, err := copyFile(base, s.sources[i]); err != nil {
			return s, err
		}
	}
	if !t.primary {
		return s, nil
	}
	if s.primary, err = b.lab.primary(ctx, filepath.Join(s.dir, "primary"), s.sources, t.settings...); err != nil {
		return s, err
	}
	if err := s.primary.until(ctx, streaming); err != nil { // replicas of a database that failed would wait in vain
		return s, err
	}
	for range t.replicas {
		if err := b.join(ctx, s); err != nil {
			return s, err
		}
	}
	for _, r := range s.replicas {
		if err := r.until(ctx, streaming); err != nil {
			return s, err
		}
	}
	return s, s.primary.until(ctx, snapshotted)
}

// join starts one more replica.
func (b *bench) join(ctx context.Context, s *setup) error {
	dir := filepath.Join(s.dir, fmt.Sprintf("replica-%d", len(s.replicas)))
	var files []string
	for i := range s.sources {
		files = append(files, filepath.Join(dir, databaseName(i)+".db"))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	r, err := b.lab.replica(ctx, dir, files, s.primary)
	if err != nil {
		return err
	}
	s.replicas, s.copies = append(s.replicas, r), append(s.copies, files)
	return nil
}

// remove stops the nodes and deletes what they left.
func (b *bench) remove(s *setup) error {
	for _, r := range s.replicas {
		r.stop()
	}
	if s.primary != nil {
		s.primary.stop()
	}
	return os.RemoveAll(s.dir)
}

// try runs a trial from the beginning to the end.
func (b *bench) try(ctx context.Context, t trial) (outcome, error) {
	return b.tryOn(ctx, b.base, t)
}

// tryOn does it with copies of another database.
func (b *bench) tryOn(ctx context.Context, from func() (string, error), t trial) (o outcome, err error) {
	base, err := from()
	if err != nil {
		return o, err
	}
	s, err := b.prepare(ctx, base, t)
	if err == nil {
		o, err = b.observe(ctx, s, t)
	}
	if err != nil {
		return o, err // the files stay, they may say why
	}
	return o, b.remove(s)
}

// observe runs the program and looks at everything around it.
func (b *bench) observe(ctx context.Context, s *setup, t trial) (o outcome, err error) {
	var reader *program
	if t.reader {
		if reader, err = b.startReader(s); err != nil {
			return o, err
		}
		defer func() { _ = reader.input.Close() }() // it ends, also after an error
	}
	if t.pin {
		pin, err := b.startPin(s)
		if err != nil {
			return o, err
		}
		defer func() { err = errors.Join(err, pin.end()) }()
	}
	if t.hold {
		held, err := holdRead(s.copies[0][0])
		if err != nil {
			return o, err
		}
		defer func() { err = errors.Join(err, held.end()) }()
	}
	before, err := s.cpu()
	if err != nil {
		return o, err
	}
	behind, err := s.written(ctx)
	if err != nil {
		return o, err
	}
	wal := watchSize(ctx, s.sources[0]+"-wal")
	o.write, err = b.write(ctx, t.job, s.sources)
	o.sqliteWAL = wal.stop()
	if err == nil && s.primary != nil {
		err = b.drain(ctx, s, &o, behind, before)
	}
	if len(s.copies) > 0 {
		o.replicaWAL = fileSize(s.copies[0][0] + "-wal") // it keeps its size
	}
	if err == nil && reader != nil {
		var seen readResult
		_ = reader.input.Close()
		err = reader.result(ctx, &seen)
		o.lag = seen.Lag
		if err == nil && seen.Rows == 0 {
			err = errors.New("the reader saw no new row")
		}
	}
	return o, err
}

// write runs a program that writes.
func (b *bench) write(ctx context.Context, j writeJob, files []string) (r writeResult, err error) {
	p, err := b.lab.start(j.args(files)...)
	if err != nil {
		return r, err
	}
	return r, p.result(ctx, &r)
}

func (b *bench) startReader(s *setup) (*program, error) {
	file := s.sources[0]
	if len(s.copies) > 0 {
		file = s.copies[0][0]
	}
	p, err := b.lab.start("bench-reader", file)
	if err != nil {
		return nil, err
	}
	var ready readResult
	return p, p.next(&ready)
}

func (b *bench) startPin(s *setup) (*program, error) {
	p, err := b.lab.start("bench-pin", s.sources[0])
	if err != nil {
		return nil, err
	}
	var held bool
	return p, p.next(&held)
}

// A standing is how many transactions each step of the first database has had.
type standing struct{ captured, applied float64 }

func (s *setup) written(ctx context.Context) (at standing, err error) {
	if s.primary == nil {
		return at, nil
	}
	p, err := s.primary.status(ctx)
	if err != nil {
		return at, err
	}
	at.captured = total(p.Databases[0])
	if len(s.replicas) > 0 {
		r, err := s.replicas[0].status(ctx)
		if err != nil {
			return at, err
		}
		at.applied = total(r.Databases[0])
	}
	return at, nil
}

func total(d web.Database) float64 { return d.Details["transactions_total"] }

// cpu is what the primary and the replicas have used so far.
func (s *setup) cpu() (used [2]time.Duration, err error) {
	if s.primary == nil {
		return used, nil
	}
	if used[0], err = cpuTime(s.primary.pid()); err != nil {
		return used, err
	}
	for _, r := range s.replicas {
		t, err := cpuTime(r.pid())
		if err != nil {
			return used, err
		}
		used[1] += t
	}
	return used, nil
}

// drain notes the backlog at the end of the writing, waits until every replica
// has everything, and notes what that took.
func (b *bench) drain(ctx context.Context, s *setup, o *outcome, from standing, used [2]time.Duration) error {
	began := time.Now()
	at, err := s.written(ctx)
	if err != nil {
		return err
	}
	each := o.write.Transactions / len(s.sources)
	o.uncaptured = max(each-int(at.captured-from.captured), 0)
	if len(s.replicas) > 0 {
		o.unapplied = max(each-int(at.applied-from.applied), 0)
	}
	for i := range s.sources {
		at, err := s.primary.sync(ctx, databaseName(i))
		if err != nil {
			return err
		}
		for _, r := range s.replicas {
			if err := r.reach(ctx, databaseName(i), at); err != nil {
				return err
			}
		}
	}
	o.complete = time.Since(began).Seconds()
	now, err := s.cpu()
	if err != nil {
		return err
	}
	o.primaryCPU = (now[0] - used[0]).Seconds() / o.seconds()
	o.replicaCPU = (now[1] - used[1]).Seconds() / o.seconds()
	return errors.Join(s.weigh(o), s.compare())
}

// weigh notes memory and disk.
func (s *setup) weigh(o *outcome) (err error) {
	if o.primaryMem, err = peakRSS(s.primary.pid()); err != nil {
		return err
	}
	for _, r := range s.replicas {
		m, err := peakRSS(r.pid())
		if err != nil {
			return err
		}
		o.replicaMem = max(o.replicaMem, m)
	}
	o.logBytes, err = folderSize(s.primary.data, func(path string) bool { return strings.Contains(path, "/log/") })
	if err != nil {
		return err
	}
	o.stored, err = folderSize(s.primary.data, func(path string) bool {
		return strings.Contains(path, "/streams/") && !strings.Contains(path, "/OBJ_") && strings.HasSuffix(path, ".blk")
	})
	return err
}

// compare counts rows: a figure of a replica that lacks some is none.
func (s *setup) compare() error {
	for i, source := range s.sources {
		want, err := countRows(source)
		if err != nil {
			return err
		}
		for _, files := range s.copies {
			if got, err := countRows(files[i]); err != nil || got != want {
				return errors.Join(fmt.Errorf("%s has %d rows, its source has %d", files[i], got, want), err)
			}
		}
	}
	return nil
}

func countRows(path string) (n int64, err error) {
	c, err := sqlite.Open(path, sqlite.Options{ReadOnly: true, BusyTimeout: 10 * time.Second})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return c.QueryInt("SELECT count(*) FROM t")
}

// mem adds the peaks of the daemons; what says when, where there is a choice.
func (b *bench) mem(what string, outcomes ...outcome) {
	primary, replica := 0.0, 0.0
	for _, o := range outcomes {
		primary, replica = max(primary, o.primaryMem), max(replica, o.replicaMem)
	}
	b.out.add(what+"primary, most memory", primary, "MiB", "")
	if replica > 0 {
		b.out.add(what+"replica, most memory", replica, "MiB", "")
	}
}
