package engine

import (
	"context"
	"log/slog"
	"sync"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/reply"
	"github.com/waybill-dev/waybill/runtime/tracing"
)

// desks keeps one reply.Desk, and so one inbox, and one reply.Sender for each connection and namespace.
type desks struct {
	tracing *tracing.Tracer
	mu      sync.Mutex
	open    map[desk]*reply.Desk
	senders map[desk]*reply.Sender
}

type desk struct {
	broker    *broker.Broker
	namespace string
}

func newDesks(t *tracing.Tracer) *desks {
	return &desks{tracing: t, open: map[desk]*reply.Desk{}, senders: map[desk]*reply.Sender{}}
}

func (d *desks) sender(b *broker.Broker, namespace string) *reply.Sender {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := desk{b, namespace}
	if d.senders[id] == nil {
		d.senders[id] = reply.NewSender(namespace, d.tracing.Reply(b.Reply))
	}
	return d.senders[id]
}

func (d *desks) get(b *broker.Broker, namespace string, log *slog.Logger) *reply.Desk {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := desk{b, namespace}
	if d.open[id] == nil {
		d.open[id] = reply.NewDesk(func(ctx context.Context) (driver.Inbox, error) { return b.Inbox(ctx, namespace) }, log)
	}
	return d.open[id]
}

func (d *desks) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, desk := range d.open {
		desk.Close()
	}
	clear(d.open)
}
