package cdc

import (
	"encoding/binary"
	"encoding/hex"
)

// A RowSum stands for a set of rows in any order: the sum of the hashes of its
// rows, each half modulo 2^64 (FORMAT.md, "Row-set hash"). Zero is the empty
// set. Two equal tables have equal sums; two that differ have equal ones with a
// probability of about 2^-128, if nobody contrived them.
type RowSum [2]uint64

// Add returns the sum of both sets.
func (s RowSum) Add(o RowSum) RowSum { return RowSum{s[0] + o[0], s[1] + o[1]} }

// Sub returns s without the rows of o.
func (s RowSum) Sub(o RowSum) RowSum { return RowSum{s[0] - o[0], s[1] - o[1]} }

// Bytes returns the form of [TableHash].Sum: both halves, little endian.
func (s RowSum) Bytes() (b [16]byte) {
	binary.LittleEndian.PutUint64(b[:8], s[0])
	binary.LittleEndian.PutUint64(b[8:], s[1])
	return b
}

// RowSumOf reads the form of Bytes.
func RowSumOf(b [16]byte) RowSum {
	return RowSum{binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])}
}

// String is the form of Bytes in hexadecimal.
func (s RowSum) String() string {
	b := s.Bytes()
	return hex.EncodeToString(b[:])
}

// MarshalText gives the form of String.
func (s RowSum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the form of String.
func (s *RowSum) UnmarshalText(text []byte) error {
	var b [16]byte
	if err := unhex(b[:], text, "row-set hash"); err != nil {
		return err
	}
	*s = RowSumOf(b)
	return nil
}
