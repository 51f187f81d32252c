package replicator_test

import (
	"flag"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// A long run: go test -run TestSoak -soak.seconds 3600 -timeout 2h .
var (
	soakSeconds = flag.Int("soak.seconds", 8, "how long TestSoak makes trouble")
	soakSeed    = flag.Uint64("soak.seed", 1, "what trouble TestSoak makes, and its workload")
)

// TestSoak runs the daemons under load and does to them, in the order that a
// seed gives, what happens to processes. At the end all is quiet and every copy
// is compared. The seed gives the events and the statements, not their timing.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s := &soak{t: t, pair: newPair(t), hint: fmt.Sprintf("again: go test -run TestSoak -soak.seed %d -soak.seconds %d .", *soakSeed, *soakSeconds)}
	s.load = newLoad(t, s.source, *soakSeed)
	s.start()
	s.replicas = []*node{s.replica}
	s.converge("at the start")
	r := seeded(*soakSeed, 3)
	for end := time.Now().Add(time.Duration(*soakSeconds) * time.Second); time.Now().Before(end); {
		e := pick(r, soakEvents...)
		t.Log(e.name)
		s.load.begin()
		e.do(s, r.IntN(1<<20))
		s.load.end()
		if r.IntN(4) == 0 {
			s.converge(e.name)
		}
	}
	s.converge("at the end")
}

type soak struct {
	t *testing.T
	*pair
	load     *load
	replicas []*node
	hint     string
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

// soakEvents happen under load; n chooses among what there is.
var soakEvents = []struct {
	name string
	do   func(s *soak, n int)
}{
	{"quiet", func(s *soak, _ int) { s.progress() }},
	{"primary killed", func(s *soak, _ int) {
		s.primary.crash()
		s.primary.start()
		s.progress()
	}},
	{"primary killed, and again before it was ready", func(s *soak, n int) {
		s.primary.crash()
		for range 1 + n%3 {
			s.primary.start()
			s.primary.crash()
		}
		s.primary.start()
		s.progress()
	}},
	{"primary stopped", func(s *soak, _ int) {
		s.primary.stop()
		s.primary.start()
		s.progress()
	}},
	{"replica killed", func(s *soak, n int) {
		r := s.any(n)
		r.crash()
		s.progress()
		r.start()
	}},
	{"replica stopped", func(s *soak, n int) {
		r := s.any(n)
		r.stop()
		s.progress()
		r.start()
	}},
	{"both killed", func(s *soak, n int) {
		r := s.any(n)
		r.crash()
		s.primary.crash()
		r.start()
		s.primary.start()
		s.progress()
	}},
	{"primary frozen", func(s *soak, _ int) {
		// It may hold SQLite's write lock, so the load may wait until it goes on.
		s.primary.signal(syscall.SIGSTOP)
		_, _ = s.replicas[0].ask("wait", "--max-lag", "1ms", "--timeout", "500ms") // how it ends does not matter
		s.primary.signal(syscall.SIGCONT)
		s.progress()
	}},
	{"replica frozen", func(s *soak, n int) {
		r := s.any(n)
		r.signal(syscall.SIGSTOP)
		s.progress()
		r.signal(syscall.SIGCONT)
	}},
	{"another replica", func(s *soak, _ int) {
		if len(s.replicas) < 3 {
			r := s.another(s.t, fmt.Sprintf("replica-%d", len(s.replicas)+1))
			r.start()
			s.replicas = append(s.replicas, r)
		}
		s.progress()
	}},
}

func (s *soak) any(n int) *node { return s.replicas[n%len(s.replicas)] }
