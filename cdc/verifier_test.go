package cdc

import (
	"errors"
	"testing"
)

// history is epoch, commit, part, part, epoch, commit, break, commit: 8 records.
func history(t *testing.T, lineage ID) [][]byte {
	t.Helper()
	var out [][]byte
	emit := func(rec []byte, _ Head, _ *Boundary) error {
		out = append(out, append([]byte(nil), rec...))
		return nil
	}
	commit := func(e *Encoder) { must(t, errors.Join(e.End(Boundary{}, false), e.Flush())) }
	s := newSession(1)
	s.tail.Boundary.Lineage = lineage
	s.verifier = NewVerifier(Position{})
	take := func(rec []byte, h Head, b *Boundary) error { return errors.Join(emit(rec, h, b), s.take(rec, h, b)) }
	e := NewEncoder(s.tail, 1, ID{1}, take)
	must(t, e.Epoch(Boundary{}))
	s.waiting = []ended{{ops: [][]byte{AppendOp(nil, &Change{Op: OpEnd}, 0)}}}
	commit(e)
	must(t, e.Op(AppendOp(nil, &Change{Op: OpTable, Table: &Table{Name: "t"}}, 0)))
	must(t, e.Op(AppendOp(nil, &Change{Op: OpInsert, Table: &Table{Name: "t"}, New: make([]byte, 2*MaxBody-100)}, 0)))
	e = NewEncoder(s.tail, 2, ID{2}, emit)
	must(t, e.Epoch(Boundary{}))
	commit(e)
	must(t, e.Break(Boundary{}, "doubt"))
	commit(e)
	if len(out) != 8 {
		t.Fatalf("the history has %d records, want 8", len(out))
	}
	return out
}

func TestVerifier(t *testing.T) {
	recs := history(t, ID{1})
	other := history(t, ID{9})
	for name, c := range map[string]struct {
		recs  [][]byte
		cross bool
		want  error
	}{
		"all":                     {recs, true, nil},
		"up to the break":         {recs[:6], false, nil},
		"break":                   {recs, false, ErrBreak},
		"gap":                     {[][]byte{recs[0], recs[2]}, false, ErrGap},
		"twice":                   {[][]byte{recs[0], recs[0]}, false, ErrGap},
		"another lineage":         {[][]byte{recs[0], other[1]}, false, ErrFork},
		"another part":            {[][]byte{recs[0], recs[1], appendRecord(nil, Head{Kind: Part, LSN: 3, Epoch: 1}, nil, []byte("x"), nil), recs[3], recs[4], recs[5]}, false, ErrFork},
		"epoch without its start": {[][]byte{recs[0], recs[1], appendRecord(nil, Head{Kind: Part, LSN: 3, Epoch: 2}, nil, nil, nil)}, false, ErrFork},
		"damage":                  {[][]byte{recs[0][:40]}, false, ErrCorrupt},
	} {
		v := NewVerifier(Position{})
		var err error
		for _, rec := range c.recs {
			before, next := v.Position(), v.Next()
			if _, err = v.Verify(rec, c.cross); err != nil {
				if v.Position() != before || v.Next() != next {
					t.Errorf("%s: an error moved the verifier", name)
				}
				break
			}
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A verifier that starts at the position of a boundary takes what follows it,
// and after a break too.
func TestVerifierStartsAnywhere(t *testing.T) {
	recs := history(t, ID{1})
	v := NewVerifier(Position{})
	for i, rec := range recs {
		r, err := v.Verify(rec, true)
		must(t, err)
		if r.Boundary == nil {
			continue
		}
		from := NewVerifier(v.Position())
		for _, later := range recs[i+1:] {
			if _, err := from.Verify(later, true); err != nil {
				t.Errorf("from LSN %d: %v", r.LSN, err)
			}
		}
		if i+1 < len(recs) {
			forked := v.Position()
			forked.Hash[0]++
			from := NewVerifier(forked)
			err := error(nil)
			for _, later := range recs[i+1:] {
				if _, err = from.Verify(later, true); err != nil {
					break
				}
			}
			if want := i+1 != 6; want != errors.Is(err, ErrFork) { // a break starts a new chain
				t.Errorf("from another hash at LSN %d: %v", r.LSN, err)
			}
		}
	}
}
