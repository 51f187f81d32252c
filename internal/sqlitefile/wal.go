package sqlitefile

import "encoding/binary"

// Sizes in bytes of what surrounds the pages of a SQLite WAL (§4.1).
const (
	WALHeaderSize   = 32
	FrameHeaderSize = 24
)

const (
	walMagic   = 0x377f0682 // the lowest bit: checksums are over big-endian words
	walVersion = 3007000
)

// A Checksum is the running checksum of a SQLite WAL (§4.2): from the header on
// over all frames before, of each its first 8 bytes and its page.
type Checksum [2]uint32

// A WALHeader is the first 32 bytes of a -wal file (§4.1), all big endian:
//
//	 0  4  magic
//	 4  4  version 3007000
//	 8  4  page size
//	12  4  checkpoint sequence number
//	16  8  salts
//	24  8  checksum of the first 24 bytes
type WALHeader struct {
	BigEndian  bool      // order of the words that checksums add up
	PageSize   int       // bytes; a power of two in [MinPageSize, MaxPageSize]
	Checkpoint uint32    // incremented, usually, with each new generation of the file
	Salt       [2]uint32 // new in each generation; a frame with another salt is stale
	Checksum   Checksum  // where the frames' checksums go on from
}

// ParseWALHeader decodes and verifies the header at the start of b.
func ParseWALHeader(b []byte) (WALHeader, error) {
	if len(b) < WALHeaderSize {
		return WALHeader{}, corruptf("SQLite WAL header: %d bytes, want %d", len(b), WALHeaderSize)
	}
	be := binary.BigEndian
	magic := be.Uint32(b)
	if magic&^1 != walMagic {
		return WALHeader{}, corruptf("SQLite WAL header: magic %#x, want %#x or %#x", magic, walMagic, walMagic|1)
	}
	if v := be.Uint32(b[4:]); v != walVersion {
		return WALHeader{}, corruptf("SQLite WAL header: version %d, want %d", v, walVersion)
	}
	size := be.Uint32(b[8:])
	if size > MaxPageSize || !validPageSize(int(size)) {
		return WALHeader{}, corruptf("SQLite WAL header: page size %d", size)
	}
	h := WALHeader{
		BigEndian:  magic&1 != 0,
		PageSize:   int(size),
		Checkpoint: be.Uint32(b[12:]),
		Salt:       [2]uint32{be.Uint32(b[16:]), be.Uint32(b[20:])},
		Checksum:   Checksum{be.Uint32(b[24:]), be.Uint32(b[28:])},
	}
	if sum := (Checksum{}).Add(b[:24], h.BigEndian); sum != h.Checksum {
		return WALHeader{}, corruptf("SQLite WAL header: checksum %08x, want %08x", h.Checksum, sum)
	}
	return h, nil
}

// Add returns the checksum after b, whose length must be a multiple of 8; a rest
// is ignored.
func (c Checksum) Add(b []byte, bigEndian bool) Checksum {
	if bigEndian {
		return c.addBig(b)
	}
	return c.addLittle(b)
}

// The sums are written as (s0+x)+s1, not s0+(x+s1): each then waits for one
// addition only after the other, which halves the time.

func (c Checksum) addLittle(b []byte) Checksum {
	s0, s1 := c[0], c[1]
	for ; len(b) >= 32; b = b[32:] {
		x, y := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		z, w := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
		s0 = s0 + uint32(x) + s1
		s1 = s1 + uint32(x>>32) + s0
		s0 = s0 + uint32(y) + s1
		s1 = s1 + uint32(y>>32) + s0
		s0 = s0 + uint32(z) + s1
		s1 = s1 + uint32(z>>32) + s0
		s0 = s0 + uint32(w) + s1
		s1 = s1 + uint32(w>>32) + s0
	}
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		s0 = s0 + uint32(x) + s1
		s1 = s1 + uint32(x>>32) + s0
	}
	return Checksum{s0, s1}
}

func (c Checksum) addBig(b []byte) Checksum {
	s0, s1 := c[0], c[1]
	for ; len(b) >= 8; b = b[8:] {
		x := binary.BigEndian.Uint64(b)
		s0 = s0 + uint32(x>>32) + s1
		s1 = s1 + uint32(x) + s0
	}
	return Checksum{s0, s1}
}

// A frame is the header of a frame (§4.1), all big endian:
//
//	 0  4  page number
//	 4  4  pages of the database after the commit; 0: no commit
//	 8  8  salts
//	16  8  checksum up to and with this frame
type frame struct {
	page, dbSize uint32
	salt         [2]uint32
	checksum     Checksum
}

// parseFrame decodes b, which has FrameHeaderSize bytes or more.
func parseFrame(b []byte) frame {
	be := binary.BigEndian
	b = b[:FrameHeaderSize]
	return frame{
		page:     be.Uint32(b),
		dbSize:   be.Uint32(b[4:]),
		salt:     [2]uint32{be.Uint32(b[8:]), be.Uint32(b[12:])},
		checksum: Checksum{be.Uint32(b[16:]), be.Uint32(b[20:])},
	}
}

// FrameOffset returns where in the -wal file the header of a frame starts; its
// page follows FrameHeaderSize bytes later. Frames count from 1.
func FrameOffset(frame uint32, pageSize int) int64 {
	return WALHeaderSize + (int64(frame)-1)*int64(FrameHeaderSize+pageSize)
}
