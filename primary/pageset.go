package primary

// A pageSet is a set of page numbers. It takes memory where pages are in it, and
// emptying it costs what was put in, not what the database has, because it happens
// once a transaction.
type pageSet struct {
	chunks []*setChunk
	used   []uint32    // chunks that are not nil
	spare  []*setChunk // empty, for later
}

// A setChunk has a bit for each of 4096 pages.
type setChunk [64]uint64

const (
	setChunkBits = 12
	spareChunks  = 64 // that an empty set keeps, 32 KiB
)

func (s *pageSet) has(page uint32) bool {
	i := page >> setChunkBits
	return int(i) < len(s.chunks) && s.chunks[i] != nil && s.chunks[i][page/64%64]&(1<<(page%64)) != 0
}

// add reports whether page was not in s before.
func (s *pageSet) add(page uint32) bool {
	i := page >> setChunkBits
	if int(i) >= len(s.chunks) {
		s.chunks = append(s.chunks, make([]*setChunk, int(i)+1-len(s.chunks))...)
	}
	c := s.chunks[i]
	if c == nil {
		c = s.chunk()
		s.chunks[i] = c
		s.used = append(s.used, i)
	}
	w, bit := page/64%64, uint64(1)<<(page%64)
	old := c[w]
	c[w] = old | bit
	return old&bit == 0
}

func (s *pageSet) chunk() *setChunk {
	n := len(s.spare)
	if n == 0 {
		return new(setChunk)
	}
	c := s.spare[n-1]
	s.spare = s.spare[:n-1]
	return c
}

// remove reports whether page was in s.
func (s *pageSet) remove(page uint32) bool {
	if !s.has(page) {
		return false
	}
	s.chunks[page>>setChunkBits][page/64%64] &^= 1 << (page % 64)
	return true
}

func (s *pageSet) reset() {
	for _, i := range s.used {
		if len(s.spare) < spareChunks {
			clear(s.chunks[i][:])
			s.spare = append(s.spare, s.chunks[i])
		}
		s.chunks[i] = nil
	}
	s.used = s.used[:0]
}
