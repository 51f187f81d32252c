package snapshot

import (
	"fmt"
	"runtime"

	"github.com/sqlite-replicator/replicator/internal/clock"
)

// Bounds of Options.ChunkBytes. A store must take an object of maxChunkBytes
// and a little more.
const (
	defaultChunkBytes = 4 << 20
	maxChunkBytes     = 64 << 20
)

// bufferBudget bounds the buffers of one Make, Verify or Restore, in bytes, so
// that with all else it stays below 40 MiB.
const bufferBudget = 36 << 20

// Options tune Make, Verify and Restore. The zero value is right for most.
type Options struct {
	// Codec packs the chunks that Make writes; "" means [S2].
	Codec Codec
	// ChunkBytes is the size of the chunks that Make cuts, in bytes of database,
	// rounded down to whole pages; 0 means 4 MiB, and 64 MiB is the most.
	ChunkBytes int
	// Parallel is the number of chunks worked on at once; 0 means two a core. It
	// is lowered until the buffers fit in 40 MiB, but not below one: with chunks of
	// 4 MiB at most 4 are packed, and 4 restored, at once.
	Parallel int
	// Progress, if set, is called at the start and after each chunk, from other
	// goroutines but never from two at once. It must not block: work waits for it.
	Progress func(Progress)
	// Clock, if nil, is the system's.
	Clock Clock
}

// withDefaults fills in what is unset and refuses what makes no sense.
func (o Options) withDefaults() (Options, error) {
	if o.Codec == "" {
		o.Codec = S2
	}
	if o.ChunkBytes == 0 {
		o.ChunkBytes = defaultChunkBytes
	}
	if o.Parallel == 0 {
		o.Parallel = 2 * runtime.GOMAXPROCS(0)
	}
	if o.Clock == nil {
		o.Clock = clock.System{}
	}
	switch {
	case !o.Codec.known():
		return o, fmt.Errorf("snapshot: codec %q; use %s, %s or %s", o.Codec, None, S2, Zstd)
	case o.ChunkBytes < 0 || o.ChunkBytes > maxChunkBytes:
		return o, fmt.Errorf("snapshot: chunks of %d bytes; use at most %d", o.ChunkBytes, maxChunkBytes)
	case o.Parallel < 0:
		return o, fmt.Errorf("snapshot: %d chunks at once; use at least 1", o.Parallel)
	}
	return o, nil
}

// workers is how many workers run where the budget has room for the given number.
func (o Options) workers(room int) int { return max(1, min(o.Parallel, room)) }
