package broker

import (
	"context"
	"sync"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// A gather lets settlements of several callers go to the driver together: while one batch is taken, the next one comes together. An answer
// costs a broker the same whatever it is for.
type gather struct {
	mu   sync.Mutex
	busy bool   // a batch is being taken
	next *batch // nil: nobody waits
}

// A batch is taken by the first caller who joined it.
type batch struct {
	list  []driver.Settlement
	ds    []driver.Delivery // copies, for their claims are the driver's own
	turn  chan struct{}     // closed when the batch before it is taken
	taken chan struct{}     // closed when errs is there
	errs  []error
}

// forward passes settlements on under the driver's own claims, with those of others who settle at the same time. It is done under the context
// of whoever came first; all callers of one source are of one flow.
func (s *Source) forward(ctx context.Context, o *openSource, list []driver.Settlement) []error {
	g := &o.gather
	g.mu.Lock()
	b, first := g.next, g.next == nil
	if first {
		b = &batch{turn: make(chan struct{}), taken: make(chan struct{})}
		g.next = b
	}
	from := len(b.list)
	var errs []error
	var at []int // where the batch lacks an entry of list: the index of each
	for i := range list {
		c, ok := o.inner(list[i].D.Claim)
		if !ok {
			if errs == nil {
				errs, at = make([]error, len(list)), make([]int, 0, len(list))
				for j := range i {
					at = append(at, j)
				}
			}
			errs[i] = driver.ErrStale
			continue
		}
		if at != nil {
			at = append(at, i)
		}
		b.ds = append(b.ds, *list[i].D)
		b.ds[len(b.ds)-1].Claim = c
		b.list = append(b.list, driver.Settlement{Verb: list[i].Verb, After: list[i].After})
	}
	n := len(b.list) - from
	wait := g.busy
	g.busy = true
	g.mu.Unlock()

	switch {
	case first:
		if wait {
			<-b.turn
		}
		g.take(ctx, o, b)
	case n == 0:
		return errs
	default:
		select {
		case <-b.taken:
		case <-ctx.Done():
			return all(len(list), ctx.Err())
		}
	}
	for k := range n {
		if b.errs == nil || b.errs[from+k] == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(list))
		}
		i := k
		if at != nil {
			i = at[k]
		}
		errs[i] = s.settleError(o, b.errs[from+k])
	}
	return errs
}

// take has the driver take a batch, and lets the next one have its turn.
func (g *gather) take(ctx context.Context, o *openSource, b *batch) {
	g.mu.Lock()
	g.next = nil // nobody joins any more
	g.mu.Unlock()
	if len(b.list) > 0 {
		for i := range b.list {
			b.list[i].D = &b.ds[i]
		}
		b.errs = o.Settle(ctx, b.list)
	}
	close(b.taken)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next != nil {
		close(g.next.turn)
		return
	}
	g.busy = false
}
