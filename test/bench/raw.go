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
)

func connect(url string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	return nc, js, err
}

// fill makes the streams as Waybill would and stores the input; it returns how many outputs are to be expected.
func fill(ctx context.Context, url string, messages int) (outputs int, err error) {
	if err := makeTopics(ctx, url); err != nil {
		return 0, err
	}
	nc, js, err := connect(url)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	for i := range messages {
		o := makeOrder(i)
		if o.passes() {
			outputs++
		}
		m := &nats.Msg{Subject: in, Data: encode(o), Header: nats.Header{
			"ce-specversion": {"1.0"}, "ce-id": {strconv.Itoa(i)}, "ce-source": {"/bench"}, "ce-type": {"bench"},
			"ce-partitionkey": {o.Customer}, "content-type": {"application/json"}}}
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			return 0, err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return outputs, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// check reads all of the output: no id twice or missing, each key's ids ascending.
func check(ctx context.Context, url string, outputs int) (ordered bool, err error) {
	nc, js, err := connect(url)
	if err != nil {
		return false, err
	}
	defer nc.Close()
	c, err := js.OrderedConsumer(ctx, out, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return false, err
	}
	seen, last := map[int]bool{}, map[string]int{}
	ordered = true
	messages, err := c.Messages(jetstream.PullMaxMessages(1000))
	if err != nil {
		return false, err
	}
	defer messages.Stop()
	for range outputs {
		m, err := messages.Next(jetstream.NextMaxWait(10 * time.Second))
		if err != nil {
			return false, fmt.Errorf("%d of %d outputs: %w", len(seen), outputs, err)
		}
		var s shaped
		if err := json.Unmarshal(m.Data(), &s); err != nil {
			return false, err
		}
		if seen[s.ID] {
			return false, fmt.Errorf("output %d came twice", s.ID)
		}
		seen[s.ID] = true
		if before, ok := last[s.Customer]; ok && before > s.ID {
			ordered = false
		}
		last[s.Customer] = s.ID
	}
	return ordered, nil
}

// raw is an expert's loop: a pull consumer, batches of asynchronous publishes, acknowledgements behind the confirmations.
func raw(job func([]byte) (output []byte, pass bool, err error)) func(context.Context, string, int, int) error {
	return func(ctx context.Context, url string, total, _ int) error {
		consuming, reader, err := connect(url)
		if err != nil {
			return err
		}
		defer consuming.Close()
		publishing, writer, err := connect(url)
		if err != nil {
			return err
		}
		defer publishing.Close()
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
				future, err := writer.PublishMsgAsync(&nats.Msg{Subject: out, Data: output, Header: nats.Header{
					"ce-specversion": {"1.0"}, "ce-id": m.Headers()["ce-id"], "ce-source": {"/bench"}, "ce-type": {"bench"},
					"ce-partitionkey": m.Headers()["ce-partitionkey"], "content-type": {"application/json"}}}, jetstream.WithStallWait(time.Minute))
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

var parser fastjson.Parser // of one loop at a time

func decodeFast(data []byte) ([]byte, bool, error) {
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
