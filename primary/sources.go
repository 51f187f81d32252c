package primary

import (
	"fmt"
	"sync"

	"github.com/sqlite-replicator/replicator/snapshot"
)

// Sources keeps two pipelines of one process from opening the same database
// under two names: the descriptors of one would drop the locks of the other. It
// holds what they share.
// The zero value is ready.
type Sources struct {
	Turns *snapshot.Turns // in which the process works on snapshots; nil: any number at once. Set before the first use

	mu    sync.Mutex
	owner map[fileID]string
	users int // pipelines

	watches watches
}

// Bounds of memory, in bytes.
const (
	cacheInAll = 8 << 20  // of the page images of all views together, about, where there are several
	mostCache  = 16 << 20 // of one that is alone
	mapsInAll  = 32 << 20 // of all page maps, about; the rest of them is in files
)

// join notes that one more pipeline shares what s holds.
func (s *Sources) join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
}

// cacheBytes is the share of one pipeline.
func (s *Sources) cacheBytes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users <= 1 {
		return mostCache
	}
	return cacheInAll / s.users
}

// mapBytes is the share of one pipeline.
func (s *Sources) mapBytes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return mapsInAll / max(s.users, 1)
}

// claim notes that db uses the file id.
func (s *Sources) claim(id fileID, db string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.owner[id]; ok {
		return nil, fmt.Errorf("databases %s and %s are one file; remove one of them from the config", other, db)
	}
	if s.owner == nil {
		s.owner = map[fileID]string{}
	}
	s.owner[id] = db
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.owner, id)
	}, nil
}
