package primary

import (
	"fmt"
	"sync"

	"github.com/sqlite-replicator/replicator/cdc"
)

// Heard takes what a replica reports to have seen of the stream. A greater epoch
// of this history than this primary's own is another primary's, wherever it is
// published: the pipeline is fenced at once. Until the stream was compared with
// the change log it says nothing, as the change log may have lost a term of its
// own. It may be called concurrently.
func (p *Pipeline) Heard(node string, seen cdc.Position) {
	s := p.ship.Load()
	if s == nil || s.epoch.get() == 0 {
		return
	}
	own := s.log.Tail().Position // not Status: a record may be applied before that tells of it
	if seen.Lineage != own.Lineage || seen.Epoch <= own.Epoch {
		return
	}
	err := fmt.Errorf("%w: replica %s has seen epoch %d, and this primary is at epoch %d: another one has taken over; stop this one. "+
		"If the other primary is gone for good, remove %s and delete the stream with `nats stream rm`: that begins a new history",
		ErrFenced, node, seen.Epoch, own.Epoch, p.o.Dir)
	select {
	case p.fences <- err:
	default: // one is enough
	}
}

// An epochMark says that a record begins an epoch.
type epochMark struct {
	lsn   cdc.LSN
	epoch cdc.Epoch
}

// A publishedEpoch is the epoch of the last record that the stream is known to
// have. Safe for concurrent use.
type publishedEpoch struct {
	mu     sync.Mutex
	epoch  cdc.Epoch // 0: not known
	coming []epochMark
}

func (e *publishedEpoch) get() cdc.Epoch {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.epoch
}

// set forgets what was sent.
func (e *publishedEpoch) set(epoch cdc.Epoch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.epoch, e.coming = epoch, nil
}

// sent notes a record on its way.
func (e *publishedEpoch) sent(h cdc.Head) {
	e.mu.Lock()
	defer e.mu.Unlock()
	last := e.epoch
	if n := len(e.coming); n > 0 {
		last = e.coming[n-1].epoch
	}
	if h.Epoch != last {
		e.coming = append(e.coming, epochMark{h.LSN, h.Epoch})
	}
}

// acked notes that the records up to lsn have arrived.
func (e *publishedEpoch) acked(lsn cdc.LSN) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.coming) > 0 && e.coming[0].lsn <= lsn {
		e.epoch, e.coming = e.coming[0].epoch, e.coming[1:]
	}
}
