package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"testing"
)

// A sparseSource is a huge database of which only one page is in memory.
type sparseSource struct {
	pages uint32
	page  []byte
}

func (s sparseSource) PageSize() int { return len(s.page) }
func (s sparseSource) Pages() uint32 { return s.pages }

func (s sparseSource) ReadPages(_ context.Context, first uint32, dst []byte) (int, error) {
	for at := 0; at < len(dst); at += len(s.page) {
		copy(dst[at:], s.page)
	}
	if first == 1 {
		putHeader(dst, len(s.page), s.pages)
	}
	return len(dst) / len(s.page), nil
}

// A nullStore remembers names only. With watch it looks at the heap at each Put.
type nullStore struct {
	memStore
	watch bool
	most  uint64 // bytes of live heap, the greatest seen
}

func (s *nullStore) Put(_ context.Context, name string, _ []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[name] = nil
	if s.watch {
		runtime.GC() // when the collector runs by itself must not matter
		s.most = max(s.most, heap())
	}
	return nil
}

// heap is the bytes of objects in use.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// The memory of a make does not grow with the database.
func TestMakeMemory(t *testing.T) {
	const limit = 40 << 20
	for _, tt := range []struct {
		codec Codec
		chunk int
	}{{None, 8 << 20}, {S2, 8 << 20}, {Zstd, 8 << 20}, {S2, 12 << 20}, {S2, 1 << 20}} {
		store := &nullStore{memStore: *newMemStore(), watch: true}
		src := sparseSource{pages: 1 << 18, page: newSource(4096, 1, 1).data} // 1 GiB
		runtime.GC()
		before := heap()
		m, err := Make(t.Context(), store, src, identity(1), Options{Codec: tt.codec, ChunkBytes: tt.chunk, Parallel: 64, Clock: newClock()})
		if err != nil {
			t.Fatal(err)
		}
		if m.Size() != 1<<30 || len(m.Chunks) != (1<<30+tt.chunk-1)/tt.chunk {
			t.Fatalf("%d bytes in %d chunks", m.Size(), len(m.Chunks))
		}
		if used := int64(store.most) - int64(before); used > limit {
			t.Errorf("%s in chunks of %d: make of 1 GiB took %d bytes of heap, want at most %d", tt.codec, tt.chunk, used, limit)
		}
	}
}

func BenchmarkMake(b *testing.B) {
	src := newSource(4096, 64<<20/4096, 1)
	for _, codec := range []Codec{None, S2, Zstd} {
		for _, parallel := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/parallel=%d", codec, parallel), func(b *testing.B) {
				b.SetBytes(int64(len(src.data)))
				b.ReportAllocs()
				var m Manifest
				for b.Loop() {
					m = mustMake(b, &nullStore{memStore: *newMemStore()}, src, 1,
						Options{Codec: codec, ChunkBytes: 8 << 20, Parallel: parallel})
				}
				b.ReportMetric(float64(m.StoredSize())/float64(m.Size()), "stored/raw")
			})
		}
	}
}

func BenchmarkRestore(b *testing.B) {
	src := newSource(4096, 64<<20/4096, 1)
	for _, codec := range []Codec{None, S2, Zstd} {
		store := newMemStore()
		m := mustMake(b, store, src, 1, Options{Codec: codec, ChunkBytes: 8 << 20})
		for _, parallel := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/parallel=%d", codec, parallel), func(b *testing.B) {
				path := filepath.Join(b.TempDir(), "app.db")
				b.SetBytes(m.Size())
				b.ReportAllocs()
				for b.Loop() {
					if err := Restore(b.Context(), store, m, path, Options{Parallel: parallel}); err != nil {
						b.Fatal(err)
					}
					if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// newRows makes pages like those of a table of short texts and numbers, on which
// a codec works hardest: matches are many and short.
func newRows(pages int) *memSource {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 2000)
	for i := range words {
		words[i] = fmt.Sprintf("%x", rnd.Uint64()>>rnd.IntN(56))
	}
	data := make([]byte, 0, (pages+1)*4096)
	for id := 0; len(data) < pages*4096; id++ {
		data = binary.BigEndian.AppendUint64(data, uint64(id)<<16|rnd.Uint64()>>48)
		for range 12 {
			data = append(data, words[int(rnd.ExpFloat64()*300)%len(words)]...)
			data = append(data, ' ')
		}
	}
	return &memSource{pageSize: 4096, data: data[:pages*4096]}
}

// One core alone: how fast a codec packs and sums.
func BenchmarkPack(b *testing.B) {
	src := newRows(8 << 20 / 4096)
	for _, codec := range []Codec{S2, Zstd} {
		p, err := newPacker(codec, 1)
		if err != nil {
			b.Fatal(err)
		}
		defer p.close()
		spare := make([]byte, 0, codec.maxStored(len(src.data)))
		stored := p.pack(src.data, make([]byte, 0, cap(spare)))
		b.Run(string(codec)+"/pack", func(b *testing.B) {
			b.SetBytes(int64(len(src.data)))
			b.ReportAllocs()
			for b.Loop() {
				sumOf(src.data)
				sumOf(p.pack(src.data, spare))
			}
			b.ReportMetric(float64(len(stored))/float64(len(src.data)), "stored/raw")
		})
		b.Run(string(codec)+"/unpack", func(b *testing.B) {
			b.SetBytes(int64(len(src.data)))
			b.ReportAllocs()
			for b.Loop() {
				raw, err := p.unpack(stored, spare, len(src.data))
				if err != nil {
					b.Fatal(err)
				}
				sumOf(raw)
			}
		})
	}
}
