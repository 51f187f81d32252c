package cdc

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ErrCorrupt is wrapped by every error that the bytes themselves cause.
var ErrCorrupt = errors.New("cdc: corrupt")

// ErrVersion is wrapped when a record was written by a newer replicator. The
// remedy is to upgrade the reader, never to re-bootstrap it.
var ErrVersion = errors.New("cdc: unknown version")

// An LSN is the number of a record of one database's change log, and the
// stream sequence of the same record: 1, 2, 3, without a gap, ever. Zero means
// "none yet".
type LSN uint64

func (l LSN) String() string { return strconv.FormatUint(uint64(l), 10) }

// An Epoch numbers the terms of primaries of one database. Every start of a
// primary appends an epoch record with a greater one.
type Epoch uint64

func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// An ID is 16 random bytes: a lineage (one history of a database) or a term
// (one run of a primary).
type ID [16]byte

// NewID reads an ID from r, or from the system's generator when r is nil.
func NewID(r io.Reader) (ID, error) {
	if r == nil {
		r = rand.Reader
	}
	var id ID
	if _, err := io.ReadFull(r, id[:]); err != nil {
		return ID{}, fmt.Errorf("cdc: random id: %w", err)
	}
	return id, nil
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText gives the form of String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the form of String.
func (id *ID) UnmarshalText(b []byte) error { return unhex(id[:], b, "id") }

// A Hash is the 128-bit XXH3 chain hash at a boundary record. It guards
// against mix-ups and damage, not against an adversary.
type Hash [16]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText gives the form of String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads the form of String.
func (h *Hash) UnmarshalText(b []byte) error { return unhex(h[:], b, "hash") }

func unhex(dst, src []byte, what string) error {
	if hex.DecodedLen(len(src)) != len(dst) {
		return fmt.Errorf("cdc: %s %q has %d characters, want %d", what, src, len(src), hex.EncodedLen(len(dst)))
	}
	if _, err := hex.Decode(dst, src); err != nil {
		return fmt.Errorf("cdc: %s %q: %w", what, src, err)
	}
	return nil
}

// A Position names a state of a database: everything up to and including a
// boundary record. A part record is never a position.
type Position struct {
	Lineage ID    `json:"lineage"`
	Epoch   Epoch `json:"epoch"`
	LSN     LSN   `json:"lsn"`
	Hash    Hash  `json:"hash"` // the chain hash at LSN
}

func (p Position) String() string { return fmt.Sprintf("%d@%d", p.LSN, p.Epoch) }

// A SourcePosition is how far into the SQLite WAL of the source a boundary
// record has captured. It lives in the record itself, so that appending the
// record is the only commit point of the capture.
type SourcePosition struct {
	Salt      [2]uint32 // of the SQLite WAL's generation
	Frame     uint32    // last frame captured; 0 before the first
	Checksum  [2]uint32 // cumulative checksum after Frame
	BigEndian bool      // byte order of the checksums
	PageSize  uint32    // bytes
	DBSize    uint32    // pages of the database after Frame
	Device    uint64    // of the database file
	Inode     uint64    // of the database file
	Boot      ID        // the machine's boot id: after a reboot frames may be gone
}
