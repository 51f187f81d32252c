package cdc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// Version is the version of the record format that this package writes.
const Version = 1

const (
	// MaxBody bounds the operations in one record, in bytes before compression.
	MaxBody = 512 << 10
	// MaxRecord bounds a whole record, in bytes: what a reader may have to hold.
	MaxRecord = 1 << 20
	// HeaderSize is the length of the fixed head of every record, in bytes.
	HeaderSize = 32
)

// A Kind says what a record is.
type Kind uint8

// The kinds. All but Part are boundaries.
const (
	Part       Kind = 1 // operations of a transaction that later records continue
	Commit     Kind = 2 // ends one or more whole transactions
	EpochStart Kind = 3 // first record of a term; aborts an unfinished transaction before it
	Break      Kind = 4 // the history is in doubt here: only a snapshot at or above it leads on
)

func (k Kind) String() string {
	switch k {
	case Part:
		return "part"
	case Commit:
		return "commit"
	case EpochStart:
		return "epoch"
	case Break:
		return "break"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Boundary reports whether a position may name a record of this kind.
func (k Kind) Boundary() bool { return k == Commit || k == EpochStart || k == Break }

// Flags of a record head.
const (
	flagS2        = 1 << 0 // the body is one S2 block
	flagContinued = 1 << 1 // the body begins inside an operation
	flagZstd      = 1 << 2 // the body is one Zstandard frame
	packedFlags   = flagS2 | flagZstd
	knownFlags    = packedFlags | flagContinued
)

// A Head is the fixed part of a record, readable without its body.
type Head struct {
	Length int // bytes of the whole record
	Kind   Kind
	LSN    LSN
	Epoch  Epoch

	flags   byte
	rawBody uint32
	crc     uint32
}

// A TableHash is the row-set hash of one table after a transaction.
type TableHash struct {
	Table string
	Sum   [16]byte // as RowSum.Bytes gives it
}

// A Boundary is what a commit, epoch or break record says of the history up to
// it. Totals count from the start of the lineage, so that the difference of two
// boundaries is the lag between them.
type Boundary struct {
	Lineage      ID
	Term         ID
	Prev         Hash      // chain hash at the previous boundary; zero at the start and after doubt
	CapturedAt   time.Time // when the oldest transaction in the record was captured
	Transactions uint64    // total
	Bytes        uint64    // total bytes of operations, before compression
	Changes      uint64    // total row changes
	Source       SourcePosition
	// Tables are the row-set hashes at this boundary, sorted by name, of tables that
	// changed since the previous one. A table may be missing: its hash is not known
	// yet, or did not fit.
	Tables []TableHash
}

// A Record is one decoded entry of the change log.
type Record struct {
	Head
	Boundary *Boundary // nil for a part
	Body     []byte    // operations, uncompressed; the reason, as text, in a break
	// Continued is true when Body begins inside an operation that the previous
	// record began.
	Continued bool
}

// ParseHead reads the fixed part of a record. b may be longer or shorter than
// the record; it must hold HeaderSize bytes.
func ParseHead(b []byte) (Head, error) {
	if len(b) < HeaderSize {
		return Head{}, fmt.Errorf("%w: record head of %d bytes, want %d", ErrCorrupt, len(b), HeaderSize)
	}
	le := binary.LittleEndian
	h := Head{
		Length: int(le.Uint32(b)), crc: le.Uint32(b[4:]), Kind: Kind(b[9]), flags: b[10],
		rawBody: le.Uint32(b[12:]), LSN: LSN(le.Uint64(b[16:])), Epoch: Epoch(le.Uint64(b[24:])),
	}
	if h.Length < HeaderSize || h.Length > MaxRecord {
		return Head{}, fmt.Errorf("%w: record length %d, want %d to %d", ErrCorrupt, h.Length, HeaderSize, MaxRecord)
	}
	return h, nil
}

// check verifies checksum, version, kind and flags of the record b with head h.
func (h Head) check(b []byte) error {
	if len(b) != h.Length {
		return fmt.Errorf("%w: record %d has %d bytes, its head says %d", ErrCorrupt, h.LSN, len(b), h.Length)
	}
	if sum := crc32.Checksum(b[8:], castagnoli()); sum != h.crc {
		return fmt.Errorf("%w: record %d has checksum %08x, want %08x", ErrCorrupt, h.LSN, sum, h.crc)
	}
	if b[8] != Version {
		return fmt.Errorf("%w: record %d is of version %d, this replicator reads version %d; upgrade it", ErrVersion, h.LSN, b[8], Version)
	}
	if h.Kind < Part || h.Kind > Break {
		return fmt.Errorf("%w: record %d is of kind %d; upgrade this replicator", ErrVersion, h.LSN, uint8(h.Kind))
	}
	if h.flags&^knownFlags != 0 {
		return fmt.Errorf("%w: record %d has flags %#x; upgrade this replicator", ErrVersion, h.LSN, h.flags)
	}
	if h.LSN == 0 || h.rawBody > MaxBody {
		return fmt.Errorf("%w: record %d has a body of %d bytes", ErrCorrupt, h.LSN, h.rawBody)
	}
	return nil
}

// Check verifies the checksum and the head of the encoded record b and returns
// the head, without decoding the body.
func Check(b []byte) (Head, error) {
	h, err := ParseHead(b)
	if err != nil {
		return Head{}, err
	}
	return h, h.check(b)
}

// Decode decodes the record in b. The result may alias b.
func Decode(b []byte) (Record, error) {
	var u unpacker
	defer u.close()
	return u.decode(b)
}

func (u *unpacker) decode(b []byte) (Record, error) {
	rec, body, err := decodeHead(b)
	if err != nil {
		return Record{}, err
	}
	if rec.Body, err = u.unpack(rec.Head, body); err != nil {
		return Record{}, err
	}
	return rec, nil
}

// DecodeBoundary decodes the record in b without its body.
func DecodeBoundary(b []byte) (Record, error) {
	rec, _, err := decodeHead(b)
	return rec, err
}

func decodeHead(b []byte) (rec Record, body []byte, err error) {
	h, err := Check(b)
	if err != nil {
		return Record{}, nil, err
	}
	rec = Record{Head: h, Continued: h.flags&flagContinued != 0}
	body = b[HeaderSize:]
	if h.Kind.Boundary() {
		r := reader{b: body}
		rec.Boundary = r.boundary()
		if r.err != nil {
			return Record{}, nil, fmt.Errorf("record %d: %w", h.LSN, r.err)
		}
		body = r.b
	}
	return rec, body, nil
}

// boundary reads a boundary block; see FORMAT.md.
func (r *reader) boundary() *Boundary {
	block := reader{b: r.take(int(r.uint32()), "boundary block"), err: r.err}
	b := &Boundary{
		Lineage: block.id(), Term: block.id(), Prev: block.id(),
		CapturedAt:   fromNanos(block.uint64()),
		Transactions: block.uint64(), Bytes: block.uint64(), Changes: block.uint64(),
	}
	s := &b.Source
	s.Salt = [2]uint32{block.uint32(), block.uint32()}
	s.Frame = block.uint32()
	s.Checksum = [2]uint32{block.uint32(), block.uint32()}
	s.PageSize, s.DBSize = block.uint32(), block.uint32()
	s.Device, s.Inode, s.Boot = block.uint64(), block.uint64(), block.id()
	s.BigEndian = block.flags(1)&1 != 0
	block.byte() // reserved
	for n := block.uint32(); n > 0 && block.err == nil; n-- {
		b.Tables = append(b.Tables, TableHash{Table: string(block.bytes()), Sum: block.id()})
	}
	if block.err == nil && len(block.b) != 0 {
		block.err = fmt.Errorf("%w: %d bytes after the boundary block", ErrCorrupt, len(block.b))
	}
	r.err = block.err
	return b
}

func appendBoundary(dst []byte, b *Boundary) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, b.Lineage[:]...)
	dst = append(dst, b.Term[:]...)
	dst = append(dst, b.Prev[:]...)
	dst = le.AppendUint64(dst, nanos(b.CapturedAt))
	dst = le.AppendUint64(dst, b.Transactions)
	dst = le.AppendUint64(dst, b.Bytes)
	dst = le.AppendUint64(dst, b.Changes)
	s := &b.Source
	for _, v := range [...]uint32{s.Salt[0], s.Salt[1], s.Frame, s.Checksum[0], s.Checksum[1], s.PageSize, s.DBSize} {
		dst = le.AppendUint32(dst, v)
	}
	dst = le.AppendUint64(dst, s.Device)
	dst = le.AppendUint64(dst, s.Inode)
	dst = append(dst, s.Boot[:]...)
	var order byte
	if s.BigEndian {
		order = 1
	}
	dst = append(dst, order, 0)
	dst = le.AppendUint32(dst, uint32(len(b.Tables)))
	for _, t := range b.Tables {
		dst = appendString(dst, t.Table)
		dst = append(dst, t.Sum[:]...)
	}
	le.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// nanos is t in nanoseconds since 1970, or 0 for the zero time, which has no
// such number.
func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func fromNanos(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

// appendRecord appends the encoding of a record to dst. boundary is nil for a
// part.
func appendRecord(dst []byte, h Head, boundary *Boundary, body []byte, p *Packer) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, make([]byte, HeaderSize)...)
	if boundary != nil {
		dst = appendBoundary(dst, boundary)
	}
	dst, packed := p.append(dst, body)
	h.flags |= packed
	b := dst[start:]
	le.PutUint32(b, uint32(len(b)))
	b[8], b[9], b[10] = Version, byte(h.Kind), h.flags
	le.PutUint32(b[12:], uint32(len(body)))
	le.PutUint64(b[16:], uint64(h.LSN))
	le.PutUint64(b[24:], uint64(h.Epoch))
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli()))
	return dst
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
