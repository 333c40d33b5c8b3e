package sink

import (
	"context"
	"errors"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// NewReply makes the stage that gives each message to the requester that waits for it. A message for which nobody waits is done.
func NewReply(s *reply.Sender) flow.Stage { return replier{s} }

type replier struct{ sender *reply.Sender }

func (r replier) Process(ctx context.Context, b *flow.Batch) {
	for i := range b.Events {
		e := &b.Events[i]
		// The address is the request's own: what the steps made of its attributes does not matter.
		if err := sendReply(b.Context(ctx, e.Input), r.sender, &b.Inputs[e.Input].Delivery.Message, e.Message); err != nil {
			b.Fail(e.Input, err)
		}
	}
}

func sendReply(ctx context.Context, s *reply.Sender, request *message.Message, m message.Message) error {
	err := s.Reply(ctx, request, reply.Answer{Kind: reply.Reply, Message: m})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	f := &flow.Fault{Blame: flow.Broker, Err: err}
	if errors.Is(err, driver.ErrInvalid) || errors.Is(err, driver.ErrTooLarge) {
		f.Blame = flow.Message // a forged address, or a reply that the broker never takes
	}
	return describe("reply", f)
}
