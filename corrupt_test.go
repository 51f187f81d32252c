package replicator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/replica"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/stream"
)

// A long run: go test -run TestCorruptSource -corrupt.seed 1000 -corrupt.cases 5000 -timeout 3h .
var (
	corruptSeed  = flag.Uint64("corrupt.seed", 1, "first case of TestCorruptSource")
	corruptCases = flag.Int("corrupt.cases", 40, "number of cases of TestCorruptSource")
)

// secret is in every row of the databases that are damaged. It may be in no log
// and no error.
const secret = "S3CR3T"

// corruptSetup fills a database of every shape.
const corruptSetup = `
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INT, r REAL); CREATE INDEX tv ON t(v);
CREATE TABLE plain(a, b BLOB);
CREATE TABLE w(k TEXT PRIMARY KEY, v, big BLOB) WITHOUT ROWID;
CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b GENERATED ALWAYS AS (a||'!') VIRTUAL);
CREATE VIRTUAL TABLE fts USING fts5(x); CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
CREATE TABLE gone AS SELECT zeroblob(20000);
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<150) INSERT INTO t SELECT i*3, '` + secret + `-'||i||printf('%.*c', i%40, 'x'), i*1000003, i/7.0 FROM n;
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<40) INSERT INTO plain SELECT i, CAST(printf('` + secret + `%.*c', i*i*3, 'y') AS BLOB) FROM n;
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<80) INSERT INTO w SELECT '` + secret + `-k'||i, i, CAST(printf('` + secret + `%.*c', i%9*300, 'z') AS BLOB) FROM n;
WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20) INSERT INTO auto(a) SELECT '` + secret + `-'||i FROM n;
INSERT INTO fts SELECT v FROM t LIMIT 20; INSERT INTO box SELECT id, id, id+1 FROM t LIMIT 30; DROP TABLE gone;`

// corruptWork is what the application goes on with. SQLite may refuse any of it.
var corruptWork = []string{
	"INSERT INTO t(v,n) VALUES('" + secret + " new', 1)",
	"UPDATE t SET v=v||'" + secret + "' WHERE id%7=0",
	"DELETE FROM t WHERE id BETWEEN 100 AND 160",
	"INSERT INTO plain VALUES('" + secret + "', CAST('" + secret + "' AS BLOB)||zeroblob(5000))",
	"UPDATE plain SET b=CAST('" + secret + "' AS BLOB)||zeroblob(2500) WHERE rowid%5=0",
	"DELETE FROM plain WHERE rowid%3=0",
	"INSERT OR REPLACE INTO w VALUES('" + secret + "-k7', 'new', zeroblob(3000)), ('" + secret + "-new', 1, NULL)",
	"UPDATE w SET v='" + secret + "' WHERE v%4=0",
	"DELETE FROM w WHERE v BETWEEN 30 AND 60",
	"INSERT INTO auto(a) VALUES('" + secret + "')",
	"INSERT INTO fts VALUES('" + secret + " words')",
	"DELETE FROM box WHERE id<30",
	"CREATE TABLE more AS SELECT * FROM t",
	"DROP TABLE IF EXISTS more",
	"CREATE INDEX IF NOT EXISTS pi ON plain(a)",
	"PRAGMA incremental_vacuum(5)",
	"PRAGMA user_version=77",
}

// corruptTouch changes every table that an application writes.
var corruptTouch = []string{
	"INSERT INTO t(v) VALUES('" + secret + "')", "INSERT INTO plain VALUES(1, 2)",
	"INSERT OR REPLACE INTO w VALUES('" + secret + "-last', 1, NULL)", "INSERT INTO auto(a) VALUES(1)",
	"INSERT INTO fts VALUES('last words')", "INSERT INTO box VALUES(100000, 1, 2)",
}

// TestCorruptSource damages files of a source at every moment of its life with
// the primary, through to a replica. What SQLite reads from the source is the
// judge: the replica holds the same, or somebody says why not.
func TestCorruptSource(t *testing.T) {
	lab := newCorruptLab(t)
	cases := *corruptCases
	if testing.Short() {
		cases = min(cases, 20)
	}
	for seed := *corruptSeed; seed < *corruptSeed+uint64(cases); seed++ {
		c := lab.newCase(seed)
		outcome := c.run()
		c.end()
		lab.count[c.mode+": "+outcome]++
	}
	for _, what := range slices.Sorted(maps.Keys(lab.count)) {
		t.Logf("%6d %s", lab.count[what], what)
	}
	for _, what := range slices.Sorted(maps.Keys(lab.said)) {
		t.Logf("%6d %s", lab.said[what], what)
	}
}

