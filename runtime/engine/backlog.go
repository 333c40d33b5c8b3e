package engine

import (
	"context"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/plan"
)

const (
	// backlogEvery is how old an answer of the brokers may be before they are asked again, and backlogTimeout how long that may take.
	backlogEvery   = 5 * time.Second
	backlogTimeout = 2 * time.Second
)

// Backlog is what waits on the broker for one resource: stored and not acknowledged, whether a worker holds it or nobody does.
type Backlog struct {
	Resource plan.Resource
	Messages int64
	Oldest   time.Time // when the oldest of them was stored; zero: unknown, or none
}

// backlogs keeps what the brokers said last.
type backlogs struct {
	mu    sync.Mutex
	asked time.Time
	last  []Backlog
}

// forget makes the next one who asks get an answer of now.
func (b *backlogs) forget() {
	b.mu.Lock()
	b.asked = time.Time{}
	b.mu.Unlock()
}

// Backlogs asks the brokers what waits for Subscriptions, Pipelines and Mailboxes. Of a broker that is away, or does not tell, there is none.
// Answers are kept for a few seconds, so that it may be asked by whomever.
func (e *Engine) Backlogs(ctx context.Context) []Backlog {
	b := &e.backlogs
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.asked.IsZero() && time.Since(b.asked) < backlogEvery {
		return b.last
	}
	e.mu.Lock()
	units := e.units
	e.mu.Unlock()

	type queues struct {
		of   []plan.Resource
		refs []driver.Ref
	}
	byBroker := map[*broker.Broker]*queues{}
	for _, u := range units {
		name, r, ok := u.waitsAt()
		if !ok {
			continue
		}
		at, err := u.broker(name)
		if err != nil || at.Away() != nil {
			continue
		}
		if byBroker[at] == nil {
			byBroker[at] = &queues{}
		}
		q := byBroker[at]
		q.of, q.refs = append(q.of, u.plan.Resource), append(q.refs, r)
	}

	ctx, cancel := context.WithTimeout(ctx, backlogTimeout)
	defer cancel()
	var (
		found []Backlog
		mu    sync.Mutex
		wg    sync.WaitGroup
	)
	for at, q := range byBroker {
		wg.Go(func() {
			admin, err := at.Admin(ctx)
			if err != nil {
				return
			}
			states, err := admin.Inspect(ctx, q.refs)
			if err != nil {
				e.host.Log.Debug("the broker does not tell its backlog", "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for i, s := range states {
				if s.Exists && s.Messages >= 0 {
					found = append(found, Backlog{q.of[i], s.Messages, s.Oldest})
				}
			}
		})
	}
	wg.Wait()
	b.last, b.asked = found, time.Now()
	return found
}

// waitsAt is the object on which messages wait for the unit. A Mailbox that a Pipeline reads is told of by that.
func (u *unit) waitsAt() (brokerName string, r driver.Ref, ok bool) {
	switch p := u.plan; {
	case p.Flow != nil && p.Flow.Source.Group != "":
		s := p.Flow.Source
		return s.Object.Broker, driver.Ref{Kind: driver.Group, Name: s.Group, Of: s.Object.Name}, true
	case p.Flow != nil:
		return p.Flow.Source.Object.Broker, ref(p.Flow.Source.Object), true
	case p.Mailbox != nil && p.Mailbox.Mode != "Pipeline":
		return p.Mailbox.Object.Broker, ref(p.Mailbox.Object), true
	}
	return "", driver.Ref{}, false
}

// Reached tells of each broker, by the name that plans have for it, whether its sessions are there.
func (e *Engine) Reached() map[string]bool { return e.conns.reached() }

func (c *connections) reached() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]bool{}
	for _, b := range c.open {
		before, seen := out[b.name]
		out[b.name] = b.Away() == nil && (before || !seen)
	}
	return out
}
