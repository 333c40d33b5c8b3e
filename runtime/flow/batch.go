package flow

import (
	"context"
	"errors"

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

// A Committer is a stage that wants to know what became of each batch that it saw. The flow calls Commit once for every batch, after the
// last stage or the failure that ended it: inputs without an Err were confirmed by the last stage, or dropped on purpose.
type Committer interface {
	Commit(b *Batch)
}

// A Batch is a slice of deliveries on its way through the stages. Inputs are what the source gave; Events are what is left of them: one
// each at the start, none after a filter, several after a split, always in the order of their inputs.
//
// Inputs that must keep their order stand next to each other (see Lane). A stage that sends events away one by one or in parallel does
// not send what comes after a failed input of the same lane; the flow holds it back and hands it in again.
type Batch struct {
	Events []Event
	Inputs []Input

	stage int     // which of the flow's stages has it
	lanes []*lane // parallel to Inputs; nil where nothing is ordered
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
	// Context is what is to be done under for this input, where a stage has set one: that of a trace. Ask Batch.Context.
	Context context.Context

	stage   int // that failed it
	reached int // see Batch.Reach: how many stages have let it through; 0: it was not told
}

// Context is what the work for an input is to be done under: ctx, or what a stage has made of it for this one.
func (b *Batch) Context(ctx context.Context, input int) context.Context {
	if own := b.Inputs[input].Context; own != nil {
		return own
	}
	return ctx
}

// errHeld marks an input that was not attempted because one before it in its lane failed. Nothing is counted.
var errHeld = errors.New("held back behind an earlier message of its key")

// Fail ends the attempt for an input: none of its events goes further. The first failure stays. Different inputs may be failed at once.
func (b *Batch) Fail(input int, err error) {
	if b.Inputs[input].Err == nil {
		b.Inputs[input].Err, b.Inputs[input].stage = err, b.stage
	}
}

// Reach says that the stage drops an input although its destination took it, as by an answer without content: it is well, and so are the
// destinations of the stages before, while nothing is known of those behind.
func (b *Batch) Reach(input int) { b.Inputs[input].reached = b.stage + 1 }

// FailAll fails every input that has an event left.
func (b *Batch) FailAll(err error) {
	for i := range b.Events {
		b.Fail(b.Events[i].Input, err)
	}
}

// Lane is the index of the first input that this one must keep its order with: inputs with the same Lane are handled one after the other,
// the others as one likes.
func (b *Batch) Lane(input int) int {
	if b.lanes == nil {
		return input
	}
	for input > 0 && b.lanes[input-1] == b.lanes[input] {
		input--
	}
	return input
}

// Held reports whether an earlier input of the same lane has failed, so that this one must not be sent now.
func (b *Batch) Held(input int) bool {
	for first := b.Lane(input); input > first; {
		if input--; b.Inputs[input].Err != nil {
			return true
		}
	}
	return false
}

// terminal reports whether an error is the message's own fault, whatever stands before it.
func terminal(err error) bool {
	f, ok := errors.AsType[*Fault](err)
	return ok && f.Blame == Message
}

// compact removes the events of failed inputs and holds back what comes after a failed one in its lane: it must not overtake.
func (b *Batch) compact() {
	failed := false
	var behind *lane
	for i := range b.Inputs {
		in := &b.Inputs[i]
		switch {
		case in.Err != nil:
			failed = true
			if b.lanes == nil {
				continue
			}
			if b.lanes[i] == behind && !terminal(in.Err) {
				in.Err = errHeld // whatever a stage said of it: it was not its turn
			}
			behind = b.lanes[i]
		case behind != nil && b.lanes[i] == behind && in.Dropped == "":
			in.Err = errHeld
		}
	}
	if !failed {
		return
	}
	keep := b.Events[:0]
	for _, e := range b.Events {
		if b.Inputs[e.Input].Err == nil {
			keep = append(keep, e)
		}
	}
	clear(b.Events[len(keep):])
	b.Events = keep
}
