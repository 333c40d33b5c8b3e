package engine

import (
	"strings"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/gateway"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/poll"
)

// State is where a resource is in its life.
type State string

const (
	Starting State = "Starting" // not yet tried
	Waiting  State = "Waiting"  // tried, failed, will be tried again: Message says why
	Running  State = "Running"
	Paused   State = "Paused" // as declared: its objects are kept, nothing is delivered
	Draining State = "Draining"
	Stopped  State = "Stopped"
	Failed   State = "Failed" // will not be tried again: Message says why
)

// Status is one resource as /status, the live table and the metrics show it.
type Status struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Path is where its gateway is served, from the root of the host's address; "" where it has none.
	Path  string `json:"path,omitempty"`
	State State  `json:"state"`
	// Condition is what a running resource struggles with, in a word: BrokerAway, DestinationDown, SourceRefused, …
	Condition string `json:"condition,omitempty"`
	Message   string `json:"message,omitempty"`
	Counts    Counts `json:"counts"`

	// What the counts were taken from; nil where the resource has no such part.
	Gateway *gateway.Stats `json:"-"`
	Answers map[int]uint64 `json:"-"` // of its gateway, by HTTP status
	Flow    *flow.Stats    `json:"-"`
	Poller  *poll.Stats    `json:"-"`
}

// Counts are messages since the start, but for InFlight and Held, which are now.
type Counts struct {
	// In was taken: stored on a Topic or Mailbox by whomever in this process, asked of an Endpoint, received by a flow, found by a poller.
	In uint64 `json:"in"`
	// Out was passed on: settled by a Mailbox's recipient, stored where an Endpoint points to, confirmed by a sink, published by a poller. A
	// Topic passes nothing on by itself: its Subscriptions and Pipelines count what they take.
	Out          uint64 `json:"out"`
	Dropped      uint64 `json:"dropped"`
	Retried      uint64 `json:"retried"`
	DeadLettered uint64 `json:"deadLettered"`
	InFlight     int    `json:"inFlight"`
	Held         int    `json:"held"` // received and not yet settled
}

func (u *unit) status() Status {
	u.mu.Lock()
	p, s := u.parts, resourceStatus(u.plan.Resource, u.state, u.message)
	u.mu.Unlock()

	if p.gateway != nil {
		below, _ := u.plan.Served()
		s.Path = u.engine.host.Base(u.plan.Resource) + below
		g := p.gateway.Stats()
		s.Gateway, s.Answers = &g, u.answers.counts()
		switch {
		case u.plan.Topic != nil:
			s.Counts.In = u.engine.conns.stored(u.plan.Topic.Object)
		case u.plan.Mailbox != nil:
			s.Counts.In = u.engine.conns.stored(u.plan.Mailbox.Object)
			s.Counts.Out = uint64(g.Acked + g.Replied)
		case u.plan.Endpoint != nil:
			s.Counts.In = uint64(g.Stored + g.Buffered + g.Lost)
			s.Counts.Out = uint64(g.Stored)
		}
		s.Counts.DeadLettered += uint64(g.DeadLettered)
	}
	if p.flow != nil {
		f := p.flow.Stats()
		s.Flow = &f
		if f.State != flow.Running && f.State != flow.Starting {
			s.Condition = string(f.State)
		}
		if s.Message == "" {
			s.Message = f.Detail
		}
		s.Counts.Out += f.Done
		if p.gateway == nil {
			s.Counts.In += f.Received
		}
		s.Counts.Dropped += sum(f.Dropped) + f.Expired
		s.Counts.Retried += f.Retried
		s.Counts.DeadLettered += sum(f.DeadLettered)
		s.Counts.InFlight += f.InFlight
		s.Counts.Held += f.Window
	}
	if p.poller != nil {
		q := p.poller.Stats()
		s.Poller = &q
		s.Counts.In += uint64(q.Items)
		s.Counts.Out += uint64(q.Published)
		if s.Message == "" {
			s.Condition, s.Message = string(q.Reason), q.LastError
		}
	}
	if s.State == Running {
		if away := u.away(); away != "" { // whatever else is wrong follows from that
			s.Condition, s.Message = brokerAway, away
		}
	}
	return s
}

// brokerAway is the condition of all resources whose broker cannot be reached.
const brokerAway = "BrokerAway"

// away says why a broker of the unit's cannot be reached, "" when all can. Its two sessions mostly say the same: one is enough.
func (u *unit) away() string {
	for _, spec := range u.plan.Brokers {
		b, err := u.broker(spec.Name)
		if err != nil {
			continue // it has no driver: then the unit has failed
		}
		if why := b.Away(); why != nil {
			text, _, _ := strings.Cut(why.Error(), "\n")
			return text
		}
	}
	return ""
}

// passedOn counts for a Mailbox what a Pipeline has taken from it.
func passedOn(units []*unit, all []Status) {
	mailboxes := map[plan.Ref]int{}
	for i, u := range units {
		if u.plan.Mailbox != nil && u.plan.Flow == nil {
			mailboxes[u.plan.Mailbox.Object] = i
		}
	}
	for i, u := range units {
		if u.plan.Flow == nil {
			continue
		}
		if m, ok := mailboxes[u.plan.Flow.Source.Object]; ok {
			c := all[i].Counts
			all[m].Counts.Out += c.Out + c.Dropped + c.DeadLettered
		}
	}
}

func resourceStatus(r plan.Resource, state State, message string) Status {
	return Status{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, State: state, Message: message}
}

func sum[K comparable](m map[K]uint64) (total uint64) {
	for _, n := range m {
		total += n
	}
	return total
}
