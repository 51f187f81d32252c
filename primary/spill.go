package primary

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// A bucket holds framed operations: those that were spilled first, then buf.
type bucket struct {
	buf  []byte
	file *os.File // nil until something was spilled; has no name any more
	size int64    // bytes in file
}

// spill moves buf to the end of the file, which it makes in dir if there is none.
// It returns the number of bytes moved. An error, of a full disk say, leaves buf
// as it was.
func (b *bucket) spill(dir string) (int64, error) {
	if b.file == nil {
		f, err := unnamed(dir, "transaction-*.spill")
		if err != nil {
			return 0, err
		}
		b.file = f
	}
	n, err := b.file.WriteAt(b.buf, b.size)
	if err != nil {
		return 0, err
	}
	b.size += int64(n)
	b.buf = b.buf[:0]
	return int64(n), nil
}

// unnamed makes a file in dir. Without a name it goes when the process does, however
// that ends.
func unnamed(dir, pattern string) (*os.File, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// write appends an operation of size bytes to the file, which spill has made.
func (b *bucket) write(op io.Reader, size int) error {
	frame := binary.AppendUvarint(nil, uint64(size))
	w := bufio.NewWriterSize(io.NewOffsetWriter(b.file, b.size), readAhead)
	n, err := io.Copy(w, io.MultiReader(bytes.NewReader(frame), op))
	if err == nil {
		err = w.Flush()
	}
	if err == nil && n != int64(len(frame)+size) {
		err = fmt.Errorf("an operation of %d bytes has %d", size, n-int64(len(frame)))
	}
	if err != nil {
		return err
	}
	b.size += n
	return nil
}

// readAhead is the size in bytes of the buffer that reads a spilled bucket back, and
// writes large operations to it.
const readAhead = 256 << 10

// each passes on every operation. It puts spilled ones together in op, grown as
// needed, and returns op for the next call.
func (b *bucket) each(op []byte, to opSink) ([]byte, error) {
	if b.size > 0 {
		var err error
		if op, err = b.eachSpilled(op, to); err != nil {
			return op, err
		}
	}
	for rest := b.buf; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return op, fmt.Errorf("decode: an operation of %d bytes with %d left in memory", size, len(rest))
		}
		rest = rest[n:]
		if err := to.Op(rest[:size:size]); err != nil {
			return op, err
		}
		rest = rest[size:]
	}
	return op, nil
}

func (b *bucket) eachSpilled(op []byte, to opSink) ([]byte, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(b.file, 0, b.size), readAhead)
	for left := b.size; left > 0; {
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return op, fmt.Errorf("decode: read a spilled transaction: %w", err)
		}
		var frame [binary.MaxVarintLen64]byte
		left -= int64(binary.PutUvarint(frame[:], size))
		if left < 0 || size > uint64(left) {
			return op, fmt.Errorf("decode: a spilled operation of %d bytes with %d left", size, left)
		}
		left -= int64(size)
		if size > keepBuffer {
			if err := to.OpFrom(io.LimitReader(r, int64(size)), int(size)); err != nil {
				return op, err
			}
			continue
		}
		if uint64(cap(op)) < size {
			op = make([]byte, size)
		}
		op = op[:size]
		if _, err := io.ReadFull(r, op); err != nil {
			return op, fmt.Errorf("decode: read a spilled transaction: %w", err)
		}
		if err := to.Op(op); err != nil {
			return op, err
		}
	}
	return op, nil
}

// reset empties b, and keeps a buffer of up to keep bytes.
func (b *bucket) reset(keep int64) {
	if b.file != nil {
		_ = b.file.Close() // nothing in it is wanted any more
		b.file, b.size = nil, 0
	}
	b.buf = b.buf[:0]
	if int64(cap(b.buf)) > keep {
		b.buf = nil
	}
}
