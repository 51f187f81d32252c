package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sqlite-replicator/replicator/cdc"
)

// startCluster runs three servers, as an external NATS would, and returns them
// by name, and the URL of all.
func startCluster(t *testing.T) (servers map[string]*server.Server, urls string) {
	t.Helper()
	var ports []string
	for range 3 {
		ports = append(ports, freePort(t))
	}
	var routes []*url.URL
	for _, p := range ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: p})
	}
	servers = make(map[string]*server.Server)
	var all []string
	for i, r := range routes {
		opts := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), Routes: routes,
		}
		opts.Cluster.Name, opts.Cluster.Host = "test", "127.0.0.1"
		if _, err := fmt.Sscan(r.Port(), &opts.Cluster.Port); err != nil {
			t.Fatal(err)
		}
		ns, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		go ns.Start()
		t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
		servers[opts.ServerName] = ns
	}
	for _, ns := range servers {
		if !ns.ReadyForConnections(20 * time.Second) {
			t.Fatal("the cluster does not start")
		}
		all = append(all, ns.ClientURL())
	}
	return servers, strings.Join(all, ",")
}

// createReplicated creates a stream of three copies, once the cluster has
// elected who may.
func createReplicated(t *testing.T, c *Conn) *Stream {
	t.Helper()
	ctx := testContext(t)
	s := c.Stream("app", StreamConfig{Replicas: 3, Poll: 100 * time.Millisecond, AckTimeout: time.Second})
	for {
		err := s.Create(ctx, 1)
		if err == nil {
			return s
		}
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrFull) { // the latter while peers are missing
			t.Fatal(err)
		}
	}
}

// publishOn publishes as a primary does: it reconciles and goes on until last.
func publishOn(ctx context.Context, s *Stream, last cdc.LSN, own func(cdc.LSN) []byte, acked func(cdc.LSN)) error {
	for {
		if err := s.conn.WaitConnected(ctx); err != nil {
			return err
		}
		info, err := s.Info(ctx)
		if err != nil || !info.Exists {
			continue
		}
		if info.Last > 0 {
			rec, err := s.Get(ctx, info.Last)
			if err != nil {
				continue
			}
			if string(rec) != string(own(info.Last)) {
				return errFenced
			}
		}
		err = s.Publish(ctx, info.Last, upTo(info.Last, last, own), acked)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return err
		}
	}
}

var errFenced = errors.New("fenced")

// The leader of a replicated stream dies under a publisher and a consumer:
// nothing is lost, doubled or out of order.
func TestClusterLeaderDies(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers and two elections")
	}
	ctx := testContext(t)
	servers, urls := startCluster(t)
	c := connect(t, Options{URL: urls})
	s := createReplicated(t, c)
	const last = 3000
	h, err := s.handle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	leader := servers[h.CachedInfo().Cluster.Leader]
	var kill sync.Once
	published := make(chan error, 1)
	go func() {
		published <- publishOn(ctx, s, last, record, func(lsn cdc.LSN) {
			if lsn >= last/3 {
				kill.Do(func() { go leader.Shutdown() })
			}
		})
	}()
	// The stream is there, so a consumer may start before the first record.
	consume(t, s, 1, last)
	if err := <-published; !errors.Is(err, io.EOF) {
		t.Errorf("publish: %v", err)
	}
}

// Two primaries on a replicated stream: one is fenced, and none of its records
// follows one of the other.
func TestClusterRace(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers and two elections")
	}
	ctx := testContext(t)
	_, urls := startCluster(t)
	a := createReplicated(t, connect(t, Options{URL: urls}))
	b := connect(t, Options{URL: urls}).Stream("app", a.cfg)
	const last = 500
	var wg sync.WaitGroup
	errs := make(map[string]error)
	var mu sync.Mutex
	for name, s := range map[string]*Stream{"a": a, "b": b} {
		wg.Go(func() {
			err := publishOn(ctx, s, last, func(cdc.LSN) []byte { return []byte(name) }, func(cdc.LSN) {})
			mu.Lock()
			defer mu.Unlock()
			errs[name] = err
		})
	}
	wg.Wait()
	var authors []byte
	err := error(ErrUnavailable)
	for errors.Is(err, ErrUnavailable) {
		err = a.Consume(ctx, cdc.LSN(len(authors)+1), func(rec []byte, lsn cdc.LSN, _ uint64) error {
			if authors = append(authors, rec...); lsn == last {
				return errEnough
			}
			return nil
		})
	}
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if n := strings.Count(string(authors), "a"); n != 0 && n != last {
		t.Errorf("records of both: %s", authors)
	}
	winner, loser := errs["a"], errs["b"]
	if authors[0] == 'b' {
		winner, loser = loser, winner
	}
	if !errors.Is(winner, io.EOF) || !errors.Is(loser, errFenced) {
		t.Errorf("the winner ended with %v, the loser with %v", winner, loser)
	}
	getsMoreCopies(t, a.conn)
}

// getsMoreCopies checks that a stream has as many as are configured later.
func getsMoreCopies(t *testing.T, c *Conn) {
	t.Helper()
	ctx := testContext(t)
	s := c.Stream("alone", StreamConfig{Replicas: 3})
	if err := errors.Join(c.Stream("alone", StreamConfig{}).Create(ctx, 1), s.Reconfigure(ctx)); err != nil {
		t.Fatal(err)
	}
	h, err := s.handle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if n := h.CachedInfo().Config.Replicas; n != 3 {
		t.Errorf("the stream has %d copies, want 3", n)
	}
}
