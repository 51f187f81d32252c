package primary

import (
	"bytes"
	"testing"

	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A scan gives what the view gives, in whatever order it is asked, also where pages
// are in the SQLite WAL, and does not stop at a page that nobody asked for.
func TestScan(t *testing.T) {
	const size, pages, absent = 512, 200, 150
	page := func(n uint32) []byte { return bytes.Repeat([]byte{byte(n)}, size) }
	v := &view{pageSize: size, pages: pages, cache: newPageCache(size, 0)}
	file, log := make([]byte, 0, pages*size), make([]byte, 0)
	for n := uint32(1); n <= pages; n++ {
		if n < absent {
			file = append(file, page(n)...)
		}
		if n%7 == 0 || n > absent {
			frame := uint32(v.frames.count + 1)
			v.frames.put(n, frame)
			log = append(log, make([]byte, sqlitefile.FrameOffset(frame, size)+sqlitefile.FrameHeaderSize-int64(len(log)))...)
			log = append(log, page(n)...)
			if n < absent {
				copy(file[(n-1)*size:], page(0))
			}
		}
	}
	v.db, v.log = written(t, file), written(t, log)
	var orders [3][]uint32
	for n := uint32(1); n <= pages; n++ {
		orders[0] = append(orders[0], n)
		orders[1] = append(orders[1], pages+1-n)
		orders[2] = append(orders[2], n, n*2%pages+1, min(n+3-n%4, pages))
	}
	for i, order := range orders {
		s := newScan(v)
		images := map[uint32][]byte{}
		for _, n := range order {
			b, err := s.Page(n)
			if n == absent {
				if err == nil {
					t.Errorf("order %d: page %d is nowhere and was read", i, n)
				}
				continue
			}
			if err != nil {
				t.Fatalf("order %d, page %d: %v", i, n, err)
			}
			images[n] = b
		}
		for n, b := range images { // they stay what they were
			if !bytes.Equal(b, page(n)) {
				t.Errorf("order %d: page %d has other bytes than were written", i, n)
			}
		}
	}
	if len(v.cache.young)+len(v.cache.old) > 0 {
		t.Error("a scan fills the cache")
	}
}
