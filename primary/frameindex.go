package primary

import (
	"math"
	"slices"
)

// A frameIndex tells which frame has a page last: 10 to 15 bytes a page, as an open
// hash table whose slots are filled to four fifths at most. The zero value is empty.
// Reading it is safe for concurrent use.
type frameIndex struct {
	slots []uint64 // page<<32 | frame; 0 is free, since both begin at 1
	count int
}

const (
	firstSlots = 64
	keptSlots  = 2 << 10 // that clear keeps, 16 KiB
)

// slot is where a page is, or would be.
func (x *frameIndex) slot(page uint32) int {
	i := int(uint64(page*0x9E3779B1) * uint64(len(x.slots)) >> 32)
	for x.slots[i] != 0 && uint32(x.slots[i]>>32) != page {
		if i++; i == len(x.slots) {
			i = 0
		}
	}
	return i
}

// get returns the frame of a page, 0 if there is none.
func (x *frameIndex) get(page uint32) uint32 {
	if x.count == 0 {
		return 0
	}
	return uint32(x.slots[x.slot(page)])
}

// put sets the frame of a page and reports whether it had none.
func (x *frameIndex) put(page, frame uint32) (fresh bool) {
	if 5*(x.count+1) > 4*len(x.slots) {
		x.rehash(max(firstSlots, len(x.slots)+len(x.slots)/2), math.MaxUint32)
	}
	s := &x.slots[x.slot(page)]
	if fresh = *s == 0; fresh {
		x.count++
	}
	*s = uint64(page)<<32 | uint64(frame)
	return fresh
}

// rehash moves the entries into so many slots, without those of pages above most.
func (x *frameIndex) rehash(slots int, most uint32) {
	before := x.slots
	x.slots, x.count = make([]uint64, slots), 0
	for _, s := range before {
		if page := uint32(s >> 32); s != 0 && page <= most {
			x.slots[x.slot(page)] = s
			x.count++
		}
	}
}

// shrink forgets pages above most.
func (x *frameIndex) shrink(most uint32) {
	if slices.ContainsFunc(x.slots, func(s uint64) bool { return uint32(s>>32) > most }) {
		x.rehash(len(x.slots), most)
	}
}

// clear forgets everything, and the memory if there is much.
func (x *frameIndex) clear() {
	if x.count == 0 {
		return
	}
	if x.count = 0; len(x.slots) > keptSlots {
		x.slots = nil
	}
	clear(x.slots)
}

func (x *frameIndex) clone() frameIndex {
	return frameIndex{slots: slices.Clone(x.slots), count: x.count}
}
