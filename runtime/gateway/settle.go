package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/reply"
)

const (
	maxDelay = 15 * time.Minute
	// maxReasonBytes bounds the words of a reject.
	maxReasonBytes = 1 << 10
)

// settlements are the calls on one lease.
func (m *Mailbox) settlements() map[string]func(http.ResponseWriter, *http.Request, string) {
	return map[string]func(http.ResponseWriter, *http.Request, string){
		"ack": m.ack, "nack": m.nack, "reject": m.reject, "reply": m.reply, "extend": m.extend,
	}
}

// held is an open lease that a call works on: its note is locked.
type held struct {
	lease    lease
	note     *note
	delivery driver.Delivery
}

var (
	errLeaseEnded = errors.New("the lease has ended")
	errRepeated   = errors.New("repeated")
)

// open opens a token; errNoLease when it is none of this mailbox.
func (m *Mailbox) open(token string) (lease, error) {
	as, err := m.sealer.aeads()
	if err != nil {
		return lease{}, err
	}
	return m.sealer.open(as, token)
}

// take locks an open lease for a call of this kind. errLeaseEnded: 410. errRepeated: it was done already, 204. On nil the caller unlocks
// note.mu.
func (m *Mailbox) take(l lease, v verb) (*held, error) {
	n := m.book.note(&l, m.deps.Now())
	n.mu.Lock()
	now := m.deps.Now() // after the calls that went before
	expires := l.expires
	if later := m.book.expiry(n); later.After(expires) { // it was extended here
		expires = later
	}
	var err error
	switch {
	case n.ended == acked && v == acked, n.ended == replied && v == acked:
		err = errRepeated
	case n.ended != open:
		err = errLeaseEnded
	case !now.Before(expires):
		err = errLeaseEnded
	default:
		var d driver.Delivery
		if d, err = m.restore(&l); errors.Is(err, driver.ErrInvalid) {
			err = errNoLease
		}
		if err == nil {
			d.Deadline = expires.Add(leaseMargin)
			return &held{lease: l, note: n, delivery: d}, nil
		}
	}
	n.mu.Unlock()
	return nil, err
}

func (m *Mailbox) takeToken(token string, v verb) (*held, error) {
	l, err := m.open(token)
	if err != nil {
		return nil, err
	}
	return m.take(l, v)
}

// bounded is the context of a call on leases that end at the deadline, or later. It ends before the broker may deliver them again: the
// broker would take our word about what somebody else has by then.
func (m *Mailbox) bounded(r *http.Request, deadline time.Time) (context.Context, context.CancelFunc) {
	left := deadline.Sub(m.deps.Now()) - leaseMargin/8
	return context.WithTimeout(context.WithoutCancel(r.Context()), min(left, settleTimeout))
}

// refuseLease answers a call that take refused, or the broker.
func (m *Mailbox) refuseLease(w http.ResponseWriter, err error) {
	switch status := m.leaseStatus(err); {
	case status == http.StatusNoContent:
		w.WriteHeader(status)
	case errors.Is(err, errNoLease):
		m.refuse(w, problem{Status: status, Reason: "NoLease", Detail: "this is no lease of this mailbox: it was given out by another one, is not complete, or was sealed with a key that is gone"})
	case status == http.StatusGone:
		m.refuse(w, problem{Status: status, Reason: "LeaseEnded", Detail: "this lease has ended; the message was settled, or is delivered again"})
	case status == http.StatusRequestEntityTooLarge:
		p := problem{Status: status, Reason: "TooLarge", Detail: "the reply is not sent: " + err.Error() + ". The lease goes on"}
		if large, ok := errors.AsType[*driver.TooLargeError](err); ok {
			p.Limit = int64(large.Limit)
		}
		m.refuse(w, p)
	case errors.Is(err, errNoLetter):
		m.log.Warn("cannot dead-letter the message of a lease", "error", err)
		m.refuse(w, problem{Status: status, Reason: "DeadLetterAway", Detail: "the dead letter could not be stored, so the message stays; repeat the call while the lease lasts", RetryAfter: time.Second})
	default:
		m.log.Warn("cannot settle a lease", "error", err)
		m.refuse(w, problem{Status: status, Reason: "BrokerAway", Detail: "the broker did not take it; repeat the call while the lease lasts", RetryAfter: time.Second})
	}
}

