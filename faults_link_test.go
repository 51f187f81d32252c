package replicator_test

import (
	"testing"

	"github.com/sqlite-replicator/replicator/primary"
	"github.com/sqlite-replicator/replicator/stream"
)

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
			link, behind := newProxy(t, p.listen), newProxy(t, p.listen)
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
	link := newProxy(t, p.listen)
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
	link := newProxy(t, p.listen)
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
