package snapshot

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/sqlite-replicator/replicator/cdc"
)

const idLength = 20 + 1 + 16

// formatID makes ids that sort by LSN, then by time: the upper half of tail, in
// seconds since 1970, tells the age of objects whose manifest was never written.
// The lower half is random and keeps two makers at one LSN apart.
func formatID(lsn cdc.LSN, tail uint64) string { return fmt.Sprintf("%020d-%016x", uint64(lsn), tail) }

const manifestName = "manifest.json"

func newID(lsn cdc.LSN, now time.Time) (string, error) {
	var r [4]byte
	if _, err := rand.Read(r[:]); err != nil {
		return "", fmt.Errorf("snapshot: random id: %w", err)
	}
	return formatID(lsn, uint64(now.Unix())<<32|uint64(binary.BigEndian.Uint32(r[:]))), nil
}

func parseID(id string) (cdc.LSN, time.Time, error) {
	if len(id) == idLength {
		lsn, err1 := strconv.ParseUint(id[:20], 10, 64)
		tail, err2 := strconv.ParseUint(id[21:], 16, 64)
		if err1 == nil && err2 == nil && formatID(cdc.LSN(lsn), tail) == id {
			return cdc.LSN(lsn), time.Unix(int64(tail>>32), 0), nil
		}
	}
	return 0, time.Time{}, fmt.Errorf("%q is not the id of a snapshot", id)
}

// idOf returns the snapshot that an object belongs to, and false for a name that
// is none of ours.
func idOf(name string) (string, bool) {
	id, rest, ok := strings.Cut(name, "/")
	if !ok || rest == "" {
		return "", false
	}
	_, _, err := parseID(id)
	return id, err == nil
}

func manifestOf(id string) string { return path.Join(id, manifestName) }

func chunkOf(id string, index int) string { return path.Join(id, fmt.Sprintf("chunk-%06d", index)) }

func (m Manifest) chunkName(c Chunk) string { return chunkOf(m.ID, c.Index) }
