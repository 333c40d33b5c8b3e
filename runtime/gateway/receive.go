package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/flow"
	"github.com/waybill-dev/waybill/runtime/message"
	"github.com/waybill-dev/waybill/runtime/reply"
)

const (
	// maxMessages bounds what one receive gives.
	maxMessages = 100
	// maxLentBytes bounds the data of one receive, unless a single message is larger.
	maxLentBytes = 8 << 20
	// settleTimeout bounds one call to the broker about a lease. It is longer than a driver takes to say that a delivery is unknown.
	settleTimeout = 6 * time.Second
	// tellTimeout bounds what a requester's answer may cost who settles.
	tellTimeout = 2 * time.Second
	// letterPause is how long a message that could not be dead-lettered is kept from coming again.
	letterPause = 5 * time.Second
	defaultWait = 20 * time.Second
)

// What a dead letter says of an attempt.
const (
	textLeaseEnded = "the lease ended without an answer"
	textNacked     = "the receiver handed it back"
	textRejected   = "the receiver rejected it"
)

// openLeases opens the source that leases come from.
func (m *Mailbox) openLeases(ctx context.Context) (driver.Source, error) {
	return m.broker().Source(ctx, driver.SourceSpec{
		Object: driverRef(m.plan.Object), Ordering: driver.Ordering(m.plan.Ordering),
		Window:  driver.Window{Messages: maxMessages, Bytes: maxLentBytes},
		AckWait: time.Duration(m.plan.AckWait), Lease: true,
	})
}

// receive serves POST /messages/receive.
func (m *Mailbox) receive(w http.ResponseWriter, r *http.Request) {
	limit, wait, ok := m.receiveArguments(w, r)
	if !ok || !m.discardBody(w, r) || m.refuseAway(w, m.broker()) {
		return
	}
	ctx := r.Context()
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	if _, err := m.sealer.aeads(); err != nil { // before a message is received in vain
		m.lend(w, nil)
		return
	}
	if m.deps.Paused {
		select {
		case <-ctx.Done():
		case <-m.drained:
		case <-time.After(wait):
		}
		m.lend(w, nil)
		return
	}
	m.stats.polls.Add(1)
	var ds []driver.Delivery
	var err error
	if wait > 0 {
		ds, err = m.polls.wait(ctx, limit)
	} else {
		now, cancel := context.WithTimeout(ctx, 250*time.Millisecond) // long enough to ask the broker once
		ds, err = m.polls.wait(now, limit)
		cancel()
	}
	m.stats.polls.Add(-1)
	switch {
	case errors.Is(err, errTooManyPolls):
		m.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "TooManyPolls", Detail: "too many receivers wait at this replica; try again", RetryAfter: time.Second})
		return
	case err != nil:
		m.log.Warn("cannot receive", "error", err)
		m.refuse(w, storeProblemFor(err))
		return
	}
	if r.Context().Err() != nil { // the client is gone, or says no more: others may have them at once
		m.polls.giveBack(ds)
		ds = nil
	}
	m.lend(w, ds)
}

// storeProblemFor is the answer when the mailbox cannot be read.
func storeProblemFor(err error) problem {
	p := problem{Status: http.StatusServiceUnavailable, Reason: "BrokerAway", Detail: "the broker cannot be read from now; try again", RetryAfter: 2 * time.Second}
	if errors.Is(err, driver.ErrMissing) || errors.Is(err, driver.ErrPositionLost) {
		p.Reason, p.Detail = "ObjectMissing", "the mailbox does not exist on the broker"
	}
	return p
}

// receiveArguments reads max and wait. When ok is false it has answered.
func (m *Mailbox) receiveArguments(w http.ResponseWriter, r *http.Request) (limit int, wait time.Duration, ok bool) {
	limit, wait = 1, defaultWait
	q, ok := m.query(w, r)
	if !ok {
		return 0, 0, false
	}
	if s := q.Get("max"); q.Has("max") {
		n, err := strconv.Atoi(s)
		if errors.Is(err, strconv.ErrRange) && n > 0 {
			err = nil
		}
		if err != nil || n < 1 {
			m.refuse(w, badArgument("max: must be a whole number, 1 or more"))
			return 0, 0, false
		}
		limit = min(n, maxMessages)
	}
	if q.Has("wait") {
		d, good := readDuration(q.Get("wait"), maxWait, true)
		if !good {
			m.refuse(w, badArgument("wait: must be a duration such as 20s, 0s or more"))
			return 0, 0, false
		}
		wait = d
	}
	if m.plan.Ordering == string(driver.Strict) {
		limit = 1
	}
	return limit, wait, true
}

// query reads the query. When ok is false it has answered: a parameter that cannot be read must not be taken for one that was not given.
func (m *Mailbox) query(w http.ResponseWriter, r *http.Request) (q url.Values, ok bool) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		m.refuse(w, badArgument("the query cannot be read: write name=value, joined by &, and percent-encode what else stands in a value"))
	}
	return q, err == nil
}

func badArgument(detail string) problem {
	return problem{Status: http.StatusBadRequest, Reason: "BadArgument", Detail: detail}
}

