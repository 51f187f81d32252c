package primary

import "time"

// StallBounds are the upper bounds of the classes of a StallHistogram.
var StallBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, time.Second,
}

// A StallHistogram counts how long writers had to wait for us.
type StallHistogram struct {
	Counts [len(StallBounds) + 1]uint64 `json:"counts"` // by StallBounds, not cumulative; the last has no bound
	Sum    time.Duration                `json:"sum_ns"`
	Max    time.Duration                `json:"max_ns"`
}

func (h *StallHistogram) observe(d time.Duration) {
	i := 0
	for i < len(StallBounds) && d > StallBounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += d
	h.Max = max(h.Max, d)
}

// Count is the number of stalls.
func (h *StallHistogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}
