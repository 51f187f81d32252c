package stream

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

const (
	forgetAfter = 24 * time.Hour
	maxFleet    = 4096 // replicas remembered; beyond it the longest silent one is forgotten
)

// A Fleet remembers the last report of each replica of one database for 24 h.
// Its methods may be called concurrently.
type Fleet struct {
	now func() time.Time

	mu   sync.Mutex
	last map[string]Report // by node
}

// NewFleet is an empty fleet. now is the clock.
func NewFleet(now func() time.Time) *Fleet {
	return &Fleet{now: now, last: make(map[string]Report)}
}

// Add remembers r and the time. It reports whether the replica is new or in another
// state than before. A report without a node is ignored.
func (f *Fleet) Add(r Report) (news bool) {
	if r.Node == "" {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.last[r.Node]
	r.ArrivedAt = f.now()
	f.last[r.Node] = r
	if len(f.last) > maxFleet {
		f.forgetSilent()
	}
	return !known || before.State != r.State
}

func (f *Fleet) forgetSilent() {
	var silent Report
	for _, r := range f.last {
		if silent.Node == "" || r.ArrivedAt.Before(silent.ArrivedAt) {
			silent = r
		}
	}
	delete(f.last, silent.Node)
}

// Replicas returns the last report of each replica, in order of their nodes.
func (f *Fleet) Replicas() []Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.now().Add(-forgetAfter)
	all := make([]Report, 0, len(f.last))
	for node, r := range f.last {
		if r.ArrivedAt.Before(old) {
			delete(f.last, node)
			continue
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Report) int { return cmp.Compare(a.Node, b.Node) })
	return all
}
