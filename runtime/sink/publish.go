package sink

import (
	"context"
	"fmt"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/schema"
)

// NewPublish makes the stages that publish p: what it asks of messages and the key, where p has them, then the publishing. They are stages
// of their own so that the flow holds back what must not overtake a message that fails there.
func NewPublish(p plan.Publish, to Outlet) ([]flow.Stage, error) {
	stages, err := prepare(p)
	if err != nil {
		return nil, err
	}
	return append(stages, publish{to}), nil
}

// NewCarry makes the stages that leave messages as NewPublish would publish them, for a flow whose source stores them.
func NewCarry(p plan.Publish) ([]flow.Stage, error) {
	stages, err := prepare(p)
	if err != nil {
		return nil, err
	}
	return append(stages, carry{}), nil
}

// prepare makes the stages before the publishing.
func prepare(p plan.Publish) ([]flow.Stage, error) {
	var stages []flow.Stage
	asked, err := newTerms(p)
	if err != nil {
		return nil, err
	}
	if asked != (terms{}) {
		stages = append(stages, conform{asked})
	}
	if p.Key != nil {
		program, err := expr.Compile(p.Key.CEL, expr.Message, expr.String)
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		stages = append(stages, key{program})
	}
	return stages, nil
}

// terms are what a Topic or Mailbox asks of the messages that are published to it.
type terms struct {
	schema *schema.Schema // nil: anything goes
	bytes  int            // of the data; 0: as many as the broker takes
}

func newTerms(p plan.Publish) (t terms, err error) {
	t.bytes = p.MaxMessageBytes
	if len(p.Schema) > 0 {
		if t.schema, err = schema.Compile(p.Schema); err != nil {
			return t, fmt.Errorf("schema: %w", err)
		}
	}
	return t, nil
}

// refuse says what is wrong with m, without its data.
func (t terms) refuse(m *message.Message) error {
	if t.bytes > 0 && len(m.Data) > t.bytes {
		return fmt.Errorf("its data has %d bytes; %d are the most that its destination takes (spec.maxMessageBytes)", len(m.Data), t.bytes)
	}
	if t.schema != nil {
		if v := t.schema.Violations(m); v != nil {
			return fmt.Errorf("the schema of the topic that it goes to refuses %s", v[0])
		}
	}
	return nil
}

// conform lets through what meets the terms.
type conform struct{ terms terms }

func (c conform) Process(_ context.Context, b *flow.Batch) {
	for i := range b.Events {
		e := &b.Events[i]
		if err := c.terms.refuse(&e.Message); err != nil {
			b.Fail(e.Input, &flow.Fault{Blame: flow.Message, Err: err})
		}
	}
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

type carry struct{}

func (carry) Process(_ context.Context, b *flow.Batch) {
	for i := range b.Events {
		e := &b.Events[i]
		e.Message = onward(e.Message, hops(&e.Message))
	}
}
