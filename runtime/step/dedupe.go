package step

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
)

// dedupe drops an event whose key was seen within the window. A key counts as seen only once the flow has confirmed the message that brought
// it: a crash, or a failure further on, before that forgets the key and not the message.
//
// A key in flight belongs to the input that brought it first. A second event of that input with the same key is a duplicate at once: the
// two succeed or fail together. Another input waits: its attempt ends, uncounted, and is repeated after the backoff, when the first has been
// confirmed (then it is dropped) or has failed (then it is its turn).
//
// What is kept lies in memory, the keys used longest ago are forgotten first, and each process has its own: dedupe makes duplicates fewer
// and guarantees nothing.
type dedupe struct {
	name    string
	program *expr.Program
	window  time.Duration
	maxKeys int

	mu      sync.Mutex
	keys    map[string]*list.Element // of *seen
	byUse   list.List                // the key used last in front
	flights map[*driver.Delivery][]*seen
}

// seen is what is known of a key.
type seen struct {
	key string
	// owner is the delivery that brought the key and is not confirmed yet; nil: it was confirmed.
	owner *driver.Delivery
	// at is when the key came, or was confirmed.
	at time.Time
}

var errInFlight = errors.New("another message with the same dedupe key is on its way; this one is tried again when that one is done")

func newDedupe(name string, p *expr.Program, window time.Duration, maxKeys int) *dedupe {
	return &dedupe{
		name: name, program: p, window: window, maxKeys: max(maxKeys, 1),
		keys: make(map[string]*list.Element), flights: make(map[*driver.Delivery][]*seen),
	}
}

func (d *dedupe) Process(ctx context.Context, b *flow.Batch) {
	if ended(ctx, b) {
		return
	}
	keep(b, Duplicate, func(_ int, e *flow.Event) bool {
		key, err := d.program.EvalString(ctx, view(e))
		if err != nil {
			unfit(ctx, b, e.Input, d.name, err)
			return true
		}
		switch d.take(key, b.Inputs[e.Input].Delivery, time.Now()) {
		case known:
			return false
		case busy:
			// Nobody's fault: it is neither counted nor seen by the breaker.
			b.Fail(e.Input, &flow.Fault{Blame: flow.Broker, Err: errInFlight})
		}
		return true
	})
}

type answer int

const (
	fresh answer = iota // the key is the caller's now
	known               // the key was seen
	busy                // the key is another input's
)

func (d *dedupe) take(key string, by *driver.Delivery, now time.Time) answer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if el, ok := d.keys[key]; ok {
		s := el.Value.(*seen)
		switch {
		case now.Sub(s.at) >= d.window:
			d.forget(el)
		case s.owner == nil, s.owner == by:
			d.byUse.MoveToFront(el)
			return known
		default:
			return busy
		}
	}
	for len(d.keys) >= d.maxKeys {
		d.forget(d.byUse.Back())
	}
	s := &seen{key: key, owner: by, at: now}
	d.keys[key] = d.byUse.PushFront(s)
	d.flights[by] = append(d.flights[by], s)
	return fresh
}

func (d *dedupe) forget(el *list.Element) {
	delete(d.keys, el.Value.(*seen).key)
	d.byUse.Remove(el)
}

// Commit marks the keys of the inputs that were done as seen and gives those of failed ones free.
func (d *dedupe) Commit(b *flow.Batch) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range b.Inputs {
		in := &b.Inputs[i]
		for _, s := range d.flights[in.Delivery] {
			el, ok := d.keys[s.key]
			if !ok || el.Value.(*seen) != s {
				continue // forgotten meanwhile, and perhaps brought again by another
			}
			if in.Err != nil {
				d.forget(el)
				continue
			}
			s.owner, s.at = nil, now
		}
		delete(d.flights, in.Delivery)
	}
}
