package step

import (
	"context"
	"fmt"
	"strconv"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
)

// maxElements bounds what one message can become: its events are in memory together until the last of them is stored.
const maxElements = 10_000

// split makes an event of each element of its expression's list. Their ids are the message's and the index of the element, from 0; source,
// type, key and attributes are the message's. The input is done when all its events are.
type split struct {
	name    string
	program *expr.Program
}

func (s *split) Process(ctx context.Context, b *flow.Batch) {
	if ended(ctx, b) {
		return
	}
	out := make([]flow.Event, 0, len(b.Events)*2)
	for i := 0; i < len(b.Events); {
		input, before := b.Events[i].Input, len(out)
		for ; i < len(b.Events) && b.Events[i].Input == input; i++ {
			e := &b.Events[i]
			if b.Inputs[input].Err == nil {
				elements, err := s.elements(ctx, e)
				if err == nil {
					out = appendElements(out, e, elements)
					forget(e)
					continue
				}
				unfit(ctx, b, input, s.name, err)
			}
			out = append(out, *e)
		}
		if len(out) == before && b.Inputs[input].Err == nil {
			b.Inputs[input].Dropped = Empty
		}
	}
	b.Events = out
}

func (s *split) elements(ctx context.Context, e *flow.Event) ([][]byte, error) {
	elements, err := s.program.EvalList(ctx, view(e))
	if err == nil && len(elements) > maxElements {
		err = fmt.Errorf("the list has %d elements; a message is split into %d at the most", len(elements), maxElements)
	}
	return elements, err
}

func appendElements(out []flow.Event, e *flow.Event, elements [][]byte) []flow.Event {
	for n, data := range elements {
		m := e.Message
		m.ID = m.ID + "-" + strconv.Itoa(n)
		m.Data, m.DataContentType, m.DataSchema = data, jsonType, ""
		out = append(out, flow.Event{Message: m, Input: e.Input})
	}
	return out
}
