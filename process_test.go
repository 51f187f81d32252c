package replicator_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A pair is a primary with an embedded NATS and one replica, as the examples in
// configs have them.
type pair struct {
	dir              string
	nats             string // the replicas' section
	source           string
	primary, replica *node
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{dir: folder(t)}
	listen := address(t)
	p.nats = "  url: nats://" + listen + "\n"
	p.source = filepath.Join(p.dir, "app.db")
	p.primary = newNode(t, "primary", "primary-1", p.dir, "  url: \"\"\n  listen: "+listen+"\n", database{"app", p.source})
	p.replica = p.another(t, "replica-1")
	return p
}

// another is a further replica.
func (p *pair) another(t *testing.T, name string) *node {
	t.Helper()
	return newNode(t, "replica", name, p.dir, p.nats, database{"app", filepath.Join(p.dir, name+".db")})
}

func (p *pair) start() {
	p.primary.start()
	p.replica.start()
}

const setUp = "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)"

// insertRows inserts n rows with values that begin with tag.
func insertRows(t *testing.T, path, tag string, n int) {
	t.Helper()
	shell(t, path, fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t(v) SELECT '%s '||i FROM n", n, tag))
}

func TestFirstRun(t *testing.T) {
	p := newPair(t)
	p.start() // before there is a database
	shell(t, p.source, setUp, "INSERT INTO t(v) VALUES('first')")
	p.primary.ready()
	p.replica.ready()
	insertRows(t, p.source, "more", 1000)
	converge(t, "app", "", p.primary, p.replica)
	if got := shell(t, p.replica.paths["app"], "SELECT count(*) FROM t"); got != "1001" {
		t.Errorf("a shell counts %s rows in the replica, want 1001", got)
	}
	// --replicas waits for the replica itself, and so for its report.
	p.primary.must("sync", "--db", "app", "--replicas", "1")
	d := p.primary.database("app")
	if d.State != "streaming" || len(d.Replicas) != 1 || d.Replicas[0].Node != "replica-1" {
		t.Errorf("the primary says %+v", d)
	}
	p.replica.stop()
	p.primary.stop()
}

func TestRestartOfEach(t *testing.T) {
	p := newPair(t)
	shell(t, p.source, setUp)
	p.start()
	p.primary.ready() // before, a signal may meet a process that does not listen to it yet
	p.replica.ready()
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"replica stopped", func() {
			p.replica.stop()
			insertRows(t, p.source, "replica away", 500)
			p.replica.start()
		}},
		{"replica killed", func() {
			p.replica.crash()
			insertRows(t, p.source, "replica dead", 500)
			p.replica.start()
		}},
		{"primary stopped", func() {
			p.primary.stop()
			insertRows(t, p.source, "primary away", 500)
			p.primary.start()
		}},
		{"primary killed", func() {
			p.primary.crash()
			insertRows(t, p.source, "primary dead", 500)
			p.primary.start()
		}},
		{"both killed", func() {
			p.primary.crash()
			p.replica.crash()
			shell(t, p.source, "ALTER TABLE t ADD COLUMN more DEFAULT 'x'; UPDATE t SET v='changed' WHERE id%3=0; VACUUM")
			p.start()
		}},
	} {
		insertRows(t, p.source, "before "+step.name, 500)
		step.do()
		insertRows(t, p.source, "after "+step.name, 500)
		converge(t, "app", step.name, p.primary, p.replica)
	}
}

// A load is a workload that runs beside the test.
type load struct {
	t    *testing.T
	work *process
	quit chan struct{}
	done chan error
}

// newLoad makes the database and returns before there is load.
func newLoad(t *testing.T, path string, seed uint64) *load {
	t.Helper()
	args := []string{path, fmt.Sprint(seed)}
	if *keepFlag != "" {
		args = append(args, path+".sql")
	}
	l := &load{t: t, work: spawn(t, "workload", args...)}
	l.do(0)
	return l
}

// do waits for n operations.
func (l *load) do(n int) {
	l.t.Helper()
	if _, err := l.work.do(fmt.Sprint(n)); err != nil {
		l.t.Fatal(err)
	}
}

// begin works until end is called.
func (l *load) begin() {
	l.quit, l.done = make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-l.quit:
				l.done <- nil
				return
			default:
			}
			if _, err := l.work.do("20"); err != nil {
				l.done <- err
				return
			}
		}
	}()
}

