package primary

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/sqlite-replicator/replicator/cdc"
	"github.com/sqlite-replicator/replicator/internal/sqlite"
	"github.com/sqlite-replicator/replicator/internal/sqlitefile"
)

// A rowHasher hashes the rows of one table from their records, as
// sqlite.Conn.SumTable does through SQL: cdc's FORMAT.md, "Row-set hash", is the
// definition of both. Not safe for concurrent use.
type rowHasher struct {
	rowid   bool // counts
	columns []summedColumn
	inOrder bool          // the columns are fields in ascending order, as they are where rows have a rowid
	fields  []recordField // of the record at hand
	buf     []byte        // parts of a record that is read
}

// A summedColumn is a column that counts, in the order of CREATE TABLE.
type summedColumn struct {
	field   int  // of a record
	real    bool // integers read as floats
	missing hashedValue
}

// A hashedValue is a value as it is hashed: class and number, or bytes.
type hashedValue struct {
	class sqlite.Class
	bits  uint64 // of an integer or float
	bytes []byte // of a text or blob
}

// A recordField is where a value is in its record.
type recordField struct {
	serial  uint64
	at, end uint32
}

// newRowHasher makes the hasher of a table; missing is what its columns read as
// where a record ends before them.
func newRowHasher(t sqlite.Table, missing []sqlite.Value) *rowHasher {
	fieldOf := make(map[int]int, len(t.Stored))
	for field, column := range t.Stored {
		fieldOf[column] = field
	}
	h := &rowHasher{rowid: t.SumsRowid(), inOrder: true}
	for _, column := range t.Summed() {
		if n := len(h.columns); n > 0 && fieldOf[column] <= h.columns[n-1].field {
			h.inOrder = false
		}
		h.columns = append(h.columns, summedColumn{
			field: fieldOf[column], real: t.Columns[column].Affinity == sqlite.Real, missing: valueToHash(missing[column]),
		})
	}
	return h
}

func valueToHash(v sqlite.Value) hashedValue {
	switch v.Class {
	case sqlite.ClassInteger:
		return hashedValue{class: v.Class, bits: uint64(v.Int)}
	case sqlite.ClassFloat:
		return hashedFloat(v.Float)
	case sqlite.ClassText, sqlite.ClassBlob:
		return hashedValue{class: v.Class, bytes: []byte(v.Bytes)}
	}
	return hashedValue{class: sqlite.ClassNull}
}

func hashedFloat(f float64) hashedValue {
	if math.IsNaN(f) {
		return hashedValue{class: sqlite.ClassNull}
	}
	return hashedValue{class: sqlite.ClassFloat, bits: math.Float64bits(f)}
}

// extends reports whether rows of a table that o hashes have the same hashes under
// h: columns were added at the end, if anything.
func (h *rowHasher) extends(o *rowHasher) bool {
	if h.rowid != o.rowid || len(h.columns) < len(o.columns) {
		return false
	}
	for i := range o.columns {
		a, b := &h.columns[i], &o.columns[i]
		if a.field != b.field || a.real != b.real || !a.missing.equal(&b.missing) {
			return false
		}
	}
	return true
}

func (v *hashedValue) equal(o *hashedValue) bool {
	return v.class == o.class && v.bits == o.bits && string(v.bytes) == string(o.bytes)
}

// hash returns the hash of a row. Its errors wrap sqlitefile.ErrCorrupt.
func (h *rowHasher) hash(rowid int64, record []byte) (cdc.RowSum, error) {
	if err := h.split(record, len(record)); err != nil {
		return cdc.RowSum{}, err
	}
	n := len(h.columns)
	var last hashedValue
	for ; n > 0; n-- {
		c := &h.columns[n-1]
		if c.field >= len(h.fields) {
			continue
		}
		h.load(&last, c, record)
		if !last.equal(&c.missing) {
			break
		}
	}
	s := newHashState()
	count := uint64(n)
	if h.rowid {
		s.block(uint64(sqlite.ClassInteger), uint64(rowid))
		count++
	}
	var v hashedValue
	for i := range n - 1 {
		h.load(&v, &h.columns[i], record)
		s.add(&v)
	}
	if n > 0 {
		s.add(&last)
	}
	return s.sum(count), nil
}

