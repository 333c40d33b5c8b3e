package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/message/cehttp"
	"github.com/waybill-dev/waybill/runtime/reply"
)

// maxWaiting bounds the requests that wait for an answer at one handler.
const maxWaiting = 10_000

// errTimeout is why a wait for an answer ended.
var errTimeout = errors.New("timeout")

// request is a request that waits for its answer.
type request struct {
	want    reply.Kind
	timeout time.Duration
	expires bool // nobody need start it once the timeout is over
}

// ask stores the single event of in as a request, waits for the answer and writes it. It closes in.
func (f *front) ask(w http.ResponseWriter, r *http.Request, b *broker.Broker, desk *reply.Desk, in *intake, q request) {
	defer in.close()
	if in.batch {
		f.refuse(w, problem{Status: http.StatusBadRequest, Reason: "OneEventOnly", Detail: "a request that waits for an answer is one event, not a batch"})
		return
	}
	if f.refuseAway(w, b) {
		return
	}
	if f.stats.waiting.Add(1) > maxWaiting {
		f.stats.waiting.Add(-1)
		f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "TooManyRequests", Detail: "too many requests wait for an answer at this replica; try again", RetryAfter: time.Second})
		return
	}
	defer f.stats.waiting.Add(-1)
	ctx, cancel := context.WithTimeoutCause(r.Context(), q.timeout, errTimeout)
	defer cancel()
	m := &in.events[0]
	id := m.ID
	call, err := desk.Expect(m.Source, id, q.want)
	if err != nil {
		f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "BrokerAway", Detail: "replies cannot be received now; try again", RetryAfter: 2 * time.Second})
		return
	}
	defer call.Close()
	if !call.Joined {
		*m = call.Stamp(*m)
		if q.expires {
			*m = f.expiring(*m, q.timeout)
		}
		if !f.storeOne(ctx, w, in) {
			return
		}
		in.events[0] = message.Message{} // its data need not stay in memory while we wait
	}
	a, err := call.Wait(ctx)
	if err != nil {
		f.stats.timedOut.Add(1)
		f.refuse(w, problem{Status: http.StatusGatewayTimeout, Reason: "OutcomeUnknown", ID: id,
			Detail: "no answer came in time; the outcome is unknown. The event is stored and may still be processed"})
		return
	}
	f.respond(w, id, a)
}

// expiring stamps when the requester gives up, unless the event says an earlier time itself.
func (f *front) expiring(m message.Message, timeout time.Duration) message.Message {
	at := f.deps.Now().Add(timeout)
	if own, err := time.Parse(time.RFC3339, m.Attribute(message.ExpiryTime)); err == nil && own.Before(at) {
		return m
	}
	return m.With(message.ExpiryTime, at.UTC().Format(time.RFC3339Nano))
}

// respond writes an answer to a requester.
func (f *front) respond(w http.ResponseWriter, id string, a reply.Answer) {
	switch a.Kind {
	case reply.Failed:
		f.stats.failed.Add(1)
		f.refuse(w, problem{Status: http.StatusBadGateway, Reason: a.Reason, ID: id, Detail: "the request could not be processed; its message was dead-lettered: " + a.Reason})
	case reply.Processed:
		f.stats.replies.Add(1)
		answer(w, http.StatusOK, taken{ID: id, State: stateProcessed})
	default:
		f.stats.replies.Add(1)
		cehttp.WriteHeader(w.Header(), &a.Message)
		if a.Message.DataContentType == "" {
			w.Header()["Content-Type"] = nil // or net/http would guess one
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if a.Status == 0 {
			a.Status = http.StatusOK
		}
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Message.Data) // the client may be gone
	}
}

// overdue reports whether a message is a request that its requester gave up.
func overdue(m *message.Message, now time.Time) bool {
	if m.Attribute(message.ReplyTo) == "" {
		return false
	}
	at, err := time.Parse(time.RFC3339, m.Attribute(message.ExpiryTime))
	return err == nil && now.After(at)
}
