package primary

import (
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

const (
	// demandAfter is the least age of the newest snapshot for which a replica that
	// waits has no use: it looks for one every five seconds at least.
	demandAfter = 10 * time.Second
	demandLast  = time.Hour   // between two snapshots that do not help a replica that waits on
	demandFor   = time.Minute // after which one that is no longer heard of does not wait
)

// A demand is what makes a snapshot due although the source has not grown: the
// stream does not lead on from the newest one, or a replica has no use for it.
type demand struct {
	first  cdc.LSN       // of the stream; 0: not known
	bytes  uint64        // of the stream
	oldest time.Time     // when its first record was stored
	asked  time.Time     // when a replica was last heard to wait
	pause  time.Duration // that the newest snapshot must be old; doubled by each that did not help
}

// WantSnapshot tells that a replica waits for a snapshot although there may be
// one: its chunks are damaged, or a record after it is. A new one is made unless
// the newest is so young that the replica may not have seen it; if that does
// not help, later and later.
func (p *Pipeline) WantSnapshot() {
	s, now := p.snapshots, p.o.Clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.demand.asked) > demandFor {
		s.demand.pause = demandAfter
	}
	s.demand.asked = now
}

// met notes that a snapshot was made.
func (d *demand) met() {
	if !d.asked.IsZero() {
		d.pause = min(2*d.pause, demandLast)
	}
}

// open reports whether a snapshot is due at whose place newest is of no use.
func (d *demand) open(now time.Time, newest snapshot.Manifest) bool {
	if newest.Position.LSN+1 < d.first {
		return true
	}
	// One that waited before the newest was made is most likely served by it.
	ago := now.Sub(d.asked)
	return ago <= demandFor && ageOf(newest, now)-ago >= d.pause
}
