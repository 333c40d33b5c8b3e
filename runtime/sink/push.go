package sink

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/message/cehttp"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// What becomes of the answer to a push: plan.Push.Response.
const (
	drop      = "Drop"
	toTopic   = "Topic"
	requester = "Requester"
)

// defaultConcurrency of the requests of one batch.
const defaultConcurrency = 32

// PushDeps is what a push needs beside its plan.
type PushDeps struct {
	Client *outbound.Client
	// Namespace is that of the secrets, Source the CloudEvents source of a reply that is not an event itself.
	Namespace, Source string
	// AtMostOnce: no request is sent twice.
	AtMostOnce bool
	// ReplyTo is where events in answers go, with response Topic.
	ReplyTo Outlet
	// Sender answers waiting requesters, with response Requester.
	Sender *reply.Sender
}

// NewPush makes the stage that sends each message to a server. Messages of one lane are sent one after the other, and nothing behind one
// that failed.
func NewPush(p plan.Push, d PushDeps) (flow.Stage, error) {
	target, err := d.Client.Target(d.Namespace, p.HTTPCall)
	if err != nil {
		return nil, err
	}
	target.Once = d.AtMostOnce
	switch p.Response {
	case drop, "":
	case toTopic:
		if p.ReplyTo == nil || d.ReplyTo.Publisher == nil {
			return nil, errors.New("a push that publishes the answers needs a publisher for them")
		}
	case requester:
		if d.Sender == nil {
			return nil, errors.New("a push whose answers are replies needs a sender for them")
		}
	default:
		return nil, fmt.Errorf("response %q is not known; it is %s, %s or %s", p.Response, drop, toTopic, requester)
	}
	s := &push{deps: d, response: p.Response, target: *target, silent: *target, concurrency: p.Concurrency}
	s.silent.Discard = true
	if s.response == toTopic {
		if s.replies, err = newTerms(*p.ReplyTo); err != nil {
			return nil, fmt.Errorf("reply: %w", err)
		}
		s.target.Want = cehttp.IsEvent // any other body is dropped, however large it is
	}
	if s.concurrency <= 0 {
		s.concurrency = defaultConcurrency
	}
	return s, nil
}

type push struct {
	replies     terms // of events in answers
	deps        PushDeps
	response    string
	target      outbound.Target
	silent      outbound.Target // the same, with the answer's body thrown away
	concurrency int
}

func (s *push) Process(ctx context.Context, b *flow.Batch) {
	if len(b.Events) == 1 {
		if err := s.one(ctx, b, &b.Events[0]); err != nil {
			b.Fail(b.Events[0].Input, err)
		}
		return
	}
	// A batch of one is the rule; several events come from a step that splits.
	var g errgroup.Group
	g.SetLimit(s.concurrency)
	for _, lane := range laneEvents(b.Events, b.Lane) {
		g.Go(func() error {
			for i := range lane {
				if err := s.one(ctx, b, &lane[i]); err != nil {
					b.Fail(lane[i].Input, err)
					return nil // the flow holds back what stands behind it
				}
			}
			return nil
		})
	}
	_ = g.Wait() // failures stand at the inputs
}

// laneEvents cuts events into those that must go one after the other: of one input, and of inputs of one lane. These stand next to each other.
func laneEvents(events []flow.Event, laneOf func(input int) int) [][]flow.Event {
	var lanes [][]flow.Event
	for from := 0; from < len(events); {
		to, lane := from+1, laneOf(events[from].Input)
		for to < len(events) && laneOf(events[to].Input) == lane {
			to++
		}
		lanes = append(lanes, events[from:to])
		from = to
	}
	return lanes
}

// one sends one event and does with the answer what is to be done before the input is.
func (s *push) one(ctx context.Context, b *flow.Batch, e *flow.Event) error {
	ctx = b.Context(ctx, e.Input)
	request := &b.Inputs[e.Input].Delivery.Message
	target := &s.silent
	if s.response == toTopic || s.response == requester && reply.Wants(request) == reply.Reply {
		target = &s.target
	}
	answer, err := s.deps.Client.Send(ctx, target, &e.Message)
	if err != nil && s.response == requester && errors.Is(err, outbound.ErrTooLarge) {
		return oversize(err)
	}
	if err != nil || target == &s.silent {
		return err
	}
	if s.response == toTopic {
		return s.publish(ctx, answer, &e.Message)
	}
	m, err := s.reply(answer, request)
	if err != nil {
		return err
	}
	return sendReply(ctx, s.deps.Sender, request, m)
}

// oversize blames the message for an answer that is too large to be its reply, as for one that the broker does not take: it would be no smaller
// the next time.
func oversize(err error) error {
	f, ok := errors.AsType[*flow.Fault](err)
	if !ok {
		return err
	}
	return &flow.Fault{Blame: flow.Message, At: f.At,
		Err: fmt.Errorf("reply: %w; no reply has more, and none has more than the broker takes with its headers", f.Err)}
}

// publish stores the events that the answer carries. An answer that carries none is dropped.
func (s *push) publish(ctx context.Context, answer *outbound.Response, sent *message.Message) error {
	if !cehttp.IsEvent(answer.Header) {
		return nil
	}
	ms, _, err := cehttp.Read(answer.Header, answer.Body, cehttp.Defaults{})
	if err != nil {
		return s.unreadable(err)
	}
	if len(ms) == 0 {
		return nil
	}
	n := hops(sent)
	for i := range ms {
		m := ms[i].Without(message.Reserved)
		if trace := sent.Attribute(message.TraceParent); trace != "" && m.Attribute(message.TraceParent) == "" {
			m = m.With(message.TraceParent, trace)
		}
		if err := s.replies.refuse(&m); err != nil {
			return s.unpublishable(err)
		}
		ms[i] = onward(m, n)
	}
	for _, err := range s.deps.ReplyTo.Publisher.Publish(ctx, ms) {
		if err == nil {
			continue
		}
		err = s.deps.ReplyTo.fault(ctx, err)
		if f, ok := errors.AsType[*flow.Fault](err); ok && f.Blame == flow.Message {
			return s.unpublishable(f.Err)
		}
		return describe("the event in the answer of "+s.target.URL.Host, err)
	}
	return nil
}

// unpublishable blames who answered with an event that is never taken, not the message that was sent.
func (s *push) unpublishable(err error) error {
	return &flow.Fault{Blame: flow.Destination, Err: fmt.Errorf("%s answered with an event that cannot be published: %w", s.target.URL.Host, err), At: outbound.Shown(s.target.URL)}
}

// reply makes a message of the answer: the event that it carries, else its body as it is, which may be empty. So is an event in a
// representation that is not read: the requester may read it.
func (s *push) reply(answer *outbound.Response, request *message.Message) (message.Message, error) {
	if _, err := cehttp.ModeOf(answer.Header); err == nil && cehttp.IsEvent(answer.Header) {
		ms, batch, err := cehttp.Read(answer.Header, answer.Body, cehttp.Defaults{})
		if err != nil {
			return message.Message{}, s.unreadable(err)
		}
		if !batch {
			return ms[0], nil
		}
	}
	m := message.Message{ID: request.ID, Source: s.deps.Source, Type: "dev.waybill.reply"}
	if len(answer.Body) > 0 {
		m.Data, m.DataContentType = answer.Body, answer.Header.Get("Content-Type")
	}
	return m, nil
}

func (s *push) unreadable(err error) error {
	return &flow.Fault{Blame: flow.Destination, Err: fmt.Errorf("%s answered with an event that cannot be read: %w", s.target.URL.Host, err), At: outbound.Shown(s.target.URL)}
}
