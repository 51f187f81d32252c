package replicator_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

// A long run: go test -run TestDifferential -seed 1000 -seeds 200 -rounds 30 -ops 200 .
var (
	seedFlag   = flag.Uint64("seed", 0, "first seed of the differential tests; 0: the fixed ones")
	seedsFlag  = flag.Int("seeds", 1, "number of seeds, with -seed")
	roundsFlag = flag.Int("rounds", 4, "comparisons of a differential test")
	opsFlag    = flag.Int("ops", 120, "operations of the workload before each comparison")
)

// seeds are those of the flags, or the fixed ones; with -short two of them.
func seeds(fixed ...uint64) []uint64 {
	if *seedFlag == 0 {
		if testing.Short() {
			return fixed[:min(2, len(fixed))]
		}
		return fixed
	}
	list := make([]uint64, *seedsFlag)
	for i := range list {
		list[i] = *seedFlag + uint64(i)
	}
	return list
}

// eachSeed runs a test for each seed; a failure tells how to run it alone.
func eachSeed(t *testing.T, fixed []uint64, run func(*rig)) {
	for _, seed := range seeds(fixed...) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { run(newRig(t, seed)) })
	}
}

// A rig is the whole product in this process: one source that a workload in
// another process writes, a pipeline, an embedded NATS and replicas.
type rig struct {
	t      *testing.T
	seed   uint64
	dir    string
	source string
	hint   string
	tuning tuning
	resync bool // the pipeline may close a gap by the difference

	work     *process
	conn     *stream.Conn
	pipeline *primary.Pipeline // nil while it is stopped
	stopping *service
	starts   int
}

func newRig(t *testing.T, seed uint64) *rig {
	g := &rig{t: t, seed: seed, dir: folder(t), tuning: roomy(), resync: seed%4 < 2}
	if seed%2 == 0 {
		g.tuning = tight()
	}
	if seed%3 == 0 {
		var err error
		g.tuning.changeLog.Packer, err = cdc.NewPacker(cdc.Zstd)
		g.must(err)
	}
	g.source = filepath.Join(g.dir, "source.db")
	g.hint = fmt.Sprintf("replay: go test -run '^%s$' -seed %d -rounds %d -ops %d -keep /tmp/keep .", rootOf(t), seed, *roundsFlag, *opsFlag)
	trace := []string{}
	if *keepFlag != "" {
		trace = append(trace, filepath.Join(g.dir, "trace.sql"))
	}
	g.work = spawn(t, "workload", append([]string{g.source, fmt.Sprint(seed)}, trace...)...)
	g.connect()
	_, err := g.work.do("0") // the file is there
	g.must(err)
	return g
}

// rootOf is the name of the test without that of the seed.
func rootOf(t *testing.T) string { return filepath.Dir(t.Name()) }

func (g *rig) connect() {
	log := logger(g.t, "nats")
	server, err := stream.NewServer(stream.ServerOptions{Name: "test", Dir: filepath.Join(g.dir, "nats"), Logger: log})
	g.must(err)
	serve(g.t, "nats", server.Run)
	ctx, cancel := oneWait()
	defer cancel()
	g.conn, err = stream.Connect(ctx, stream.Options{Server: server, Name: "test", Logger: log})
	g.must(err)
	g.t.Cleanup(g.conn.Close)
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.fail("%v", err)
	}
}

func (g *rig) fail(format string, args ...any) {
	g.t.Helper()
	if g.pipeline != nil {
		g.t.Logf("primary: %+v", g.pipeline.Status())
	}
	g.t.Fatalf(format+"\n%s", append(args, g.hint)...)
}

// change lets the workload go on.
func (g *rig) change() {
	g.t.Helper()
	answer, err := g.work.do(fmt.Sprint(*opsFlag))
	g.must(err)
	g.t.Log(answer)
}

func (g *rig) startPrimary() {
	g.t.Helper()
	g.starts++
	o := primary.Options{
		Name: "app", Path: g.source, Dir: filepath.Join(g.dir, "primary"), Node: "primary-1",
		Stream: primaryStream{g.conn.Stream("app", stream.StreamConfig{Poll: 100 * time.Millisecond})}, Snapshots: g.conn.Objects("app", 1),
		Sources: &primary.Sources{}, Capture: g.tuning.capture, Snapshot: g.tuning.snapshot, ChangeLog: g.tuning.changeLog,
		Clock: time.Now, Logger: logger(g.t, fmt.Sprintf("primary/%d", g.starts)),
	}
	if g.resync {
		o.Replay = replay
	}
	p, err := primary.New(o)
	g.must(err)
	g.pipeline, g.stopping = p, serve(g.t, "primary", p.Run)
}

func (g *rig) stopPrimary() {
	g.t.Helper()
	g.must(g.stopping.stop())
	g.pipeline = nil
}

// A copy is one replica of a rig.
type copied struct {
	*replica.Replica
	g    *rig
	name string
	path string
	run  *service
}

func (g *rig) startReplica(name string) *copied {
	g.t.Helper()
	c := &copied{g: g, name: name, path: filepath.Join(g.dir, name+".db")}
	c.start()
	return c
}

func (c *copied) start() {
	g := c.g
	g.t.Helper()
	g.starts++
	r, err := replica.New(replica.Options{
		Database: "app", Path: c.path, SpoolDir: filepath.Join(g.dir, "spool-"+c.name),
		Stream:    g.conn.Stream("app", stream.StreamConfig{Poll: 100 * time.Millisecond}),
		Snapshots: replica.FromStore(g.conn.Objects("app", 1), snapshot.Options{}),
		Clock:     quickClock{}, Logger: logger(g.t, fmt.Sprintf("%s/%d", c.name, g.starts)), Apply: g.tuning.apply,
	})
	g.must(err)
	c.Replica, c.run = r, serve(g.t, c.name, r.Run)
}

