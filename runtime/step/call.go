package step

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/outbound"
)

// call sends each event to an HTTP server, several at a time, and puts the answer in its place: a 2xx answer's body is the new data, an
// answer without a body leaves the event as it is, 204 drops it. Events leave in the order in which they came, whichever is answered first.
//
// Inputs that must keep their order are sent one after the other, and nothing is sent behind one that failed; the events of one input, and
// inputs of different lanes, are sent at once.
type call struct {
	name   string
	client *outbound.Client
	target *outbound.Target
	// turns are the requests that may be under way at once, in all batches together.
	turns chan struct{}
}

func (c *call) Process(ctx context.Context, b *flow.Batch) {
	if ended(ctx, b) {
		return
	}
	answers := make([]*outbound.Response, len(b.Events))
	errs := make([]error, len(b.Events))
	send := func(i int) bool {
		if b.Inputs[b.Events[i].Input].Err != nil {
			return false
		}
		select {
		case c.turns <- struct{}{}:
			answers[i], errs[i] = c.client.Send(b.Context(ctx, b.Events[i].Input), c.target, &b.Events[i].Message)
			<-c.turns
			if errs[i] == nil {
				errs[i] = fits(answers[i])
			}
		case <-ctx.Done():
			errs[i] = ctx.Err()
		}
		return errs[i] == nil
	}
	if len(b.Events) == 1 {
		send(0)
	} else {
		inLanes(byLane(b.Events, b.Lane), send)
	}
	for i := range errs {
		if errs[i] != nil {
			b.Fail(b.Events[i].Input, c.fault(errs[i]))
		}
	}
	keep(b, NoContent, func(i int, e *flow.Event) bool {
		answer := answers[i]
		switch {
		case answer == nil:
			return true // not sent: it stands behind one that failed
		case answer.Status == http.StatusNoContent:
			b.Reach(e.Input)
			return false
		}
		replace(e, answer)
		return true
	})
}

// fault says which step it was that failed. An answer that is too large for a message is as large the next time, so the message is to blame.
func (c *call) fault(err error) error {
	f, ok := errors.AsType[*flow.Fault](err)
	if !ok {
		return err
	}
	f = f.In("step " + c.name)
	if errors.Is(err, outbound.ErrTooLarge) {
		f.Blame = flow.Message
	}
	return f
}

// span is the events of one input: their indexes from the first to before the last.
type span struct{ from, to int }

// byLane groups the events by lane and in it by input.
func byLane(events []flow.Event, laneOf func(input int) int) [][]span {
	var lanes [][]span
	lane := -1
	for i := 0; i < len(events); {
		input, from := events[i].Input, i
		for i < len(events) && events[i].Input == input {
			i++
		}
		if l := laneOf(input); l != lane {
			lane = l
			lanes = append(lanes, nil)
		}
		last := &lanes[len(lanes)-1]
		*last = append(*last, span{from, i})
	}
	return lanes
}

// inLanes sends events: lanes side by side, the inputs of a lane one after the other until one of its events fails. What stands behind
// that is held back by the flow.
func inLanes(lanes [][]span, send func(i int) bool) {
	var all sync.WaitGroup
	for _, inputs := range lanes {
		all.Go(func() {
			for _, events := range inputs {
				var failed atomic.Bool
				var input sync.WaitGroup
				for i := events.from; i < events.to; i++ {
					input.Go(func() {
						if !send(i) {
							failed.Store(true)
						}
					})
				}
				input.Wait()
				if failed.Load() {
					return
				}
			}
		})
	}
	all.Wait()
}

// fits refuses an answer of a content type that no event can have, that of an event among them.
func fits(answer *outbound.Response) error {
	of := answer.Header.Get("Content-Type")
	if len(answer.Body) == 0 || of == "" {
		return nil
	}
	if err := message.CheckContentType(of); err != nil {
		return &flow.Fault{Blame: flow.Destination, Err: fmt.Errorf("the answer's Content-Type: %w", err)}
	}
	return nil
}

// replace puts an answer in the event's place.
func replace(e *flow.Event, answer *outbound.Response) {
	if len(answer.Body) == 0 {
		return
	}
	e.Message.Data, e.Message.DataSchema = answer.Body, ""
	if e.Message.DataContentType = answer.Header.Get("Content-Type"); e.Message.DataContentType == "" {
		e.Message.DataContentType = "application/octet-stream" // as RFC 9110 reads a body without a type
	}
	forget(e)
}
