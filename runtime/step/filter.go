package step

import (
	"context"

	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/flow"
)

// filter drops the events for which its expression is false. An expression that gives an error is no "false": its message fails.
type filter struct {
	name    string
	program *expr.Program
}

func (f *filter) Process(ctx context.Context, b *flow.Batch) {
	if ended(ctx, b) {
		return
	}
	keep(b, Filtered, func(_ int, e *flow.Event) bool {
		ok, err := f.program.EvalBool(ctx, view(e))
		if err != nil {
			unfit(ctx, b, e.Input, f.name, err)
		}
		return ok
	})
}
