package step

import (
	"context"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
)

const jsonType = "application/json"

// transform gives each event new data, the JSON of its expression's result. The other attributes stay but for the data's schema, which
// described the old data.
type transform struct {
	name    string
	program *expr.Program
}

// New data of one batch lie in chunks, so that not every message costs an allocation. A message keeps its chunk alive, hence the bound.
const (
	chunk     = 16 << 10
	roomForMe = 512
)

func (t *transform) Process(ctx context.Context, b *flow.Batch) {
	if ended(ctx, b) {
		return
	}
	var buf []byte
	for i := range b.Events {
		e := &b.Events[i]
		if b.Inputs[e.Input].Err != nil {
			continue
		}
		if cap(buf)-len(buf) < roomForMe {
			buf = make([]byte, 0, min(chunk, roomForMe*(len(b.Events)-i)))
		}
		out, err := t.program.EvalJSON(ctx, view(e), buf)
		if err != nil {
			unfit(ctx, b, e.Input, t.name, err)
			continue
		}
		e.Message.Data = out[len(buf):len(out):len(out)]
		e.Message.DataContentType, e.Message.DataSchema = jsonType, ""
		forget(e)
		buf = out
	}
}
