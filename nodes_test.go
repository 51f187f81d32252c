package replicator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/internal/loopback"
	"github.com/sqlite-replicator/replicator/stream"
)

// tags are those that every build of the program needs.
const tags = "sqlite_fts5 sqlite_math_functions sqlite_stat4"

// A builder compiles the program once for all tests.
type builder struct {
	shifted bool // with the clock of testdata/shiftedclock

	once sync.Once
	dir  string
	err  error
}

func (b *builder) program() (string, error) {
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "replicator-test-"); b.err != nil {
			return
		}
		args := []string{"build", "-tags", tags, "-o", b.dir}
		if b.shifted {
			overlay := filepath.Join(b.dir, "overlay.json")
			if b.err = replaceClock(overlay); b.err != nil {
				return
			}
			args = append(args, "-overlay", overlay)
		}
		out, err := exec.Command("go", append(args, "./cmd/replicator")...).CombinedOutput()
		if err != nil {
			b.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	return filepath.Join(b.dir, "replicator"), b.err
}

// replaceClock writes an overlay for go build.
func replaceClock(overlay string) error {
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(wd, "internal/clock/clock.go"): filepath.Join(wd, "testdata/shiftedclock/clock.go"),
	}})
	if err != nil {
		return err
	}
	return os.WriteFile(overlay, text, 0o600)
}

// remove removes what was built, if anything was.
func (b *builder) remove() error { return os.RemoveAll(b.dir) }

// Both are shared by all tests of this process; TestMain removes them.
var (
	built        builder
	builtShifted = builder{shifted: true}
)

// program is the path of the real thing.
func program(t *testing.T) string { t.Helper(); return from(t, &built) }

