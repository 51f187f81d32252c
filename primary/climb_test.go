package primary

import (
	"errors"
	"slices"
	"testing"
)

// chainMap has a root, page 2, a leaf, page 3, and a chain of n pages from 4 on.
func chainMap(n uint32) *pageMap {
	m := &pageMap{}
	m.resize(n + 3)
	m.set(2, treePage, 0)
	m.set(3, treePage, 2)
	m.set(4, chainHead, 3)
	for p := uint32(5); p < n+4; p++ {
		m.set(p, chainNext, p-1)
	}
	return m
}

func TestCollect(t *testing.T) {
	m := chainMap(10)
	m.set(12, unmapped, 0)
	tests := []struct {
		name           string
		written        []uint32
		pages, touched []uint32
		chain          bool
	}{
		{"leaf", []uint32{3}, []uint32{3}, nil, false},
		{"root and leaf", []uint32{3, 2}, []uint32{2, 3}, nil, false},
		{"chain", []uint32{9, 6, 7}, nil, []uint32{3}, true},
		{"chain and leaf", []uint32{9, 3}, []uint32{3}, nil, true},
		{"leaf and chain", []uint32{3, 9}, []uint32{3}, nil, true},
		{"head", []uint32{4}, nil, []uint32{3}, true},
		{"no table's", []uint32{12}, nil, nil, false},
		{"above", []uint32{14, 0, 1 << 31}, nil, nil, false},
	}
	d := newDirt()
	for _, tt := range tests {
		if err := d.collect(m, tt.written, 13); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if len(tt.pages)+len(tt.touched) == 0 {
			if len(d.order) != 0 {
				t.Errorf("%s: %d dirty tables", tt.name, len(d.order))
			}
			continue
		}
		if len(d.order) != 1 || d.order[0].root != 2 || !slices.Equal(d.order[0].pages, tt.pages) || !slices.Equal(d.order[0].touched, tt.touched) {
			t.Errorf("%s: %+v", tt.name, d.order)
		}
		if !d.active.has(2) {
			t.Errorf("%s: the root is not active", tt.name)
		}
		if d.chains.has(4) != tt.chain || d.touched.has(3) != tt.chain {
			t.Errorf("%s: chain is dirty: %t", tt.name, d.chains.has(4))
		}
	}
}

func TestCollectRefusesWrongMaps(t *testing.T) {
	d := newDirt()
	for name, spoil := range map[string]func(m *pageMap) uint32{
		"chain into nothing":  func(m *pageMap) uint32 { m.set(6, unmapped, 0); return 9 },
		"chain into a tree":   func(m *pageMap) uint32 { m.set(6, treePage, 2); return 9 },
		"leaf below nothing":  func(m *pageMap) uint32 { m.set(2, unmapped, 0); return 3 },
		"circle of b-trees":   func(m *pageMap) uint32 { m.set(2, treePage, 3); return 3 },
		"chain below a chain": func(m *pageMap) uint32 { m.set(4, chainHead, 5); return 4 },
	} {
		m := chainMap(10)
		if err := d.collect(m, []uint32{spoil(m)}, 13); !errors.Is(err, errInconsistent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Climbing from every page of a big blob to its first must not start over each
// time: that took 7.5 s for 40 MB.
func BenchmarkCollectChain(b *testing.B) {
	const n = 10000
	m := chainMap(n)
	var written []uint32
	for p := uint32(n + 3); p >= 4; p-- {
		written = append(written, p)
	}
	slices.Reverse(written[:n/2])
	d := newDirt()
	b.ReportAllocs()
	for range b.N {
		if err := d.collect(m, written, n+3); err != nil {
			b.Fatal(err)
		}
	}
}
