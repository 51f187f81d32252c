package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/clock"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/tick"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A Stream gives the records of one database's change log.
type Stream interface {
	// Consume calls handle with every record from the LSN from on, in order;
	// pending is the number of records known to follow. It waits while the stream
	// has no more, and returns the error of handle, that of ctx, one that satisfies
	// errors.Is(err, cdc.ErrGap) when the stream no longer leads on from there, or
	// any other one when trying again may help. handle does not keep rec.
	Consume(ctx context.Context, from cdc.LSN, handle func(rec []byte, lsn cdc.LSN, pending uint64) error) error
}

// A Clock is the time that this package sees.
type Clock interface {
	Now() time.Time
	// Sleep returns nil after d, or the context's error when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// Reports takes the status where the primary will see it.
type Reports interface {
	// Report is called at changes, at most every 50 ms, and every ReportInterval.
	Report(Status)
}

// A Policy says what happens when the file differs from the source.
type Policy string

// The policies.
const (
	Reseed Policy = "reseed" // make the file equal to a snapshot, while readers go on
	Stop   Policy = "stop"   // leave it for a person to look at
)

// Options describe a replica. Zero values of numbers and of Clock, Logger,
// Reports and Policy mean the default.
type Options struct {
	Database string
	Path     string // of the replica's file; beside it, and not beside a link to it, is a directory of the replica's own
	SpoolDir string // of large transactions
	// Only says that nothing else is kept in the process: a file of something else at
	// Path, met before there was a replica, then ends Run.
	Only bool

	Stream    Stream
	Snapshots Snapshots
	Turns     *snapshot.Turns // in which the process restores snapshots; nil: any number at once
	Reports   Reports         // nil: none
	Clock     Clock           // nil: the system's
	Logger    *slog.Logger

	Apply          Apply
	ReportInterval time.Duration // 1 s
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// Apply tunes how records become rows.
type Apply struct {
	GroupMaxRecords int    // most records in one SQLite transaction under backlog; 1000
	GroupMaxBytes   int64  // the same in bytes; 8 MiB
	CacheBytes      int64  // of SQLite's page cache; 24 MiB
	CheckpointBytes int64  // of the replica's SQLite WAL at which it is checkpointed; 40 MiB
	HoldWriteLock   bool   // keep other writers out between applies
	OnDivergence    Policy // Reseed

	// VerifyRows reads each row before and after it is changed, so that at every commit
	// the row-set hashes of the primary are compared with those of the file, and reads
	// all rows in the background: at the start, and every AuditInterval. In large groups
	// of inserts it costs about 0.7 µs of CPU a row, where 3 µs are spent without it; an
	// update is read twice. BenchmarkApply measures it.
	VerifyRows    bool
	AuditInterval time.Duration // 24 h
}

func (a Apply) withDefaults() Apply {
	if a.GroupMaxRecords == 0 {
		a.GroupMaxRecords = 1000
	}
	if a.GroupMaxBytes == 0 {
		a.GroupMaxBytes = 8 << 20
	}
	if a.CacheBytes == 0 {
		a.CacheBytes = 24 << 20
	}
	if a.CheckpointBytes == 0 {
		a.CheckpointBytes = 40 << 20
	}
	if a.AuditInterval == 0 {
		a.AuditInterval = 24 * time.Hour
	}
	if a.OnDivergence == "" {
		a.OnDivergence = Reseed
	}
	return a
}

// A Replica keeps one file equal to one source database. Its methods may be
// called concurrently.
type Replica struct {
	o     Options // Path is without symbolic links once Run has begun
	name  string  // the path as it was given
	work  string  // directory of our own beside the file; Run's
	board *board
	sums  *rowSums // nil: rows are not verified
	holds chan *hold
	found chan *Divergence // has room for one: what a comparison has found
	mends chan struct{}    // somebody wants a file that differs repaired

	// Only Run's goroutine touches these.
	a      *applier // nil until the file is open
	opened bool     // it has been
	repair *repair  // why the file must be seeded again; nil: it need not
	past   past
	hold   *hold  // that limits how far records are applied
	caught uint64 // records applied since the replica fell behind
	pause  backoff
}

// The past is what a replica must not run into twice.
type past struct {
	seeded   Mark    // where the file comes from, until something is applied to it
	diverged cdc.LSN // of the last change that did not fit
	damaged  cdc.LSN // due when the last damaged record came
	unequal  string  // table whose hash was found to differ last
}

// New checks the options and starts nothing.
func New(o Options) (*Replica, error) {
	o.Apply = o.Apply.withDefaults()
	var errs []error
	if o.Database == "" || o.Path == "" {
		errs = append(errs, errors.New("replica: a replica needs a database name and a path"))
	}
	if o.Stream == nil || o.Snapshots == nil {
		errs = append(errs, errors.New("replica: a replica needs a stream and snapshots"))
	}
	if p := o.Apply.OnDivergence; p != Reseed && p != Stop {
		errs = append(errs, fmt.Errorf("replica: on_divergence is %q, want %s or %s", p, Reseed, Stop))
	}
	if o.Apply.GroupMaxRecords < 0 || o.Apply.GroupMaxBytes < 0 || o.Apply.CacheBytes < 0 || o.Apply.CheckpointBytes < 0 || o.Apply.AuditInterval < 0 {
		errs = append(errs, fmt.Errorf("replica: a limit is negative: %+v", o.Apply))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	name, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("replica: %s: %w", o.Path, err)
	}
	if o.Clock == nil {
		o.Clock = clock.System{}
	}
	if o.ReportInterval == 0 {
		o.ReportInterval = time.Second
	}
	o.Logger = o.logger().With("db", o.Database)
	r := &Replica{o: o, name: name, board: newBoard(o.Database, o.Clock, o.Logger),
		holds: make(chan *hold), found: make(chan *Divergence, 1), mends: make(chan struct{})}
	if o.Apply.VerifyRows {
		r.sums = newRowSums()
	}
	return r, nil
}

// Run keeps the file equal until ctx ends, or until it finds something that only
// a person can mend before it could start: another daemon on the file, or, with
// [Options.Only], a file at the path that is not a replica. Otherwise such a file is
// a state, until it is moved away. It returns after everything it started has ended,
// and never nil; what was applied is committed.
func (r *Replica) Run(ctx context.Context) (err error) {
	lock, err := r.prepare()
	for isFull(err) { // no room for the lock
		r.board.trouble(err)
		r.board.set(DiskFull)
		if err := r.o.Clock.Sleep(ctx, r.pause.next()); err != nil {
			return err
		}
		lock, err = r.prepare()
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.report(ctx) })
	g.Go(func() error { return r.keep(ctx) })
	return g.Wait()
}

// prepare finds the file's place and takes the lock on it.
func (r *Replica) prepare() (*durable.Lock, error) {
	path, err := resolve(r.name)
	if err != nil {
		return nil, fmt.Errorf("replica: %s: %w", r.name, err)
	}
	r.o.Path, r.work = path, path+".replicator"
	if r.o.SpoolDir == "" {
		r.o.SpoolDir = r.work
	}
	for _, dir := range []string{r.work, r.o.SpoolDir} {
		if err := (durable.OS{}).MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("replica: %w", err)
		}
	}
	lock, err := durable.LockDir(r.work)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("replica: %s is the file of a running replica: %w", r.o.Path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	return lock, nil
}

// keep does one thing after the other: open or restore the file, mend it if it
// must be, follow the stream. Whatever ends a step is a state, and another try.
func (r *Replica) keep(ctx context.Context) (err error) {
	defer func() {
		if r.a != nil {
			err = errors.Join(err, r.a.rollback())
			r.seal(context.Background())
			err = errors.Join(err, r.a.guard.close())
			r.a = nil
		}
	}()
	for {
		err := r.step(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.a != nil { // in a file that is not in its place no error means what it says
			if moved := r.a.guard.unmoved(); moved != nil {
				err = moved
			}
		}
		var d *displaced
		if errors.As(err, &d) && r.a != nil {
			r.depart(d)
			if err := r.o.Clock.Sleep(ctx, r.pause.next()); err != nil {
				return err
			}
			continue
		}
		var exit *exitError
		if errors.As(err, &exit) && !r.opened && r.o.Only {
			r.board.trouble(err)
			r.board.set(Failed)
			return err
		}
		if err := r.suffer(ctx, err); err != nil {
			return err
		}
	}
}

// seal leaves the file so that the next start sees what others did to it, or that it is
// known to be wrong. Without that it sees less; nothing else depends on it.
func (r *Replica) seal(ctx context.Context) {
	if r.a.guard.unmoved() != nil {
		return
	}
	wrong := ""
	if _, differs := r.board.differing(); differs {
		wrong = broken
		if r.repair != nil && r.repair.ahead {
			wrong = brokenAt(r.repair.min)
		}
	}
	if err := r.a.seal(ctx, wrong); err != nil {
		r.o.Logger.Warn("the replica's file has no seal", "path", r.o.Path, "err", err)
	}
}

func (r *Replica) step(ctx context.Context) error {
	if r.a == nil {
		if err := r.open(ctx); err != nil {
			return err
		}
	}
	if r.repair != nil {
		if err := r.reseed(ctx); err != nil {
			return err
		}
	}
	return r.follow(ctx)
}

// An exitError ends Run: what it says is wrong by itself.
type exitError struct{ error }

func (e *exitError) Unwrap() error { return e.error }

// report hands the status on: at every change of the position, but not more
// often than the reader of it can care, and every interval.
func (r *Replica) report(ctx context.Context) error {
	if r.o.Reports == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	due := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			if err := r.o.Clock.Sleep(ctx, tick.Until(r.o.Clock.Now(), r.o.ReportInterval)); err != nil {
				return err
			}
			select {
			case due <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	g.Go(func() error {
		for {
			changed, reported := r.Changed(), r.o.Clock.Now()
			r.o.Reports.Report(r.Status())
			select {
			case <-changed:
			case <-due:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if gap := reportGap - r.o.Clock.Now().Sub(reported); gap > 0 {
				if err := r.o.Clock.Sleep(ctx, gap); err != nil {
					return err
				}
			}
		}
	})
	return g.Wait()
}

// reportGap is the least time between two reports.
const reportGap = 50 * time.Millisecond