func (l *load) end() {
	l.t.Helper()
	close(l.quit)
	if err := <-l.done; err != nil {
		l.t.Fatal(err)
	}
}

func TestKillsUnderLoad(t *testing.T) {
	p := newPair(t)
	l := newLoad(t, p.source, 31)
	p.start()
	for _, n := range []*node{p.replica, p.primary, p.replica, p.primary} {
		p.primary.ready()
		p.replica.ready()
		l.begin()
		p.primary.must("sync", "--db", "app") // some of the load has gone through
		n.crash()
		n.start()
		p.primary.must("sync", "--db", "app", "--timeout", patience.String())
		l.end()
		converge(t, "app", n.name+" killed", p.primary, p.replica)
	}
}

// startNATS runs a server of its own, as a process.
func startNATS(t *testing.T, listen, dir string) *process {
	t.Helper()
	p := spawn(t, "nats", listen, dir)
	if line, err := p.out.ReadString('\n'); err != nil {
		t.Fatalf("nats: %q, %v, %v", line, err, p.wait())
	}
	return p
}

func TestExternalNATS(t *testing.T) {
	dir := folder(t)
	listen, store, source := address(t), filepath.Join(dir, "nats"), filepath.Join(dir, "app.db")
	section := "  url: nats://" + listen + "\n"
	primary := newNode(t, "primary", "primary-1", dir, section, database{"app", source})
	replica := newNode(t, "replica", "replica-1", dir, section, database{"app", filepath.Join(dir, "replica.db")})
	l := newLoad(t, source, 32)
	nats := startNATS(t, listen, store)
	primary.start()
	replica.start()
	l.do(100)
	converge(t, "app", "at first", primary, replica)

	l.begin()
	if err := nats.kill(); err == nil {
		t.Fatal("NATS had ended by itself")
	}
	l.end()
	l.do(50) // the application does not wait for NATS
	nats = startNATS(t, listen, store)
	l.do(50)
	converge(t, "app", "NATS killed", primary, replica)

	// The change log is the truth: a stream that is gone is published again.
	if err := nats.kill(); err == nil {
		t.Fatal("NATS had ended by itself")
	}
	if err := os.RemoveAll(store); err != nil {
		t.Fatal(err)
	}
	l.do(50)
	startNATS(t, listen, store)
	l.do(50)
	converge(t, "app", "NATS wiped", primary, replica)
}

func TestLateReplica(t *testing.T) {
	p := newPair(t)
	l := newLoad(t, p.source, 33)
	p.start()
	l.do(200)
	converge(t, "app", "before", p.primary, p.replica)
	l.begin()
	late := p.another(t, "replica-2")
	late.start()
	late.must("sync", "--db", "app", "--timeout", patience.String())
	l.end()
	converge(t, "app", "late", p.primary, p.replica, late)
}

// TestBrokenNeighbour: what is wrong with one database is no matter of another, on
// either side, from the start or later.
func TestBrokenNeighbour(t *testing.T) {
	dir := folder(t)
	listen := address(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"app.db", "damaged.db", "foreign.db"} {
		shell(t, path(name), setUp)
	}
	write("broken.db", []byte(strings.Repeat("this is no database ", 500)))
	damaged, err := os.ReadFile(path("damaged.db"))
	if err != nil {
		t.Fatal(err)
	}
	write("encrypted.db", bytes.Repeat([]byte{0xd5, 0x17, 0x8e}, len(damaged)/3))
	for i := 100; i < len(damaged); i++ {
		damaged[i] = 0xd5
	}
	write("damaged.db", damaged)
	shell(t, path("r-foreign.db"), "CREATE TABLE precious(a)") // where the replica is to write

	var sources, copies []database
	for _, name := range []string{"broken", "encrypted", "damaged", "foreign", "app", "absent"} {
		sources = append(sources, database{name, path(name + ".db")})
		copies = append(copies, database{name, path("r-" + name + ".db")})
	}
	primary := newNode(t, "primary", "primary-1", dir, "  listen: "+listen+"\n", sources...)
	replica := newNode(t, "replica", "replica-1", dir, "  url: nats://"+listen+"\n", copies...)
	primary.start()
	replica.start()
	insertRows(t, path("app.db"), "sound", 1000)
	converge(t, "app", "", primary, replica)
	primary.reaches("broken", "failed", path("broken.db"))
	primary.reaches("encrypted", "failed", "encrypted")
	primary.reaches("damaged", "failed", "damaged or encrypted")
	primary.reaches("foreign", "streaming", "")
	primary.reaches("absent", "waiting", "")
	replica.reaches("foreign", "failed", "move it away")
	if got := shell(t, path("r-foreign.db"), "SELECT count(*) FROM precious"); got != "0" {
		t.Errorf("the foreign file says %q", got)
	}

	// Each heals when the file does.
	shell(t, path("absent.db"), setUp)
	insertRows(t, path("absent.db"), "late", 10)
	converge(t, "absent", "", primary, replica)
	for _, name := range []string{"broken", "encrypted"} {
		if err := os.Remove(path(name + ".db")); err != nil {
			t.Fatal(err)
		}
		shell(t, path(name+".db"), setUp)
		insertRows(t, path(name+".db"), "mended", 10)
		converge(t, name, "", primary, replica)
	}
	if err := os.Remove(path("r-foreign.db")); err != nil {
		t.Fatal(err)
	}
	insertRows(t, path("foreign.db"), "made room", 10)
	converge(t, "foreign", "", primary, replica)

	// One that is lost while it is served takes nothing with it.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path("absent.db" + suffix)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	primary.reaches("absent", "waiting", "")
	insertRows(t, path("app.db"), "after all", 1000)
	converge(t, "app", "a neighbour is lost", primary, replica)
	primary.reaches("app", "streaming", "")
	replica.reaches("app", "streaming", "")
}

