package replicator_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sqlite-replicator/replicator/primary"
)

// twin copies the source and the primary's data directory, as a clone of a
// machine does. Nobody may have them open.
func (p *plant) twin() (source, data string) {
	p.t.Helper()
	dir := p.t.TempDir()
	source, data = filepath.Join(dir, "source.db"), filepath.Join(dir, "primary")
	p.must(os.CopyFS(data, os.DirFS(p.data)))
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(p.source + suffix)
		if suffix == "-wal" && os.IsNotExist(err) {
			continue
		}
		p.must(err)
		p.must(os.WriteFile(source+suffix, b, 0o600))
	}
	return source, data
}

// TestTwoPrimaries of one stream, over copies of one source: one of them writes
// the stream, and the other one says that it does not.
func TestTwoPrimaries(t *testing.T) {
	for _, busy := range []bool{false, true} {
		name := "idle"
		if busy {
			name = "busy"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 131)
			f := p.begin()
			p.stopPrimary()
			source, data := p.twin()
			p.startPrimary()
			first, ran := p.pipeline, p.running
			_, err := first.Sync(p.ctx)
			p.must(err)
			other := newApplicationOn(p, source)
			if busy {
				p.app.begin()
				other.begin()
			}
			conn := p.connect("twin", p.url)
			second := p.newPipeline("twin", source, data, conn)
			runs := run(t, "twin", second.Run)
			// Both have an epoch record of their own at the same LSN: who was first has
			// it in the stream.
			if err := p.fate(runs); !isFence(err) {
				p.fail("the twin ended with %v", err)
			}
			if s := second.Status(); s.State != primary.StateFenced || !strings.Contains(s.Error, "nats stream rm") {
				p.fail("the twin says %+v", s)
			}
			if busy {
				other.end() // its application goes on
				p.app.end()
			}
			other.do(20)
			select {
			case <-ran.ended:
				p.fail("the first primary ended: %v", ran.err)
			default:
			}
			p.healed(f)
		})
	}
}

// TestOlderPrimaryIsFenced: one that was away while a clone of it took over.
func TestOlderPrimaryIsFenced(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 132)
	f := p.begin()
	link := newProxy(t, p.listen)
	p.stopPrimary()
	source, data := p.twin()
	p.conn = p.connect("zombie", link.url)
	link.up.set(false) // it begins when it cannot be heard
	link.down.set(false)
	p.startPrimary()
	zombie, ran, old := p.pipeline, p.running, p.app
	conn := p.connect("heir", p.url)
	p.app, p.source, p.data = newApplicationOn(p, source), source, data
	p.pipeline = p.newPipeline("heir", source, data, conn)
	p.running = run(t, "heir", p.pipeline.Run)
	p.beat(p.running.ctx, p.pipeline, conn)
	old.do(40) // what only the zombie sees
	p.app.do(20)
	p.even(f)
	link.up.set(true)
	link.down.set(true)
	old.do(20)
	if err := p.fate(ran); !isFence(err) {
		p.fail("the zombie ended with %v", err)
	}
	if s := zombie.Status(); s.State != primary.StateFenced {
		p.fail("the zombie says %+v", s)
	}
	p.healed(f)
}

func isFence(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "database app: fenced")
}

// newApplicationOn goes on with a database.
func newApplicationOn(p *plant, path string) *application {
	p.t.Helper()
	return newApplication(p.t, path, 999)
}

// TestFrozenPrimary: the real thing is stopped as a machine that hangs, and goes on
// when a clone of it has taken over.
func TestFrozenPrimary(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	listen := address(t)
	section := "  url: nats://" + listen + "\n"
	startNATS(t, listen, filepath.Join(dir, "nats"))
	source, heirs := filepath.Join(dir, "source.db"), filepath.Join(dir, "heir.db")
	shell(t, source, setUp)
	zombie := newNode(t, "primary", "primary-1", dir, section, database{"app", source})
	replica := newNode(t, "replica", "replica-1", dir, section, database{"app", filepath.Join(dir, "replica.db")})
	zombie.start()
	replica.start()
	insertRows(t, source, "before", 100)
	converge(t, "app", "before", zombie, replica)
	zombie.signal(syscall.SIGSTOP)
	if err := os.CopyFS(filepath.Join(dir, "heir"), os.DirFS(filepath.Join(dir, "primary-1"))); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		if out, err := exec.Command("cp", source+suffix, heirs+suffix).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	heir := newNode(t, "primary", "heir", dir, section, database{"app", heirs})
	heir.start()
	heir.ready()
	insertRows(t, heirs, "after", 100)
	converge(t, "app", "after", heir, replica)
	insertRows(t, source, "lost", 100) // its application goes on
	zombie.signal(syscall.SIGCONT)
	insertRows(t, source, "lost, too", 100)
	ctx := patient(t)
	var d databaseStatus
	for d.State != "fenced" {
		if d = zombie.statusOf(t, "app"); d.State == "failed" || ctx.Err() != nil {
			t.Fatalf("the zombie is %s: %s", d.State, d.Error)
		}
	}
	if !strings.Contains(d.Error, "nats stream rm") {
		t.Errorf("it says %q", d.Error)
	}
	insertRows(t, heirs, "more", 100)
	converge(t, "app", "more", heir, replica)
	zombie.stop()
}

// statusOf asks without a command: the daemon may be just about to listen.
func (n *node) statusOf(t *testing.T, db string) (d databaseStatus) {
	t.Helper()
	answer, err := http.Get("http://" + n.listen + "/v1/status")
	if err != nil {
		return d
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var s nodeStatus
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	for _, d := range s.Databases {
		if d.Name == db {
			return d
		}
	}
	return d
}

// TestSecondDaemon: on a data directory or a file that has a daemon, even one
// that hangs, the second one ends with one line that says why.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	shell(t, p.source, setUp)
	p.start()
	insertRows(t, p.source, "rows", 100)
	converge(t, "app", "", p.primary, p.replica)
	for _, n := range []*node{p.primary, p.replica} {
		n.signal(syscall.SIGSTOP)
		second := newNode(t, n.role, n.name+"-again", p.dir, p.nats, database{"app", n.paths["app"]})
		config, err := os.ReadFile(second.config)
		if err != nil {
			t.Fatal(err)
		}
		if n.role == "primary" { // the same data directory
			config = []byte(strings.ReplaceAll(string(config), n.name+"-again", n.name))
		}
		if err := os.WriteFile(second.config, config, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program(t), n.role, "--config", second.config).CombinedOutput()
		var refusal []string
		for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			if strings.Contains(line, "another replicator") && strings.Contains(line, "pid") {
				refusal = append(refusal, line)
			}
		}
		if err == nil || len(refusal) == 0 {
			t.Errorf("a second %s: %v\n%s", n.role, err, out)
		}
		n.signal(syscall.SIGCONT)
	}
	insertRows(t, p.source, "more", 100)
	converge(t, "app", "", p.primary, p.replica)
}
