package cdc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRowSum(t *testing.T) {
	a, b := RowSum{1, 1 << 63}, RowSum{^uint64(0), 1 << 63}
	if got := a.Add(b); got != (RowSum{}) {
		t.Errorf("sum wraps to %v, want 0", got)
	}
	if got := a.Add(b).Sub(b); got != a {
		t.Errorf("%v + %v - %v is %v", a, b, b, got)
	}
	if got, want := (RowSum{0x0102, 0x03 << 56}).String(), "02010000000000000000000000000003"; got != want {
		t.Errorf("String is %s, want %s", got, want)
	}
	text, err := a.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back RowSum
	if err := back.UnmarshalText(text); err != nil || back != a || RowSumOf(a.Bytes()) != a {
		t.Errorf("%s reads as %v, %v", text, back, err)
	}
	if err := back.UnmarshalText(text[1:]); err == nil {
		t.Error("31 digits are no sum")
	}
}

// hashed encodes transactions that each state the sums of tables, and returns the
// commit records.
func hashed(t *testing.T, body int, transactions ...[]TableHash) (boundaries []Boundary) {
	t.Helper()
	e := NewEncoder(Tail{Next: 1, Boundary: Boundary{Lineage: ID{1}}}, 1, ID{2}, func(rec []byte, _ Head, _ *Boundary) error {
		r, err := Decode(rec)
		if err == nil && r.Kind == Commit {
			boundaries = append(boundaries, *r.Boundary)
		}
		return err
	})
	for _, tables := range transactions {
		row := bytes.Repeat([]byte{1}, body)
		if err := e.Op(AppendOp(nil, &Change{Op: OpTable, Table: &Table{Name: "t"}}, 0)); err != nil {
			t.Fatal(err)
		}
		if err := e.Op(AppendOp(nil, &Change{Op: OpInsert, Table: &Table{}, New: row}, 0)); err != nil {
			t.Fatal(err)
		}
		if err := e.End(Boundary{Tables: tables}, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	return boundaries
}

func hash(table string, n byte) TableHash { return TableHash{Table: table, Sum: [16]byte{n}} }

// Of the transactions in one record, the last one that states a table counts.
func TestTableHashesOfAGroup(t *testing.T) {
	got := hashed(t, 10, []TableHash{hash("b", 1), hash("c", 1)}, nil, []TableHash{hash("a", 2), hash("b", 2)}, []TableHash{hash("b", 3)})
	if len(got) != 1 {
		t.Fatalf("%d commit records, want one", len(got))
	}
	if diff := cmp.Diff([]TableHash{hash("a", 2), hash("b", 3), hash("c", 1)}, got[0].Tables); diff != "" {
		t.Error(diff)
	}
}

// A record that is cut between two transactions states the sums of the first only.
func TestTableHashesAcrossRecords(t *testing.T) {
	got := hashed(t, groupBody-100, []TableHash{hash("a", 1)}, []TableHash{hash("a", 2), hash("b", 2)}, nil, []TableHash{hash("b", 3)})
	var all [][]TableHash
	for _, b := range got {
		all = append(all, b.Tables)
	}
	want := [][]TableHash{{hash("a", 2), hash("b", 2)}, {hash("b", 3)}}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
}

func TestTableHashesThatDoNotFitAreLeftOut(t *testing.T) {
	var many []TableHash
	for i := range 6000 {
		many = append(many, hash(fmt.Sprintf("%05d%s", i, strings.Repeat("x", 100)), 1))
	}
	got := hashed(t, 2*MaxBody, many)
	if len(got) != 1 {
		t.Fatalf("%d commit records, want one", len(got))
	}
	n := len(got[0].Tables)
	if n == 0 || n == len(many) || !slices.Equal(got[0].Tables, many[:n]) {
		t.Errorf("%d of %d hashes were written, want the first so many", n, len(many))
	}
}
