package cdc

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
)

// seal gives b the checksum that its content has, so that damage gets past it.
func seal(b []byte) {
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli()))
}

func named(err error) bool {
	return err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion)
}

func seeds(f *testing.F) [][]byte {
	var out [][]byte
	for _, p := range packers(f) {
		e := NewEncoder(Tail{Next: 1}, 1, ID{}, func(rec []byte, _ Head, _ *Boundary) error {
			out = append(out, append([]byte(nil), rec...))
			return nil
		})
		e.PackWith(p)
		table := &Table{Name: "t"}
		must(f, e.Epoch(Boundary{}))
		must(f, e.Op(AppendOp(nil, &Change{Op: OpTable, Table: table}, 0)))
		must(f, e.Op(AppendOp(nil, &Change{Op: OpInsert, Table: table, New: make([]byte, 600<<10)}, 0)))
		must(f, e.End(Boundary{}, false))
		must(f, e.Flush())
		must(f, e.Break(Boundary{}, "reason"))
	}
	return out
}

// Any bytes, sealed or not: an answer or a named error.
func FuzzDecode(f *testing.F) {
	for _, rec := range seeds(f) {
		f.Add(rec)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 2 {
			rec, err := Decode(b)
			if !named(err) {
				t.Errorf("Decode: %v", err)
			}
			if len(rec.Body) > MaxBody {
				t.Errorf("a body of %d bytes", len(rec.Body))
			}
			if _, err := DecodeBoundary(b); !named(err) {
				t.Errorf("DecodeBoundary: %v", err)
			}
			if len(b) < HeaderSize {
				return
			}
			binary.LittleEndian.PutUint32(b, uint32(len(b)))
			seal(b)
		}
	})
}

// Any bodies, as a sequence of records: an answer or a named error.
func FuzzDecoder(f *testing.F) {
	for _, rec := range seeds(f) {
		if r, err := Decode(rec); err == nil {
			f.Add(r.Body[:min(len(r.Body), 100)], r.Body[max(0, len(r.Body)-100):], byte(2))
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte, mode byte) {
		var d Decoder
		seen := 0
		visit := func(c *Change) error {
			seen += len(c.Old) + len(c.New)
			return nil
		}
		for i, body := range [][]byte{first, second} {
			kind := Part
			if mode>>i&1 == 1 {
				kind = Commit
			}
			rec := Record{Head: Head{LSN: LSN(i + 1), Kind: kind}, Body: body, Continued: i == 1 && len(d.pending) > 0}
			if err := d.Decode(rec, visit); err != nil {
				if !named(err) {
					t.Error(err)
				}
				break
			}
		}
		if seen > len(first)+len(second) {
			t.Errorf("rows of %d bytes out of %d", seen, len(first)+len(second))
		}
		err := SplitOps(first, func(op []byte) error {
			var c Change
			_ = parseOp(op, nil, &c) // an error is an answer
			return nil
		})
		if !named(err) {
			t.Error(err)
		}
	})
}

// Any bytes as a tail: an answer or a named error.
func FuzzParseTail(f *testing.F) {
	enc, err := AppendTail(nil, Tail{Next: 1})
	must(f, err)
	f.Add(enc)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseTail(b); !named(err) {
			t.Error(err)
		}
	})
}
