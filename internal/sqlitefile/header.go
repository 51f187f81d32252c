package sqlitefile

import (
	"encoding/binary"
	"fmt"
)

// Page sizes in bytes (§1.3.2): powers of two between these.
const (
	MinPageSize = 512
	MaxPageSize = 65536
)

// HeaderSize is the length in bytes of the database header.
const HeaderSize = 100

const (
	headerMagic = "SQLite format 3\x00"
	minUsable   = 480        // §1.3.4
	lockByte    = 0x40000000 // §1.4
)

// An Encoding is the encoding of every text in a database (§1.3.13).
type Encoding uint8

// The encodings, by their number in the header.
const (
	UTF8    Encoding = 1
	UTF16LE Encoding = 2
	UTF16BE Encoding = 3
)

// String returns the name that PRAGMA encoding gives.
func (e Encoding) String() string {
	switch e {
	case UTF8:
		return "UTF-8"
	case UTF16LE:
		return "UTF-16le"
	case UTF16BE:
		return "UTF-16be"
	}
	return fmt.Sprintf("Encoding(%d)", uint8(e))
}

// A Header is the first 100 bytes of a database (§1.3).
type Header struct {
	PageSize      int      // bytes; a power of two in [MinPageSize, MaxPageSize]
	Usable        int      // bytes of a page less its reserved tail; at least 480
	Encoding      Encoding // UTF8 as long as the database has no content
	PageCount     uint32   // pages; 0: not kept by the last writer, take the file's size (§1.3.8)
	ChangeCounter uint32   // in SQLite WAL mode it does not count every transaction (§1.3.7)
	SchemaCookie  uint32   // grows with each schema change
	SchemaFormat  uint32   // 1 to 4; 0 in a database without content
	UserVersion   int32    // signed, as PRAGMA user_version shows and takes it
	ApplicationID int32    // signed, as PRAGMA application_id shows and takes it
	AutoVacuum    bool     // pointer-map pages exist, and root pages may move
	WAL           bool     // journal_mode=WAL
}

// ParseHeader decodes the header at the start of page 1. It fails with
// [ErrCorrupt] where SQLite would say "file is not a database".
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, corruptf("database header: %d bytes, want %d", len(b), HeaderSize)
	}
	if string(b[:len(headerMagic)]) != headerMagic {
		return Header{}, corruptf("database header: starts with %x, not with the SQLite magic", b[:len(headerMagic)])
	}
	be := binary.BigEndian
	h := Header{
		PageSize:      int(be.Uint16(b[16:])),
		Encoding:      Encoding(b[59]),
		PageCount:     be.Uint32(b[28:]),
		ChangeCounter: be.Uint32(b[24:]),
		SchemaCookie:  be.Uint32(b[40:]),
		SchemaFormat:  be.Uint32(b[44:]),
		UserVersion:   int32(be.Uint32(b[60:])),
		ApplicationID: int32(be.Uint32(b[68:])),
		AutoVacuum:    be.Uint32(b[52:]) != 0,
		WAL:           b[19] == 2,
	}
	if h.PageSize == 1 { // 65536 does not fit in 16 bits
		h.PageSize = MaxPageSize
	}
	h.Usable = h.PageSize - int(b[20])
	if be.Uint32(b[92:]) != h.ChangeCounter {
		h.PageCount = 0
	}
	if b[56]|b[57]|b[58] == 0 && h.Encoding == 0 {
		h.Encoding = UTF8
	}
	if err := h.check(b); err != nil {
		return Header{}, err
	}
	return h, nil
}

// check refuses what SQLite refuses to open, b being the header's bytes.
func (h Header) check(b []byte) error {
	switch {
	case !validPageSize(h.PageSize):
		return corruptf("database header: page size %d", h.PageSize)
	case h.Usable < minUsable:
		return corruptf("database header: %d usable bytes in a page, want at least %d", h.Usable, minUsable)
	case b[19] < 1 || b[19] > 2:
		return corruptf("database header: read version %d, want 1 or 2", b[19])
	case b[21] != 64 || b[22] != 32 || b[23] != 32:
		return corruptf("database header: payload fractions %d, %d, %d, want 64, 32, 32", b[21], b[22], b[23])
	case h.SchemaFormat > 4:
		return corruptf("database header: schema format %d, want at most 4", h.SchemaFormat)
	case b[56]|b[57]|b[58] != 0 || h.Encoding > UTF16BE:
		return corruptf("database header: text encoding %d, want 1 to 3", binary.BigEndian.Uint32(b[56:]))
	}
	return nil
}

func validPageSize(n int) bool {
	return n >= MinPageSize && n <= MaxPageSize && n&(n-1) == 0
}

// LockBytePage returns the number of the page that holds the bytes SQLite locks
// (§1.4). No b-tree and no chain ever uses it, and its content means nothing.
// pageSize must be valid.
func LockBytePage(pageSize int) uint32 {
	return uint32(lockByte/pageSize) + 1
}