// A corruptLab is what the cases share.
type corruptLab struct {
	t      *testing.T
	dir    string
	conn   *stream.Conn
	vandal *process
	models []string // sound databases
	count  map[string]int
	said   map[string]int // errors, their numbers left out
}

func newCorruptLab(t *testing.T) *corruptLab {
	g := &rig{t: t, dir: folder(t)}
	g.connect()
	l := &corruptLab{t: t, dir: g.dir, conn: g.conn, vandal: spawn(t, "vandal"), count: map[string]int{}, said: map[string]int{}}
	for i, shape := range []string{
		"PRAGMA page_size=512; PRAGMA auto_vacuum=0;",
		"PRAGMA page_size=512; PRAGMA auto_vacuum=2; PRAGMA encoding='UTF-16';",
		"PRAGMA page_size=1024; PRAGMA auto_vacuum=1;",
		"PRAGMA page_size=4096;",
	} {
		path := filepath.Join(l.dir, fmt.Sprintf("model%d.db", i))
		l.order(order{Do: "make", Path: path, SQL: shape + "PRAGMA journal_mode=WAL;" + corruptSetup})
		l.models = append(l.models, path)
	}
	return l
}

// order gives the vandal one, and returns what was refused.
func (l *corruptLab) order(o order) string {
	l.t.Helper()
	line, err := json.Marshal(o)
	if err != nil {
		l.t.Fatal(err)
	}
	answer, err := l.vandal.do(string(line))
	if err != nil {
		l.t.Fatal(err)
	}
	return answer
}

// order is recorded, too.
func (c *corruptCase) order(o order) string {
	c.t.Helper()
	answer := c.corruptLab.order(o)
	c.trace = append(c.trace, fmt.Sprintf("%s %s: %s", o.Do, o.SQL, answer))
	return answer
}

// A corruptCase is one source and what happens to it.
type corruptCase struct {
	*corruptLab
	seed   uint64
	r      *rand.Rand
	mode   string
	name   string
	source string
	log    *lockedBuffer
	trace  []string // orders and answers

	pipeline *primary.Pipeline
	replica  *replica.Replica
	stops    []func() error // that have not run
	patient  bool           // trouble may pass
	late     bool           // the rows' hashes had their chance
}

func (l *corruptLab) newCase(seed uint64) *corruptCase {
	c := &corruptCase{corruptLab: l, seed: seed, r: seeded(seed, 4), name: fmt.Sprintf("c%d", seed), log: &lockedBuffer{}}
	c.source = filepath.Join(l.dir, c.name, "source.db")
	c.must(os.MkdirAll(filepath.Dir(c.source), 0o755))
	c.order(order{Do: "copy", Path: c.source, Out: pick(c.r, l.models...)})
	c.mode = pick(c.r, "file before", "file", "frames", "commit", "commit", "commit")
	c.patient = seed%16 == 0
	return c
}

func (c *corruptCase) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("%s; again: go test -run TestCorruptSource -corrupt.seed %d -corrupt.cases 1 .", fmt.Sprintf(format, args...), c.seed)
	c.t.Logf("case %d, %s:\n%s\n%s", c.seed, c.mode, strings.Join(c.trace, "\n"), c.log)
}

func (c *corruptCase) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("case %d: %v", c.seed, err)
	}
}

// run says in a few words how it ended.
func (c *corruptCase) run() string {
	damage := map[string]string{"file before": "damage", "file": "damage", "frames": "frames", "commit": "commit"}[c.mode]
	do := func() { c.order(order{Do: damage, Path: c.source, Seed: c.seed}) }
	if c.mode == "file before" {
		do()
		c.order(order{Do: "open", Path: c.source})
		c.work(c.r.IntN(3))
		c.startPrimary()
		c.startReplica()
		return c.settle()
	}
	c.order(order{Do: "open", Path: c.source})
	c.startPrimary()
	c.startReplica()
	c.work(1 + c.r.IntN(4))
	if outcome := c.settle(); outcome != "equal" {
		c.fail("before any damage: %s", outcome)
		return outcome
	}
	if c.mode == "frames" {
		c.stop(0)
		c.work(1 + c.r.IntN(3))
		do()
		c.startPrimary()
	} else {
		do()
	}
	c.work(c.r.IntN(3))
	return c.settle()
}

func (c *corruptCase) work(n int) {
	for range n {
		c.order(order{Do: "sql", SQL: pick(c.r, corruptWork...)})
	}
}

func (c *corruptCase) logger() *slog.Logger { return slog.New(slog.NewTextHandler(c.log, nil)) }

