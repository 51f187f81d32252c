package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/sqlite-replicator/replicator/cdc"
)

const (
	magic = "rplchlog"
	// formatVersion is the version of the segment format, not of the records.
	formatVersion = 1
	// headerSize is one disk sector, so that a torn header is all zero.
	headerSize = 512

	suffix   = ".log"
	nameLen  = 20 + len(suffix)
	indexGap = 64 << 10 // bytes of a segment between two entries of its index
)

// A segment is one file of the change log. It begins right after a boundary.
type segment struct {
	first    cdc.LSN // of its first record, and its name
	previous cdc.LSN // first LSN of the segment before it when it was made; 0 for none
	base     cdc.Tail
	path     string
	index    index
	// end is the size in bytes. It is set once, when the next segment is made,
	// before any reader can see that this one is not the last.
	end int64
}

func segmentPath(dir string, first cdc.LSN) string {
	return filepath.Join(dir, fmt.Sprintf("%020d", uint64(first))+suffix)
}

// parseName gives the first LSN of the segment file called name.
func parseName(name string) (cdc.LSN, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(name) != nameLen {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return cdc.LSN(n), err == nil && n > 0
}

// appendHeader encodes a segment's header; see FORMAT.md.
func appendHeader(s *segment) ([]byte, error) {
	le := binary.LittleEndian
	b := append(make([]byte, 0, headerSize), magic...)
	b = le.AppendUint32(b, formatVersion)
	b = le.AppendUint32(b, 0) // length of the tail
	b = le.AppendUint64(b, uint64(s.previous))
	start := len(b)
	b, err := cdc.AppendTail(b, s.base)
	if err != nil {
		return nil, err
	}
	le.PutUint32(b[12:], uint32(len(b)-start))
	if len(b) > headerSize-4 {
		return nil, fmt.Errorf("segment header of %d bytes", len(b))
	}
	b = b[:headerSize]
	le.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], castagnoli()))
	return b, nil
}

// parseHeader decodes b into s. Errors wrap cdc.ErrCorrupt or cdc.ErrVersion.
// Later versions must keep magic, version and checksum where they are.
func parseHeader(b []byte, s *segment) error {
	le := binary.LittleEndian
	if len(b) != headerSize || string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: no segment header", cdc.ErrCorrupt)
	}
	if sum, want := crc32.Checksum(b[:headerSize-4], castagnoli()), le.Uint32(b[headerSize-4:]); sum != want {
		return fmt.Errorf("%w: segment header has checksum %08x, want %08x", cdc.ErrCorrupt, sum, want)
	}
	if v := le.Uint32(b[8:]); v != formatVersion {
		return fmt.Errorf("%w: segment of version %d, this replicator reads version %d; upgrade it", cdc.ErrVersion, v, formatVersion)
	}
	n := le.Uint32(b[12:])
	if n > headerSize-28 {
		return fmt.Errorf("%w: segment header with a tail of %d bytes", cdc.ErrCorrupt, n)
	}
	base, err := cdc.ParseTail(b[24 : 24+n])
	if err != nil {
		return err
	}
	s.previous, s.base = cdc.LSN(le.Uint64(b[16:])), base
	if base.Next != s.first || s.previous >= s.first {
		return fmt.Errorf("%w: segment %d has a header for LSN %d after segment %d", cdc.ErrCorrupt, s.first, base.Next, s.previous)
	}
	return nil
}

// markSize is that of a record head, so that one read serves both.
const markSize = cdc.HeaderSize

// markMagic begins with a length that no record has.
const markMagic = "\xff\xff\xff\xffsync"

// appendMark appends the sync mark that is to stand at offset. It stands before
// the first record that is appended after a successful sync and proves that the
// bytes below synced were on stable storage, so that damage there is damage and
// not the torn end of an unfinished write.
//
//	 0  8  markMagic
//	 8  8  offset of the mark in its file
//	16  8  synced; at most offset
//	24  4  0
//	28  4  CRC-32C of bytes 0 to 27
func appendMark(dst []byte, offset, synced int64) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = append(dst, markMagic...)
	dst = le.AppendUint64(dst, uint64(offset))
	dst = le.AppendUint64(dst, uint64(synced))
	dst = le.AppendUint32(dst, 0)
	return le.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli()))
}

// isMark reports whether b begins like a mark.
func isMark(b []byte) bool { return bytes.HasPrefix(b, []byte(markMagic)) }

// parseMark gives synced of the mark that b, at offset, begins with.
func parseMark(b []byte, offset int64) (synced int64, ok bool) {
	le := binary.LittleEndian
	if len(b) < markSize || !isMark(b) || le.Uint64(b[8:]) != uint64(offset) ||
		crc32.Checksum(b[:28], castagnoli()) != le.Uint32(b[28:]) {
		return 0, false
	}
	synced = int64(le.Uint64(b[16:]))
	return synced, synced >= headerSize && synced <= offset
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// An index finds the neighbourhood of a record in a segment. It is sparse and
// grows as records are appended or walked over. Safe for concurrent use.
type index struct {
	mu      sync.Mutex
	entries []indexEntry // ascending
}

type indexEntry struct {
	lsn    cdc.LSN
	offset int64
}

// add notes that record lsn is at offset, unless a known one is near enough.
func (x *index) add(lsn cdc.LSN, offset int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	known := int64(headerSize)
	if n := len(x.entries); n > 0 {
		known = x.entries[n-1].offset
	}
	if offset-known >= indexGap {
		x.entries = append(x.entries, indexEntry{lsn, offset})
	}
}

// cut forgets what lies at or above offset.
func (x *index) cut(offset int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].offset >= offset })
	x.entries = x.entries[:n]
}

// find gives the nearest known record at or below lsn of segment s.
func (s *segment) find(lsn cdc.LSN) indexEntry {
	x := &s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	n := sort.Search(len(x.entries), func(i int) bool { return x.entries[i].lsn > lsn })
	if n == 0 {
		return indexEntry{s.first, headerSize}
	}
	return x.entries[n-1]
}

// damaged says where segment s is damaged and what to do. A newer format is no
// damage, and neither is a disk that cannot be read.
func (s *segment) damaged(offset int64, err error) error {
	switch {
	case errors.Is(err, cdc.ErrVersion):
		return fmt.Errorf("wal: %s at offset %d: %w", s.path, offset, err)
	case errors.Is(err, cdc.ErrCorrupt):
		return fmt.Errorf("%w: %s at offset %d: %w; check the disk, then restore the file from a copy or move the whole change log away, "+
			"so that it starts again from a new snapshot", ErrDamaged, s.path, offset, err)
	}
	return fmt.Errorf("wal: read %s at offset %d: %w", s.path, offset, err)
}
