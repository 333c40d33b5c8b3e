package engine

import (
	"context"
	"log/slog"
	"testing"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/reply"
)

func TestReceiptsTellWhatWasAskedForAndHappened(t *testing.T) {
	const wantsReply, wantsProcessed = "rABC", "pABC"
	for name, c := range map[string]struct {
		correlation string
		outcome     flow.Outcome
		reason      string
		told        reply.Kind
	}{
		"done":                       {wantsProcessed, flow.Done, "", reply.Processed},
		"dropped on purpose":         {wantsProcessed, flow.Dropped, "Filtered", reply.Processed},
		"expired":                    {wantsProcessed, flow.Dropped, flow.Expired, ""},
		"dead-lettered":              {wantsProcessed, flow.DeadLettered, "Terminal", reply.Failed},
		"nothing came out to reply":  {wantsReply, flow.Dropped, "Filtered", reply.Reply},
		"a request that expired":     {wantsReply, flow.Dropped, flow.Expired, ""},
		"the sink has replied":       {wantsReply, flow.Done, "", ""},
		"a reply that cannot come":   {wantsReply, flow.DeadLettered, "Terminal", reply.Failed},
		"its one attempt has failed": {wantsReply, flow.Failed, "", reply.Failed},
		"nobody waits":               {"", flow.Done, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var told reply.Kind
			s := reply.NewSender("default", func(_ context.Context, _, _ string, m message.Message) error {
				told = reply.Kind(m.Attribute(message.AnswerKind))
				return nil
			})
			m := message.Message{ID: "1", Source: "/s", Type: "t"}
			if c.correlation != "" {
				m = m.With(message.ReplyTo, "inbox").With(message.Correlation, c.correlation)
			}
			receipts(s, slog.New(slog.DiscardHandler))(t.Context(), []flow.Settled{{Delivery: &driver.Delivery{Message: m}, Outcome: c.outcome, Reason: c.reason}})
			if told != c.told {
				t.Errorf("told %q, want %q", told, c.told)
			}
		})
	}
}
