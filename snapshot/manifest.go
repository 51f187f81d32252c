package snapshot

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/sqlite-replicator/replicator/cdc"
)

// Version is the version of the manifest format that this package writes, and
// the newest it reads.
const Version = 1

// Limits that a manifest cannot exceed, so that a damaged one cannot ask for
// much. 2^18 chunks of 64 MiB are 16 TiB.
const (
	maxManifest = 64 << 20
	maxChunks   = 1 << 18
)

// A Sum is the 128-bit XXH3 of some bytes, most significant byte first.
type Sum [16]byte

func sumOf(b []byte) Sum { return xxh3.Hash128(b).Bytes() }

func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText gives the form of String.
func (s Sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the form of String.
func (s *Sum) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(s) || len(b)%2 != 0 {
		return fmt.Errorf("snapshot: sum %q has %d characters, want %d", b, len(b), hex.EncodedLen(len(s)))
	}
	if _, err := hex.Decode(s[:], b); err != nil {
		return fmt.Errorf("snapshot: sum %q: %w", b, err)
	}
	return nil
}

// A Manifest describes one snapshot. Whoever calls Make fills in Database, Node,
// Position, Term, Totals, Source and Tables; Make fills in the rest.
type Manifest struct {
	Format    int       `json:"format"`
	ID        string    `json:"id"` // "<lsn>-<time and random>": where the objects are, and their order
	Database  string    `json:"database"`
	Node      string    `json:"node"` // that made it
	CreatedAt time.Time `json:"created_at"`

	Position cdc.Position        `json:"position"`         // the database is exactly as of this
	Term     cdc.ID              `json:"term,omitzero"`    // of the boundary record at Position; zero: not known
	Totals   Totals              `json:"totals"`           // of the boundary record at Position
	Source   *cdc.SourcePosition `json:"source,omitempty"` // of the boundary record at Position, if known

	PageSize int    `json:"page_size"` // bytes
	Pages    uint32 `json:"pages"`
	Encoding string `json:"encoding"` // of text, as PRAGMA encoding names it

	// Tables are the row-set hashes of its tables, sorted by name, as far as they
	// were known. What is not here was not known.
	Tables []TableSum `json:"tables,omitempty"`

	Codec      Codec   `json:"codec"`
	ChunkBytes int     `json:"chunk_bytes"` // bytes of database in every chunk but the last; whole pages
	Chunks     []Chunk `json:"chunks"`      // in the order of the pages

	// Sum is that of the manifest itself, and so, through the sums of its chunks,
	// of the whole snapshot.
	Sum Sum `json:"sum,omitzero"`
}

// A TableSum is the row-set hash of one table (FORMAT.md of package cdc).
type TableSum struct {
	Name string     `json:"name"`
	Sum  cdc.RowSum `json:"sum"`
}

// Totals are what the boundary record at a position says of the history up to
// it, so that a reader knows its lag without the record.
type Totals struct {
	Transactions uint64    `json:"transactions"`
	Bytes        uint64    `json:"bytes"` // of operations, before compression
	Changes      uint64    `json:"changes"`
	CapturedAt   time.Time `json:"captured_at"`
}

// TotalsOf takes the totals from a boundary.
func TotalsOf(b cdc.Boundary) Totals {
	return Totals{Transactions: b.Transactions, Bytes: b.Bytes, Changes: b.Changes, CapturedAt: b.CapturedAt}
}

// A Chunk is a run of pages, stored as one object.
type Chunk struct {
	Index     int `json:"index"`      // from 1
	Bytes     int `json:"bytes"`      // of database
	Stored    int `json:"stored"`     // bytes of the object
	Sum       Sum `json:"sum"`        // of the pages
	StoredSum Sum `json:"stored_sum"` // of the object
}

// Size is the size of the database in bytes.
func (m Manifest) Size() int64 { return int64(m.Pages) * int64(m.PageSize) }

// StoredSize is the size of the chunks in the store, in bytes.
func (m Manifest) StoredSize() (n int64) {
	for _, c := range m.Chunks {
		n += int64(c.Stored)
	}
	return n
}

// largestChunk is the size of the largest chunk as unpacked, at least a page.
func (m Manifest) largestChunk() int {
	return int(max(min(int64(m.ChunkBytes), m.Size()), int64(m.PageSize)))
}

// offset is where a chunk begins in the database, in bytes.
func (m Manifest) offset(c Chunk) int64 { return int64(c.Index-1) * int64(m.ChunkBytes) }

