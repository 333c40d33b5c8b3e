package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const endpoint = `
kind: Endpoint
metadata: {name: intake, namespace: default}
spec:
  path: /intake
  to: {topicRef: {name: in}}
  pattern: `

// requestAck answers an HTTP request once its body is stored.
func requestAck() job {
	return requests("request-ack", "HTTP → NATS, answered once stored (Endpoint, RequestAck)", "RequestAck",
		func(ctx context.Context, js jetstream.JetStream, m *nats.Msg) (string, error) {
			future, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute))
			if err != nil {
				return "", err
			}
			select {
			case <-future.Ok():
				return "Stored", nil
			case err := <-future.Err():
				return "", err
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
}

// requestForget answers at once. What a round counts are requests that are stored at its end.
func requestForget() job {
	return requests("request-forget", "HTTP → NATS, answered at once (Endpoint, RequestForget)", "RequestForget",
		func(_ context.Context, js jetstream.JetStream, m *nats.Msg) (string, error) {
			_, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute))
			return "Accepted", err
		})
}

// A storer stores an event and says how far it came.
type storer func(context.Context, jetstream.JetStream, *nats.Msg) (state string, err error)

func requests(name, title, pattern string, store storer) job {
	return job{
		name: name, title: title, unit: "requests", messages: 30_000,
		contenders: []contender{{name: "raw", work: rawIntake(store)}, runs(topics+"---"+endpoint+pattern, "")},
		prepare: func(ctx context.Context, r *round) (traffic, error) {
			return traffic{
				drive: func(ctx context.Context) error { return r.request(ctx, "/default/endpoints/intake/intake") },
				check: func(ctx context.Context) error { return r.stored(ctx, in, r.messages) },
			}, ensure(ctx, r.url, topics)
		},
	}
}

// request posts an order a request, and waits until all are stored.
func (r *round) request(ctx context.Context, path string) error {
	err := callAll(ctx, r.messages, func(ctx context.Context, i int) error {
		_, err := post(ctx, r.process.address+path, encode(makeOrder(i)),
			http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": {strconv.Itoa(i)}}, http.StatusAccepted)
		r.see()
		return err
	})
	if err != nil {
		return err
	}
	return r.stored(ctx, in, r.messages)
}

// rawIntake is an expert's handler: an event of each body, stored with its id so that a repeated request is stored once.
func rawIntake(store storer) func(context.Context, *worker) error {
	return func(ctx context.Context, w *worker) error {
		nc, js, err := connect(w.URL)
		if err != nil {
			return err
		}
		defer nc.Close()
		var generated atomic.Uint64
		return serve(ctx, w, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, 512<<10))
			if err != nil {
				http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
				return
			}
			id := q.Header.Get("Idempotency-Key")
			if id == "" {
				id = strconv.FormatUint(generated.Add(1), 10)
			}
			m := event(in, id, "", body)
			m.Header.Set(jetstream.MsgIDHeader, id)
			m.Header.Set("ce-time", time.Now().UTC().Format(time.RFC3339Nano))
			m.Header.Set("content-type", q.Header.Get("Content-Type"))
			state, err := store(q.Context(), js, m)
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusAccepted)
			_ = json.NewEncoder(w).Encode(map[string]string{"id": id, "state": state}) // the caller is gone
		}))
	}
}
