package stream

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sqlite-replicator/replicator/cdc"
)

// manyStreams makes streams that end at 1, 2, 3 and so on.
func manyStreams(t *testing.T, c *Conn, n int) (all []*Stream) {
	t.Helper()
	for i := range n {
		s := c.Stream(fmt.Sprintf("db%d", i), StreamConfig{Poll: testPoll})
		if err := s.Create(testContext(t), 1); err != nil {
			t.Fatal(err)
		}
		publish(t, s, 0, cdc.LSN(i+1))
		all = append(all, s)
	}
	return all
}

// askAll asks for all streams at once and checks the answers.
func askAll(t *testing.T, all []*Stream) {
	t.Helper()
	var asking sync.WaitGroup
	for i, s := range all {
		asking.Go(func() {
			info, err := s.Info(testContext(t))
			if want := cdc.LSN(i + 1); err != nil || !info.Exists || info.First != 1 || info.Last != want || info.Created.IsZero() || info.Messages != uint64(want) {
				t.Errorf("%s: %+v, %v, want records 1 to %d", s.Name(), info, err, want)
			}
		})
	}
	asking.Wait()
}

// counted gives the number of questions on a subject that were asked since.
func counted(t *testing.T, witness *Conn, subject string) (soFar func() int) {
	t.Helper()
	sub, err := witness.nc.SubscribeSync(subject)
	if err == nil {
		err = witness.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() int {
		t.Helper()
		if err := witness.nc.Flush(); err != nil {
			t.Fatal(err)
		}
		n, _, err := sub.Pending()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// What many ask at a time is one question, which also finds out what is not there.
func TestCensus(t *testing.T) {
	srv, _ := startServer(t, ServerOptions{})
	c, witness := connect(t, Options{Server: srv}), connect(t, Options{Server: srv})
	all := manyStreams(t, c, 300) // more than one page
	askAll(t, all)

	wanted := map[string]*finding{"REPLICATOR_gone": {done: make(chan struct{})}}
	for _, s := range all {
		wanted[s.Name()] = &finding{done: make(chan struct{})}
	}
	round := maps.Clone(wanted)
	lists, asked := counted(t, witness, "$JS.API.STREAM.LIST"), counted(t, witness, "$JS.API.STREAM.INFO.>")
	c.census.mu.Lock()
	c.census.next, c.census.noLists = round, time.Time{} // on a busy machine the first list may have come too late
	c.census.mu.Unlock()
	c.census.ask()
	for i, s := range all {
		f := wanted[s.Name()]
		if <-f.done; f.err != nil || f.Last != cdc.LSN(i+1) || len(f.subjects) != 1 {
			t.Errorf("%s: %+v", s.Name(), f)
		}
	}
	gone := wanted["REPLICATOR_gone"]
	if <-gone.done; condition(gone.err) != ErrNoStream {
		t.Errorf("a stream that does not exist: %v", gone.err)
	}
	if l, a := lists(), asked(); l != 2 || a != 1 {
		t.Errorf("%d streams and one that does not exist took %d lists and %d questions, want 2 and 1", len(all), l, a)
	}
	publish(t, all[1], 2, 3) // no answer is older than its question
	if info, err := all[1].Info(testContext(t)); err != nil || info.Last != 3 {
		t.Errorf("after another record: %+v, %v", info, err)
	}
}

// One database among those of others does not list them all.
func TestCensusAmongOthers(t *testing.T) {
	srv, _ := startServer(t, ServerOptions{})
	manyStreams(t, connect(t, Options{Server: srv}), 30)
	c, witness := connect(t, Options{Server: srv}), connect(t, Options{Server: srv})
	var few []*Stream
	for i := range listFrom {
		few = append(few, c.Stream(fmt.Sprintf("db%d", i), StreamConfig{}))
	}
	lists := counted(t, witness, "$JS.API.STREAM.LIST")
	for range 3 {
		askAll(t, few)
	}
	if n := lists(); n > 1 {
		t.Errorf("%d lists for %d of 30 streams, want one, which tells how many there are", n, len(few))
	}
}

// A user who may not list streams is asked for each.
func TestCensusNotAllowed(t *testing.T) {
	url := startExternal(t, &server.Options{
		JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.LIST"}},
		}}},
	})
	c := connect(t, Options{URL: url, Credentials: Credentials{User: "u", Password: "p"}})
	all := manyStreams(t, c, 2*listFrom)
	askAll(t, all)
	askAll(t, all)
}

// The stream is looked at a Poll after the last record, or a fraction later, and at
// the same time as all others from then on.
func TestUntilCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1234567 * time.Microsecond)
		const poll = 2 * time.Second
		p := &publication{s: &Stream{cfg: StreamConfig{Poll: poll}}, began: time.Now()}
		for range 5 {
			got := p.untilCheck()
			if got < poll || got > poll+poll/4 {
				t.Errorf("the first look is after %s", got)
			}
			time.Sleep(got)
			for range 3 {
				time.Sleep(p.untilCheck())
				if time.Now().UnixNano()%int64(poll) != 0 {
					t.Errorf("an idle stream is looked at at %s", time.Now())
				}
			}
			time.Sleep(777 * time.Millisecond)
			p.settled.Store(int64(time.Since(p.began)))
			time.Sleep(333 * time.Millisecond)
			if got := p.untilCheck() + p.quiet(); got < poll || got > poll+poll/4 {
				t.Errorf("the look after a record is after %s", got)
			}
			p.settled.Store(int64(time.Since(p.began)))
		}
	})
}
