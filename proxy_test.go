package replicator_test

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
)

// A proxy is a link on which each direction may stand still, and which may
// break.
type proxy struct {
	url      string
	up, down gate // to the server, and back
	to       gate // shut, there is nobody to connect to

	mu    sync.Mutex
	conns []net.Conn
}

// A gate lets through while it is open.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while the gate is open
	left int           // bytes until it shuts by itself; 0: it does not
	shut chan struct{} // closed when it has
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

// shutAfter lets n more bytes through. What it returns is closed when the gate is
// shut.
func (g *gate) shutAfter(n int) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.shut = n, make(chan struct{})
	return g.shut
}

// passage is closed when n bytes may pass.
func (g *gate) passage(n int) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left > 0 {
		if g.left -= n; g.left <= 0 {
			g.open, g.left = make(chan struct{}), 0
			close(g.shut)
		}
	}
	return g.open
}

// newProxy forwards to an address until the test ends.
func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &proxy{url: "nats://" + l.Addr().String()}
	for _, g := range []*gate{&x.up, &x.down, &x.to} {
		g.open = make(chan struct{})
		g.set(true)
	}
	over := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			select {
			case <-x.to.passage(0):
			default:
				if err == nil {
					err = errors.Join(syscall.ECONNREFUSED, server.Close())
				}
			}
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
	t.Cleanup(func() {
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
		case <-g.passage(n):
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
