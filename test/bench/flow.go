package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/valyala/fastjson"
)

// The names that Waybill gives the Topics in and out of the namespace default: the contenders share the streams' layout.
const (
	in  = "default_in"
	out = "default_out"

	topics = `
kind: Topic
metadata: {name: in, namespace: default}
spec: {brokerRef: {name: main}}
---
kind: Topic
metadata: {name: out, namespace: default}
spec: {brokerRef: {name: main}}
`
	pipeline = `
kind: Pipeline
metadata: {name: bench, namespace: default}
spec:
  from: {topicRef: {name: in}}
  startFrom: {position: Earliest}
  ordering: Key
  steps:
  - name: big
    filter: {cel: 'data.type == "order.created" && data.total > 100'}
  - name: shape
    transform: {cel: '{"id": data.id, "customer": data.customer, "total": data.total, "units": data.lines.map(l, l.qty).sum()}'}
  to: {topicRef: {name: out}}
`
)

// flow keeps order by key at full speed: read, filter, transform, write, acknowledge what the broker has confirmed.
func flow() job {
	return job{
		name: "flow", unit: "messages", messages: 200_000,
		title: "NATS → filter and transform → NATS, in the order of keys",
		contenders: []contender{
			{name: "raw", work: raw(func() convert { return decodeStruct })},
			{name: "raw-fast", work: raw(decodeFast)},
			{name: "raw-cel-lazy", work: raw(decodeLazily)},
			runs(topics+"---"+pipeline, "Pipeline"),
		},
		prepare: func(ctx context.Context, r *round) (traffic, error) {
			if err := ensure(ctx, r.url, topics); err != nil {
				return traffic{}, err
			}
			if err := r.fill(ctx, in); err != nil {
				return traffic{}, err
			}
			if _, err := r.nc.Subscribe(out, func(*nats.Msg) { r.see() }); err != nil {
				return traffic{}, err
			}
			return traffic{drive: r.done, check: func(ctx context.Context) error { return checkOrder(ctx, r) }}, r.nc.Flush()
		},
	}
}

type shaped struct {
	ID       int    `json:"id"`
	Customer string `json:"customer"`
	Total    int    `json:"total"`
	Units    int    `json:"units"`
}

// checkOrder reads all of the output: no id twice or missing. It notes where a key's ids do not ascend.
func checkOrder(ctx context.Context, r *round) error {
	c, err := r.js.OrderedConsumer(ctx, out, jetstream.OrderedConsumerConfig{FilterSubjects: []string{out}})
	if err != nil {
		return err
	}
	seen, last := map[int]bool{}, map[string]int{}
	messages, err := c.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for range r.outputs {
		m, err := messages.Next(jetstream.NextMaxWait(10 * time.Second))
		if err != nil {
			return fmt.Errorf("%d of %d outputs: %w", len(seen), r.outputs, err)
		}
		var s shaped
		if err := json.Unmarshal(m.Data(), &s); err != nil {
			return err
		}
		if seen[s.ID] {
			return fmt.Errorf("output %d came twice", s.ID)
		}
		seen[s.ID] = true
		if before, ok := last[s.Customer]; ok && before > s.ID {
			r.disordered = true
		}
		last[s.Customer] = s.ID
	}
	return nil
}

// convert makes the output of an order that passes.
type convert func(data []byte) (output []byte, pass bool, err error)

// raw is an expert's loop: a pull consumer, batches of asynchronous publishes, acknowledgements behind the confirmations.
func raw(newJob func() convert) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		consuming, reader, err := connect(w.URL)
		if err != nil {
			return err
		}
		defer consuming.Close()
		publishing, writer, err := connect(w.URL)
		if err != nil {
			return err
		}
		defer publishing.Close()
		w.ready("")
		if err := w.begin(ctx); err != nil {
			return err
		}
		if err := move(ctx, consuming, reader, writer, w.Messages, newJob()); err != nil {
			return err
		}
		return w.finish(ctx)
	}
}

func move(ctx context.Context, consuming *nats.Conn, reader, writer jetstream.JetStream, total int, job convert) error {
	consumer, err := reader.CreateConsumer(ctx, in, jetstream.ConsumerConfig{Durable: "raw", AckPolicy: jetstream.AckAllPolicy, MaxAckPending: 10_000})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(2000))
	if err != nil {
		return err
	}
	defer messages.Stop()

	type confirmation struct {
		upTo    jetstream.Msg
		futures []jetstream.PubAckFuture
	}
	// Behind the confirmations, in order, the inputs are acknowledged up to the last of each batch.
	confirmations := make(chan confirmation, 16)
	settled := make(chan error, 1)
	go func() {
		for c := range confirmations {
			for _, f := range c.futures {
				select {
				case <-f.Ok():
				case err := <-f.Err():
					settled <- err
					return
				}
			}
			if err := c.upTo.Ack(); err != nil {
				settled <- err
				return
			}
		}
		settled <- consuming.Flush()
	}()
	var batch confirmation
	for i := range total {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		output, pass, err := job(m.Data())
		if err != nil {
			return err
		}
		if pass {
			h := m.Headers()
			future, err := writer.PublishMsgAsync(event(out, h.Get("ce-id"), h.Get("ce-partitionkey"), output), jetstream.WithStallWait(time.Minute))
			if err != nil {
				return err
			}
			batch.futures = append(batch.futures, future)
		}
		if batch.upTo = m; i%500 == 499 || i == total-1 {
			select {
			case confirmations <- batch:
			case err := <-settled:
				return err
			}
			batch = confirmation{}
		}
	}
	close(confirmations)
	return <-settled
}

func decodeStruct(data []byte) ([]byte, bool, error) {
	var o order
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, false, err
	}
	if !o.passes() {
		return nil, false, nil
	}
	s := shaped{ID: o.ID, Customer: o.Customer, Total: o.Total}
	for _, l := range o.Lines {
		s.Units += l.Qty
	}
	output, err := json.Marshal(s)
	return output, true, err
}

// decodeFast looks at the fields that it needs, and writes the output by hand.
func decodeFast() convert {
	var parser fastjson.Parser
	return func(data []byte) ([]byte, bool, error) {
		v, err := parser.ParseBytes(data)
		if err != nil {
			return nil, false, err
		}
		total := v.GetInt("total")
		if string(v.GetStringBytes("type")) != "order.created" || total <= 100 {
			return nil, false, nil
		}
		units := 0
		for _, l := range v.GetArray("lines") {
			units += l.GetInt("qty")
		}
		customer := v.Get("customer")
		if customer == nil {
			return nil, false, errors.New("no customer")
		}
		b := append(make([]byte, 0, 96), `{"id":`...)
		b = strconv.AppendInt(b, v.GetInt64("id"), 10)
		b = append(b, `,"customer":`...)
		b = customer.MarshalTo(b)
		b = append(b, `,"total":`...)
		b = strconv.AppendInt(b, int64(total), 10)
		b = append(b, `,"units":`...)
		b = strconv.AppendInt(b, int64(units), 10)
		return append(b, '}'), true, nil
	}
}
