package flow

import "time"

// Bounds are the upper bounds of a Histogram's buckets. All histograms have the same, from an answer on the same machine to a day in a
// backlog, so that they can be added up.
var Bounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, time.Hour, 24 * time.Hour,
}

// A Histogram counts durations by how long they were.
type Histogram struct {
	// Counts[i] is how many were at most Bounds[i] and more than the bound before it; the last one is of those beyond all bounds.
	Counts  [len(Bounds) + 1]uint64
	Seconds float64 // all of them together
}

// add counts n durations of d; one below zero, which two clocks can make, is none.
func (h *Histogram) add(d time.Duration, n int) {
	d = max(d, 0)
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	h.Counts[i] += uint64(n)
	h.Seconds += d.Seconds() * float64(n)
}

// Count is how many durations there were.
func (h *Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}