// split finds the fields of a record of whole bytes, which begins with record: with its
// header at least.
func (h *rowHasher) split(record []byte, whole int) error {
	h.fields = h.fields[:0]
	size, pos := sqlitefile.Varint(record)
	if pos == 0 || size < uint64(pos) || size > uint64(len(record)) || whole > math.MaxInt32 {
		return fmt.Errorf("%w: header of %d bytes in a record of %d", sqlitefile.ErrCorrupt, size, whole)
	}
	at := size
	for pos < int(size) {
		serial, n := uint64(record[pos]), 1
		if serial >= 0x80 {
			if serial, n = sqlitefile.Varint(record[pos:size]); n == 0 {
				return fmt.Errorf("%w: a record's header ends inside a serial type", sqlitefile.ErrCorrupt)
			}
		}
		pos += n
		end := at
		if serial < 12 {
			if serial >= 10 {
				return fmt.Errorf("%w: serial type %d", sqlitefile.ErrCorrupt, serial)
			}
			end += uint64(serialSizes[serial])
		} else {
			end += (serial - 12) / 2
		}
		if end > uint64(whole) {
			return fmt.Errorf("%w: a record of %d bytes ends inside a value", sqlitefile.ErrCorrupt, whole)
		}
		h.fields = append(h.fields, recordField{serial, uint32(at), uint32(end)})
		at = end
	}
	if at != uint64(whole) {
		return fmt.Errorf("%w: %d bytes after the last value of a record", sqlitefile.ErrCorrupt, uint64(whole)-at)
	}
	return nil
}

var serialSizes = [10]uint8{0, 1, 2, 3, 4, 6, 8, 8, 0, 0}

// load sets v to the value of column c.
func (h *rowHasher) load(v *hashedValue, c *summedColumn, record []byte) {
	if c.field >= len(h.fields) {
		*v = c.missing
		return
	}
	f := &h.fields[c.field]
	switch {
	case f.serial >= 12:
		v.class, v.bits, v.bytes = sqlite.ClassBlob-sqlite.Class(f.serial&1), 0, record[f.at:f.end]
		return
	case f.serial == 0:
		*v = hashedValue{class: sqlite.ClassNull}
		return
	case f.serial == 7:
		*v = hashedFloat(math.Float64frombits(binary.BigEndian.Uint64(record[f.at:])))
		return
	}
	i := int64(f.serial) - 8
	if i < 0 {
		i = bigEndian(record[f.at:f.end])
	}
	if c.real {
		*v = hashedFloat(float64(i))
		return
	}
	*v = hashedValue{class: sqlite.ClassInteger, bits: uint64(i)}
}

// bigEndian reads a number in two's complement.
func bigEndian(b []byte) int64 {
	if len(b) == 0 {
		return 0
	}
	v := int64(int8(b[0]))
	for _, c := range b[1:] {
		v = v<<8 | int64(c)
	}
	return v
}

// A hashState is the state of the hash of a row.
type hashState struct{ a, b uint64 }

func newHashState() hashState { return hashState{0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f} }

func (s *hashState) block(x, y uint64) {
	const c1, c2 = 0x87c37b91114253d5, 0x4cf5ad432745937f
	s.a ^= bits.RotateLeft64(x*c1, 31) * c2
	s.a = (bits.RotateLeft64(s.a, 27)+s.b)*5 + 0x52dce729
	s.b ^= bits.RotateLeft64(y*c2, 33) * c1
	s.b = (bits.RotateLeft64(s.b, 31)+s.a)*5 + 0x38495ab5
}

func (s *hashState) add(v *hashedValue) {
	if v.class != sqlite.ClassText && v.class != sqlite.ClassBlob {
		s.block(uint64(v.class), v.bits)
		return
	}
	b := v.bytes
	head := uint64(v.class) | uint64(len(b))<<3
	if len(b) <= 8 {
		s.block(head, tail64(b))
		return
	}
	s.block(head, binary.LittleEndian.Uint64(b))
	s.rest(b[8:])
}

// rest adds what follows the first eight bytes of a longer value. A part of that which
// is not the last has a multiple of 16 bytes.
func (s *hashState) rest(b []byte) {
	for ; len(b) >= 16; b = b[16:] {
		s.block(binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]))
	}
	switch {
	case len(b) > 8:
		s.block(binary.LittleEndian.Uint64(b), tail64(b[8:]))
	case len(b) > 0:
		s.block(tail64(b), 0)
	}
}

// tail64 reads up to eight bytes, little endian.
func tail64(b []byte) uint64 {
	switch {
	case len(b) >= 8:
		return binary.LittleEndian.Uint64(b)
	case len(b) >= 4: // both halves overlap
		shift := 8 * (len(b) - 4)
		return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))<<shift
	}
	var x uint64
	for i := len(b) - 1; i >= 0; i-- {
		x = x<<8 | uint64(b[i])
	}
	return x
}

// sum is the hash after count values.
func (s hashState) sum(count uint64) cdc.RowSum {
	a, b := s.a^count, s.b^count
	a += b
	b += a
	a, b = mix64(a), mix64(b)
	return cdc.RowSum{a + b, a + 2*b}
}

func mix64(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
