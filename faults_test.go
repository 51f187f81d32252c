package replicator_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/clock"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
	"github.com/sqlite-replicator/replicator/testdata/wallclock"
)

// promptly is how soon a node says that something is wrong.
const promptly = 5 * time.Second

// longAgo is an age at which a snapshot no longer counts as made a moment ago.
const longAgo = time.Minute

// A plant is the product with parts that can be broken one by one: the
// application is a process, NATS is another one, a pipeline and replicas are
// here. What stands between them may be replaced before start.
type plant struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	source string
	data   string // the primary's data_dir
	copies string // the replicas' directory
	tuning tuning
	clock  *shiftedClock // the primary's
	remote *shiftedClock // the replicas'
	app    *application

	listen, url string // of NATS, and where clients connect
	stream      stream.StreamConfig
	store       string // of NATS
	nats        *process
	conn        *stream.Conn // the primary's

	publishing func(primary.Stream) primary.Stream
	consuming  func(replica.Stream) replica.Stream
	objects    func(snapshot.Store) snapshot.Store

	pipeline *primary.Pipeline
	running  *running
	followers
}

// Followers are the replicas of a plant.
type followers struct{ all []*follower }

// newPlant starts nothing but the application.
func newPlant(t *testing.T, seed uint64) *plant {
	t.Helper()
	dir := folder(t)
	p := &plant{
		t: t, ctx: patient(t), dir: dir, tuning: roomy(), clock: &shiftedClock{}, remote: &shiftedClock{},
		source: filepath.Join(dir, "source.db"), data: filepath.Join(dir, "primary"), copies: filepath.Join(dir, "replicas"),
		listen: address(t), store: filepath.Join(dir, "nats"),
		stream:     stream.StreamConfig{Poll: 200 * time.Millisecond, AckTimeout: time.Second, Replicas: 1},
		publishing: func(s primary.Stream) primary.Stream { return s },
		consuming:  func(s replica.Stream) replica.Stream { return s },
		objects:    func(s snapshot.Store) snapshot.Store { return s },
	}
	p.url = "nats://" + p.listen
	p.app = newApplication(t, p.source, seed)
	return p
}

// begin starts NATS, a primary and a replica, and waits until they are even.
func (p *plant) begin() *follower {
	p.t.Helper()
	p.startNATS()
	p.startPrimary()
	f := p.follow("replica")
	p.app.do(40)
	p.even(f)
	return f
}

func (p *plant) must(err error) {
	p.t.Helper()
	if err != nil {
		p.fail("%v", err)
	}
}

func (p *plant) fail(format string, args ...any) {
	p.t.Helper()
	if p.pipeline != nil {
		p.t.Logf("primary: %+v", p.pipeline.Status())
	}
	if p.running != nil {
		select {
		case <-p.running.ended:
			p.t.Logf("the primary has ended: %v", p.running.err)
		default:
		}
	}
	for _, f := range p.all {
		s := f.Status()
		p.t.Logf("%s: %+v, error %+v", f.name, s, s.Error)
	}
	p.t.Fatalf(format, args...)
}

func (p *plant) startNATS() {
	p.t.Helper()
	p.nats = startNATS(p.t, p.listen, p.store)
}

func (p *plant) killNATS() {
	p.t.Helper()
	if err := p.nats.kill(); err == nil {
		p.fail("NATS had ended by itself")
	}
}

// connect is a connection of somebody.
func (p *plant) connect(who, url string) *stream.Conn {
	p.t.Helper()
	c, err := stream.Connect(p.ctx, stream.Options{URL: url, Name: who, Logger: logger(p.t, "nats/"+who)})
	p.must(err)
	p.t.Cleanup(c.Close)
	return c
}

// newPipeline is a primary's over the files and the connection given.
func (p *plant) newPipeline(node, source, data string, conn *stream.Conn) *primary.Pipeline {
	p.t.Helper()
	l, err := primary.New(primary.Options{
		Name: "app", Path: source, Dir: data, Node: node, Sources: &primary.Sources{},
		Stream: p.publishing(primaryStream{conn.Stream("app", p.stream)}), Snapshots: p.objects(conn.Objects("app", p.stream.Replicas)),
		Capture: p.tuning.capture, Snapshot: p.tuning.snapshot, ChangeLog: p.tuning.changeLog,
		Replay: replay, Clock: p.clock.now, Logger: logger(p.t, node),
	})
	p.must(err)
	return l
}

func (p *plant) startPrimary() {
	p.t.Helper()
	if p.conn == nil {
		p.conn = p.connect("primary", p.url)
	}
	p.pipeline = p.newPipeline("primary", p.source, p.data, p.conn)
	p.running = run(p.t, "primary", p.pipeline.Run)
	p.beat(p.running.ctx, p.pipeline, p.conn)
}

