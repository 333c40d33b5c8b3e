// Package reply joins those who wait for an answer with those who give it. A Desk is the requester's side: one a process, broker and
// namespace, with one inbox for all requests that wait. A Sender is the answerer's side: the flow, or the lease, that consumed the request.
//
// Two things can be waited for: a reply to the request, or the receipt that it was processed. What is wanted is written into the request's
// correlation, so that the answerer sends only that. A request that failed for good answers both.
package reply

import (
	"strconv"
	"strings"

	"github.com/waybill-dev/waybill/runtime/message"
)

// Kind is what an answer says.
type Kind string

const (
	Reply     Kind = "Reply"     // Message is the reply
	Processed Kind = "Processed" // the broker took the consumer's ack
	Failed    Kind = "Failed"    // the request was dead-lettered; Reason says why
)

// Answer is what comes back to a request.
type Answer struct {
	Kind    Kind
	Message message.Message // of a Reply
	Status  int             // the HTTP status that the answerer asks for; 0: the usual one
	Reason  string          // of Failed: a dead letter's reason
	Error   string          // of Failed: the last error, "" where there is none; cut at 1 KiB
}

// Correlations begin with what their requester waits for.
const (
	wantsReply     = 'r'
	wantsProcessed = 'p'
)

// encode writes a as a message to the requester whose correlation is given.
func encode(a Answer, correlation string, request *message.Message) message.Message {
	m := a.Message.Without(message.Reserved)
	if a.Kind != Reply {
		m = message.Message{ID: request.ID, Source: request.Source, Type: "dev.waybill.receipt"}
	}
	attrs := make([]message.Attribute, 0, len(m.Attributes)+4)
	attrs = append(attrs, m.Attributes...)
	attrs = append(attrs, message.Attribute{Name: message.Correlation, Value: correlation}, message.Attribute{Name: message.AnswerKind, Value: string(a.Kind)})
	if a.Status != 0 {
		attrs = append(attrs, message.Attribute{Name: message.AnswerCode, Value: strconv.Itoa(a.Status)})
	}
	if a.Reason != "" {
		attrs = append(attrs, message.Attribute{Name: message.Reason, Value: a.Reason})
	}
	if text := oneLine(a.Error); text != "" {
		attrs = append(attrs, message.Attribute{Name: message.LastError, Value: text})
	}
	m.Attributes = attrs
	return m
}

// maxErrorBytes bounds an error that travels with an answer.
const maxErrorBytes = 1 << 10

// oneLine makes an error fit for an attribute.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxErrorBytes)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// decode reads what encode wrote; ok is false for a message that is no answer.
func decode(m message.Message) (a Answer, correlation string, ok bool) {
	correlation = m.Attribute(message.Correlation)
	a.Kind = Kind(m.Attribute(message.AnswerKind))
	a.Reason, a.Error = m.Attribute(message.Reason), m.Attribute(message.LastError)
	if s := m.Attribute(message.AnswerCode); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 200 || n > 599 {
			return a, correlation, false
		}
		a.Status = n
	}
	switch a.Kind {
	case Reply:
		a.Message = m.Without(message.Reserved)
	case Processed, Failed:
	default:
		return a, correlation, false
	}
	return a, correlation, correlation != ""
}
