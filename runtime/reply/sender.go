package reply

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// Sender gives answers to the requesters of one broker and namespace. Safe for concurrent use.
type Sender struct {
	namespace string
	send      func(ctx context.Context, namespace, address string, m message.Message) error
	sent      atomic.Int64
	gone      atomic.Int64
	forged    atomic.Int64
}

// NewSender makes a Sender over a broker's Reply.
func NewSender(namespace string, send func(ctx context.Context, namespace, address string, m message.Message) error) *Sender {
	return &Sender{namespace: namespace, send: send}
}

// Wants reports what the requester of this message waits for: Reply, Processed, or "" when nobody waits.
func Wants(request *message.Message) Kind {
	if request.Attribute(message.ReplyTo) == "" {
		return ""
	}
	switch c := request.Attribute(message.Correlation); {
	case c == "":
		return ""
	case c[0] == wantsReply:
		return Reply
	case c[0] == wantsProcessed:
		return Processed
	}
	return ""
}

// Reply gives a to whoever waits for request. It is nil, and nothing is sent, when nobody waits or something else is waited for; also when
// the requester is gone, which is counted. driver.ErrInvalid: the request's reply address is forged.
func (s *Sender) Reply(ctx context.Context, request *message.Message, a Answer) error {
	if wants := Wants(request); wants == "" || a.Kind != Failed && a.Kind != wants {
		return nil
	}
	err := s.send(ctx, s.namespace, request.Attribute(message.ReplyTo), encode(a, request.Attribute(message.Correlation), request))
	switch {
	case err == nil:
		s.sent.Add(1)
	case errors.Is(err, driver.ErrGone):
		s.gone.Add(1)
		return nil
	case errors.Is(err, driver.ErrInvalid):
		s.forged.Add(1)
	}
	return err
}

// SenderStats are counts since the start.
type SenderStats struct {
	Sent   int64
	Gone   int64 // the requester had gone away
	Forged int64 // reply addresses that lay outside of the namespace's
}

// Stats is a snapshot.
func (s *Sender) Stats() SenderStats {
	return SenderStats{Sent: s.sent.Load(), Gone: s.gone.Load(), Forged: s.forged.Load()}
}
