package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
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
	defer context.AfterFunc(f.ending, cancel)()
	f.desk.Store(desk)
	m := &in.events[0]
	id := m.ID
	call, err := desk.Expect(reply.Request{Target: f.deps.Resource.String(), Source: m.Source, ID: id, Want: q.want}, f.expiry(m, q))
	if err != nil {
		f.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "BrokerAway", Detail: "replies cannot be received now; try again", RetryAfter: 2 * time.Second})
		return
	}
	defer call.Close()
	if !call.Joined {
		*m = call.Stamp(*m)
		if err := f.storeRequest(ctx, call, in); err != nil {
			f.refuse(w, storeProblem(err, id))
			return
		}
		in.events[0] = message.Message{} // its data need not stay in memory while we wait
	}
	switch a, err := call.Wait(ctx); {
	case err == nil:
		f.respond(w, id, a)
	case ctx.Err() == nil: // the one that it joined could not be stored
		f.refuse(w, storeProblem(err, id))
	case r.Context().Err() != nil: // there is nobody to answer: the reply will be late
	default:
		f.stats.timedOut.Add(1)
		before := "in time"
		if f.ending.Err() != nil {
			before = "before this replica shut down"
		}
		f.refuse(w, problem{Status: http.StatusGatewayTimeout, Reason: "OutcomeUnknown", ID: id,
			Detail: "no answer came " + before + "; the outcome is unknown. The event is stored and may still be processed"})
	}
}

// storeRequest stores the single event of in. Others may have joined the call: when it cannot be stored their waits end with the error, and
// when ctx ends, because this client is gone, it is stored for them all the same.
func (f *front) storeRequest(ctx context.Context, call *reply.Call, in *intake) error {
	e, err := f.store.put(in, false)
	if err != nil {
		call.Fail(err)
		return err
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		if call.Close() {
			go func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
				defer cancel()
				if errs := f.store.await(ctx, e); errs != nil {
					call.Fail(errs[0])
				}
			}()
			return driver.ErrUnknown
		}
	}
	if errs := f.store.await(ctx, e); errs != nil {
		call.Fail(errs[0])
		return errs[0]
	}
	return nil
}

// expiry is when the requester gives up, unless the event says an earlier time itself; zero: the request does not expire.
func (f *front) expiry(m *message.Message, q request) time.Time {
	if !q.expires {
		return time.Time{}
	}
	at := f.deps.Now().Add(q.timeout)
	if own, ok := message.ParseTime(m.Attribute(message.ExpiryTime)); ok && own.Before(at) {
		return own
	}
	return at
}

// respond writes an answer to a requester.
func (f *front) respond(w http.ResponseWriter, id string, a reply.Answer) {
	switch a.Kind {
	case reply.Failed:
		f.stats.failed.Add(1)
		detail := "the request could not be processed; its message was dead-lettered: " + a.Reason
		if a.Reason == "" { // at most once: there is no dead letter
			a.Reason, detail = "Failed", "the request could not be processed and is not tried again"
		}
		if a.Error != "" {
			detail += "; the last error: " + a.Error
		}
		f.refuse(w, problem{Status: http.StatusBadGateway, Reason: a.Reason, ID: id, Detail: detail})
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
	at, ok := message.ParseTime(m.Attribute(message.ExpiryTime))
	return ok && now.After(at)
}
