package engine

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// receiptTimeout bounds what a requester who asked for a receipt may cost the flow.
const receiptTimeout = 5 * time.Second

// receipts tells waiting requesters how their message ended: Processed once the broker took our acknowledgement, Failed when the dead letter
// has it. Of what expired nothing is told: its requester has given up. A request for a reply was answered by the sink; of it is told here that it
// failed, or that nothing came out of the steps for the sink.
func receipts(s *reply.Sender, log *slog.Logger) func(context.Context, []flow.Settled) {
	return func(ctx context.Context, settled []flow.Settled) {
		for _, one := range settled {
			request := &one.Delivery.Message
			want := reply.Wants(request)
			if want == "" {
				continue
			}
			answer := reply.Answer{Kind: reply.Processed}
			switch {
			case one.Outcome == flow.DeadLettered, one.Outcome == flow.Failed:
				answer = reply.Answer{Kind: reply.Failed, Reason: one.Reason, Error: one.Err}
			case one.Outcome == flow.Dropped && one.Reason == flow.Expired:
				continue
			case one.Outcome == flow.Dropped && want == reply.Reply:
				nothing := message.Message{ID: request.ID, Source: request.Source, Type: "dev.waybill.reply"}
				answer = reply.Answer{Kind: reply.Reply, Status: http.StatusNoContent, Message: nothing}
			case want == reply.Reply:
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, receiptTimeout)
			if err := s.Reply(ctx, request, answer); err != nil {
				log.Warn("a requester was not told how its message ended", "error", err)
			}
			cancel()
		}
	}
}
