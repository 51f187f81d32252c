package replicator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/stream"
)

// Neighbours are two databases of one primary and one replica, with a NATS of its own.
// The application writes both, and only one is to have trouble.
type neighbours struct {
	t                *testing.T
	dir, url         string
	nats             *process
	primary, replica *node
}

const (
	sound   = "sound"
	trouble = "trouble"
)

// newNeighbours starts nothing. more is added to the configuration of both nodes.
func newNeighbours(t *testing.T, more string) *neighbours {
	t.Helper()
	dir, listen := folder(t), address(t)
	n := &neighbours{t: t, dir: dir, url: "nats://" + listen, nats: startNATS(t, listen, filepath.Join(dir, "nats"))}
	databases := func(of string) (list []database) {
		for _, name := range []string{sound, trouble} {
			list = append(list, database{name, filepath.Join(dir, of, name, "app.db")})
		}
		return list
	}
	section := "  url: " + n.url + "\n"
	n.primary = newNode(t, "primary", "primary-1", dir, section, databases("sources")...)
	n.replica = newNode(t, "replica", "replica-1", dir, section+more, databases("copies")...)
	return n
}

func (n *neighbours) source(name string) string { return n.primary.paths[name] }

// begin brings both databases to the replica.
func (n *neighbours) begin() {
	n.t.Helper()
	for _, name := range []string{sound, trouble} {
		if err := os.MkdirAll(filepath.Dir(n.source(name)), 0o755); err != nil {
			n.t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(n.replica.paths[name]), 0o755); err != nil {
			n.t.Fatal(err)
		}
		shell(n.t, n.source(name), setUp)
	}
	n.primary.start()
	n.replica.start()
	for _, name := range []string{sound, trouble} {
		insertRows(n.t, n.source(name), "first", 100)
		converge(n.t, name, "first", n.primary, n.replica)
	}
}

// goesOn checks that the one without trouble does, and that the node says so of both:
// by state, by metric, and by not being ready.
func (n *neighbours) goesOn(at *node, state string) {
	n.t.Helper()
	for range 3 {
		insertRows(n.t, n.source(sound), "beside "+state, 100)
		converge(n.t, sound, "the neighbour is "+state, n.primary, n.replica)
	}
	n.primary.reaches(sound, "streaming", "")
	n.replica.reaches(sound, "streaming", "")
	at.says(trouble, state)
	at.says(sound, "streaming")
	if code, body := at.http("GET", "/readyz"); code != 503 || !strings.Contains(body, trouble+": "+state) || strings.Contains(body, sound+": ") {
		n.t.Errorf("%s: /readyz is %d, %s", at.name, code, body)
	}
}

// says checks the metric of a state.
func (n *node) says(db, state string) {
	n.t.Helper()
	_, body := n.http("GET", "/metrics")
	for _, s := range []string{"streaming", "offline", "disk_full", "fenced", "diverged"} {
		want := 0
		if s == state {
			want = 1
		}
		line := fmt.Sprintf("replicator_state{db=%q,state=%q} %d", db, s, want)
		if want == 1 && !strings.Contains(body, line) || want == 0 && strings.Contains(body, fmt.Sprintf("replicator_state{db=%q,state=%q} 1", db, s)) {
			n.t.Errorf("%s of %s is %s, and not in the metrics: %s", db, n.name, state, line)
		}
	}
}

// healed brings the one that had trouble to the replica, too.
func (n *neighbours) healed(hint string) {
	n.t.Helper()
	insertRows(n.t, n.source(trouble), "healed", 100)
	converge(n.t, trouble, hint, n.primary, n.replica)
	insertRows(n.t, n.source(sound), "healed", 100)
	converge(n.t, sound, hint, n.primary, n.replica)
}

