package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	inbox         = "default_inbox_mailbox"
	inboxManifest = `
kind: Mailbox
metadata: {name: inbox, namespace: default}
spec: {brokerRef: {name: main}, ordering: None}
`
	inboxPath  = "/default/mailboxes/inbox"
	leaseBatch = 10
)

// mailbox hands messages out over HTTP, ten at a time, and takes an acknowledgement for each.
func mailbox() job {
	return job{
		name: "mailbox", title: fmt.Sprintf("Mailbox over HTTP: receive %d, acknowledge each", leaseBatch), unit: "messages", messages: 20_000,
		contenders: []contender{{name: "raw", work: rawMailbox}, runs(inboxManifest, "")},
		prepare: func(ctx context.Context, r *round) (traffic, error) {
			if err := ensure(ctx, r.url, inboxManifest); err != nil {
				return traffic{}, err
			}
			return traffic{
				drive: r.takeAll,
				check: func(ctx context.Context) error { return r.stored(ctx, inbox, 0) },
			}, r.fill(ctx, inbox)
		},
	}
}

// takeAll takes and acknowledges until nothing is left.
func (r *round) takeAll(ctx context.Context) error {
	var left atomic.Int64
	left.Store(int64(r.messages))
	return callAll(ctx, callers, func(ctx context.Context, _ int) error {
		for left.Load() > 0 {
			n, err := takeAndAck(ctx, r)
			if err != nil {
				return err
			}
			left.Add(int64(-n))
		}
		return nil
	})
}

func takeAndAck(ctx context.Context, r *round) (taken int, err error) {
	answer, err := post(ctx, fmt.Sprintf("%s%s/messages/receive?max=%d&wait=1s", r.process.address, inboxPath, leaseBatch), nil, nil, http.StatusOK)
	if err != nil {
		return 0, err
	}
	r.see()
	var got struct{ Messages []struct{ Lease string } }
	if err := json.Unmarshal(answer, &got); err != nil {
		return 0, err
	}
	for _, m := range got.Messages {
		if _, err := post(ctx, r.process.address+inboxPath+"/leases/"+m.Lease+"/ack", nil, nil, http.StatusNoContent); err != nil {
			return 0, err
		}
	}
	return len(got.Messages), nil
}

// rawMailbox is an expert's gateway: a fetch a request, and the reply subject as the lease. Unlike Waybill's it trusts whoever has one.
func rawMailbox(ctx context.Context, w *worker) error {
	nc, js, err := connect(w.URL)
	if err != nil {
		return err
	}
	defer nc.Close()
	var consumer jetstream.Consumer // the one that Waybill has made: such a queue has only one
	queue, err := js.Stream(ctx, inbox)
	if err != nil {
		return err
	}
	names := queue.ConsumerNames(ctx)
	for name := range names.Name() {
		if consumer, err = js.Consumer(ctx, inbox, name); err != nil {
			return err
		}
	}
	if err := names.Err(); err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST "+inboxPath+"/messages/receive", func(w http.ResponseWriter, _ *http.Request) {
		batch, err := consumer.Fetch(leaseBatch, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		type leased struct {
			Lease   string         `json:"lease"`
			Expires time.Time      `json:"expires"`
			Event   map[string]any `json:"event"`
		}
		out := struct {
			Messages []leased `json:"messages"`
		}{[]leased{}}
		for m := range batch.Messages() {
			h := m.Headers()
			out.Messages = append(out.Messages, leased{
				base64.RawURLEncoding.EncodeToString([]byte(m.Reply())), time.Now().Add(5 * time.Minute),
				map[string]any{"specversion": "1.0", "id": h.Get("ce-id"), "source": h.Get("ce-source"), "type": h.Get("ce-type"),
					"partitionkey": h.Get("ce-partitionkey"), "datacontenttype": h.Get("content-type"), "data": json.RawMessage(m.Data())},
			})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the caller is gone
	})
	routes.HandleFunc("POST "+inboxPath+"/leases/{lease}/ack", func(w http.ResponseWriter, q *http.Request) {
		subject, err := base64.RawURLEncoding.DecodeString(q.PathValue("lease"))
		if err != nil {
			http.Error(w, "no such lease", http.StatusGone)
			return
		}
		// An acknowledgement that the server confirms.
		if _, err := nc.RequestMsgWithContext(q.Context(), &nats.Msg{Subject: string(subject), Data: []byte("+ACK")}); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return serve(ctx, w, routes)
}
