package snapshot

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

// A Source is a database as of one commit. It must not change while Make reads
// it; Make calls it from one goroutine at a time, in page order.
type Source interface {
	PageSize() int // bytes
	Pages() uint32
	// ReadPages fills dst, which is as long as some whole pages, with the pages
	// from first on; page 1 is the first of the file. It returns how many pages
	// it read, at least one when err is nil.
	ReadPages(ctx context.Context, first uint32, dst []byte) (n int, err error)
}

// readChunk fills dst with the pages from first on.
func readChunk(ctx context.Context, src Source, first uint32, dst []byte) error {
	size := src.PageSize()
	for len(dst) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.ReadPages(ctx, first, dst)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err == nil && (n < 0 || n > len(dst)/size) {
			err = fmt.Errorf("got %d pages, asked for %d", n, len(dst)/size)
		}
		if err != nil {
			return fmt.Errorf("snapshot: read page %d: %w", first, err)
		}
		first += uint32(n)
		dst = dst[n*size:]
	}
	return nil
}

// The header at the start of page 1 (https://www.sqlite.org/fileformat2.html#the_database_header).
const (
	headerSize  = 100
	headerMagic = "SQLite format 3\x00"
)

func validPageSize(n int) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

// checkHeader proves that page 1 belongs to a database of this shape, and
// returns the encoding of its text. As SQLite does, it accepts a file longer than
// its header says, and ignores a page count that an old SQLite left stale.
func checkHeader(page []byte, pageSize int, pages uint32) (encoding string, err error) {
	if len(page) < headerSize || string(page[:len(headerMagic)]) != headerMagic {
		return "", fmt.Errorf("page 1 does not start a SQLite database")
	}
	be := binary.BigEndian
	size := int(be.Uint16(page[16:]))
	if size == 1 { // 65536 does not fit in 16 bits
		size = 65536
	}
	if size != pageSize {
		return "", fmt.Errorf("header says pages of %d bytes, they have %d", size, pageSize)
	}
	count, counter, validFor := be.Uint32(page[28:]), be.Uint32(page[24:]), be.Uint32(page[92:])
	if counter == validFor && count > pages {
		return "", fmt.Errorf("header says %d pages, there are %d", count, pages)
	}
	switch code := be.Uint32(page[56:]); code {
	case 0, 1: // 0 in a database that never had a table
		return "UTF-8", nil
	case 2:
		return "UTF-16le", nil
	case 3:
		return "UTF-16be", nil
	default:
		return "", fmt.Errorf("header says text encoding %d", code)
	}
}