// beat does what a daemon does beside the pipeline.
func (p *plant) beat(ctx context.Context, l *primary.Pipeline, conn *stream.Conn) {
	p.must(conn.OnReports(ctx, "app", func(r stream.Report) {
		l.Heard(r.Node, r.Seen)
		if r.State == string(replica.Waiting) {
			l.WantSnapshot()
		}
	}))
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			s := l.Status()
			at := s.Position
			at.LSN, at.Epoch = s.LSN.Published, s.LSN.Epoch
			_ = conn.SendHeartbeat("app", stream.Heartbeat{ // while NATS is away nobody hears it
				State: s.State, Position: at, Captured: s.LSN.Captured, Published: at.LSN, SentAt: p.clock.now(), Level: p.clock.now().Sub(s.Level),
				Totals: stream.Totals{Transactions: s.Totals.Transactions, Bytes: s.Totals.Bytes},
			})
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (p *plant) stopPrimary() {
	p.t.Helper()
	p.must(p.running.stop())
}

// A follower is one replica of a plant.
type follower struct {
	*replica.Replica
	p    *plant
	name string
	path string
	conn *stream.Conn
	run  *running
}

// follow starts a new replica with a connection of its own.
func (p *plant) follow(name string) *follower {
	p.t.Helper()
	p.must(os.MkdirAll(p.copies, 0o755))
	f := &follower{p: p, name: name, path: filepath.Join(p.copies, name+".db"), conn: p.connect(name, p.url)}
	p.all = append(p.all, f)
	f.start()
	return f
}

func (f *follower) start() {
	p := f.p
	p.t.Helper()
	r, err := replica.New(replica.Options{
		Database: "app", Path: f.path,
		Stream: p.consuming(f.conn.Stream("app", p.stream)), Snapshots: replica.FromStore(p.objects(f.conn.Objects("app", p.stream.Replicas)), snapshot.Options{}),
		Reports: f, ReportInterval: 200 * time.Millisecond, Clock: p.remote, Logger: logger(p.t, f.name), Apply: p.tuning.apply,
	})
	p.must(err)
	f.Replica, f.run = r, run(p.t, f.name, r.Run)
	p.must(f.conn.OnHeartbeat(f.run.ctx, "app", func(h stream.Heartbeat) {
		r.Heard(replica.Heartbeat{
			State: h.State, Position: h.Position, Captured: h.Captured, Published: h.Published,
			Transactions: h.Totals.Transactions, Bytes: h.Totals.Bytes, SentAt: h.SentAt, Level: h.Level, ReceivedAt: p.remote.now(),
		})
	}))
}

// Report implements replica.Reports.
func (f *follower) Report(s replica.Status) {
	seen := s.Applied.Position
	if at := s.Source.Position; at.Epoch > seen.Epoch {
		seen = at
	}
	_ = f.conn.SendReport(stream.Report{Node: f.name, DB: "app", State: string(s.State), Applied: s.Applied.Position, Seen: seen}) // the next one comes
}

func (f *follower) stop() {
	f.p.t.Helper()
	f.p.must(f.run.stop())
}

// even waits until the replicas have everything that was committed, and compares.
func (p *plant) even(fs ...*follower) {
	p.t.Helper()
	at, err := p.pipeline.Sync(p.ctx)
	p.must(err)
	for _, f := range fs {
		p.reach(f, at)
		compare(p.t, p.source, f.path, "")
	}
}

func (p *plant) reach(f *follower, at cdc.Position) {
	p.t.Helper()
	if _, err := f.WaitFor(p.ctx, at); err != nil {
		p.fail("%s: %v", f.name, err)
	}
	p.soon(f.name+" is of the primary's history", patience, func() bool { return f.Status().Applied.Lineage == at.Lineage })
}

// healed is the end of every test: the application goes on, each replica comes
// to be equal, and so does one that begins only now. Nothing may have been
// found to differ meanwhile.
func (p *plant) healed(fs ...*follower) {
	p.t.Helper()
	p.app.do(40)
	p.even(append(fs, p.follow("late"))...)
	p.soon("the primary streams", patience, func() bool { return p.pipeline.Status().State == primary.StateStreaming })
	for _, f := range p.all {
		if n := f.Status().Counters; n.Divergences != 0 || n.StrayWrites != 0 {
			p.fail("%s is equal only because it was seeded again: %+v", f.name, n)
		}
	}
}

// soon waits for a condition that has no signal of its own.
func (p *plant) soon(what string, within time.Duration, is func() bool) {
	p.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(p.ctx, within)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.fail("not within %s: %s", within, what)
		}
	}
	p.t.Logf("after %s: %s", time.Since(began).Round(time.Millisecond), what)
}

// primaryIs waits until the primary says so.
func (p *plant) primaryIs(state string) {
	p.t.Helper()
	p.soon("the primary is "+state, promptly, func() bool { return p.pipeline.Status().State == state })
}

