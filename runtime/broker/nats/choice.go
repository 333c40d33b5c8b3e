package nats

import (
	"math/bits"
	"time"
)

// A choice learns which way of publishing is quicker. A batch costs a server a few file operations and syncs whatever its size, a message
// alone a sync of its own where the server syncs always and next to nothing where it does not; no server says which it is, and disks
// differ a hundredfold. So for each size, to the power of two, both ways are timed, and the slower one is tried again now and then.
type choice struct {
	sizes [16]struct {
		batch, single time.Duration // a message, smoothed; 0: not tried yet
		calls         int
	}
}

const (
	// fewest is from where on a batch is considered at all.
	fewest = 9
	// retry is after how many calls of a size the slower way is tried again, if it was not much slower.
	retry = 64
)

// batch says whether n messages should go as a batch.
func (c *choice) batch(n int) bool {
	if n < fewest {
		return false
	}
	s := &c.sizes[bits.Len(uint(n))%len(c.sizes)]
	s.calls++
	switch {
	case s.batch == 0:
		return true
	case s.single == 0:
		return false
	}
	better := s.batch <= s.single
	if s.calls%retry == 0 && max(s.batch, s.single) < 4*min(s.batch, s.single) || s.calls%(16*retry) == 0 {
		return !better
	}
	return better
}

// took notes how long n messages took.
func (c *choice) took(n int, batch bool, d time.Duration) {
	if n < fewest {
		return
	}
	s := &c.sizes[bits.Len(uint(n))%len(c.sizes)]
	each := max(1, d/time.Duration(n))
	old := &s.single
	if batch {
		old = &s.batch
	}
	if *old == 0 {
		*old = each
	} else {
		*old += (each - *old) / 4
	}
}
