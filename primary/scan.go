package primary

// scanBytes is how much of the database file a scan reads at once.
const scanBytes = 32 << 10

// scanGap is how many pages further the next page may be for a scan to go on:
// pages of an index often lie between those of a table.
const scanGap = 4

// A scan reads a view that is walked as a whole, mostly in the order of the pages:
// it reads ahead as long as that pays, and puts nothing into the view's cache. Not
// safe for concurrent use.
type scan struct {
	of    *view
	first uint32 // page that ahead begins with
	ahead []byte // images of pages, or nil
	last  uint32 // page asked for last
	run   int    // pages to read the next time
	reads int    // pages that were read
}

func newScan(v *view) *scan { return &scan{of: v} }

// Page returns the image of a page; it stays valid and is never written again.
func (s *scan) Page(n uint32) ([]byte, error) {
	size := s.of.pageSize
	goesOn := n > s.last && n-s.last <= scanGap
	s.last = n
	if i := int(n - s.first); n >= s.first && i < len(s.ahead)/size {
		return s.ahead[i*size : (i+1)*size : (i+1)*size], nil
	}
	if s.run = min(2*s.run, scanBytes/size); !goesOn || s.run < 1 {
		s.run = 1
	}
	b := make([]byte, s.run*size)
	read, err := s.of.readPages(n, b)
	if err != nil && s.run > 1 { // by a page that nobody asked for, perhaps
		b = b[:size]
		read, err = s.of.readPages(n, b)
	}
	if err != nil {
		return nil, err
	}
	if s.reads += max(read, 1); read == 0 { // beyond the end
		return s.of.Page(n)
	}
	s.first, s.ahead = n, b[:read*size]
	return b[:size:size], nil
}
