package flow

import (
	"context"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A Stage is one part of the way from a source to a sink: a step that changes what is on its way, or the sink that ends it. A flow calls
// its stages in order with one batch; a stage may be called for several batches at once.
//
// Process changes b.Events in place and says with b.Fail what went wrong with an input. What it neither fails nor drops goes to the next
// stage; what leaves the last stage without a failure is done. ctx ends when the attempt is cancelled (drain, lost claim): a stage then
// fails its inputs with ctx.Err, and nothing is counted.
type Stage interface {
	Process(ctx context.Context, b *Batch)
}

// A Committer is a stage that wants to know which inputs were done: stored, sent or dropped, whichever the last stage confirmed.
type Committer interface {
	Commit(b *Batch)
}

// A Batch is a slice of deliveries on its way through the stages. Inputs are what the source gave; Events are what is left of them: one
// each at the start, none after a filter, several after a split, always in the order of their inputs.
type Batch struct {
	Events []Event
	Inputs []Input
}

// An Event is one message on its way.
type Event struct {
	Message message.Message
	// Input is the index in Batch.Inputs of the delivery that it came from.
	Input int
	// View is a step's parsed view of Message, kept for the next step. Whoever changes Message sets it to nil.
	View any
}

// An Input is one delivery and what became of it in this attempt.
type Input struct {
	Delivery *driver.Delivery
	// Attempt counts handlings from 1, as this process knows them.
	Attempt int
	// Err is nil while nothing went wrong; a *Fault where it was classified.
	Err error
	// Dropped says that a stage dropped the last of its events on purpose (a filter, an expiry), and why, for the count.
	Dropped string
}

// Fail ends the attempt for an input: none of its events goes further. The first failure stays.
func (b *Batch) Fail(input int, err error) {
	if b.Inputs[input].Err == nil {
		b.Inputs[input].Err = err
	}
}

// FailAll fails every input that has an event left.
func (b *Batch) FailAll(err error) {
	for i := range b.Events {
		b.Fail(b.Events[i].Input, err)
	}
}

// Compact removes the events of failed inputs and, where ordered, of every input that comes after a failed one with the same key: it must
// not overtake. The flow calls it after each stage.
func (b *Batch) compact(held func(input int) bool) {
	keep := b.Events[:0]
	for _, e := range b.Events {
		if b.Inputs[e.Input].Err == nil && !held(e.Input) {
			keep = append(keep, e)
		}
	}
	clear(b.Events[len(keep):])
	b.Events = keep
}
