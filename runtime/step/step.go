// Package step makes the stages between a flow's source and its sink: filter, transform, split, dedupe and http. A stage works on a whole
// batch in place, keeps the order of its events, and lets a message that it cannot handle fail alone.
//
// Expressions look at a message through an expr.View that stays with the event, so that several steps parse it once.
package step

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Why a step dropped the last event of an input, as flow.Input.Dropped says it.
const (
	Filtered  = "filtered"   // the filter's expression was false
	Empty     = "empty"      // split gave an empty list
	Duplicate = "duplicate"  // dedupe has seen the key
	NoContent = "no content" // an http step answered 204
)

// Deps is what steps need from their host.
type Deps struct {
	// Client calls for http steps.
	Client *outbound.Client
	// Namespace of the resource, where its secrets are.
	Namespace string
	// AtMostOnce: no request is sent twice.
	AtMostOnce bool
}

// New makes the stage of a step. It fails where the plan does not hold exactly one kind of step or an expression cannot be compiled, which
// the compiler has excluded for every plan that it made.
func New(s plan.Step, d Deps) (flow.Stage, error) {
	stage, err := build(s, d)
	if err != nil {
		return nil, fmt.Errorf("step %s: %w", s.Name, err)
	}
	return stage, nil
}

func build(s plan.Step, d Deps) (flow.Stage, error) {
	switch {
	case s.Filter != nil:
		p, err := expr.Compile(s.Filter.CEL, expr.Message, expr.Bool)
		return &filter{s.Name, p}, err
	case s.Transform != nil:
		p, err := expr.Compile(s.Transform.CEL, expr.Message, expr.JSON)
		return &transform{s.Name, p}, err
	case s.Split != nil:
		p, err := expr.Compile(s.Split.CEL, expr.Message, expr.List)
		return &split{s.Name, p}, err
	case s.Dedupe != nil:
		p, err := expr.Compile(s.Dedupe.Key.CEL, expr.Message, expr.String)
		return newDedupe(s.Name, p, time.Duration(s.Dedupe.Window), s.Dedupe.MaxKeys), err
	case s.HTTP != nil:
		if d.Client == nil {
			return nil, errors.New("there is no HTTP client to call with")
		}
		t, err := d.Client.Target(d.Namespace, *s.HTTP)
		if err != nil {
			return nil, err
		}
		t.Once = d.AtMostOnce
		return &call{s.Name, d.Client, t, make(chan struct{}, max(s.HTTP.Concurrency, 1))}, nil
	}
	return nil, errors.New("the plan says not what it does; it is from another version of Waybill")
}

// view is the event's parsed message, made if no step before has.
func view(e *flow.Event) *expr.View {
	v := expr.For(e.View, &e.Message)
	e.View = v
	return v
}

// forget gives the view back: the message has changed or goes no further.
func forget(e *flow.Event) {
	if v, ok := e.View.(*expr.View); ok {
		v.Release()
	}
	e.View = nil
}

// unfit fails an input because an expression gave nothing for its message, which no retry would change; unless it was the attempt that ended.
func unfit(ctx context.Context, b *flow.Batch, input int, step string, err error) {
	if ctx.Err() != nil {
		b.Fail(input, ctx.Err())
		return
	}
	b.Fail(input, &flow.Fault{Blame: flow.Message, Err: fmt.Errorf("step %s: %w", step, err)})
}

// ended fails what is left of a batch whose attempt has ended before a stage began.
func ended(ctx context.Context, b *flow.Batch) bool {
	if ctx.Err() == nil {
		return false
	}
	b.FailAll(ctx.Err())
	return true
}

// keep asks of each event, by its index, whether it goes on, and removes those that do not, in order. An input that loses its last event
// that way is marked with why. Events of failed inputs are not asked and stay: the flow removes them.
func keep(b *flow.Batch, why string, goesOn func(i int, e *flow.Event) bool) {
	kept := b.Events[:0]
	for i := 0; i < len(b.Events); {
		input, before := b.Events[i].Input, len(kept)
		in := &b.Inputs[input]
		for ; i < len(b.Events) && b.Events[i].Input == input; i++ {
			e := &b.Events[i]
			if in.Err == nil && !goesOn(i, e) && in.Err == nil {
				forget(e)
				continue
			}
			if len(kept) != i {
				kept = append(kept, *e)
			} else {
				kept = kept[:i+1]
			}
		}
		if len(kept) == before && in.Err == nil {
			in.Dropped = why
		}
	}
	clear(b.Events[len(kept):])
	b.Events = kept
}
