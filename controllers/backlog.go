package controllers

import (
	"context"
	"slices"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// backlogRound is how many objects are looked at in one call to a broker.
const backlogRound = 100

// backlogs are what waits for each resource, as its status tells it: to two significant digits, so that a status is written when something has
// changed that a person would notice. Exact figures are in the workers' metrics.
type backlogs struct {
	mu      sync.Mutex
	of      map[plan.Resource]*int64 // nil: the broker cannot say
	counted map[plan.Resource]time.Time
}

// get is the backlog of a resource; false while nobody has asked.
func (b *backlogs) get(r plan.Resource) (*int64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ok := b.of[r]
	return n, ok
}

// set notes a count and reports whether it tells something new.
func (b *backlogs) set(r plan.Resource, n int64) bool {
	var now *int64
	if n >= 0 {
		now = new(twoDigits(n))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before, ok := b.of[r]
	b.of[r] = now
	return !ok || (before == nil) != (now == nil) || now != nil && *before != *now
}

// due reports whether a Broker's objects are to be counted again, and takes it that they are.
func (b *backlogs) due(broker plan.Resource, every time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.counted[broker]) < every {
		return false
	}
	b.counted[broker] = time.Now()
	return true
}

func (b *backlogs) forget(r plan.Resource) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.of, r)
	delete(b.counted, r)
}

// twoDigits rounds down: 4711 is 4700.
func twoDigits(n int64) int64 {
	unit := int64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	return n / unit * unit
}

// countBacklogs asks a Broker that answers what waits on it for whom, once a minute, in a few calls for all; and wakes those whose figure has
// changed. What cannot be counted now keeps its figure: the Broker's own condition says that it is away.
func (c *Controller) countBacklogs(ctx context.Context, f *facts) {
	to, ok := f.verdict.connection()
	if !ok || !c.backlogs.due(f.resource, 2*c.options.Probe) {
		return
	}
	who, what := c.world.sources(to.Name)
	for round := range slices.Chunk(indices(len(what)), backlogRound) {
		first, last := round[0], round[len(round)-1]+1
		states, err := c.options.Brokers.Inspect(ctx, to, what[first:last])
		if err != nil {
			log.FromContext(ctx).V(1).Info("Backlogs cannot be counted now", "error", err.Error())
			return
		}
		for i, s := range states {
			if r := who[first+i]; s.Exists && c.backlogs.set(r, s.Messages) {
				c.world.wake(r)
			}
		}
	}
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// sources are the resources that take messages from a Broker's objects, and these objects.
func (w *world) sources(broker string) (who []plan.Resource, what []plan.Ref) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for r, v := range w.verdicts {
		if v.deleting {
			continue
		}
		if ref, ok := sourceOf(v.outcome.Plan); ok && ref.Broker == broker {
			who, what = append(who, r), append(what, ref)
		}
	}
	return who, what
}

// sourceOf is the object of which what waits is a resource's backlog: its position on a Topic, or the queue that it takes from.
func sourceOf(p *plan.Plan) (plan.Ref, bool) {
	switch {
	case p == nil:
		return plan.Ref{}, false
	case p.Mailbox != nil:
		return p.Mailbox.Object, true
	case p.Flow != nil && p.Flow.Source.Group != "":
		of := p.Flow.Source.Object
		return plan.Ref{Broker: of.Broker, Kind: "Group", Name: p.Flow.Source.Group, Of: of.Name}, true
	case p.Flow != nil:
		return p.Flow.Source.Object, true
	}
	return plan.Ref{}, false
}

// reportBacklog writes it where the kind has a place for it. Before it has been counted what an earlier manager wrote stands.
func reportBacklog(k *kind, o client.Object, f *facts) {
	if at := k.parts(o).backlog; at != nil && f.counted {
		*at = f.backlog
	}
}
