package replicator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// allowed gives who names no user the permissions of configs/primary-external-nats.yaml.
const allowed = `
no_auth_user: replicator
authorization {
  users: [{user: replicator, password: unused, permissions: {
    publish: ["replicator.>", "$JS.API.>", "$O.>", "_INBOX.>"]
    subscribe: ["replicator.>", "_INBOX.>"]
  }}]
}
`

// A cluster is three servers of their own.
type cluster struct {
	p       *plant
	program string
	servers [3]*process
	ports   [3]string // for clients
	routes  [3]string
	monitor [3]string
}

func newCluster(p *plant) *cluster {
	p.t.Helper()
	c := &cluster{p: p, program: filepath.Join(p.t.TempDir(), "nats-server")}
	out, err := exec.Command("go", "build", "-o", c.program, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		p.t.Fatalf("go build: %v\n%s", err, out)
	}
	var urls []string
	for i := range c.servers {
		c.ports[i], c.routes[i], c.monitor[i] = address(p.t), address(p.t), address(p.t)
		urls = append(urls, "nats://"+c.ports[i])
	}
	p.url = strings.Join(urls, ",")
	for i := range c.servers {
		c.start(i)
	}
	return c
}

func (c *cluster) start(i int) {
	c.p.t.Helper()
	var routes []string
	for _, r := range c.routes {
		routes = append(routes, fmt.Sprintf("%q", "nats://"+r))
	}
	config := filepath.Join(c.p.dir, fmt.Sprintf("n%d.conf", i))
	c.p.must(os.WriteFile(config, fmt.Appendf(nil, "server_name: n%d\nlisten: %q\nhttp: %q\njetstream: {store_dir: %q}\ncluster: {name: test, listen: %q, routes: [%s]}\n%s",
		i, c.ports[i], c.monitor[i], filepath.Join(c.p.dir, fmt.Sprintf("store%d", i)), c.routes[i], strings.Join(routes, ","), allowed), 0o600))
	c.servers[i] = start(c.p.t, fmt.Sprintf("n%d", i), exec.Command(c.program, "-c", config))
}

// A placed is where a server says that a stream is.
type placed struct {
	Name    string
	Cluster struct {
		Leader   string
		Replicas []struct{ Name string }
	}
}

// streams are those of all servers, each as often as there are servers that have it.
func (c *cluster) streams() (all []placed) {
	for _, at := range c.monitor {
		answer, err := http.Get("http://" + at + "/jsz?streams=true")
		if err != nil {
			continue // it was killed
		}
		var jsz struct {
			Accounts []struct {
				Streams []placed `json:"stream_detail"`
			} `json:"account_details"`
		}
		err = json.NewDecoder(answer.Body).Decode(&jsz)
		c.p.must(errors.Join(err, answer.Body.Close()))
		for _, a := range jsz.Accounts {
			all = append(all, a.Streams...)
		}
	}
	return all
}

// leader is the server that leads the stream.
func (c *cluster) leader() int {
	for _, s := range c.streams() {
		for i := range c.servers {
			if s.Name == "REPLICATOR_app" && s.Cluster.Leader == fmt.Sprintf("n%d", i) {
				return i
			}
		}
	}
	return -1
}

// TestClusterLeaderDiesUnderLoad: of three servers the one that leads the stream
// is killed, and comes back later.
func TestClusterLeaderDiesUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers and their elections")
	}
	t.Parallel()
	p := newPlant(t, 111)
	p.stream.Replicas = 3
	c := newCluster(p)
	p.startPrimary()
	f := p.follow("replica")
	p.app.do(20)
	p.even(f)
	led := c.leader()
	if led < 0 {
		p.fail("nobody leads the stream")
	}
	p.app.begin()
	if err := c.servers[led].kill(); err == nil {
		p.fail("the leader had ended by itself")
	}
	at := p.pipeline.Status().LSN.Published
	p.soon("another one leads", patience, func() bool { return p.pipeline.Status().LSN.Published > at+20 })
	p.app.end()
	p.even(f)
	c.start(led)
	p.healed(f)
	c.copies(t)
}

// copies: a primary keeps what nats.replicas says of each stream and each bucket.
func (c *cluster) copies(t *testing.T) {
	section := fmt.Sprintf("  url: %s\n  replicas: 3\n", c.p.url)
	source := filepath.Join(c.p.dir, "three.db")
	shell(t, source, setUp)
	n := newNode(t, "primary", "primary-3", c.p.dir, section, database{"three", source})
	n.start()
	n.ready()
	n.must("snapshot", "create", "--db", "three")
	want := map[string]bool{"REPLICATOR_three": true, "OBJ_REPLICATOR_three_SNAPSHOTS": true}
	for _, s := range c.streams() {
		if want[s.Name] && len(s.Cluster.Replicas) != 2 {
			t.Errorf("%s has %d copies besides its leader's, want 2", s.Name, len(s.Cluster.Replicas))
		}
		delete(want, s.Name)
	}
	if len(want) != 0 {
		t.Errorf("the cluster does not have %v", want)
	}
	n.stop()
}
