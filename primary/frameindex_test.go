package primary

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// TestFrameIndex: it is a map, and a clone of it is one of its own.
func TestFrameIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x, cloned frameIndex
		want, wantCloned := map[uint32]uint32{}, map[uint32]uint32{}
		page := rapid.OneOf(rapid.Uint32Range(1, 400), rapid.Uint32Range(1, 1<<32-1))
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0:
				most := page.Draw(t, "most")
				x.shrink(most)
				maps.DeleteFunc(want, func(p, _ uint32) bool { return p > most })
			case 1:
				if rapid.Bool().Draw(t, "clear") {
					x.clear()
					clear(want)
				}
			case 2:
				cloned, wantCloned = x.clone(), maps.Clone(want)
			default:
				first, frame := page.Draw(t, "page"), rapid.Uint32Range(1, 1<<32-1).Draw(t, "frame")
				for i := range rapid.Uint32Range(1, 90).Draw(t, "run") {
					p := max(first+i, 1)
					if _, had := want[p]; x.put(p, frame) == had {
						t.Fatalf("page %d was there: %v", p, had)
					}
					want[p] = frame
				}
			}
			if 5*x.count > 4*len(x.slots) || x.count != len(want) {
				t.Fatalf("%d entries in %d slots, want %d", x.count, len(x.slots), len(want))
			}
		}
		for p := range uint32(500) {
			if got := x.get(p + 1); got != want[p+1] {
				t.Fatalf("page %d is in frame %d, want %d", p+1, got, want[p+1])
			}
		}
		for p, frame := range want {
			if got := x.get(p); got != frame {
				t.Fatalf("page %d is in frame %d, want %d", p, got, frame)
			}
		}
		for p, frame := range wantCloned {
			if got := cloned.get(p); got != frame {
				t.Fatalf("clone: page %d is in frame %d, want %d", p, got, frame)
			}
		}
	})
}

// Of a million pages in runs, as a large transaction writes them.
func BenchmarkFrameIndex(b *testing.B) {
	const pages = 1 << 20
	var x frameIndex
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			x = frameIndex{}
			for p := uint32(1); p <= pages; p++ {
				x.put(p*7%(pages*2)+1, p)
			}
		}
		b.ReportMetric(float64(8*len(x.slots))/pages, "B/page")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages, "ns/page")
	})
	b.Run("get", func(b *testing.B) {
		p := uint32(0)
		for b.Loop() {
			p = (p + 7919) % (2 * pages)
			x.get(p + 1)
		}
	})
	m := map[uint32]uint32{}
	b.Run("map/put", func(b *testing.B) {
		for b.Loop() {
			m = map[uint32]uint32{}
			for p := uint32(1); p <= pages; p++ {
				m[p*7%(pages*2)+1] = p
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages, "ns/page")
	})
	b.Run("map/get", func(b *testing.B) {
		p, sum := uint32(0), uint32(0)
		for b.Loop() {
			p = (p + 7919) % (2 * pages)
			sum += m[p+1]
		}
	})
}
