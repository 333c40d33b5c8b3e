package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// settler settles deliveries of queues from their reply subjects.
type settler struct{ conn *conn }

func (c *conn) Settler() driver.Settler { return settler{c} }

// restored is the Ref of a delivery that Restore made.
type restored struct{ reply string }

// Restore makes a delivery of a handle. A handle is a subject that will be published to, so one that is not of object's own consumer is
// refused: it would let its author settle, or write, elsewhere.
func (s settler) Restore(object driver.Ref, handle []byte) (driver.Delivery, error) {
	reply := string(handle)
	for i := 0; i < len(reply); i++ {
		if c := reply[i]; c <= ' ' || c == '*' || c == '>' || c >= 0x7f {
			return driver.Delivery{}, fmt.Errorf("handle: %w: it is no delivery of %s", driver.ErrInvalid, object.Name)
		}
	}
	consumer := queueConsumer
	stream := object.Name
	if object.Kind == driver.Group {
		consumer, stream = object.Name, object.Of
	}
	o, ok := parseReply(reply)
	if !ok || object.Kind == driver.Topic || o.stream != stream || o.consumer != consumer {
		return driver.Delivery{}, fmt.Errorf("handle: %w: it is no delivery of %s", driver.ErrInvalid, object.Name)
	}
	d := []driver.Delivery{{Count: int(o.deliveries), Handle: handle, Ref: &restored{reply}}}
	ids := identities{[]uint64{o.sequence}}
	ids.assign(stream, d)
	return d[0], nil
}

func (s settler) Settle(ctx context.Context, settlements []driver.Settlement) []error {
	acks := make([]ack, len(settlements))
	valid := make([]error, len(settlements))
	for i := range settlements {
		reply, err := replyOf(settlements[i].D)
		acks[i], valid[i] = ack{reply: reply, body: body(&settlements[i])}, err
	}
	return s.send(ctx, acks, valid)
}

func (s settler) Extend(ctx context.Context, ds []*driver.Delivery) []error {
	acks := make([]ack, len(ds))
	valid := make([]error, len(ds))
	now := time.Now()
	for i, d := range ds {
		reply, err := replyOf(d)
		acks[i], valid[i] = ack{reply: reply, body: ackExtend}, err
	}
	errs := s.send(ctx, acks, valid)
	for i, d := range ds {
		if wait := d.Deadline.Sub(now); errs[i] == nil && !d.Deadline.IsZero() && wait > 0 {
			d.Deadline = now.Add(wait)
		}
	}
	return errs
}

// Load reads the message of a delivery again. It is there as long as nobody has settled it.
func (s settler) Load(ctx context.Context, d *driver.Delivery) (message.Message, error) {
	reply, err := replyOf(d)
	if err != nil {
		return message.Message{}, err
	}
	o, _ := parseReply(reply)
	stream, err := s.conn.js.Stream(ctx, o.stream)
	if err != nil {
		return message.Message{}, missing("stream "+o.stream, err)
	}
	raw, err := stream.GetMsg(ctx, o.sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return message.Message{}, fmt.Errorf("stream %s: message %d: %w", o.stream, o.sequence, driver.ErrMissing)
	}
	if err != nil {
		return message.Message{}, fmt.Errorf("stream %s: message %d: %w", o.stream, o.sequence, err)
	}
	var m message.Message
	var dec decoder
	dec.decode(&m, &natsgo.Msg{Subject: raw.Subject, Header: raw.Header, Data: raw.Data}, o.stream, o.sequence)
	return m, nil
}

func replyOf(d *driver.Delivery) (string, error) {
	switch r := d.Ref.(type) {
	case *restored:
		return r.reply, nil
	case *held:
		return r.reply, nil
	}
	return "", fmt.Errorf("delivery: %w: it has no handle", driver.ErrInvalid)
}

// send groups acks by consumer, for only those of one consumer are worked off in order.
func (s settler) send(ctx context.Context, acks []ack, errs []error) []error {
	type target struct{ stream, consumer string }
	groups := make(map[target][]int)
	for i, a := range acks {
		if errs[i] == nil {
			o, _ := parseReply(a.reply)
			t := target{o.stream, o.consumer}
			groups[t] = append(groups[t], i)
		}
	}
	for t, members := range groups {
		batch := make([]ack, len(members))
		for n, i := range members {
			batch[n] = acks[i]
		}
		if err := s.conn.acknowledge(ctx, batch); err != nil {
			err = fmt.Errorf("stream %s: settling: %w", t.stream, err)
			for _, i := range members {
				errs[i] = err
			}
		}
	}
	return errs
}
