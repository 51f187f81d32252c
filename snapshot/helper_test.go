package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

// A memStore is a Store in memory, with hooks to make it fail.
type memStore struct {
	mu      sync.Mutex
	objects map[string][]byte
	gets    map[string]int
	puts    map[string]int

	// before runs before, after runs after an operation on a name has happened;
	// their error is what the caller sees.
	before, after func(op, name string) error
}

func newMemStore() *memStore {
	return &memStore{objects: map[string][]byte{}, gets: map[string]int{}, puts: map[string]int{}}
}

func (s *memStore) hook(h func(op, name string) error, op, name string) error {
	if h == nil {
		return nil
	}
	return h(op, name)
}

func (s *memStore) Put(ctx context.Context, name string, data []byte) error {
	if err := errors.Join(ctx.Err(), s.hook(s.before, "put", name)); err != nil {
		return err
	}
	s.mu.Lock()
	s.objects[name] = slices.Clone(data)
	s.puts[name]++
	s.mu.Unlock()
	return s.hook(s.after, "put", name)
}

func (s *memStore) Get(ctx context.Context, name string) ([]byte, error) {
	if err := errors.Join(ctx.Err(), s.hook(s.before, "get", name)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets[name]++
	b, ok := s.objects[name]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", name, fs.ErrNotExist)
	}
	return slices.Clone(b), nil
}

func (s *memStore) List(ctx context.Context, prefix string) ([]string, error) {
	if err := errors.Join(ctx.Err(), s.hook(s.before, "list", prefix)); err != nil {
		return nil, err
	}
	return s.names(prefix), nil
}

func (s *memStore) names(prefix string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.objects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

func (s *memStore) Delete(ctx context.Context, name string) error {
	if err := errors.Join(ctx.Err(), s.hook(s.before, "delete", name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[name]; !ok {
		return fmt.Errorf("delete %s: %w", name, fs.ErrNotExist)
	}
	delete(s.objects, name)
	return nil
}

func (s *memStore) clone() *memStore {
	c := newMemStore()
	c.objects = maps.Clone(s.objects)
	return c
}

func (s *memStore) fetched() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.gets {
		n += k
	}
	return n
}

// A memSource is a database in memory.
type memSource struct {
	pageSize int
	data     []byte
	most     int // pages a read, if not 0
}

func (s *memSource) PageSize() int { return s.pageSize }
func (s *memSource) Pages() uint32 { return uint32(len(s.data) / s.pageSize) }

func (s *memSource) ReadPages(ctx context.Context, first uint32, dst []byte) (int, error) {
	if s.most > 0 {
		dst = dst[:min(len(dst), s.most*s.pageSize)]
	}
	return copy(dst, s.data[int(first-1)*s.pageSize:]) / s.pageSize, ctx.Err()
}

// putHeader makes page look like the first of a database.
func putHeader(page []byte, pageSize int, pages uint32) {
	clear(page[:headerSize])
	copy(page, headerMagic)
	binary.BigEndian.PutUint16(page[16:], uint16(pageSize&0xffff|pageSize>>16))
	page[18], page[19], page[21], page[22], page[23] = 2, 2, 64, 32, 32
	binary.BigEndian.PutUint32(page[24:], 7)
	binary.BigEndian.PutUint32(page[28:], pages)
	binary.BigEndian.PutUint32(page[56:], 1)
	binary.BigEndian.PutUint32(page[92:], 7)
}

// newSource makes a database of which about half compresses well.
func newSource(pageSize, pages int, seed uint64) *memSource {
	data := make([]byte, pageSize*pages)
	rnd := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	for at := 0; at < len(data); at += pageSize {
		page := data[at : at+pageSize]
		_, _ = rnd.Read(page[:pageSize/2])
		for i := pageSize / 2; i < pageSize; i++ {
			page[i] = "the same words in each row, "[i%28]
		}
	}
	if pages > 0 {
		putHeader(data, pageSize, uint32(pages))
	}
	return &memSource{pageSize: pageSize, data: data}
}

// A fakeClock advances only by Sleep, which returns at once.
type fakeClock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func newClock() *fakeClock { return &fakeClock{now: time.Unix(1_700_000_000, 0).UTC()} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

func (c *fakeClock) advance(d time.Duration) { _ = c.Sleep(context.Background(), d) }

func identity(lsn cdc.LSN) Manifest {
	return Manifest{
		Database: "app", Node: "primary-1",
		Position: cdc.Position{Lineage: cdc.ID{1}, Epoch: 3, LSN: lsn, Hash: cdc.Hash{9}},
		Totals:   Totals{Transactions: 12, Bytes: 3456, CapturedAt: time.Unix(1_600_000_000, 0).UTC()},
		Source:   &cdc.SourcePosition{Frame: 5, PageSize: 4096, Boot: cdc.ID{2}},
	}
}

// mustMake makes a snapshot of small chunks.
func mustMake(t testing.TB, store Store, src Source, lsn cdc.LSN, o Options) Manifest {
	t.Helper()
	if o.ChunkBytes == 0 {
		o.ChunkBytes = 16 << 10
	}
	if o.Clock == nil {
		o.Clock = newClock()
	}
	m, err := Make(t.Context(), store, src, identity(lsn), o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
