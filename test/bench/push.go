package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	subscription = `
kind: Subscription
metadata: {name: handler, namespace: default}
spec:
  topicRef: {name: in}
  startFrom: {position: Earliest}
  deliverTo: {uri: SERVER/events}
`
	pushers = 64 // requests at one time, as a Subscription has by default
)

// push posts each message to a subscriber and acknowledges it when that has taken it.
func push() job {
	return job{
		name: "push", title: "NATS → HTTP, a request a message (Subscription)", unit: "messages", messages: 30_000,
		contenders: []contender{{name: "raw", work: rawPush}, runs(topics+"---"+subscription, "Subscription")},
		prepare: func(ctx context.Context, r *round) (traffic, error) {
			seen := make([]atomic.Int32, r.messages)
			r.handle = func(w http.ResponseWriter, q *http.Request) {
				r.see()
				var i int
				if _, err := fmt.Sscan(q.Header.Get("ce-id"), &i); err != nil || i < 0 || i >= len(seen) {
					http.Error(w, "no id of an order", http.StatusBadRequest)
					return
				}
				_, _ = io.Copy(io.Discard, q.Body) // what is missing was not sent
				seen[i].Add(1)
				w.WriteHeader(http.StatusNoContent)
			}
			once := func(context.Context) error {
				for i := range seen {
					if n := seen[i].Load(); n != 1 {
						return fmt.Errorf("message %d was delivered %d times", i, n)
					}
				}
				return nil
			}
			if err := ensure(ctx, r.url, topics); err != nil {
				return traffic{}, err
			}
			return traffic{drive: r.done, check: once}, r.fill(ctx, in)
		},
	}
}

func rawPush(ctx context.Context, w *worker) error {
	nc, js, err := connect(w.URL)
	if err != nil {
		return err
	}
	defer nc.Close()
	w.ready("")
	if err := w.begin(ctx); err != nil {
		return err
	}
	consumer, err := js.CreateConsumer(ctx, in, jetstream.ConsumerConfig{Durable: "raw", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(2 * pushers))
	if err != nil {
		return err
	}
	defer messages.Stop()
	posting := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pushers}, Timeout: 30 * time.Second}
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	work := make(chan jetstream.Msg)
	for range pushers {
		all.Go(func() {
			for m := range work {
				if err := deliver(ctx, posting, w.Server+"/events", m); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for range w.Messages {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		work <- m
	}
	close(work)
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	return w.finish(ctx)
}

func deliver(ctx context.Context, posting *http.Client, url string, m jetstream.Msg) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(m.Data()))
	if err != nil {
		return err
	}
	for name, values := range m.Headers() {
		q.Header[http.CanonicalHeaderKey(name)] = values
	}
	a, err := posting.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		return err
	}
	if a.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", url, a.Status)
	}
	return m.Ack()
}