// lend answers with leases on ds: {"messages": [{"lease", "deliveries", "expires", "event"}]}.
func (m *Mailbox) lend(w http.ResponseWriter, ds []driver.Delivery) {
	as, err := m.sealer.aeads()
	if err != nil {
		m.log.Error("cannot make leases", "error", err)
		m.polls.giveBack(ds)
		m.refuse(w, problem{Status: http.StatusServiceUnavailable, Reason: "KeyUnavailable", Detail: "leases cannot be made now", RetryAfter: 5 * time.Second})
		return
	}
	now := m.deps.Now()
	w.Header().Set("Content-Type", "application/json")
	if m.draining.Load() {
		w.Header().Set("Connection", "close") // the next poll is for another replica
	}
	out := append(make([]byte, 0, 1024), `{"messages":[`...)
	for i := range ds {
		d := &ds[i]
		l := newLease(&d.Message, d.Handle, d.Count, now, m.expiry(d, now))
		m.remember(&l, d, now)
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"lease":"`...)
		out = append(out, m.sealer.seal(as[0], &l)...)
		out = strconv.AppendInt(append(out, `","deliveries":`...), int64(max(d.Count, 1)), 10)
		out = append(out, `,"expires":"`...)
		out = l.expires.UTC().AppendFormat(out, rfc3339Milli)
		out = append(out, `","event":`...)
		event := d.Message.Without(message.Internal)
		out = append(message.AppendJSON(out, &event), '}')
	}
	m.stats.leased.Add(int64(len(ds)))
	out = append(out, "]}\n"...)
	if _, err := w.Write(out); err != nil {
		m.polls.giveBack(ds)
	}
}

const rfc3339Milli = "2006-01-02T15:04:05.000Z07:00"

// expiry is when a lease on d ends.
func (m *Mailbox) expiry(d *driver.Delivery, now time.Time) time.Time {
	end := now.Add(time.Duration(m.plan.AckWait))
	if !d.Deadline.IsZero() && d.Deadline.Before(end) {
		end = d.Deadline
	}
	return end.Add(-leaseMargin)
}

// remember notes a lease that this replica gives out. When one for the last attempt has ended, the mailbox is looked at even if nobody
// receives: if no replica has settled or extended it, the broker delivers the message again and admit keeps it back.
func (m *Mailbox) remember(l *lease, d *driver.Delivery, now time.Time) {
	n := m.book.note(l, now)
	msg := d.Message // by itself: d is one of a slice, which would be kept whole
	m.book.keep(n, &msg)
	if m.plan.MaxAttempts <= 0 || m.plan.DeadLetter == nil {
		return
	}
	m.lent.add(d)
	if l.count >= m.plan.MaxAttempts {
		handle := l.handle
		m.book.watch(n, now, func() { m.look(handle) })
	}
}

// look has the mailbox looked at unless the message with this handle has been settled, at another replica.
func (m *Mailbox) look(handle []byte) {
	settler := m.broker().Settler()
	if loader, ok := settler.(driver.Loader); ok {
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		d, err := settler.Restore(driverRef(m.plan.Object), handle)
		if err == nil {
			_, err = loader.Load(ctx, &d)
		}
		if errors.Is(err, driver.ErrMissing) || errors.Is(err, driver.ErrInvalid) {
			return
		}
	}
	m.polls.lookOnce()
}

