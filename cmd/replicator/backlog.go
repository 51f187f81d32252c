package main

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
	"github.com/sqlite-replicator/replicator/web"
)

// maxMarks bounds the marks of a backlog; beyond it every second one goes.
const maxMarks = 512

// A backlog tells how much of a database is not published yet, from marks taken
// while it grew.
type backlog struct {
	mu    sync.Mutex
	marks []mark // ascending; the first is at or below what is published
}

// A mark is how far the capture had come at a time.
type mark struct {
	at     time.Time
	lsn    cdc.LSN
	totals snapshot.Totals
}

// note takes a mark and forgets those that no longer matter.
func (b *backlog) note(m mark, published cdc.LSN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.marks); n > 0 && b.marks[n-1].lsn == m.lsn {
		b.marks[n-1].at = m.at // nothing was captured since: what comes next is younger
	} else {
		b.marks = append(b.marks, m)
	}
	for len(b.marks) > 1 && b.marks[1].lsn <= published {
		b.marks = b.marks[1:]
	}
	if len(b.marks) > maxMarks {
		i := 0 // the first stays: it is the one that counts
		b.marks = slices.DeleteFunc(b.marks, func(mark) bool { i++; return i%2 == 0 })
	}
}

// lag is what is not published yet, at most: it counts from the last mark at or
// below published. Without one, after a start with a backlog, nobody knows, nor
// before anything was captured.
func (b *backlog) lag(now mark, published cdc.LSN) web.Lag {
	if now.lsn == 0 {
		return web.Lag{}
	}
	if published >= now.lsn {
		return web.Lag{Transactions: new(uint64), Bytes: new(uint64), Seconds: new(float64)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	i, _ := slices.BinarySearchFunc(b.marks, published+1, func(m mark, lsn cdc.LSN) int { return cmp.Compare(m.lsn, lsn) })
	if i == 0 {
		return web.Lag{}
	}
	from := b.marks[i-1]
	transactions := now.totals.Transactions - min(now.totals.Transactions, from.totals.Transactions)
	bytes := now.totals.Bytes - min(now.totals.Bytes, from.totals.Bytes)
	age := max(now.at.Sub(from.at), 0).Seconds()
	return web.Lag{Transactions: &transactions, Bytes: &bytes, Seconds: &age}
}