// TestNeighbourDiskFull: the change log of one database has no room, then the file of
// one replica.
func TestNeighbourDiskFull(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, "")
	log := newDisk(t, filepath.Join(n.dir, "primary-1", trouble), 48<<20)
	copies := newDisk(t, filepath.Join(n.dir, "copies", trouble), 48<<20)
	n.begin()
	log.fill()
	insertBytes(t, n.source(trouble), 100, 8000)
	n.primary.reaches(trouble, "disk_full", "no space left")
	n.goesOn(n.primary, "disk_full")
	log.free()
	n.healed("there is room for the change log")
	copies.fill()
	insertBytes(t, n.source(trouble), 100, 8000)
	n.replica.reaches(trouble, "disk_full", "")
	n.goesOn(n.replica, "disk_full")
	copies.free()
	n.healed("there is room for the replica")
}

// TestNeighbourFenced: somebody else has published into the stream of one.
func TestNeighbourFenced(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, "")
	n.begin()
	conn, err := stream.Connect(t.Context(), stream.Options{URL: n.url, Name: "foreigner", Logger: logger(t, "foreigner")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	foreigner := conn.Stream(trouble, stream.StreamConfig{})
	i, err := foreigner.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent := false
	err = foreigner.Publish(t.Context(), i.Last, func(context.Context) ([]byte, cdc.LSN, error) {
		if sent {
			return nil, 0, io.EOF
		}
		sent = true
		return []byte("what is this?"), i.Last + 1, nil
	}, func(cdc.LSN) {})
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	insertRows(t, n.source(trouble), "unpublished", 10)
	n.primary.reaches(trouble, "fenced", "nats stream rm")
	n.goesOn(n.primary, "fenced")
	// What the error says resolves it, after a start.
	n.primary.stop()
	if err := foreigner.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.primary.start()
	n.healed("the foreign stream is gone")
}

// TestNeighbourDiverged: somebody has written to one file of a replica that is to stop
// then.
func TestNeighbourDiverged(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, "apply:\n  on_divergence: stop\n")
	n.begin()
	n.replica.stop()
	shell(t, n.replica.paths[trouble], "DELETE FROM t WHERE id=50")
	shell(t, n.source(trouble), "UPDATE t SET v='changed' WHERE id=50")
	n.replica.start()
	n.replica.reaches(trouble, "diverged", `"t"`)
	if d := n.replica.database(trouble); !strings.Contains(d.Error, "record ") && !strings.Contains(d.Error, "LSN ") {
		t.Errorf("the error names no LSN: %s", d.Error)
	}
	n.goesOn(n.replica, "diverged")
	if got := shell(t, n.replica.paths[trouble], "SELECT count(*) FROM t"); got != "99" {
		t.Errorf("a replica that was to stop has %s rows", got)
	}
}

// TestNodesTellOfNATS: what daemons say by status, metrics and readiness within five
// seconds of NATS's end, and after its return, is so.
func TestNodesTellOfNATS(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, "")
	n.begin()
	lag := fmt.Sprintf("replicator_lag_seconds{db=%q}", sound)
	n.primary.ready()
	n.replica.ready()
	if _, body := n.replica.http("GET", "/metrics"); !strings.Contains(body, lag) {
		t.Fatal("a replica that streams tells no lag")
	}
	if err := n.nats.kill(); err == nil {
		t.Fatal("NATS had ended by itself")
	}
	insertRows(t, n.source(sound), "offline", 10)
	within(t, promptly+time.Second, "both nodes are offline, and the replica does not know its lag", func() bool {
		_, metrics := n.replica.http("GET", "/metrics")
		return n.primary.database(sound).State == "offline" && n.replica.database(sound).State == "offline" && !strings.Contains(metrics, lag)
	})
	for _, at := range []*node{n.primary, n.replica} {
		at.says(sound, "offline")
		if code, _ := at.http("GET", "/readyz"); code != 503 {
			t.Errorf("%s is offline, and /readyz is %d", at.name, code)
		}
	}
	startNATS(t, strings.TrimPrefix(n.url, "nats://"), filepath.Join(n.dir, "nats"))
	converge(t, sound, "NATS is back", n.primary, n.replica)
	for _, at := range []*node{n.primary, n.replica} {
		at.ready()
		at.says(sound, "streaming")
	}
}

// within waits until it is so, no longer than that.
func within(t *testing.T, limit time.Duration, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}