// sumMark stands between the members of a stored manifest and its sum; sumEnd
// closes it.
const (
	sumMark = `,"sum":"`
	sumEnd  = `"}`
	sumTail = len(sumMark) + 2*len(Sum{}) + len(sumEnd)
)

// seal sets m.Sum and returns the stored form: the JSON of m, whose last member
// is the sum of that JSON without it.
func seal(m *Manifest) ([]byte, error) {
	m.Sum = Sum{}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("snapshot: encode manifest %s: %w", m.ID, err)
	}
	m.Sum = sumOf(b)
	b = append(b[:len(b)-1], sumMark+m.Sum.String()+sumEnd...)
	if len(b) > maxManifest {
		return nil, fmt.Errorf("snapshot: manifest %s has %d bytes, the most is %d; use larger chunks", m.ID, len(b), maxManifest)
	}
	return b, nil
}

// ParseManifest reads the stored form of a manifest. Its errors wrap ErrVersion
// or ErrDamaged.
func ParseManifest(b []byte) (Manifest, error) {
	if len(b) > maxManifest {
		return Manifest{}, fmt.Errorf("%w: manifest of %d bytes, the most is %d", ErrDamaged, len(b), maxManifest)
	}
	var probe struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &probe); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if probe.Format > Version { // first, because all else may have changed
		return Manifest{}, fmt.Errorf("%w: manifest of version %d, this replicator reads version %d; upgrade it", ErrVersion, probe.Format, Version)
	}
	sum, err := checkSeal(b)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	m.Sum = sum
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest %q: %w", ErrDamaged, m.ID, err)
	}
	return m, nil
}

// checkSeal compares the sum at the end of b with the bytes before it.
func checkSeal(b []byte) (Sum, error) {
	at := len(b) - sumTail
	if at < 1 || !bytes.HasPrefix(b[at:], []byte(sumMark)) || !bytes.HasSuffix(b, []byte(sumEnd)) {
		return Sum{}, errors.New("does not end in a sum")
	}
	var h xxh3.Hasher
	_, _ = h.Write(b[:at]) // never fails
	_, _ = h.WriteString("}")
	sum := Sum(h.Sum128().Bytes())
	if says := b[at+len(sumMark) : len(b)-len(sumEnd)]; sum.String() != string(says) {
		return Sum{}, fmt.Errorf("has sum %s, says %q", sum, says)
	}
	return sum, nil
}

// check proves that the members agree, so that nobody after it need doubt them.
func (m Manifest) check() error {
	lsn, _, err := parseID(m.ID)
	switch {
	case err != nil:
		return err
	case m.Format != Version:
		return fmt.Errorf("version %d", m.Format)
	case lsn != m.Position.LSN:
		return fmt.Errorf("position is %s", m.Position)
	case !validPageSize(m.PageSize):
		return fmt.Errorf("page size %d", m.PageSize)
	case !m.Codec.known():
		return fmt.Errorf("unknown codec %q", m.Codec)
	case m.ChunkBytes < m.PageSize || m.ChunkBytes > maxChunkBytes || m.ChunkBytes%m.PageSize != 0:
		return fmt.Errorf("chunks of %d bytes with pages of %d", m.ChunkBytes, m.PageSize)
	case len(m.Chunks) > maxChunks || int64(len(m.Chunks)) != chunkCount(m.Size(), m.ChunkBytes):
		return fmt.Errorf("%d chunks of %d bytes for %d pages of %d bytes", len(m.Chunks), m.ChunkBytes, m.Pages, m.PageSize)
	}
	for i := range m.Tables[min(1, len(m.Tables)):] {
		if m.Tables[i].Name >= m.Tables[i+1].Name {
			return fmt.Errorf("table %d is not in its place", i+2)
		}
	}
	for i, c := range m.Chunks {
		want := min(int64(m.ChunkBytes), m.Size()-m.offset(c))
		if c.Index != i+1 || int64(c.Bytes) != want || c.Stored < 1 || c.Stored > m.Codec.maxStored(c.Bytes) {
			return fmt.Errorf("chunk %d, in place %d, has %d bytes, stored as %d, want %d", c.Index, i+1, c.Bytes, c.Stored, want)
		}
	}
	return nil
}

// chunkCount is how many chunks a database of size bytes takes.
func chunkCount(size int64, chunkBytes int) int64 {
	return (size + int64(chunkBytes) - 1) / int64(chunkBytes)
}