func (c *corruptCase) startPrimary() {
	tu := roomy()
	if c.seed%2 == 0 {
		tu = tight()
	}
	p, err := primary.New(primary.Options{
		Name: c.name, Path: c.source, Dir: c.source + ".primary", Node: "p",
		Stream:    primaryStream{c.conn.Stream(c.name, stream.StreamConfig{Poll: 100 * time.Millisecond})},
		Snapshots: c.conn.Objects(c.name, 1), Sources: &primary.Sources{}, Capture: tu.capture, Snapshot: tu.snapshot,
		ChangeLog: tu.changeLog, Replay: replay, Clock: time.Now, Logger: c.logger(),
	})
	c.must(err)
	c.pipeline = p
	stop := c.serve(p.Run)
	if len(c.stops) > 0 {
		c.stops[0] = stop
		return
	}
	c.stops = []func() error{stop}
}

func (c *corruptCase) startReplica() {
	r, err := replica.New(replica.Options{
		Database: c.name, Path: filepath.Join(filepath.Dir(c.source), "replica.db"),
		Stream:    c.conn.Stream(c.name, stream.StreamConfig{Poll: 100 * time.Millisecond}),
		Snapshots: replica.FromStore(c.conn.Objects(c.name, 1), snapshot.Options{}),
		Clock:     quickClock{}, Logger: c.logger(), Apply: replica.Apply{HoldWriteLock: true, VerifyRows: true},
	})
	c.must(err)
	c.replica = r
	c.stops = append(c.stops, c.serve(r.Run))
}

// serve is serve without the end of the test, and Run may end by itself.
func (c *corruptCase) serve(run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() error {
		cancel()
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-time.After(corruptPatience):
			b := make([]byte, 1<<20)
			c.t.Fatalf("case %d does not end:\n%s\n%s", c.seed, c.log, b[:runtime.Stack(b, true)])
			return nil
		}
	}
}

// corruptPatience is how long a case may take to come to an end that it must
// come to.
const corruptPatience = 30 * time.Second

func (c *corruptCase) stop(i int) {
	if err := c.stops[i](); err != nil {
		c.note("ended: " + err.Error())
	}
	c.stops[i] = func() error { return nil }
}

// trouble is what somebody can see: an error of the primary or the replica.
func (c *corruptCase) trouble() string {
	if s := c.pipeline.Status(); s.Error != "" || s.State == primary.StateFailed || s.Sums.Mismatches+s.Sums.MapMismatches > 0 {
		return "primary " + s.State + ": " + s.Error
	}
	s := c.replica.Status()
	switch {
	case s.Error != nil && s.State != replica.Waiting && !beginning.MatchString(s.Error.Text):
		return "replica " + string(s.State) + ": " + s.Error.Text
	case s.State == replica.Failed, s.State == replica.Diverged:
		return "replica " + string(s.State)
	}
	return ""
}

// beginning is the trouble of a replica that came before the primary.
var beginning = regexp.MustCompile("no snapshot|the stream ends before")

var errTrouble = errors.New("trouble")

// settle waits until the replica has everything, or until there is trouble, and
// judges.
func (c *corruptCase) settle() string {
	patience := corruptPatience
	if c.patient {
		patience = 4 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, context.DeadlineExceeded)
	defer cancel()
	ctx, hit := context.WithCancelCause(ctx)
	defer hit(nil)
	passing := make(chan string, 1) // trouble that was seen
	go func() {
		defer close(passing)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for said := false; ctx.Err() == nil; <-tick.C {
			text := c.trouble()
			if text == "" {
				continue
			}
			if !said {
				passing <- text
				said = true
			}
			if !c.patient {
				hit(errTrouble)
			}
		}
	}()
	at, err := c.pipeline.Sync(ctx)
	if err == nil {
		_, err = c.replica.WaitFor(ctx, at)
	}
	if err == nil && c.mode == "file" { // no frame tells of it
		err = c.audit(ctx)
	}
	trouble := c.trouble()
	if trouble == "" && err != nil && ctx.Err() == nil {
		trouble = err.Error()
	}
	hit(nil)
	if before := <-passing; trouble == "" && err != nil {
		trouble = before
	}
	switch {
	case trouble != "":
		c.note(trouble)
	case err != nil:
		c.fail("no end in sight, and nobody says why: %v; primary %+v; replica %+v", err, c.pipeline.Status(), c.replica.Status())
		return "hangs"
	}
	diff := c.difference()
	switch {
	case trouble == "" && diff != "" && !c.late:
		return c.again()
	case trouble == "" && diff != "":
		c.fail("the replica differs, and nobody says so:\n%s", diff)
		return "silent"
	case trouble == "":
		return "equal"
	case c.patient && err == nil && diff != "":
		return "trouble, differs"
	}
	return "trouble"
}

