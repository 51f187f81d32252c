package replicator_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A long run: go test -run TestSoak -soak.seconds 3600 -timeout 2h .
var (
	soakSeconds = flag.Int("soak.seconds", 60, "how long TestSoak makes trouble")
	soakSeed    = flag.Uint64("soak.seed", 1, "what trouble TestSoak makes, and its workload")
)

// TestSoak runs the daemons under load and does to them, in the order that a
// seed gives, what happens to processes, to NATS and to disks. At the end all is
// quiet and every copy is compared. The seed gives the events and the statements,
// not their timing. Seeds take turns between an embedded and an external NATS.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s := newSoak(t)
	s.start()
	defer func() {
		if t.Failed() {
			s.primary.stacks()
		}
	}()
	s.replicas = []*node{s.replica}
	s.converge("at the start")
	r := seeded(*soakSeed, 3)
	for end := time.Now().Add(time.Duration(*soakSeconds) * time.Second); time.Now().Before(end); {
		e := pick(r, s.events()...)
		t.Log(e.name)
		s.load.begin()
		e.do(s, r.IntN(1<<20))
		s.load.end()
		if r.IntN(4) == 0 {
			s.converge(e.name)
		}
	}
	s.converge("at the end")
	for _, r := range s.replicas {
		// The row-set hashes say so, too.
		if out, err := r.ask("verify", "--db", "app", "--timeout", patience.String()); err != nil {
			t.Errorf("%v\n%s\n%s", err, out, s.hint)
		}
	}
}

type soak struct {
	t *testing.T
	*pair
	load     *load
	replicas []*node
	hint     string

	natsListen, natsStore string
	server                *process // nil: embedded
	disk, remote          *disk    // of the primary's data_dir, and of the first replica; nil where none can be mounted
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{t: t, pair: newPair(t), hint: fmt.Sprintf("again: go test -run TestSoak -soak.seed %d -soak.seconds %d .", *soakSeed, *soakSeconds)}
	if d, err := mountDisk(t, filepath.Join(s.dir, s.primary.name), 384<<20); err == nil {
		s.disk = d
	}
	if d, err := mountDisk(t, filepath.Join(s.dir, "replica-1"), 384<<20); err == nil {
		s.remote = d
	}
	if *soakSeed%2 == 0 {
		s.natsListen, s.natsStore = address(t), filepath.Join(s.dir, "nats")
		s.nats = "  url: nats://" + s.natsListen + "\n"
		s.primary = newNode(t, "primary", "primary-1", s.dir, s.nats, database{"app", s.source})
		s.server = startNATS(t, s.natsListen, s.natsStore)
	}
	s.replica = newNode(t, "replica", "replica-1", s.dir, s.nats, database{"app", filepath.Join(s.dir, "replica-1", "app.db")})
	for _, n := range []*node{s.primary, s.replica} {
		n.clock = filepath.Join(s.dir, n.name+".clock")
	}
	s.load = newLoad(t, s.source, *soakSeed)
	return s
}

// events are those that can happen here.
func (s *soak) events() (all []soakEvent) {
	for _, e := range soakEvents {
		if (!e.external || s.server != nil) && (!e.disk || s.disk != nil && s.remote != nil) {
			all = append(all, e)
		}
	}
	return all
}

// A soakEvent happens under load; n chooses among what there is.
type soakEvent struct {
	name     string
	do       func(s *soak, n int)
	external bool // it needs a NATS of its own
	disk     bool // it needs a disk of its own
}

func (s *soak) converge(after string) {
	s.t.Helper()
	converge(s.t, "app", after+"; "+s.hint, s.primary, s.replicas...)
}

// progress returns when some of the load that is still to come has gone through.
func (s *soak) progress() {
	s.t.Helper()
	if _, err := s.primary.ask("sync", "--db", "app", "--timeout", patience.String()); err != nil {
		s.t.Fatalf("%v\n%s", err, s.hint)
	}
}