// is waits until the replica says so. One that is cut off does not know its lag.
func (f *follower) is(state replica.State) {
	f.p.t.Helper()
	f.p.soon(fmt.Sprintf("%s is %s", f.name, state), promptly, func() bool { return f.Status().State == state })
}

// lagUnknown waits until the replica no longer claims to know how far it is
// behind.
func (f *follower) lagUnknown() {
	f.p.t.Helper()
	f.p.soon(f.name+" does not know its lag", promptly+time.Second, func() bool {
		l := f.Status().Lag
		return l.Seconds == nil && l.Since != nil
	})
}

// A running is something with a Run(ctx), which may end by itself.
type running struct {
	ctx   context.Context
	ended chan struct{}
	err   error // of Run; once ended
	stop  func() error
}

func run(t *testing.T, name string, f func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{ctx: ctx, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		defer cancel() // what goes with it ends, too
		r.err = f(ctx)
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		<-r.ended
		if errors.Is(r.err, context.Canceled) {
			return nil
		}
		return fmt.Errorf("%s: %w", name, r.err)
	})
	t.Cleanup(func() { _ = r.stop() }) // a test that expects no error has asked
	return r
}

// fate waits until it has ended by itself.
func (p *plant) fate(r *running) error {
	p.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-p.ctx.Done():
		p.fail("it did not end by itself")
		return nil
	}
}

// A shiftedClock is the system's, of a machine on which time has passed and somebody has
// set the clock.
type shiftedClock struct {
	clock.System
	passed, off atomic.Int64
}

func (c *shiftedClock) now() time.Time {
	return wallclock.Set(time.Now().Add(time.Duration(c.passed.Load())), time.Duration(c.off.Load()))
}

// Now implements replica.Clock.
func (c *shiftedClock) Now() time.Time { return c.now() }

func (c *shiftedClock) advance(d time.Duration) { c.passed.Add(int64(d)) }

// set moves the clock by whole seconds.
func (c *shiftedClock) set(by time.Duration) { c.off.Add(int64(by)) }

// An application writes a database from another process, small transactions
// and large ones, and now and then another schema. Unlike the workload it holds
// nothing exotic: what is tested here is not what can be captured. It fails when
// a write does.
type application struct{ load }

var _ = func() bool {
	roles["application"] = playApplication
	return true
}()

func newApplication(t *testing.T, path string, seed uint64) *application {
	t.Helper()
	a := &application{load{t: t, work: spawn(t, "application", path, fmt.Sprint(seed))}}
	a.do(0)
	return a
}

// playApplication is a child's main: PATH SEED. It does as many transactions as
// each line of its input says.
func playApplication(args []string) (err error) {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	c, err := sqlite.Open(args[0], sqlite.Options{Plain: true, Create: true, BusyTimeout: busyTimeout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	err = c.Exec(`PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, owner TEXT UNIQUE, balance REAL);
CREATE TABLE IF NOT EXISTS entry(account, at, what BLOB, PRIMARY KEY(account, at)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_at ON entry(at)`)
	r := seeded(seed, 3)
	for in := bufio.NewScanner(os.Stdin); err == nil && in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		for range n {
			if err := c.Exec("BEGIN IMMEDIATE;" + business(r) + ";COMMIT"); err != nil {
				return fmt.Errorf("a write of the application failed: %w", err)
			}
		}
		fmt.Println("ok")
	}
	return err
}

// business is what one transaction does.
func business(r *rand.Rand) string {
	a, b := r.IntN(500), r.IntN(500)
	switch r.IntN(12) {
	case 0:
		return fmt.Sprintf("DELETE FROM account WHERE id=%d; DELETE FROM entry WHERE account=%d", a, a)
	case 1: // of many records
		return fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT OR REPLACE INTO entry SELECT %d, i, hex(randomblob(20))||printf('%%.*c', 300, 'x') FROM n", 20+r.IntN(600), a)
	case 2:
		return fmt.Sprintf("INSERT OR REPLACE INTO entry VALUES(%d, 0, randomblob(%d))", a, r.IntN(40_000))
	case 3:
		return fmt.Sprintf("CREATE TABLE IF NOT EXISTS extra%d(v); INSERT INTO extra%d VALUES(%d)", a%7, a%7, b)
	case 4:
		return fmt.Sprintf("DROP TABLE IF EXISTS extra%d", a%7)
	case 5:
		return fmt.Sprintf("UPDATE entry SET what=%d WHERE at=%d", b, a)
	}
	return fmt.Sprintf("INSERT OR REPLACE INTO account VALUES(%d, 'owner '||%d, %d.5); UPDATE account SET balance=balance+1 WHERE id>%d", a, b, r.IntN(1000), a-20)
}