// again gives the hashes of rows their chance: they are known some time after the
// start, and compared at the next change of a table. They know what the decoder has
// made of the source, and nothing better.
func (c *corruptCase) again() string {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(corruptPatience); time.Now().Before(end) && c.trouble() == ""; <-tick.C {
		if s := c.pipeline.Status().Sums; s.Known == s.Tables {
			break
		}
	}
	c.late = true
	for _, sql := range corruptTouch {
		c.order(order{Do: "sql", SQL: sql})
	}
	return c.settle()
}

// audit is what verify does.
func (c *corruptCase) audit(ctx context.Context) error {
	id, _, err := c.pipeline.BeginAudit(ctx)
	if err != nil {
		return err
	}
	defer c.pipeline.EndAudit(id)
	a, err := c.pipeline.Audit(ctx, id)
	if err == nil && a.Audit == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	conn, err := sqlite.Open(filepath.Join(filepath.Dir(c.source), "replica.db"), sqlite.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	tables, _, err := conn.Content(ctx, nil)
	if err == nil && !slices.Equal(tables, a.Audit.Tables) {
		err = errors.New("verify says that the replica differs")
	}
	return errors.Join(err, conn.Close())
}

// difference compares what SQLite reads.
func (c *corruptCase) difference() string {
	want, got := c.source+".facts", filepath.Join(filepath.Dir(c.source), "replica.facts")
	c.order(order{Do: "facts", Path: c.source, Out: want})
	c.order(order{Do: "facts", Path: filepath.Join(filepath.Dir(c.source), "replica.db"), Out: got})
	a, err := os.ReadFile(want)
	c.must(err)
	b, err := os.ReadFile(got)
	c.must(err)
	// Automatic indexes follow their tables, and nothing but a page tells of the
	// numbers in the header.
	leave := regexp.MustCompile(`(?m)^schema\tindex "sqlite_autoindex.*\n|^(user_version|application_id).*\n`)
	if c.mode == "file" || c.mode == "commit" {
		a, b = leave.ReplaceAll(a, nil), leave.ReplaceAll(b, nil)
	}
	switch {
	case bytes.Contains(a, []byte("\n"+unreadable)) || bytes.HasPrefix(a, []byte(unreadable)):
		return "SQLite cannot read the source: " + strings.Join(regexp.MustCompile("(?m)^"+unreadable+".*$").FindAllString(string(a), -1), "; ")
	case bytes.Equal(a, b):
		return ""
	}
	sound := "integrity_check(20)\tok\nquick_check(20)\tok\n"
	c.must(errors.Join(os.WriteFile(want, append([]byte(sound), a...), 0o600), os.WriteFile(got, append([]byte(sound), b...), 0o600)))
	text := difference(c.t, want, got)
	if text == otherOrder { // no more is promised of a key out of order
		return ""
	}
	return text
}

var numbers = regexp.MustCompile(`0x[0-9a-f]+|[0-9a-f]{8,}|[0-9]+|/[^ ,:;"]+`)

// note keeps what was said, to look at.
func (c *corruptCase) note(text string) {
	c.said[numbers.ReplaceAllString(text, "N")]++
	c.wantPlaces(text)
}

// ofDamage is in errors that damaged bytes cause, and place says where those are: the
// end of a transaction is none.
var (
	ofEnd    = regexp.MustCompile(`transaction that ends at frame [0-9]+`)
	ofDamage = regexp.MustCompile(`decode: inconsistent|sqlitefile: corrupt`)
	place    = regexp.MustCompile(`\b(pages?|frames?|row) [0-9]+\b|\b(database|SQLite WAL) header\b`)
)

// wantPlaces checks that each line about damage tells where it is.
func (c *corruptCase) wantPlaces(text string) {
	for line := range strings.Lines(text) {
		if ofDamage.MatchString(line) && !place.MatchString(ofEnd.ReplaceAllString(line, "")) {
			c.fail("damage without a place: %s", line)
		}
	}
}

// end stops everything and looks for row values in what was logged.
func (c *corruptCase) end() {
	for i := len(c.stops) - 1; i >= 0; i-- {
		c.stop(i)
	}
	c.order(order{Do: "close"})
	text := c.log.String()
	c.wantPlaces(text)
	reports, err := filepath.Glob(filepath.Join(c.source+".primary", "reports", "*"))
	c.must(err)
	for _, path := range reports {
		report, err := os.ReadFile(path)
		c.must(err)
		text += string(report)
		c.said["bug report: "+filepath.Base(path)[len("20060102T150405.000Z-"):]]++
	}
	for said := range c.said {
		text += said
	}
	if strings.Contains(text, secret) {
		c.fail("a row value was logged")
	}
	if *keepFlag == "" {
		c.must(os.RemoveAll(filepath.Dir(c.source)))
	}
}

// A lockedBuffer is a log to look at.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