var soakEvents = []soakEvent{
	{name: "quiet", do: func(s *soak, _ int) { s.progress() }},
	{name: "primary killed", do: func(s *soak, _ int) {
		s.primary.crash()
		s.primary.start()
		s.progress()
	}},
	{name: "primary killed, and again before it was ready", do: func(s *soak, n int) {
		s.primary.crash()
		for range 1 + n%3 {
			s.primary.start()
			s.primary.crash()
		}
		s.primary.start()
		s.progress()
	}},
	{name: "primary stopped", do: func(s *soak, _ int) {
		s.primary.stop()
		s.primary.start()
		s.progress()
	}},
	{name: "replica killed", do: func(s *soak, n int) {
		r := s.any(n)
		r.crash()
		s.progress()
		r.start()
	}},
	{name: "replica stopped", do: func(s *soak, n int) {
		r := s.any(n)
		r.stop()
		s.progress()
		r.start()
	}},
	{name: "both killed", do: func(s *soak, n int) {
		r := s.any(n)
		r.crash()
		s.primary.crash()
		r.start()
		s.primary.start()
		s.progress()
	}},
	{name: "primary frozen", do: func(s *soak, _ int) {
		// It may hold SQLite's write lock, so the load may wait until it goes on.
		s.primary.signal(syscall.SIGSTOP)
		_, _ = s.replicas[0].ask("wait", "--max-lag", "1ms", "--timeout", "500ms") // how it ends does not matter
		s.primary.signal(syscall.SIGCONT)
		s.progress()
	}},
	{name: "replica frozen", do: func(s *soak, n int) {
		r := s.any(n)
		r.signal(syscall.SIGSTOP)
		s.progress()
		r.signal(syscall.SIGCONT)
	}},
	{name: "NATS killed", external: true, do: func(s *soak, _ int) {
		s.killNATS()
		s.startNATS()
		s.progress()
	}},
	{name: "NATS wiped", external: true, do: func(s *soak, _ int) {
		s.killNATS()
		if err := os.RemoveAll(s.natsStore); err != nil {
			s.t.Fatal(err)
		}
		s.startNATS()
		s.progress()
	}},
	{name: "NATS and primary killed", external: true, do: func(s *soak, _ int) {
		s.killNATS()
		s.primary.crash()
		s.primary.start()
		s.startNATS()
		s.progress()
	}},
	{name: "disk full", disk: true, do: func(s *soak, _ int) {
		s.disk.fill()
		s.full(s.primary)
		s.disk.free()
		s.progress()
	}},
	{name: "disk of a replica full", disk: true, do: func(s *soak, _ int) {
		s.remote.fill()
		s.full(s.replica)
		s.remote.free()
		s.progress()
	}},
	{name: "disk of a replica full, and the replica killed", disk: true, do: func(s *soak, _ int) {
		s.remote.fill()
		s.full(s.replica)
		s.replica.crash()
		s.remote.free()
		s.replica.start()
		s.progress()
	}},
	{name: "clock set", do: func(s *soak, n int) {
		const day = 24 * time.Hour
		by := []time.Duration{0, time.Hour, -time.Hour, day, -day, 400 * day, -400 * day}
		[]*node{s.primary, s.replica}[n%2].setClock(by[n/2%len(by)])
		s.progress()
	}},
	{name: "NATS frozen", external: true, do: func(s *soak, _ int) {
		s.server.signal(syscall.SIGSTOP)
		s.primary.reaches("app", "offline", "")
		s.server.signal(syscall.SIGCONT)
		s.progress()
	}},
	{name: "disk full and primary killed", disk: true, do: func(s *soak, _ int) {
		s.disk.fill()
		s.full(s.primary)
		s.primary.crash()
		s.disk.free()
		s.primary.start()
		s.progress()
	}},
	{name: "another replica", do: func(s *soak, _ int) {
		if len(s.replicas) < 3 {
			r := s.another(s.t, fmt.Sprintf("replica-%d", len(s.replicas)+1))
			r.start()
			s.replicas = append(s.replicas, r)
		}
		s.progress()
	}},
}

// killNATS ends the external NATS.
func (s *soak) killNATS() {
	s.t.Helper()
	if err := s.server.kill(); err == nil {
		s.t.Fatal("NATS had ended by itself")
	}
}

func (s *soak) startNATS() {
	s.t.Helper()
	s.server = startNATS(s.t, s.natsListen, s.natsStore)
}

// full waits until a node says that its disk is full, which takes a write that does
// not fit.
func (s *soak) full(n *node) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for giveUp := time.After(patience); ; {
		if n.database("app").State == "disk_full" {
			return
		}
		select {
		case <-tick.C:
		case <-giveUp:
			s.t.Fatalf("%s does not say that its disk is full; %s", n.name, s.hint)
		}
	}
}

func (s *soak) any(n int) *node { return s.replicas[n%len(s.replicas)] }
