package primary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/snapshot"
)

// A condition error is what package stream gives.
type fakeCondition string

func (c fakeCondition) Error() string     { return "fake stream: " + string(c) }
func (c fakeCondition) Condition() string { return string(c) }

// A fakeStream keeps its records in memory.
type fakeStream struct {
	mu      sync.Mutex
	exists  bool
	first   cdc.LSN
	last    cdc.LSN
	records map[cdc.LSN][]byte
	limit   int     // bytes; 0: none
	down    error   // what every call answers
	mute    error   // what State answers
	unread  cdc.LSN // counted, and not found
	wrote   broadcast
	began   time.Time // when the first record was stored
}

func newFakeStream() *fakeStream { return &fakeStream{records: map[cdc.LSN][]byte{}} }

func (s *fakeStream) size() (n int) {
	for _, r := range s.records {
		n += len(r)
	}
	return n
}

func (s *fakeStream) State(context.Context) (StreamState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := StreamState{Exists: s.exists, First: s.first, Last: s.last, Messages: uint64(len(s.records)), Bytes: uint64(s.size()), MaxBytes: int64(s.limit), FirstTime: s.began}
	if len(s.records) == 0 {
		st.First = s.last + 1
	}
	return st, errors.Join(s.down, s.mute)
}

func (s *fakeStream) Create(_ context.Context, first cdc.LSN) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exists, s.first, s.last = true, first, first-1
	return s.down
}

func (s *fakeStream) Get(_ context.Context, lsn cdc.LSN) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.records[lsn]; ok && lsn != s.unread {
		return r, s.down
	}
	return nil, fmt.Errorf("record %d: %w", lsn, fs.ErrNotExist)
}

func (s *fakeStream) Publish(ctx context.Context, after cdc.LSN, next func(context.Context) ([]byte, cdc.LSN, error), acked func(cdc.LSN)) error {
	for {
		rec, lsn, err := next(ctx)
		if err != nil {
			return err
		}
		if err := s.add(rec, lsn); err != nil {
			return err
		}
		acked(lsn)
		s.wrote.notify()
	}
}

func (s *fakeStream) add(rec []byte, lsn cdc.LSN) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down != nil:
		return s.down
	case !s.exists:
		return fakeCondition("no_stream")
	case s.last != lsn-1:
		return fakeCondition("sequence")
	case s.limit > 0 && s.size()+len(rec) > s.limit:
		return fakeCondition("full")
	}
	s.last = lsn
	s.records[lsn] = bytes.Clone(rec)
	return nil
}

func (s *fakeStream) PurgeBelow(_ context.Context, lsn cdc.LSN) error { return s.purge(lsn) }

func (s *fakeStream) PurgeThrough(_ context.Context, after, lsn cdc.LSN) error {
	if st, _ := s.State(context.Background()); st.Last != after {
		return fakeCondition("sequence")
	}
	if err := s.purge(lsn + 1); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, lsn)
	return nil
}

func (s *fakeStream) purge(below cdc.LSN) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lsn := range s.records {
		if lsn < below {
			delete(s.records, lsn)
		}
	}
	s.first = max(s.first, below)
	return s.down
}

func (s *fakeStream) set(change func(*fakeStream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// all returns the records from the first that is there, verified.
func (s *fakeStream) all() (recs []cdc.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.first
	for first <= s.last && s.records[first] == nil {
		first++
	}
	v := cdc.NewVerifier(cdc.Position{})
	verify := func(b []byte) (cdc.Record, error) { return v.Verify(b, true) }
	if first > 1 { // nothing to chain to
		verify = cdc.Decode
	}
	for lsn := first; lsn <= s.last; lsn++ {
		r, err := verify(s.records[lsn])
		if err != nil {
			return recs, err
		}
		recs = append(recs, r)
	}
	return recs, nil
}

// A failingStore fails while it is told to.
type failingStore struct {
	snapshot.Store
	mu    sync.Mutex
	list  error // what List answers
	get   error
	tried broadcast
	tries int // that failed
}

func (s *failingStore) set(list, get error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.get = list, get
}

func (s *failingStore) failed(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	s.tries++
	s.mu.Unlock()
	s.tried.notify()
	return err
}

func (s *failingStore) answers() (tries int, list, get error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries, s.list, s.get
}

func (s *failingStore) List(ctx context.Context, prefix string) ([]string, error) {
	if _, err, _ := s.answers(); err != nil {
		return nil, s.failed(err)
	}
	return s.Store.List(ctx, prefix)
}

func (s *failingStore) Get(ctx context.Context, name string) ([]byte, error) {
	if _, _, err := s.answers(); err != nil {
		return nil, s.failed(err)
	}
	return s.Store.Get(ctx, name)
}