func (m *Mailbox) leaseStatus(err error) int {
	switch {
	case err == nil, errors.Is(err, errRepeated):
		return http.StatusNoContent
	case errors.Is(err, errNoLetter): // first: it wraps what the dead letter's object said
		return http.StatusServiceUnavailable
	case errors.Is(err, errNoLease), errors.Is(err, errLeaseEnded), errors.Is(err, driver.ErrStale), errors.Is(err, driver.ErrMissing):
		m.stats.ended.Add(1)
		return http.StatusGone
	case errors.Is(err, driver.ErrTooLarge): // of a reply: there is nothing else that is stored or sent
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusServiceUnavailable
}

// call runs one call on a lease: take, f, note how it ended, answer 204 or why not.
func (m *Mailbox) call(w http.ResponseWriter, r *http.Request, token string, v verb, f func(ctx context.Context, h *held) (verb, error)) {
	h, err := m.takeToken(token, v)
	if err != nil {
		m.refuseLease(w, err)
		return
	}
	defer h.note.mu.Unlock()
	ctx, cancel := m.bounded(r, h.delivery.Deadline)
	defer cancel()
	ended, err := f(ctx, h)
	if err != nil {
		m.refuseLease(w, err)
		return
	}
	m.book.settled(h.note, ended)
	w.WriteHeader(http.StatusNoContent)
}

func (m *Mailbox) ack(w http.ResponseWriter, r *http.Request, token string) {
	if !m.discardBody(w, r) {
		return
	}
	m.call(w, r, token, acked, m.acknowledge)
}

// acknowledge takes the message out of the mailbox; whoever waits for that is told afterwards.
func (m *Mailbox) acknowledge(ctx context.Context, h *held) (verb, error) {
	if err := m.settleOne(ctx, &h.delivery, driver.Done, 0); err != nil {
		return open, err
	}
	m.stats.acked.Add(1)
	m.tell(ctx, h.lease.request(), reply.Answer{Kind: reply.Processed})
	return acked, nil
}

func (m *Mailbox) nack(w http.ResponseWriter, r *http.Request, token string) {
	var delay time.Duration
	q, ok := m.query(w, r)
	if !ok {
		return
	}
	if q.Has("delay") {
		if delay, ok = readDuration(q.Get("delay"), maxDelay, false); !ok {
			m.refuse(w, badArgument("delay: must be a duration such as 5s, 15m at the most"))
			return
		}
	}
	if !m.discardBody(w, r) {
		return
	}
	m.call(w, r, token, nacked, func(ctx context.Context, h *held) (verb, error) {
		if m.plan.MaxAttempts > 0 && m.plan.DeadLetter != nil && h.lease.count >= m.plan.MaxAttempts {
			err := m.buryLease(ctx, h, flow.AttemptsExhausted, textNacked)
			if err == nil {
				m.stats.nacked.Add(1)
			}
			return dead, err
		}
		if err := m.settleOne(ctx, &h.delivery, driver.Release, delay); err != nil {
			return open, err
		}
		m.stats.nacked.Add(1)
		return nacked, nil
	})
}

func (m *Mailbox) reject(w http.ResponseWriter, r *http.Request, token string) {
	q, ok := m.query(w, r)
	if !ok {
		return
	}
	body, reserved, ok := m.readBody(w, r, 64<<10)
	if !ok {
		return
	}
	defer m.budget.give(reserved)
	text := q.Get("reason")
	if len(body) > 0 && text == "" {
		var given struct {
			Reason string `json:"reason"`
		}
		if err := json.Unmarshal(body, &given); err != nil {
			m.refuse(w, badArgument(`the body may be left out, or be {"reason": "…"}`))
			return
		}
		text = given.Reason
	}
	if text == "" {
		text = textRejected
	}
	if m.plan.DeadLetter == nil {
		m.refuse(w, problem{Status: http.StatusConflict, Reason: "NoDeadLetter", Detail: "this mailbox has no dead letter to put the message into; ack or nack it"})
		return
	}
	m.call(w, r, token, dead, func(ctx context.Context, h *held) (verb, error) {
		err := m.buryLease(ctx, h, flow.Rejected, text[:min(len(text), maxReasonBytes)])
		if err == nil {
			m.stats.rejected.Add(1)
		}
		return dead, err
	})
}

// buryLease dead-letters the message of a lease.
func (m *Mailbox) buryLease(ctx context.Context, h *held, why flow.Reason, text string) error {
	msg := m.book.message(h.note)
	if msg == nil { // another replica gave it out, or there was no room to keep it
		loader, ok := m.broker().Settler().(driver.Loader)
		if !ok {
			return errAway
		}
		loaded, err := loader.Load(ctx, &h.delivery)
		if err != nil {
			return err
		}
		msg = &loaded
	}
	letters := []message.Message{m.letter(&h.delivery, msg, why, max(h.lease.count, 1), text)}
	if err := m.bury(ctx, letters)[0]; err != nil {
		return err
	}
	if err := m.settleOne(ctx, &h.delivery, driver.Done, 0); err != nil {
		return err
	}
	m.stats.dead.Add(1)
	m.deps.Dead(msg, string(why), text)
	m.tell(ctx, msg, reply.Answer{Kind: reply.Failed, Reason: string(why), Error: text})
	return nil
}

func (m *Mailbox) reply(w http.ResponseWriter, r *http.Request, token string) {
	status := 0
	q, ok := m.query(w, r)
	if !ok {
		return
	}
	if q.Has("status") {
		n, err := strconv.Atoi(q.Get("status"))
		if err != nil || n < 400 || n > 599 {
			m.refuse(w, badArgument("status: must lie between 400 and 599"))
			return
		}
		status = n
	}
	in := m.read(w, r, limits{data: m.plan.MaxMessageBytes})
	if in == nil {
		return
	}
	defer in.close()
	if in.batch {
		m.refuse(w, badArgument("a reply is one event, not a batch"))
		return
	}
	m.call(w, r, token, replied, func(ctx context.Context, h *held) (verb, error) {
		request := h.lease.request()
		a := reply.Answer{Kind: reply.Reply, Status: status, Message: in.events[0]}
		if err := m.deps.Sender(m.plan.Object.Broker).Reply(ctx, request, a); err != nil {
			if !errors.Is(err, driver.ErrInvalid) {
				return open, err
			}
			m.log.Warn("a request's reply address is not one of this namespace; its reply is dropped", "id", h.lease.id)
		}
		if err := m.settleOne(ctx, &h.delivery, driver.Done, 0); err != nil {
			return open, err
		}
		m.stats.replied.Add(1)
		m.tell(ctx, request, reply.Answer{Kind: reply.Processed})
		return replied, nil
	})
}

// extended is the answer to extend. The token goes on being good at the replica that extended it; the new one is so everywhere.
type extended struct {
	Expires string `json:"expires"`
	Lease   string `json:"lease"`
}

func (m *Mailbox) extend(w http.ResponseWriter, r *http.Request, token string) {
	if !m.discardBody(w, r) {
		return
	}
	h, err := m.takeToken(token, open)
	if err != nil {
		m.refuseLease(w, err)
		return
	}
	defer h.note.mu.Unlock()
	ctx, cancel := m.bounded(r, h.delivery.Deadline)
	defer cancel()
	settler := m.broker().Settler()
	as, err := m.sealer.aeads()
	if settler == nil || err != nil {
		m.refuseLease(w, errors.Join(errAway, err))
		return
	}
	now := m.deps.Now() // before the broker counts: our end must not come after its own
	if errs := settler.Extend(ctx, []*driver.Delivery{&h.delivery}); errs != nil && errs[0] != nil {
		m.refuseLease(w, errs[0])
		return
	}
	h.lease.expires = now.Add(time.Duration(m.plan.AckWait) - leaseMargin)
	m.book.extend(h.note, h.lease.expires, now)
	m.stats.extended.Add(1)
	answer(w, http.StatusOK, extended{Expires: h.lease.expires.UTC().Format(rfc3339Milli), Lease: m.sealer.seal(as[0], &h.lease)})
}