// TestHTTP: what the nodes answer, as their users ask.
func TestHTTP(t *testing.T) {
	p := newPair(t)
	shell(t, p.source, setUp)
	p.start()
	insertRows(t, p.source, "some", 10)
	lsn := p.replica.must("sync", "--db", "app")
	p.primary.must("sync", "--db", "app", "--replicas", "1")
	p.primary.ready()
	p.replica.ready()
	for _, c := range []struct {
		node           *node
		method, path   string
		status         int
		want, wantLess string // parts of the answer; less: not there
	}{
		{p.primary, "GET", "/healthz", 200, `"ok": true`, ""},
		{p.replica, "GET", "/healthz", 200, `"ok": true`, ""},
		{p.primary, "GET", "/readyz?max_lag=1h", 200, `"ready": true`, ""},
		{p.replica, "GET", "/readyz?max_lag=1h&min_lsn=" + lsn, 200, `"ready": true`, ""},
		{p.replica, "GET", "/readyz?min_lsn=1000000", 503, `"app: at LSN `, ""},
		{p.replica, "GET", "/readyz?max_lag=soon", 400, `{ "error": "parameter max_lag `, ""},
		{p.primary, "GET", "/metrics", 200, `replicator_lsn{db="app",step="published"} `, `step="applied"`},
		{p.replica, "GET", "/metrics", 200, `replicator_lsn{db="app",step="applied"} `, `step="published"`},
		{p.primary, "GET", "/v1/status", 200, `"role": "primary"`, `"applied": null`},
		{p.primary, "GET", "/v1/status", 200, `"replicas": [ { "node": "replica-1", "state": "`, ""},
		{p.primary, "GET", "/v1/status", 200, `"lsn": { "captured": `, `"error"`},
		{p.replica, "GET", "/v1/status", 200, `"lsn": { "applied": `, `"captured"`},
		{p.primary, "GET", "/v1/lag", 200, `"name": "app", "lag": { "transactions": `, ""},
		{p.primary, "GET", "/v1/lag", 200, `"replicas": [ { "node": "replica-1", "lag": { "transactions": `, ""},
		{p.replica, "GET", "/v1/lag", 200, `"lag": { "transactions": 0, "bytes": 0, "seconds": 0 }`, "replicas"},
		{p.primary, "POST", "/v1/databases/app/sync?replicas=1&timeout=1m", 200, `{ "lsn": ` + lsn + `, "epoch": 1, "lineage": "`, ""},
		{p.replica, "POST", "/v1/databases/app/sync?timeout=1m", 200, `{ "lsn": ` + lsn + `, "epoch": 1, "lineage": "`, ""},
		{p.primary, "POST", "/v1/databases/app/sync?replicas=9&timeout=200ms", 504, `is applied by 1 of 9 replicas: time is up", "lsn": ` + lsn, ""},
		{p.primary, "GET", "/v1/databases/app/sync", 405, `{ "error": "method GET; use POST" }`, ""},
		{p.replica, "GET", "/v1/databases/app/wait?lsn=" + lsn + "&epoch=1&timeout=1m", 200, `{ "lsn": ` + lsn + `, "epoch": 1, "lineage": "`, ""},
		{p.replica, "GET", "/v1/databases/app/wait?lsn=1000000&timeout=1ms", 504, `time is up", "lsn": ` + lsn + `, "epoch": 1, "lineage": "`, ""},
		{p.replica, "GET", "/v1/databases/app/wait", 400, `{ "error": "parameter lsn `, ""},
		{p.replica, "GET", "/v1/databases/nope/wait?lsn=1", 404, `{ "error": "unknown database \"nope\"" }`, ""},
		{p.replica, "POST", "/v1/databases/app/verify", 200, `"equal": true`, "differences"},
		{p.primary, "POST", "/v1/databases/app/snapshot", 200, `"lsn": ` + lsn, "error"},
		{p.primary, "GET", "/v2", 404, `{ "error": "no such path: /v2" }`, ""},
	} {
		code, body := c.node.http(c.method, c.path)
		if code != c.status || !strings.Contains(body, c.want) || c.wantLess != "" && strings.Contains(body, c.wantLess) {
			t.Errorf("%s %s of the %s: %d %s; want %d, %q and not %q", c.method, c.path, c.node.role, code, body, c.status, c.want, c.wantLess)
		}
	}
}

