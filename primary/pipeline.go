package primary

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/durable"
	"github.com/sqlite-replicator/replicator/internal/tick"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/wal"
)

// Options are what a Pipeline is made of.
type Options struct {
	Name      string // of the database
	Path      string // of the source database file
	Dir       string // where the change log and temporary files of this database go
	Node      string
	Version   string // of the program, for reports of defects
	Stream    Stream
	Snapshots snapshot.Store
	Sources   *Sources // shared by all pipelines of the process
	Capture   CaptureOptions
	Snapshot  SnapshotOptions
	ChangeLog ChangeLogOptions
	// Replay opens a file restored from a snapshot to apply records to it. With
	// nil, every doubt ends in a break and a new snapshot.
	Replay func(path string, m snapshot.Manifest) (Replayer, error)
	// Only says that the process has no other database: what is wrong with this one
	// by itself then ends Run, unless it was right before.
	Only   bool
	Clock  func() time.Time
	Logger *slog.Logger
}

// ChangeLogOptions bound the change log on disk.
type ChangeLogOptions struct {
	SegmentBytes int64
	MaxBytes     int64         // beyond it even records that wait to be published are given up; 0: no bound
	RetainFor    time.Duration // records stay at least this long after they were acknowledged
	NoSync       bool          // a power failure may take the last records: see wal.Options
	Packer       *cdc.Packer   // of records; many pipelines may share one
	FS           durable.FS    // of the change log; nil: the operating system's
}

// A Pipeline captures one database and ships it. Its methods may be called
// concurrently; Run once.
type Pipeline struct {
	o     Options
	calls chan call
	watch func(path string) (*watcher, error)

	status    statusBoard
	ship      atomic.Pointer[shipper]
	snapshots *snapshotter
	audits    audits
	sums      *rowSums // the capture's
	terms     *terms   // Run's
	doubts    *doubts
	summer    summer
	reports   *reports
	notice    lastNotice
	changed   broadcast     // whenever a position moves
	gaveWay   atomic.Uint64 // times that captured records gave way to the stream's
	fences    chan error    // has room for one: why this primary must stop

	captured, shipped atomic.Bool // ever
	capturing         atomic.Bool // a term runs
}

// A call is work for the goroutine that owns the capture.
type call struct {
	do   func(*capture) error
	done chan error
}

// New checks the options. It opens and starts nothing.
func New(o Options) (*Pipeline, error) {
	if o.Name == "" || o.Path == "" || o.Dir == "" || o.Stream == nil || o.Snapshots == nil || o.Sources == nil || o.Clock == nil || o.Logger == nil {
		return nil, errors.New("primary: incomplete options")
	}
	p := &Pipeline{o: o, calls: make(chan call), fences: make(chan error, 1), watch: o.Sources.watches.add}
	p.o.Logger = o.Logger.With("db", o.Name)
	p.status.init(o.Clock)
	p.snapshots = newSnapshotter(p)
	p.audits.clock = o.Clock
	p.sums = newRowSums(p.o.Logger)
	p.doubts = newDoubts(durable.OS{}, o.Dir, p.o.Logger)
	p.summer.p, p.summer.whole, p.summer.hold = p, inspectWhole, sumHold
	p.reports = newReports(o.Dir, o.Version, o.Clock, p.o.Logger, p.changed.notify)
	o.Sources.join()
	return p, nil
}

// retryAfter is the pause after a trouble that may heal.
const retryAfter = time.Second

