package replicator_test

import (
	"net"
	"sync"
	"testing"

	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/stream"
)

// A proxy is a link on which each direction may stand still, and which may
// break.
type proxy struct {
	url      string
	up, down gate // to the server, and back

	mu    sync.Mutex
	conns []net.Conn
}

// A gate lets through while it is open.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while the gate is open
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		if !open {
			g.open = make(chan struct{})
		}
	default:
		if open {
			close(g.open)
		}
	}
}

func (g *gate) passage() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// newProxy forwards to the plant's NATS until the test ends.
func newProxy(p *plant) *proxy {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	x := &proxy{url: "nats://" + l.Addr().String()}
	x.up.open, x.down.open = make(chan struct{}), make(chan struct{})
	x.up.set(true)
	x.down.set(true)
	over := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", p.listen)
			if err != nil {
				_ = client.Close() // as if the server were not there
				continue
			}
			x.mu.Lock()
			x.conns = append(x.conns, client, server)
			x.mu.Unlock()
			all.Go(func() { forward(server, client, &x.up, over) })
			all.Go(func() { forward(client, server, &x.down, over) })
		}
	})
	p.t.Cleanup(func() {
		_ = l.Close()
		close(over)
		x.cut()
		all.Wait()
	})
	return x
}

func forward(to, from net.Conn, g *gate, over <-chan struct{}) {
	defer func() { _, _ = to.Close(), from.Close() }()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		select {
		case <-g.passage():
		case <-over:
			return
		}
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// cut breaks every connection.
func (x *proxy) cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.conns {
		_ = c.Close()
	}
	x.conns = nil
}

// TestPartition: the link of one side stands still, in one direction or in both,
// while the application writes, and goes on or breaks.
func TestPartition(t *testing.T) {
	for _, c := range []struct {
		name     string
		up, down bool // stand still
		breaks   bool
	}{
		{"requests lost", true, false, true},
		{"answers lost", false, true, true},
		{"answers late", false, true, false},
		{"nothing passes", true, true, true},
		{"everything late", true, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, 108)
			p.startNATS()
			link, behind := newProxy(p), newProxy(p)
			p.conn = p.connect("primary", link.url)
			p.startPrimary()
			near := p.follow("near")
			p.url = behind.url
			far := p.follow("far")
			p.url = "nats://" + p.listen
			p.app.do(20)
			p.even(near, far)
			for _, x := range []*proxy{link, behind} {
				x.up.set(!c.up)
				x.down.set(!c.down)
			}
			p.app.do(20)
			p.primaryIs(primary.StateOffline)
			if c.up && c.down && c.breaks { // it takes five seconds
				far.lagUnknown()
			}
			p.app.do(20)
			for _, x := range []*proxy{link, behind} {
				if c.breaks {
					x.cut() // what stood still is lost
				}
				x.up.set(true)
				x.down.set(true)
			}
			p.healed(near, far)
		})
	}
}

// TestPartitionWhileNothingIsWritten: the settings are those of the product.
func TestPartitionWhileNothingIsWritten(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 110)
	p.stream = stream.StreamConfig{Replicas: 1}
	p.startNATS()
	link := newProxy(p)
	p.conn = p.connect("primary", link.url)
	p.startPrimary()
	p.app.do(20)
	f := p.follow("replica")
	p.even(f)
	link.up.set(false)
	link.down.set(false)
	p.primaryIs(primary.StateOffline)
	p.app.do(20)
	link.up.set(true)
	link.down.set(true)
	p.healed(f)
}

// TestLinkBreaksAgainAndAgain under load.
func TestLinkBreaksAgainAndAgain(t *testing.T) {
	t.Parallel()
	p := newPlant(t, 109)
	p.startNATS()
	link := newProxy(p)
	p.url = link.url
	p.startPrimary()
	f := p.follow("replica")
	p.app.do(20)
	p.even(f)
	for range 4 {
		at := p.pipeline.Status().LSN.Published
		p.app.do(20)
		link.cut()
		p.app.do(20)
		p.soon("records pass again", patience, func() bool { return p.pipeline.Status().LSN.Published > at })
	}
	p.healed(f)
}
