package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A log is a stream in memory.
type log struct {
	mu      sync.Mutex
	changed chan struct{}
	records [][]byte
	first   cdc.LSN // 1 + records trimmed
	fail    error   // what Consume returns, once
	consume int     // calls of Consume
}

func newLog() *log { return &log{changed: make(chan struct{}), first: 1} }

func (l *log) update(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *log) append(rec []byte) {
	l.update(func() { l.records = append(l.records, bytes.Clone(rec)) })
}

func (l *log) all() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.records)
}

// trimmed is the error of a stream that no longer has a record.
type trimmed struct{ first cdc.LSN }

func (e trimmed) Error() string     { return fmt.Sprintf("trimmed below %d", e.first) }
func (e trimmed) FirstLSN() cdc.LSN { return e.first }
func (e trimmed) Unwrap() error     { return cdc.ErrGap }

var errAway = errors.New("stream away")

// Consume implements Stream.
func (l *log) Consume(ctx context.Context, from cdc.LSN, handle func([]byte, cdc.LSN, uint64) error) error {
	l.update(func() { l.consume++ })
	for {
		l.mu.Lock()
		changed, fail, last, first := l.changed, l.fail, cdc.LSN(len(l.records)), l.first
		l.fail = nil
		var rec []byte
		if from <= last {
			rec = l.records[from-1]
		}
		l.mu.Unlock()
		switch {
		case fail != nil:
			return fail
		case from < first:
			return trimmed{first}
		case rec != nil:
			if err := handle(rec, from, uint64(last-from)); err != nil {
				return err
			}
			from++
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// snapshots is a Snapshots in memory.
type snapshots struct {
	mu   sync.Mutex
	list []Snapshot
}

func (s *snapshots) add(snap Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, snap)
}

// Newest implements Snapshots.
func (s *snapshots) Newest(_ context.Context, min cdc.LSN, fits func(cdc.Position) bool) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, snap := range slices.Backward(s.list) {
		if snap.At.LSN >= min && fits(snap.At.Position) {
			return snap, nil
		}
	}
	return Snapshot{}, fmt.Errorf("%w at or above %d", ErrNoSnapshot, min)
}