// handBack releases deliveries that nobody got, to be delivered again after a pause.
func (m *Mailbox) handBack(ds []driver.Delivery, pause time.Duration) {
	if len(ds) == 0 {
		return
	}
	settler := m.broker().Settler()
	if settler == nil {
		return // the broker is away: they come again after their ackWait
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	list := make([]driver.Settlement, len(ds))
	for i := range ds {
		list[i] = driver.Settlement{D: &ds[i], Verb: driver.Release, After: pause}
	}
	for _, err := range settler.Settle(ctx, list) {
		if err != nil {
			m.log.Warn("could not hand back messages that nobody received; they come again after their ackWait", "error", err)
			return
		}
	}
}

// admit says whether a delivery is to be handed out: not a request that nobody waits for any more, nor what has used its attempts up.
func (m *Mailbox) admit(d *driver.Delivery) bool {
	return !m.unawaited(d, m.deps.Now()) && !m.exhausted(d)
}

// unawaited reports whether a delivery is a request that its requester gave up before anybody began with it, as far as this replica knows:
// the broker counts deliveries that nobody received, too.
func (m *Mailbox) unawaited(d *driver.Delivery, now time.Time) bool {
	return overdue(&d.Message, now) && m.lent.of(d) == 0
}

// exhausted reports whether a delivery's attempts were all made before it. Of a message that this replica never lent out the broker's count
// is hearsay: deliveries in it may have been such that nobody received. So it is lent out once more then, whatever the count; but for a count
// that no handing back explains, for the tally of what was lent is bounded.
func (m *Mailbox) exhausted(d *driver.Delivery) bool {
	if m.plan.MaxAttempts <= 0 || m.plan.DeadLetter == nil || d.Count <= m.plan.MaxAttempts {
		return false
	}
	return m.lent.of(d) > 0 || d.Count > 3*m.plan.MaxAttempts+10
}

// setAside deals with what admit kept back: expired requests are dropped, the others dead-lettered. What cannot be now comes again.
func (m *Mailbox) setAside(ctx context.Context, ds []driver.Delivery) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	now := m.deps.Now()
	var over, dying []driver.Delivery
	for _, d := range ds {
		if m.unawaited(&d, now) {
			over = append(over, d)
		} else {
			dying = append(dying, d)
		}
	}
	for i, err := range m.settle(ctx, over, driver.Done) {
		if err != nil {
			m.log.Warn("could not drop an expired request", "id", over[i].Message.ID, "error", err)
			continue
		}
		m.stats.expired.Add(1)
	}
	letters := make([]message.Message, len(dying))
	for i := range dying {
		letters[i] = m.letter(&dying[i], &dying[i].Message, flow.AttemptsExhausted, dying[i].Count-1, textLeaseEnded)
	}
	var buried, again []driver.Delivery
	for i, err := range m.bury(ctx, letters) {
		if err != nil {
			m.log.Warn("could not dead-letter a message that has used its attempts up; it is tried again", "id", dying[i].Message.ID, "error", err)
			again = append(again, dying[i])
			continue
		}
		buried = append(buried, dying[i])
	}
	telling := true // until it fails: then the broker is away for the others too
	for i, err := range m.settle(ctx, buried, driver.Done) {
		if err != nil {
			m.log.Warn("could not take a dead-lettered message out of the mailbox; it is tried again", "id", buried[i].Message.ID, "error", err)
			continue
		}
		m.stats.dead.Add(1)
		m.deps.Dead(&buried[i].Message, string(flow.AttemptsExhausted), textLeaseEnded)
		telling = telling && m.tell(ctx, &buried[i].Message, reply.Answer{Kind: reply.Failed, Reason: string(flow.AttemptsExhausted), Error: textLeaseEnded})
	}
	m.polls.giveBackAfter(again, letterPause)
}

// settle tells the broker about deliveries: an error each.
func (m *Mailbox) settle(ctx context.Context, ds []driver.Delivery, v driver.Verb) []error {
	if len(ds) == 0 {
		return nil
	}
	settler := m.broker().Settler()
	if settler == nil {
		return repeated(errAway, len(ds))
	}
	list := make([]driver.Settlement, len(ds))
	for i := range ds {
		list[i] = driver.Settlement{D: &ds[i], Verb: v}
	}
	if errs := settler.Settle(ctx, list); errs != nil {
		return errs
	}
	return make([]error, len(ds))
}

// settleOne tells the broker about one delivery.
func (m *Mailbox) settleOne(ctx context.Context, d *driver.Delivery, v driver.Verb, after time.Duration) error {
	settler := m.broker().Settler()
	if settler == nil {
		return errAway
	}
	if errs := settler.Settle(ctx, []driver.Settlement{{D: d, Verb: v, After: after}}); errs != nil {
		return errs[0]
	}
	return nil
}

var errAway = errors.New("the broker is away")

// errNoLetter: the dead letter did not take a message, which stays where it is.
var errNoLetter = errors.New("the dead letter could not be stored")

// letter makes the dead letter of a delivery's message.
func (m *Mailbox) letter(d *driver.Delivery, msg *message.Message, why flow.Reason, attempts int, text string) message.Message {
	return flow.DeadLetter(*msg, flow.Death{Reason: why, Attempts: attempts, First: text, Last: text, Origin: m.deps.Resource.String(), Time: m.deps.Now(), Identity: d.Identity})
}

// bury stores dead letters: an error each. Until a letter's message is taken out of the mailbox it may be stored again, by another replica
// too; the broker keeps one of them where it drops what is published twice.
func (m *Mailbox) bury(ctx context.Context, letters []message.Message) []error {
	if len(letters) == 0 {
		return nil
	}
	to := *m.plan.DeadLetter
	errs := flow.Bury(ctx, m.deps.Broker(to.Broker).Publisher(driverRef(to)), letters)
	if errs == nil {
		return make([]error, len(letters))
	}
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("%w: %w", errNoLetter, err)
		}
	}
	return errs
}

// tell answers a requester, if one waits. What has happened to the message stays as it is when that fails, which is false.
func (m *Mailbox) tell(ctx context.Context, request *message.Message, a reply.Answer) bool {
	if reply.Wants(request) == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout) // the settlement may have used its own time up
	defer cancel()
	if err := m.deps.Sender(m.plan.Object.Broker).Reply(ctx, request, a); err != nil {
		m.log.Warn("could not answer a requester", "id", request.ID, "error", err)
		return false
	}
	return true
}

// restore makes the delivery of a lease.
func (m *Mailbox) restore(l *lease) (driver.Delivery, error) {
	settler := m.broker().Settler()
	if settler == nil {
		return driver.Delivery{}, errAway
	}
	return settler.Restore(driverRef(m.plan.Object), l.handle)
}
