package gateway

import (
	"sync"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// maxTallied bounds a tally; beyond it the oldest messages are forgotten.
const maxTallied = 10_000

// A tally counts by message something that happened to its deliveries at this replica.
type tally struct {
	mu    sync.Mutex
	count map[string]int // by Identity
	order []string
}

func (t *tally) add(d *driver.Delivery) {
	if d.Identity == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == nil {
		t.count = map[string]int{}
	}
	if t.count[d.Identity] == 0 {
		if len(t.order) >= maxTallied {
			delete(t.count, t.order[0])
			t.order = t.order[1:]
		}
		t.order = append(t.order, d.Identity)
	}
	t.count[d.Identity]++
}

func (t *tally) of(d *driver.Delivery) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count[d.Identity]
}
