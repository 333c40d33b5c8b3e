package flow

import (
	"fmt"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// carry gathers what became of each message, for a source that stores it together with its position. No sink has stored anything by then: the
// settlement does. What can never be stored in one step is the message's own fault.
func (w *worker) carry() {
	b := &w.batch
	all := make([]message.Message, 0, len(b.Events)) // the source keeps it
	for range b.Inputs {
		w.outs = append(w.outs, nil)
	}
	for i := 0; i < len(b.Events); {
		input, first := b.Events[i].Input, len(all)
		for ; i < len(b.Events) && b.Events[i].Input == input; i++ {
			all = append(all, b.Events[i].Message)
		}
		out := all[first:len(all):len(all)]
		src, ok := w.items[input].in.src.(driver.Carrier)
		if !ok {
			b.Fail(input, &Fault{Blame: Broker, Err: fmt.Errorf("the source stores no messages: %w", driver.ErrUnsupported)})
			continue
		}
		if err := src.Fits(out); err != nil {
			b.Fail(input, &Fault{Blame: Message, Err: err})
			continue
		}
		w.outs[input] = out
	}
	b.compact()
}

// out is what became of item i.
func (w *worker) out(i int) []message.Message {
	if i < len(w.outs) {
		return w.outs[i]
	}
	return nil
}
