// Package sink holds the ends of a flow: a message is published to a broker's object, pushed to an HTTP server, or given as the reply to
// the requester that waits for it. A sink says of each input whether its end was reached; what follows from a failure is the flow's affair.
package sink

import (
	"context"
	"errors"
	"strconv"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
)

// Publisher stores messages in one object of a broker, as *broker.Publisher does.
type Publisher interface {
	// Publish returns nil, or one error a message (nil entries are stored). Of the messages with one key those stored are a prefix.
	Publish(ctx context.Context, ms []message.Message) []error
}

// Outlet is where messages are published: the object, and how errors of its broker are to be read.
type Outlet struct {
	Publisher Publisher
	Class     func(error) driver.Class
}

// fault says whose fault it is that the broker did not take a message. A message that waited for another of its key is not to blame.
func (o Outlet) fault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := &flow.Fault{Blame: flow.Broker, Err: err}
	switch o.Class(err) {
	case driver.TooLarge, driver.Invalid:
		f.Blame = flow.Message
	}
	if throttled, ok := errors.AsType[*driver.ThrottledError](err); ok {
		f.After = throttled.After
	}
	return f
}

// onward is m as it is stored by a flow that carries it on: one hop further, and without the address of a reply, which belongs to the
// request that the flow has taken.
func onward(m message.Message, hops int) message.Message {
	attrs := make([]message.Attribute, 0, len(m.Attributes)+1)
	for _, a := range m.Attributes {
		if !message.Internal(a.Name) {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, message.Attribute{Name: message.Hops, Value: strconv.Itoa(hops + 1)})
	m.Attributes = attrs
	return m
}

// hops is how many flows have carried m so far. Only Waybill sets the attribute; one that is no number counts as none.
func hops(m *message.Message) int {
	n, err := strconv.Atoi(m.Attribute(message.Hops))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// describe adds to an error which part of the work failed, and keeps its classification.
func describe(what string, err error) error {
	if f, ok := errors.AsType[*flow.Fault](err); ok {
		return f.In(what)
	}
	return err
}
