package primary

import (
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

const (
	holdFor  = time.Minute // after the last report of a replica its hold ends
	holders  = 1000        // replicas that may hold at a time
	holdLook = 5 * time.Second
)

// A Need is what a replica reports to need.
type Need struct {
	After     cdc.LSN // the stream must keep what follows it
	Restoring bool    // the snapshot there, too
}

// Needs keep what replicas still need from being trimmed: the snapshot that one
// restores and the stream after it, or the stream after what it has applied. A
// replica renews its hold with each report, so that a dead one holds nothing.
// Safe for concurrent use.
type needs struct {
	mu   sync.Mutex
	by   map[string]neededUntil // node
	most int64                  // bytes beyond what is kept anyway
}

type neededUntil struct {
	Need
	until time.Time
}

// Hold notes what a replica needs of this history. It may be called
// concurrently.
func (p *Pipeline) Hold(node string, need Need) {
	h := &p.snapshots.needs
	now := p.o.Clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
	if _, known := h.by[node]; need.After == 0 || !known && len(h.by) >= holders {
		delete(h.by, node)
		return
	}
	if h.by == nil {
		h.by = map[string]neededUntil{}
	}
	h.by[node] = neededUntil{need, now.Add(holdFor)}
}

func (h *needs) expire(now time.Time) {
	for node, o := range h.by {
		if !now.Before(o.until) {
			delete(h.by, node)
		}
	}
}

// snapshots gives the function that says which snapshots of a history are held,
// the newest first, as far as the bound reaches. held is set when it holds one.
func (h *needs) snapshots(now time.Time, lineage cdc.ID, held *bool) func(snapshot.Manifest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
	wanted, left := map[cdc.LSN]bool{}, h.most
	for _, o := range h.by {
		if o.Restoring {
			wanted[o.After] = true
		}
	}
	return func(m snapshot.Manifest) bool {
		if m.Position.Lineage != lineage || !wanted[m.Position.LSN] || m.StoredSize() > left {
			return false
		}
		left -= m.StoredSize()
		*held = true
		return true
	}
}

// restoring reports whether a replica is reading a snapshot.
func (h *needs) restoring(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
	for _, o := range h.by {
		if o.Restoring {
			return true
		}
	}
	return false
}

// lowest is the least LSN that the stream must keep, at most below.
func (h *needs) lowest(now time.Time, below cdc.LSN) cdc.LSN {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expire(now)
	for _, o := range h.by {
		below = min(below, o.After)
	}
	return below
}
