package cdc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Flags inside operations; see FORMAT.md.
const (
	tableWithoutRowid = 1 << 0

	schemaHasOld = 1 << 0
	schemaHasNew = 1 << 1

	objectVirtual = 1 << 0

	endResync = 1 << 0
)

// MaxTables bounds the tables that one transaction may declare.
const MaxTables = 1 << 20

// AppendOp appends the encoding of c to dst. table is the ordinal of c.Table
// among the tables that the transaction has declared, counted from 0; only row
// operations use it.
func AppendOp(dst []byte, c *Change, table int) []byte {
	dst = append(dst, byte(c.Op))
	switch c.Op {
	case OpTable:
		var flags byte
		if c.Table.WithoutRowid {
			flags |= tableWithoutRowid
		}
		dst = append(dst, flags)
		dst = binary.AppendUvarint(dst, uint64(c.Table.Key))
		dst = appendString(dst, c.Table.Name)
	case OpDelete, OpUpdate, OpInsert:
		dst = binary.AppendUvarint(dst, uint64(table))
		if !c.Table.WithoutRowid {
			dst = binary.AppendVarint(dst, c.Rowid)
		}
		if c.Op != OpInsert {
			dst = appendBytes(dst, c.Old)
		}
		if c.Op != OpDelete {
			dst = appendBytes(dst, c.New)
		}
	case OpSchema:
		dst = appendSchema(dst, c.Schema)
	case OpUserVersion, OpApplicationID:
		dst = binary.AppendVarint(dst, int64(c.Value))
	case OpEnd:
		var flags byte
		if c.Resync {
			flags |= endResync
		}
		dst = append(dst, flags)
	}
	return dst
}

// An Image is the image of a row, read piece by piece.
type Image struct {
	Size int // bytes
	From io.Reader
}

// OpReader is AppendOp for a change of a large row, whose images are old and new, as
// far as the operation has them, and not those of c. It gives the operation and its
// size in bytes.
func OpReader(c *Change, table int, old, new Image) (op io.Reader, size int) {
	var images []Image
	if c.Op != OpInsert {
		images = append(images, old)
	}
	if c.Op != OpDelete {
		images = append(images, new)
	}
	short := *c
	short.Old, short.New = nil, nil
	head := AppendOp(nil, &short, table)
	head = head[:len(head)-len(images)] // the lengths of nothing
	var pieces []io.Reader
	for _, image := range images {
		head = binary.AppendUvarint(head, uint64(image.Size))
		pieces = append(pieces, bytes.NewReader(head), image.From)
		size += len(head) + image.Size
		head = nil
	}
	return io.MultiReader(pieces...), size
}

func appendSchema(dst []byte, s *SchemaChange) []byte {
	var flags byte
	if s.Old != nil {
		flags |= schemaHasOld
	}
	if s.New != nil {
		flags |= schemaHasNew
	}
	dst = append(dst, flags)
	for _, o := range []*SchemaObject{s.Old, s.New} {
		if o == nil {
			continue
		}
		var flags byte
		if o.Virtual {
			flags |= objectVirtual
		}
		dst = append(dst, flags)
		for _, text := range []string{o.Type, o.Name, o.Table, o.SQL} {
			dst = appendString(dst, text)
		}
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// parseOp decodes one operation. tables are the declarations so far.
func parseOp(b []byte, tables []*Table, c *Change) error {
	r := reader{b: b}
	*c = Change{Op: Op(r.byte())}
	switch c.Op {
	case OpTable:
		flags := r.flags(tableWithoutRowid)
		key := r.uvarint()
		c.Table = &Table{Name: string(r.bytes()), WithoutRowid: flags&tableWithoutRowid != 0, Key: int(key & 0xffff)}
		if r.err == nil && (key > 0xffff || c.Table.Name == "") {
			return fmt.Errorf("%w: declaration of table %q: key of %d fields", ErrCorrupt, c.Table.Name, key)
		}
	case OpDelete, OpUpdate, OpInsert:
		n := r.uvarint()
		if n >= uint64(len(tables)) {
			return fmt.Errorf("%w: %s names table %d of %d", ErrCorrupt, c.Op, n, len(tables))
		}
		c.Table = tables[n]
		if !c.Table.WithoutRowid {
			c.Rowid = r.varint()
		}
		if c.Op != OpInsert {
			c.Old = r.bytes()
		}
		if c.Op != OpDelete {
			c.New = r.bytes()
		}
	case OpSchema:
		c.Schema = r.schema()
	case OpUserVersion, OpApplicationID:
		v := r.varint()
		c.Value = int32(v)
		if int64(c.Value) != v {
			return fmt.Errorf("%w: %s does not fit 32 bits", ErrCorrupt, c.Op)
		}
	case OpEnd:
		c.Resync = r.flags(endResync)&endResync != 0
	default:
		return fmt.Errorf("%w: unknown operation %d; upgrade this replicator", ErrVersion, uint8(c.Op))
	}
	if r.err != nil {
		return fmt.Errorf("%w in %s operation", r.err, c.Op)
	}
	if len(r.b) != 0 {
		return fmt.Errorf("%w: %d bytes after %s operation", ErrCorrupt, len(r.b), c.Op)
	}
	return nil
}

// A reader takes fields off the front of b. After the first error every
// further read gives zero, so that callers check once.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: truncated %s", ErrCorrupt, what)
	}
	r.b = nil
}

func (r *reader) take(n int, what string) []byte {
	if n < 0 || n > len(r.b) {
		r.fail(what)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1, "byte"); b != nil {
		return b[0]
	}
	return 0
}

// flags reads a byte in which only the bits in known have a meaning yet.
func (r *reader) flags(known byte) byte {
	f := r.byte()
	if f&^known != 0 && r.err == nil {
		r.err, r.b = fmt.Errorf("%w: flags %#x; upgrade this replicator", ErrVersion, f), nil
	}
	return f
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("bytes")
		return nil
	}
	return r.take(int(n), "bytes")
}

func (r *reader) uint32() uint32 {
	if b := r.take(4, "number"); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8, "number"); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) id() (id [16]byte) {
	copy(id[:], r.take(16, "id"))
	return id
}

func (r *reader) schema() *SchemaChange {
	flags := r.flags(schemaHasOld | schemaHasNew)
	s := &SchemaChange{}
	if flags&schemaHasOld != 0 {
		s.Old = r.object()
	}
	if flags&schemaHasNew != 0 {
		s.New = r.object()
	}
	if r.err == nil && flags == 0 {
		r.err = fmt.Errorf("%w: no schema object", ErrCorrupt)
	}
	return s
}

func (r *reader) object() *SchemaObject {
	o := &SchemaObject{Virtual: r.flags(objectVirtual)&objectVirtual != 0}
	for _, p := range []*string{&o.Type, &o.Name, &o.Table, &o.SQL} {
		*p = string(r.bytes())
	}
	return o
}
