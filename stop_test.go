package replicator_test

import (
	"net"
	"path/filepath"
	"testing"
)

// The tests of this file end daemons as a service manager does, at bad moments. A
// daemon that is not done after ten seconds leaves with an exit code that says so,
// which node.stop does not let pass.

// TestStopUnderLoad: while the application writes as fast as it can.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	l := newLoad(t, p.source, 34)
	p.start()
	p.primary.ready()
	p.replica.ready()
	for _, n := range []*node{p.replica, p.primary} {
		l.begin()
		p.primary.must("sync", "--db", "app", "--timeout", patience.String()) // some of the load has gone through
		n.stop()
		l.end()
		n.start()
		converge(t, "app", n.name+" stopped", p.primary, p.replica)
	}
	l.begin()
	p.primary.must("sync", "--db", "app", "--timeout", patience.String())
	p.primary.stop() // and its NATS with it
	p.replica.stop()
	l.end()
	p.start()
	converge(t, "app", "both stopped", p.primary, p.replica)
}

// far is a primary and a replica of a NATS of its own, each behind a link.
type far struct {
	source           string
	nats             *process
	near, behind     *proxy // the primary's link, and the replica's
	primary, replica *node
}

func newFar(t *testing.T) *far {
	t.Helper()
	dir := folder(t)
	listen := address(t)
	f := &far{source: filepath.Join(dir, "app.db"), near: newProxy(t, listen), behind: newProxy(t, listen)}
	f.nats = startNATS(t, listen, filepath.Join(dir, "nats"))
	f.primary = newNode(t, "primary", "primary-1", dir, "  url: "+f.near.url+"\n", database{"app", f.source})
	f.replica = newNode(t, "replica", "replica-1", dir, "  url: "+f.behind.url+"\n", database{"app", filepath.Join(dir, "replica.db")})
	return f
}

// incompressible is a table that takes its size in snapshots and records, too.
const incompressible = "; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) INSERT INTO t(v) SELECT randomblob(100000) FROM n"

// TestStopInTheMiddle: while a snapshot is made and while one is restored, each on a
// link that stands still just then.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	shell(t, f.source, setUp+incompressible)
	stuck := f.near.up.shutAfter(5 << 20)
	f.primary.start()
	wait(t, stuck)
	f.primary.reaches("app", "offline", "") // the snapshot's link is what it hears of NATS, too
	f.primary.stop()
	f.near.cut()
	f.near.up.set(true)
	f.primary.start()
	f.primary.ready()

	stuck = f.behind.down.shutAfter(5 << 20)
	f.replica.start()
	wait(t, stuck)
	f.replica.reaches("app", "restoring", "")
	f.replica.stop()
	f.behind.cut()
	f.behind.down.set(true)
	f.replica.start()
	converge(t, "app", "", f.primary, f.replica)
	f.replica.stop()
	f.primary.stop()
}

// TestStopWithoutNATS: while NATS is away, and changes wait for it.
func TestStopWithoutNATS(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	shell(t, f.source, setUp)
	f.primary.start()
	f.replica.start()
	f.primary.ready()
	f.replica.ready()
	for name, away := range map[string]func(){
		"gone":   func() { f.near.to.set(false); f.behind.to.set(false); f.near.cut(); f.behind.cut() },
		"silent": func() { f.near.down.set(false); f.behind.down.set(false) },
	} {
		away()
		insertRows(t, f.source, name, 100)
		f.primary.reaches("app", "offline", "")
		f.primary.stop()
		f.replica.stop()
		insertRows(t, f.source, name+" for both", 100)
		for _, x := range []*proxy{f.near, f.behind} {
			x.cut()
			x.to.set(true)
			x.down.set(true)
		}
		f.primary.start()
		f.replica.start()
		converge(t, "app", name, f.primary, f.replica)
	}
}

// TestStartWithSilentNATS: something takes connections where NATS should be, and
// says nothing. Everyone can see what a node waits for, and it can be stopped.
func TestStartWithSilentNATS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := folder(t)
	section := "  url: nats://" + l.Addr().String() + "\n"
	app := database{"app", filepath.Join(dir, "app.db")}
	shell(t, app.path, setUp)
	for _, n := range []*node{
		newNode(t, "primary", "primary-1", dir, section, app),
		newNode(t, "replica", "replica-1", dir, section, database{"app", filepath.Join(dir, "replica.db")}),
	} {
		n.start()
		n.reaches("app", "starting", "NATS at nats://"+l.Addr().String()+" does not answer yet")
		n.stop()
		n.start()
		n.reaches("app", "offline", "")
		n.stop()
	}
}

// wait waits for what a test cannot do without.
func wait(t *testing.T, c <-chan struct{}) {
	t.Helper()
	ctx, cancel := oneWait()
	defer cancel()
	select {
	case <-c:
	case <-ctx.Done():
		t.Fatal("it did not happen")
	}
}
