package replica

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sqlite-replicator/replicator/cdc"
)

// spoolMemory bounds the records that a spool keeps in memory, in bytes (rule:
// beyond it a transaction goes through a temporary file).
const spoolMemory = 16 << 20

// A spool keeps the records of the open SQLite transaction, so that they can be
// applied a second time in another way. The first ones stay in memory, the rest
// goes to a file that has no name and so cannot outlive the process.
type spool struct {
	dir    string
	limit  int64 // bytes in memory
	memory [][]byte
	bytes  int64 // of all records
	first  cdc.Kind

	file *os.File
	out  *bufio.Writer
}

func newSpool(dir string) *spool { return &spool{dir: dir, limit: spoolMemory} }

// add appends a record, which the spool keeps.
func (s *spool) add(raw []byte, k cdc.Kind) error {
	if s.bytes == 0 {
		s.first = k
	}
	s.bytes += int64(len(raw))
	if s.file == nil && s.bytes <= s.limit {
		s.memory = append(s.memory, raw)
		return nil
	}
	if s.file == nil {
		if err := s.create(); err != nil {
			return err
		}
	}
	var size [4]byte
	binary.LittleEndian.PutUint32(size[:], uint32(len(raw)))
	_, err := s.out.Write(size[:])
	if err == nil {
		_, err = s.out.Write(raw)
	}
	if err != nil {
		return fmt.Errorf("replica: spool transaction in %s: %w", s.dir, err)
	}
	return nil
}

func (s *spool) create() error {
	f, err := os.CreateTemp(s.dir, "transaction-*")
	if err != nil {
		var at *os.PathError
		if errors.As(err, &at) { // its path is never the same, and the trouble is
			err = at.Err
		}
		return fmt.Errorf("replica: spool transaction in %s: %w", s.dir, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return errors.Join(fmt.Errorf("replica: spool transaction: %w", err), f.Close())
	}
	s.file, s.out = f, bufio.NewWriterSize(f, 256<<10)
	return nil
}

// spans reports whether the first transaction needs more than one record.
func (s *spool) spans() bool { return s.first == cdc.Part }

// each calls visit with every record in order, until it returns an error. The
// records stay valid after the call.
func (s *spool) each(visit func(raw []byte) error) error {
	for _, raw := range s.memory {
		if err := visit(raw); err != nil {
			return err
		}
	}
	if s.file == nil {
		return nil
	}
	if err := s.out.Flush(); err != nil {
		return fmt.Errorf("replica: spool transaction in %s: %w", s.dir, err)
	}
	end, err := s.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("replica: spool transaction in %s: %w", s.dir, err)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(s.file, 0, end), 256<<10)
	for {
		var size [4]byte
		if _, err := io.ReadFull(in, size[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("replica: read spooled transaction in %s: %w", s.dir, err)
		}
		raw := make([]byte, binary.LittleEndian.Uint32(size[:]))
		if _, err := io.ReadFull(in, raw); err != nil {
			return fmt.Errorf("replica: read spooled transaction in %s: %w", s.dir, err)
		}
		if err := visit(raw); err != nil {
			return err
		}
	}
}

// reset forgets all records.
func (s *spool) reset() {
	clear(s.memory)
	s.memory, s.bytes, s.first = s.memory[:0], 0, 0
	if s.file != nil {
		_ = s.file.Close() // the file is unlinked: nothing can be lost
		s.file, s.out = nil, nil
	}
}