func (c *copied) stop() {
	c.g.t.Helper()
	c.g.must(c.run.stop())
}

// scratch removes the file, as if the replica were new.
func (c *copied) scratch() {
	for _, suffix := range []string{"", "-wal", "-shm", ".replicator"} {
		c.g.must(os.RemoveAll(c.path + suffix))
	}
}

// equal waits until everything that was committed is applied, and compares. Each
// counts as a failure: a replica that had to be seeded again although nothing was
// wrong hides a bug.
func (g *rig) equal(replicas ...*copied) {
	g.t.Helper()
	ctx, cancel := oneWait()
	defer cancel()
	at, err := g.pipeline.Sync(ctx)
	g.must(err)
	for _, c := range replicas {
		c.waitFor(at)
		compare(g.t, g.source, c.path, g.hint)
		if n := c.Status().Counters; n.Divergences != 0 || n.StrayWrites != 0 {
			g.fail("%s is equal only because it was seeded again: %+v, error %+v", c.name, n, c.Status().Error)
		}
	}
}

// waitFor fails as soon as the replica has failed for good.
func (c *copied) waitFor(at cdc.Position) {
	g := c.g
	g.t.Helper()
	ctx, cancel := oneWait()
	defer cancel()
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if c.Status().State == replica.Failed {
					cancel()
				}
			}
		}
	}()
	if _, err := c.WaitFor(ctx, at); err != nil {
		g.fail("%s: %v; status %+v, error %+v", c.name, err, c.Status(), c.Status().Error)
	}
}

// TestDifferential compares after each round with nothing stopped in between.
func TestDifferential(t *testing.T) {
	eachSeed(t, []uint64{1, 2, 3, 4, 5, 6}, func(g *rig) {
		if g.seed%3 == 0 { // a database that has a past
			g.change()
		}
		g.startPrimary()
		r := g.startReplica("replica")
		for range *roundsFlag {
			g.change()
			g.equal(r)
		}
		if n := r.Status().Counters; n.Reseeds != 0 {
			g.fail("nothing was stopped, but the replica was seeded again: %+v", n)
		}
	})
}

// TestDifferentialRestarts stops one side or both between the rounds, some of
// which are written while the primary is away.
func TestDifferentialRestarts(t *testing.T) {
	eachSeed(t, []uint64{11, 12, 13, 16}, func(g *rig) {
		r := seeded(g.seed, 2)
		g.startPrimary()
		c := g.startReplica("replica")
		g.change()
		g.equal(c)
		for range *roundsFlag {
			primaryAway, replicaAway := r.IntN(2) == 0, r.IntN(2) == 0
			if primaryAway {
				g.stopPrimary()
			}
			if replicaAway {
				c.stop()
				if r.IntN(3) == 0 {
					c.scratch()
				}
			}
			if r.IntN(3) > 0 {
				g.change()
			}
			if primaryAway {
				g.startPrimary()
			}
			if r.IntN(2) == 0 {
				g.change()
			}
			if replicaAway {
				c.start()
			}
			g.equal(c)
		}
	})
}

// TestDifferentialLate adds a replica late, and seeds another again under a
// reader that keeps its transaction open all the time.
func TestDifferentialLate(t *testing.T) {
	eachSeed(t, []uint64{21, 22}, func(g *rig) {
		g.startPrimary()
		early := g.startReplica("early")
		g.change()
		g.equal(early)
		reader, err := sqlite.Open(early.path, sqlite.Options{ReadOnly: true, BusyTimeout: busyTimeout})
		g.must(err)
		defer func() { g.must(reader.Close()) }()
		g.must(reader.OpenRead())
		before := g.facts(reader)
		// What changes while the primary is away breaks the history.
		g.stopPrimary()
		g.change()
		g.startPrimary()
		late := g.startReplica("late")
		for range *roundsFlag {
			g.change()
			g.equal(early, late)
		}
		if after := g.facts(reader); after != before {
			g.fail("a read transaction on the replica moved from %s to %s", before, after)
		}
		g.must(reader.Rollback())
	})
}

// facts is what an open read transaction sees.
func (g *rig) facts(c *sqlite.Conn) string {
	g.t.Helper()
	tables, schema, err := c.Content(g.t.Context(), nil)
	g.must(err)
	return fmt.Sprint(tables, schema)
}

// TestDifferentialReplaced puts another database in the source's place, of another
// shape if the seed has it so: while the primary is away, and under it.
func TestDifferentialReplaced(t *testing.T) {
	eachSeed(t, []uint64{41, 42}, func(g *rig) {
		g.startPrimary()
		r := g.startReplica("replica")
		g.change()
		g.equal(r)
		g.stopPrimary()
		g.replace(g.seed + 1000)
		g.startPrimary()
		g.change()
		g.equal(r)
		g.replace(g.seed + 2000)
		g.change()
		g.equal(r)
	})
}

// replace ends the workload and begins another one on a new file of that name.
func (g *rig) replace(seed uint64) {
	g.t.Helper()
	g.must(g.work.wait())
	next := filepath.Join(g.dir, "next.db")
	args := []string{next, fmt.Sprint(seed)}
	w := spawn(g.t, "workload", args...)
	_, err := w.do("50")
	g.must(err)
	g.must(w.wait()) // the last connection checkpoints: one file is all there is
	for _, suffix := range []string{"-wal", "-shm"} {
		g.must(os.RemoveAll(g.source + suffix))
	}
	g.must(os.Rename(next, g.source))
	g.work = spawn(g.t, "workload", g.source, fmt.Sprint(seed))
	_, err = g.work.do("0")
	g.must(err)
}
