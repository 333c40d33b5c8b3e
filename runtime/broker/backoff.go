package broker

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff grows from first to last, doubling, with a jitter of a fifth so that many clients of one broker do not return together.
type backoff struct {
	first, last time.Duration
	next        time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// pause is how long to wait before the next try: at least atLeast.
func (b *backoff) pause(atLeast time.Duration) time.Duration {
	if b.next == 0 {
		b.next = b.first
	}
	d := b.next
	b.next = min(2*b.next, b.last)
	d += time.Duration((rand.Float64()*0.4 - 0.2) * float64(d))
	return max(d, atLeast)
}

// sleep waits for d and reports whether ctx was still alive at the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
