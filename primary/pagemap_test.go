package primary

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestPageSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set pageSet
		want := map[uint32]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			p := rapid.Uint32Range(0, 300).Draw(t, "page")
			switch rapid.IntRange(0, 4).Draw(t, "op") {
			case 0:
				if set.remove(p) != want[p] {
					t.Fatalf("remove(%d) is not %t", p, want[p])
				}
				delete(want, p)
			case 1:
				if rapid.Bool().Draw(t, "reset") {
					set.reset()
					clear(want)
				}
			default:
				if set.add(p) == want[p] {
					t.Fatalf("add(%d) is %t", p, want[p])
				}
				want[p] = true
			}
			for q := range uint32(400) {
				if set.has(q) != want[q] {
					t.Fatalf("has(%d) is not %t", q, want[q])
				}
			}
		}
	})
}

func TestPageMapForgetsOnShrink(t *testing.T) {
	var m pageMap
	m.resize(10)
	for p := uint32(1); p <= 10; p++ {
		m.set(p, treePage, 1)
	}
	m.resize(4)
	if k, _ := m.at(5); k != unmapped {
		t.Errorf("page 5 of 4 is mapped as %v", k)
	}
	m.resize(10)
	for p := uint32(5); p <= 10; p++ {
		if k, parent := m.at(p); k != unmapped || parent != 0 {
			t.Errorf("page %d came back as %v of page %d", p, k, parent)
		}
	}
	if k, _ := m.at(4); k != treePage {
		t.Error("page 4 is lost")
	}
	m.resize(1000)
	if k, _ := m.at(4); k != treePage {
		t.Error("page 4 is lost as the map grows")
	}
}

func TestPageMapCompare(t *testing.T) {
	var a, b pageMap
	a.resize(5)
	b.resize(9) // free pages at the end make no difference
	if err := a.compare(&b); err != nil {
		t.Error(err)
	}
	b.set(8, chainHead, 3)
	if err := a.compare(&b); !errors.Is(err, errInconsistent) {
		t.Errorf("%v", err)
	}
}

// A page that leaves one tree and joins another stays mapped, whichever of them
// is compared first.
func TestUpdatesClearBeforeTheySet(t *testing.T) {
	for _, leaveFirst := range []bool{true, false} {
		var m pageMap
		m.resize(20)
		m.set(7, treePage, 2)
		m.set(8, chainHead, 7)
		u := mapUpdates{least: 100}
		u.begin(20)
		leave := func() { u.left(7); u.left(8) }
		if leaveFirst {
			leave()
		}
		u.joined(&m, 7, treePage, 2) // as it is mapped already
		u.joined(&m, 8, treePage, 7)
		if !leaveFirst {
			leave()
		}
		u.apply(&m, 20)
		if k, p := m.at(7); k != treePage || p != 2 {
			t.Errorf("leave first %t: page 7 is %v of page %d", leaveFirst, k, p)
		}
		if k, p := m.at(8); k != treePage || p != 7 {
			t.Errorf("leave first %t: page 8 is %v of page %d", leaveFirst, k, p)
		}
	}
}

func TestUpdatesAreBounded(t *testing.T) {
	var m pageMap
	m.resize(1000)
	u := mapUpdates{least: 100}
	u.begin(4)
	for p := uint32(1); p <= 1000; p++ {
		u.joined(&m, p, treePage, 1)
		u.left(p + 1)
		u.leftChain(chainRef{head: p})
		if n := linkSize*len(u.links) + goneSize*len(u.gone) + chainSize*len(u.chains); n > 100 {
			t.Fatalf("%d bytes", n)
		}
	}
	if !u.rebuild {
		t.Error("no rebuild")
	}
}

// A chain that lives on in another table stays whole when its table is dropped;
// one whose head was used for something else does not.
func TestSweep(t *testing.T) {
	for _, written := range []bool{false, true} {
		m := chainMap(4) // 2 is the root, 3 a leaf, 4 to 7 a chain
		m.resize(20)
		m.set(10, treePage, 0)
		m.set(11, treePage, 10)
		m.set(12, chainHead, 3)
		m.set(13, chainNext, 12)
		u := mapUpdates{least: 1000, dropped: []uint32{2}}
		u.limit = u.least
		u.joined(m, 4, chainHead, 11)
		var dirty pageSet
		if written {
			dirty.add(4)
		}
		u.sweep(m, &dirty)
		u.apply(m, 20)
		for p := range uint32(21) {
			kept := p == 4 || p == 10 || p == 11 || p >= 5 && p <= 7 && !written
			if kind, _ := m.at(p); kept != (kind != unmapped) {
				t.Errorf("written %t: page %d is %v", written, p, kind)
			}
		}
	}
}