// Run captures and ships until ctx ends. Trouble that may heal is a state, and
// is retried; only what this process cannot mend by itself ends Run with
// another error: a damaged change log, a fence, a data directory in use.
func (p *Pipeline) Run(ctx context.Context) error {
	if err := os.MkdirAll(p.o.Dir, 0o755); err != nil {
		return fmt.Errorf("data directory of %s: %w", p.o.Name, err)
	}
	lock, err := durable.LockDir(p.o.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()                 // the process ends or the next Run says so
	if err := removeDatabase(p.rebuilt()); err != nil { // as large as the database, left by a crash
		return fmt.Errorf("data directory of %s: %w", p.o.Name, err)
	}
	if p.terms, err = openTerms(p.o.Dir, p.o.Node, p.o.Logger); err != nil {
		return fmt.Errorf("data directory of %s: %w", p.o.Name, err)
	}
	p.doubts.recall()
	for {
		err := p.withLog(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrFenced) || errors.Is(err, wal.ErrDamaged) || errors.Is(err, cdc.ErrVersion) || errors.Is(err, errUnfit) {
			return fmt.Errorf("database %s: %w", p.o.Name, err)
		}
		if !errors.Is(err, errBehind) { // which opening it again mends
			p.status.trouble(troubleLog, err)
			p.o.Logger.Error("change log failed; it is opened again", "err", err)
		}
		if err := sleep(ctx, retryAfter); err != nil {
			return err
		}
	}
}

// withLog runs over one opening of the change log. After a failed write or
// fsync only what a new opening reads back can be believed.
func (p *Pipeline) withLog(ctx context.Context) (err error) {
	log, err := p.openLog(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	p.status.durable(log)
	ship := &shipper{
		stream: p.o.Stream, log: log, logger: p.o.Logger, makeRoom: p.snapshots.makeRoom,
		trouble: func(err error) { p.status.trouble(troubleShip, err) }, moved: p.moved, taken: p.snapshots.lookAgain, created: p.snapshots.forget,
		recovery: p.recovery(),
	}
	p.ship.Store(ship)
	p.snapshots.open(log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.capture(ctx, log) })
	g.Go(func() error { return ship.Run(ctx) })
	g.Go(func() error { return p.snapshots.Run(ctx, log) })
	g.Go(func() error { return p.summer.Run(ctx, p.sums.wanted) })
	g.Go(func() error { return p.reports.Run(ctx) })
	g.Go(func() error {
		select {
		case err := <-p.fences:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	err = g.Wait()
	if errors.Is(err, ErrFenced) {
		p.status.trouble(troubleShip, err)
		p.o.Logger.Error("fenced: nothing more is published", "err", err)
	}
	return err
}

// capture runs one term after another until the change log fails or ctx ends.
func (p *Pipeline) capture(ctx context.Context, log *wal.Log) error {
	for said := ""; ; {
		err := p.term(ctx, log)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errLog) {
			return err
		}
		if !p.captured.Load() {
			if unfit := unfit(err); unfit != nil { // which says what to do
				err = unfit
			}
		}
		p.status.trouble(troubleCapture, err)
		p.status.trouble(troubleLog, nil)
		if p.o.Only && errors.Is(err, errUnfit) {
			return err
		}
		if text := err.Error(); text != said { // a file that stays away is said once
			said = text
			p.o.Logger.Warn("capture waits", "path", p.o.Path, "err", err)
		}
		if err := sleep(ctx, retryAfter); err != nil {
			return err
		}
	}
}

// term captures from an epoch record to the first error. A doubt that ends it is noted
// before anything else is.
func (p *Pipeline) term(ctx context.Context, log *wal.Log) (err error) {
	if err := roomFor(p.o.Dir, leastRoom); err != nil { // before a term begins that could record nothing
		return err
	}
	src, release, err := p.open()
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, src.close())
		release()
	}()
	w, err := p.watch(src.path + "-wal")
	if err != nil { // a limit of the whole machine, which others may have used up
		p.o.Logger.Warn("changes are looked for by the clock", "every", (&watcher{}).longest(p.o.Capture.PollInterval), "err", err)
		w = &watcher{}
	}
	defer func() { err = errors.Join(err, w.close()) }()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	c, err := newCapture(ctx, src, log, captureSetup{
		dir: p.o.Dir, options: p.o.Capture, clock: p.o.Clock, logger: p.o.Logger,
		rebuild: p.rebuilder(log), waits: p.waits, doubts: p.doubts, newest: p.snapshots.complete, sums: p.sums, terms: p.terms, packer: p.o.ChangeLog.Packer,
		reports: p.reports,
	})
	if err != nil {
		return err
	}
	defer func() {
		c.orderly = ctx.Err() != nil && err == ctx.Err()
		end(err)
		p.capturing.Store(false)
		if !c.orderly { // else their contexts end, too, which is how they know a stop from a failure
			p.snapshots.interrupt(err)
			p.summer.interrupt(err)
		}
		c.frozen.Wait()
		err = errors.Join(err, c.close())
	}()
	p.captured.Store(true)
	p.capturing.Store(true)
	p.snapshots.begin(c.broken)
	p.status.trouble(troubleLog, nil) // only now it has taken a record
	p.status.trouble(troubleCapture, nil)
	p.status.trouble(troubleCheckpoint, nil)
	p.o.Logger.Info("capturing", "path", p.o.Path, "epoch", c.encoder.Position().Epoch, "lsn", c.encoder.Position().LSN,
		"pages", c.follower.view.pages, "page_size", c.follower.view.pageSize,
		"map_recalled", c.start.recalled, "pages_read", c.start.read)
	err = p.follow(ctx, c, w)
	c.reportLost(err)
	p.doubtAfter(err)
	return err
}

// doubtAfter raises the doubt that an error leaves which ends a term: to decode a
// transaction again would fail again. Where it is in the map, what that was wrong about
// before is not known. One that cannot be noted keeps the next term from beginning.
func (p *Pipeline) doubtAfter(err error) {
	switch {
	case errors.Is(err, errReservedName), errors.Is(err, errHeaderChanged):
		_ = p.doubts.raise(err, nil)
	case errors.Is(err, errUndecodable):
		_ = p.doubts.raise(err, p.summer.sound())
	}
}

// moved tells that the stream was taken up, or has got a record.
func (p *Pipeline) moved() {
	p.shipped.Store(true)
	p.changed.notify()
}

// waits tells why a term cannot begin yet.
func (p *Pipeline) waits(err error) {
	p.status.trouble(troubleCapture, err)
	p.changed.notify()
}

// leastRoom is the free space, in bytes, below which no term begins.
const leastRoom = 4 << 20

// open claims and opens the source. It is claimed before it is opened: to close
// a second descriptor of a file drops the locks of whoever has the first.
func (p *Pipeline) open() (_ *source, release func(), err error) {
	id, err := statID(p.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", p.o.Path, errAbsent)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("source database: %w", err)
	}
	release, err = p.o.Sources.claim(id, p.o.Name)
	if err != nil {
		return nil, nil, err
	}
	src, err := openSource(p.o.Path)
	if err == nil && src.id != id {
		err = errors.Join(fmt.Errorf("%s: %w", p.o.Path, errReplaced), src.close())
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	src.cacheBytes, src.mapBytes = p.o.Sources.cacheBytes(), p.o.Sources.mapBytes()
	return src, release, nil
}

// Bounds of the pause between two polls. Changes announce themselves through
// inotify a little before they are visible, hence the short naps; the longest
// pause only matters if an event were lost, and for what is done once a second.
const (
	firstNap = 20 * time.Microsecond  // after a notice
	lastNap  = 500 * time.Millisecond // the longest, unless CaptureOptions say another
	blindNap = 10 * time.Millisecond  // the longest where nothing announces changes

	togetherFrom = 250 * time.Millisecond // pauses from here end together with those of other databases
)

// follow is the loop of a term.
func (p *Pipeline) follow(ctx context.Context, c *capture, w *watcher) error {
	pause, breath := time.Duration(0), time.Duration(0)
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		wake, level := w.wake, p.o.Clock()
		n, err := c.poll()
		if err != nil {
			return err
		}
		p.audits.expire()
		if err := c.maintain(n, p.snapshots.reading() || p.summer.reading() || p.audits.reading() > 0); err != nil {
			return err
		}
		p.status.trouble(troubleCheckpoint, c.follower.stuck)
		if c.upkeep.pressed {
			p.snapshots.interrupt(errSnapshotSpace)
			p.summer.interrupt(errSumSpace)
			p.audits.interrupt(errAuditSpace)
		}
		if p.status.captured(c, level) {
			p.notice.note(p.o.Clock())
			p.changed.notify()
			breath = c.breather(breath)
			pause, wake = breath, nil
		} else if breath = 0; c.upkeep.yielding {
			pause = leastBreather
		} else {
			pause = min(max(2*pause, firstNap), w.longest(p.o.Capture.PollInterval))
		}
		woken, err := p.wait(ctx, c, wake, t, pause)
		if err != nil {
			return err
		}
		if woken {
			pause = 0
		}
	}
}

// wait pauses, by means of t, until something may have happened, and serves one call.
func (p *Pipeline) wait(ctx context.Context, c *capture, wake <-chan struct{}, t *time.Timer, pause time.Duration) (woken bool, err error) {
	if pause < time.Millisecond {
		runtime.Gosched() // whoever waits for what was captured goes on here; a nap would keep the thread from it
		nap(pause)
		pause = 0
	}
	if pause >= togetherFrom {
		pause = tick.Until(time.Now(), pause)
	}
	t.Reset(pause)
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-wake:
		p.notice.note(p.o.Clock())
		return true, nil
	case call := <-p.calls:
		err := call.do(c)
		call.done <- err
		if errors.Is(err, errFreeze) {
			err = nil
		}
		return true, err
	case <-t.C:
		return false, nil
	}
}