// TestReplicaFileDisplaced: readers see at once what stands at the path, and so
// does the replica.
func TestReplicaFileDisplaced(t *testing.T) {
	p := newPair(t)
	shell(t, p.source, setUp)
	p.start()
	insertRows(t, p.source, "before", 100)
	converge(t, "app", "", p.primary, p.replica)
	file := p.replica.paths["app"]
	for _, suffix := range []string{"-shm", "-wal", ""} {
		if err := os.Remove(file + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	insertRows(t, p.source, "deleted", 100)
	converge(t, "app", "the file was deleted", p.primary, p.replica)

	foreign := filepath.Join(p.dir, "foreign.db")
	shell(t, foreign, "CREATE TABLE precious(a); INSERT INTO precious VALUES('gold')")
	if err := os.Rename(foreign, file); err != nil {
		t.Fatal(err)
	}
	p.replica.reaches("app", "failed", "move it away")
	if got := shell(t, file, "SELECT * FROM precious"); got != "gold" {
		t.Errorf("the foreign file holds %q", got)
	}
	insertRows(t, p.source, "replaced", 100)
	if err := os.Rename(file, foreign); err != nil {
		t.Fatal(err)
	}
	converge(t, "app", "the foreign file was moved away", p.primary, p.replica)
	p.replica.stop()
	p.primary.stop()
}

// nobody is a user who owns nothing.
const nobody = 65534

// TestDirectoryNotWritable: SQLite keeps files beside a database, so whoever captures it
// must be able to write there. Nothing stops root: then it is somebody else who tries.
func TestDirectoryNotWritable(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	sources := filepath.Join(dir, "sources")
	source, data, linked := filepath.Join(sources, "app.db"), filepath.Join(dir, "primary-1"), filepath.Join(dir, "replicator")
	if err := errors.Join(os.Mkdir(sources, 0o755), os.Mkdir(data, 0o755)); err != nil {
		t.Fatal(err)
	}
	shell(t, source, "CREATE TABLE t(v)")
	n := newNode(t, "primary", "primary-1", dir, "  listen: "+address(t)+"\n", database{"app", source})
	if err := errors.Join(os.Link(program(t), linked), os.Chmod(n.config, 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(linked, "primary", "--config", n.config)
	var err error
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		err = errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chown(data, nobody, nobody))
	} else {
		err = os.Chmod(sources, 0o555)
		t.Cleanup(func() { _ = os.Chmod(sources, 0o755) }) // to be removed
	}
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "primary-1", cmd)
	err = p.wait()
	var exit *exec.ExitError
	last := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
	want := "replicator: database app: cannot be captured as it is: " + source + ": the file and its directory must be writable for this user"
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.HasPrefix(last[len(last)-1], want) {
		t.Errorf("%v:\n%s", err, p.stderr)
	}
	if left, err := os.ReadDir(sources); err != nil || len(left) != 1 {
		t.Errorf("beside the database: %v, %v", left, err)
	}
}
