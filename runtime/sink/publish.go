package sink

import (
	"context"
	"fmt"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// NewPublish makes the stages that publish p: the key, where p has one, then the publishing.
func NewPublish(p plan.Publish, to Outlet) ([]flow.Stage, error) {
	if p.Key == nil {
		return []flow.Stage{publish{to}}, nil
	}
	program, err := expr.Compile(p.Key.CEL, expr.Message, expr.String)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	// The key is a stage of its own so that the flow holds back what must not overtake a message whose key cannot be had.
	return []flow.Stage{key{program}, publish{to}}, nil
}

type key struct{ program *expr.Program }

func (k key) Process(ctx context.Context, b *flow.Batch) {
	for i := range b.Events {
		e := &b.Events[i]
		view := expr.For(e.View, &e.Message)
		e.View = view
		value, err := k.program.EvalString(ctx, view)
		switch {
		case err == nil:
			e.Message.Key = value
		case ctx.Err() != nil:
			b.Fail(e.Input, ctx.Err())
		default:
			b.Fail(e.Input, &flow.Fault{Blame: flow.Message, Err: fmt.Errorf("key: %w", err)})
		}
	}
}

type publish struct{ to Outlet }

func (p publish) Process(ctx context.Context, b *flow.Batch) {
	if len(b.Events) == 0 {
		return
	}
	ms := make([]message.Message, len(b.Events))
	for i := range b.Events {
		m := &b.Events[i].Message
		ms[i] = onward(*m, hops(m))
	}
	for i, err := range p.to.Publisher.Publish(ctx, ms) {
		if err != nil {
			b.Fail(b.Events[i].Input, p.to.fault(ctx, err))
		}
	}
}