// from is the path of what b builds.
func from(t *testing.T, b *builder) string {
	t.Helper()
	// go test notes which files a test looks at, but not what a child reads:
	// without this a cached result would outlive a change of the program.
	for _, name := range goFiles(t) {
		if _, err := os.Stat(name); err != nil {
			t.Fatal(err)
		}
	}
	path, err := b.program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// playNATS is a child's main: ADDRESS DIR. It is a NATS server of its own until
// its input ends or it is killed.
func playNATS(args []string) error {
	l := discard()
	s, err := stream.NewServer(stream.ServerOptions{Name: "external", Listen: args[0], Dir: args[1], Logger: l})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if err := s.WaitReady(ctx); err != nil {
		end()
		return errors.Join(err, <-ended)
	}
	fmt.Println("ready")
	drain(os.Stdin)
	end()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// given is shared by all tests of this process.
var given loopback.Addresses

// address is a free one on this machine.
func address(t *testing.T) string {
	t.Helper()
	a, err := given.Free()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A node is a daemon, which may be stopped and started again.
type node struct {
	t      *testing.T
	role   string // primary or replica
	name   string
	config string // file
	listen string // of its HTTP server
	paths  map[string]string
	clock  string   // file that says by how much its clock is off; "" for the system's
	p      *process // nil while it does not run
}

// A database is an entry of a configuration.
type database struct{ name, path string }

// newNode writes a configuration of the same form as those in configs. nats is
// the server's section.
func newNode(t *testing.T, role, name, dir, nats string, databases ...database) *node {
	t.Helper()
	n := &node{t: t, role: role, name: name, config: filepath.Join(dir, name+".yaml"), listen: address(t), paths: map[string]string{}}
	var b strings.Builder
	fmt.Fprintf(&b, "node: %s\ndata_dir: %s\ndatabases:\n", name, filepath.Join(dir, name))
	for _, d := range databases {
		n.paths[d.name] = d.path
		fmt.Fprintf(&b, "  - name: %s\n    path: %s\n", d.name, d.path)
	}
	fmt.Fprintf(&b, "nats:\n%shttp:\n  listen: %s\n", nats, n.listen)
	if err := os.WriteFile(n.config, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) start() {
	n.t.Helper()
	cmd := exec.Command(program(n.t), n.role, "--config", n.config)
	if n.clock != "" {
		cmd = exec.Command(from(n.t, &builtShifted), n.role, "--config", n.config)
		cmd.Env = append(os.Environ(), "SHIFTED_CLOCK="+n.clock)
	}
	n.p = start(n.t, n.name, cmd)
	n.t.Cleanup(func() {
		if n.t.Failed() {
			n.t.Logf("%s:\n%s", n.name, n.p.stderr)
		}
	})
}

// stacks ends the daemon, if it runs, and lets it say what it was doing.
func (n *node) stacks() {
	for _, s := range []syscall.Signal{syscall.SIGCONT, syscall.SIGQUIT} {
		_ = n.p.cmd.Process.Signal(s) // it may have ended
	}
	_ = n.p.wait()
}

// stop ends the daemon as a service manager does. One that the signal ended before
// it had said anything had not come to its main yet.
func (n *node) stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	if err := n.p.wait(); err != nil && n.p.stderr.String() != "" {
		n.t.Fatalf("%s: after SIGTERM: %v", n.name, err)
	}
}

// crash ends it as a power failure of the process does.
func (n *node) crash() {
	n.t.Helper()
	var killed *exec.ExitError
	if err := n.p.kill(); !errors.As(err, &killed) || killed.ExitCode() != -1 {
		n.t.Fatalf("it had ended by itself: %v", err)
	}
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	n.p.signal(s)
}

// setClock puts the clock of the node's machine off by d.
func (n *node) setClock(d time.Duration) {
	n.t.Helper()
	if err := os.WriteFile(n.clock, strconv.AppendInt(nil, int64(d), 10), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// ask runs a command of the program against the node.
func (n *node) ask(args ...string) (string, error) {
	n.t.Helper()
	args = append(args, "--url", "http://"+n.listen)
	cmd := exec.Command(program(n.t), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("replicator %s: %w: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func (n *node) must(args ...string) string {
	n.t.Helper()
	out, err := n.ask(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// ready waits until every database of the node is streaming.
func (n *node) ready() { n.t.Helper(); n.must("wait", "--timeout", patience.String()) }

// A nodeStatus is what the tests read of GET /v1/status.
type nodeStatus struct {
	Node      string           `json:"node"`
	Role      string           `json:"role"`
	Databases []databaseStatus `json:"databases"`
}

type databaseStatus struct {
	Name     string             `json:"name"`
	State    string             `json:"state"`
	Error    string             `json:"error"`
	Details  map[string]float64 `json:"details"`
	Replicas []struct {
		Node  string `json:"node"`
		State string `json:"state"`
	} `json:"replicas"`
}

func (n *node) status() (s nodeStatus) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.must("status", "--json")), &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (n *node) database(name string) databaseStatus {
	n.t.Helper()
	for _, d := range n.status().Databases {
		if d.Name == name {
			return d
		}
	}
	n.t.Fatalf("%s does not know database %s", n.name, name)
	return databaseStatus{}
}

// reaches asks until a database is in the state, with text in its error. The node
// may have been started a moment ago.
func (n *node) reaches(name, state, text string) {
	n.t.Helper()
	ctx, cancel := oneWait()
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := n.ask("status", "--json") // an error until it listens
		var s nodeStatus
		if err == nil {
			err = json.Unmarshal([]byte(out), &s)
		}
		last := fmt.Sprint(err)
		for _, d := range s.Databases {
			if d.Name != name {
				continue
			}
			if last = d.State + ", " + d.Error; d.State == state && strings.Contains(d.Error, text) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.t.Fatalf("%s of %s is %s; want %s, %q", name, n.name, last, state, text)
		}
	}
}

// http sends a request and gives the answer with all white space as single spaces.
func (n *node) http(method, path string) (code int, body string) {
	n.t.Helper()
	ctx, cancel := oneWait()
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.listen+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		n.t.Fatal(err)
	}
	return res.StatusCode, strings.Join(strings.Fields(string(text)), " ")
}

// converge waits until the replicas have everything that was committed to the
// database, and compares.
func converge(t *testing.T, db, hint string, from *node, replicas ...*node) {
	t.Helper()
	lsn := from.must("sync", "--db", db, "--timeout", patience.String())
	for _, r := range replicas {
		if _, err := r.ask("wait", "--db", db, "--lsn", lsn, "--timeout", patience.String()); err != nil {
			t.Fatalf("%v\n%s", err, hint)
		}
		compare(t, from.paths[db], r.paths[db], hint)
	}
}

// A shell is the sqlite3 program that the system has: another SQLite than ours.
func shell(t *testing.T, path string, sql ...string) string {
	t.Helper()
	sqlite3, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("this test writes with the sqlite3 shell, which is not installed")
	}
	out, err := exec.Command(sqlite3, slices.Concat([]string{"-bail", "-cmd", ".timeout 20000", path}, sql)...).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %s: %v: %s", path, err, out)
	}
	return strings.TrimSpace(string(out))
}