// ask runs do in the goroutine that owns the capture, once there is one. An
// error of do ends the term, unless it wraps errFreeze.
func (p *Pipeline) ask(ctx context.Context, do func(*capture) error) error {
	c := call{do: do, done: make(chan error, 1)}
	select {
	case p.calls <- c:
		return <-c.done
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// askOn is ask, and again in the next term where do only finds that this one has to end.
func (p *Pipeline) askOn(ctx context.Context, do func(*capture) error) error {
	err := p.ask(ctx, do)
	for endsTerm(err) {
		err = p.ask(ctx, do)
	}
	return err
}

// Sync returns a position that covers every transaction committed before the
// call: captured, durable and published. Writers that never stop do not delay
// it: it waits for what was committed at the call only.
func (p *Pipeline) Sync(ctx context.Context) (cdc.Position, error) {
	for {
		gaveWay := p.gaveWay.Load()
		at, err := p.sync(ctx, func() bool { return p.gaveWay.Load() != gaveWay })
		if err != nil || p.gaveWay.Load() == gaveWay {
			return at, err
		}
	}
}

// sync is Sync, until stop says that what is captured gave way to something else.
func (p *Pipeline) sync(ctx context.Context, stop func() bool) (cdc.Position, error) {
	at, err := p.reach(ctx)
	if err != nil {
		s := p.Status()
		state := s.State
		if s.Error != "" {
			state += ": " + s.Error
		}
		return cdc.Position{}, fmt.Errorf("sync %s: %w; the database is %s", p.o.Name, err, state)
	}
	err = p.changed.wait(ctx, func() bool { return p.published() >= at.LSN || stop() })
	if err != nil {
		return at, fmt.Errorf("sync %s: captured up to %d, published up to %d: %w", p.o.Name, at.LSN, p.published(), err)
	}
	return at, nil
}

// endsTerm reports whether err ends a term, and no more: the next one opens what is
// there now, and finds out what was missed.
func endsTerm(err error) bool {
	return errors.Is(err, errReplaced) || errors.Is(err, errLost) || errors.Is(err, errPastSQLite)
}

// reach captures what was committed before the call. A file that was replaced
// reads on as if nothing had happened, so it looks at the path first.
func (p *Pipeline) reach(ctx context.Context) (at cdc.Position, err error) {
	err = p.askOn(ctx, func(c *capture) error {
		if err := c.src.unmoved(); err != nil {
			return err
		}
		if _, err := c.poll(); err != nil {
			return err
		}
		at = c.encoder.Position()
		return nil
	})
	return at, err
}

// ours reports whether the stream is known to be ours, and with it the snapshots.
func (p *Pipeline) ours() bool {
	s := p.ship.Load()
	return s != nil && s.ours.Load()
}

func (p *Pipeline) published() cdc.LSN {
	if s := p.ship.Load(); s != nil {
		return cdc.LSN(s.published.Load())
	}
	return 0
}
