package reply

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// ErrAway says that no inbox is open: a request sent now could not be answered.
var ErrAway = errors.New("the inbox for replies is not open: the broker is away")

// How many requests a Desk remembers: those that ended, to tell a duplicate answer from a late one and whose it is, and those asked, so that
// a repetition is one.
const remembered = 4096

// Desk is where requests wait for their answers. It keeps one inbox open and opens it again when it is lost. Safe for concurrent use.
type Desk struct {
	open func(context.Context) (driver.Inbox, error)
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{}
	key  []byte // makes correlations of requests

	mu      sync.Mutex
	address string
	opened  chan struct{} // closed while an inbox is open
	waiting map[Request]*waiting
	byID    map[string]*waiting // by correlation
	over    map[string]end      // by correlation: requests that nobody waits for any more
	ring    [remembered]string  // the keys of over, oldest at next
	next    int
	unheard map[string]Unheard   // by target
	asked   map[string]time.Time // by correlation: when requests expire, whether anybody still waits for them or not
	askedBy [remembered]string   // the keys of asked, oldest at askedAt
	askedAt int

	late, duplicate, malformed, delivered, repeated atomic.Int64
}

// Request identifies a request. Two that are equal in all of it are one: the second joins the first.
type Request struct {
	// Target is where it goes: what waits at one resource never gets the answer of another, whatever ids clients choose.
	Target string
	// Source and ID are the event's.
	Source, ID string
	// Want is what is waited for: Reply or Processed.
	Want Kind
}

// end is how a request's wait ended.
type end struct {
	target   string
	answered bool
}

// Unheard are answers to one target's requests that nobody waited for: late ones, and those after the first.
type Unheard struct{ Late, Duplicate int64 }

// waiting is one request with everybody who waits for it.
type waiting struct {
	request     Request
	correlation string
	address     string
	expires     time.Time // zero: never
	calls       int
	done        chan struct{} // closed once answer or err is set
	answer      Answer
	err         error
}

// NewDesk starts a desk over a broker's Inbox. Close ends it.
func NewDesk(open func(context.Context) (driver.Inbox, error), log *slog.Logger) *Desk {
	ctx, stop := context.WithCancel(context.Background())
	d := &Desk{open: open, log: log, stop: stop, done: make(chan struct{}), opened: make(chan struct{}),
		key: []byte(rand.Text()), waiting: map[Request]*waiting{}, byID: map[string]*waiting{}, over: map[string]end{}, unheard: map[string]Unheard{}, asked: map[string]time.Time{}}
	go d.run(ctx)
	return d
}

// Ready waits until an inbox is open.
func (d *Desk) Ready(ctx context.Context) error {
	for {
		d.mu.Lock()
		address, opened := d.address, d.opened
		d.mu.Unlock()
		if address != "" {
			return nil
		}
		select {
		case <-opened:
		case <-d.done:
			return ErrAway
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A Call is one waiter for one request. Close it when the wait is over.
type Call struct {
	desk   *Desk
	w      *waiting
	closed bool
	// Joined: the same request waits already. It must not be published again; its answer is this call's too.
	Joined bool
}

// Expect registers a waiter for a request before it is published. Once expires has passed nobody need begin with the request; zero: it
// does not expire. ErrAway: no inbox is open.
func (d *Desk) Expect(r Request, expires time.Time) (*Call, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.waiting[r]; w != nil {
		w.calls++
		d.repeated.Add(1)
		return &Call{desk: d, w: w, Joined: true}, nil
	}
	if d.address == "" {
		return nil, ErrAway
	}
	w := &waiting{request: r, correlation: d.correlation(r), address: d.address, calls: 1, done: make(chan struct{})}
	w.expires = d.expiry(w.correlation, expires)
	delete(d.over, w.correlation) // asked anew
	d.waiting[r] = w
	d.byID[w.correlation] = w
	return &Call{desk: d, w: w}, nil
}

// expiry is when a request expires. One that is repeated before the first has expired keeps its expiry, and so is the same message to the
// broker; after that it is a new one. The caller holds the lock.
func (d *Desk) expiry(correlation string, expires time.Time) time.Time {
	if expires.IsZero() {
		return expires
	}
	before, known := d.asked[correlation]
	if known && time.Now().Before(before) {
		return before
	}
	if !known {
		delete(d.asked, d.askedBy[d.askedAt])
		d.askedBy[d.askedAt] = correlation
		d.askedAt = (d.askedAt + 1) % remembered
	}
	d.asked[correlation] = expires
	return expires
}

// correlation is the same for the same request: when a requester gave up and asks again, the broker may drop the repeated request as a
// duplicate, and the answer to the first one is its answer too.
func (d *Desk) correlation(r Request) string {
	prefix := byte(wantsReply)
	if r.Want == Processed {
		prefix = wantsProcessed
	}
	h := hmac.New(sha256.New, d.key)
	for _, s := range [...]string{r.Target, r.Source, r.ID} {
		h.Write(strconv.AppendInt(nil, int64(len(s)), 10)) // or two requests could share their bytes
		h.Write([]byte{0})
		h.Write([]byte(s))
	}
	sum := h.Sum(make([]byte, 0, sha256.Size))
	return string(base64.RawURLEncoding.AppendEncode([]byte{prefix}, sum[:18]))
}

// Stamp returns m with the address and correlation that its answer needs, and when it expires.
func (c *Call) Stamp(m message.Message) message.Message {
	attrs := make([]message.Attribute, 0, len(m.Attributes)+3)
	for _, a := range m.Attributes {
		if a.Name != message.ReplyTo && a.Name != message.Correlation && (a.Name != message.ExpiryTime || c.w.expires.IsZero()) {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, message.Attribute{Name: message.ReplyTo, Value: c.w.address}, message.Attribute{Name: message.Correlation, Value: c.w.correlation})
	if !c.w.expires.IsZero() {
		attrs = append(attrs, message.Attribute{Name: message.ExpiryTime, Value: c.w.expires.UTC().Format(time.RFC3339Nano)})
	}
	m.Attributes = attrs
	return m
}

// Wait returns the first answer, or the error that the request failed with. What is there already wins over an ended ctx.
func (c *Call) Wait(ctx context.Context) (Answer, error) {
	select {
	case <-c.w.done:
		return c.w.answer, c.w.err
	default:
	}
	select {
	case <-c.w.done:
		return c.w.answer, c.w.err
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

// Fail ends the waits of everybody who waits for this request: it could not be sent.
func (c *Call) Fail(err error) {
	d := c.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-c.w.done:
		return // an answer shows that it was sent
	default:
	}
	c.w.err = err
	d.forget(c.w)
	close(c.w.done)
}

// Close ends the wait, and reports whether others still wait for the same request. Once the last has gone, its answer is late.
func (c *Call) Close() (others bool) {
	d := c.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	if !c.closed {
		c.closed = true
		if c.w.calls--; c.w.calls == 0 && d.byID[c.w.correlation] == c.w {
			d.forget(c.w)
			d.ended(c.w, false)
		}
	}
	return c.w.calls > 0
}

// forget takes a request off the books. The caller holds the lock.
func (d *Desk) forget(w *waiting) {
	if d.byID[w.correlation] == w {
		delete(d.byID, w.correlation)
	}
	if d.waiting[w.request] == w {
		delete(d.waiting, w.request)
	}
}

// ended remembers how a request's wait ended. The caller holds the lock.
func (d *Desk) ended(w *waiting, answered bool) {
	if _, known := d.over[w.correlation]; !known {
		delete(d.over, d.ring[d.next])
		d.ring[d.next] = w.correlation
		d.next = (d.next + 1) % remembered
	}
	d.over[w.correlation] = end{w.request.Target, answered}
}

func (d *Desk) run(ctx context.Context) {
	defer close(d.done)
	const first, last = 50 * time.Millisecond, 5 * time.Second
	pause := first
	for ctx.Err() == nil {
		inbox, err := d.open(ctx)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, driver.ErrUnsupported) {
				d.log.Warn("cannot open the inbox for replies; trying again", "error", err, "after", pause)
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, last)
			continue
		}
		pause = first
		d.setAddress(inbox.Address())
		err = d.receive(ctx, inbox)
		d.setAddress("")
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = inbox.Close(closing) // replies on their way are late now, whatever it says
		cancel()
		if err != nil && ctx.Err() == nil {
			d.log.Warn("lost the inbox for replies; opening another", "error", err)
		}
	}
}

func (d *Desk) setAddress(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case address != "" && d.address == "":
		close(d.opened)
	case address == "" && d.address != "":
		d.opened = make(chan struct{})
	}
	d.address = address
}

func (d *Desk) receive(ctx context.Context, inbox driver.Inbox) error {
	into := make([]message.Message, 64)
	for ctx.Err() == nil {
		n, err := inbox.Receive(ctx, into)
		for i := range into[:n] {
			d.deliver(into[i])
			into[i] = message.Message{}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver hands an answer to whoever waits for it.
func (d *Desk) deliver(m message.Message) {
	a, correlation, ok := decode(m)
	if !ok {
		d.malformed.Add(1)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.byID[correlation]
	if w == nil {
		d.notHeard(correlation)
		return
	}
	if a.Kind != Failed && a.Kind != w.request.Want {
		d.malformed.Add(1) // no Sender does this: the correlation says what is wanted
		return
	}
	a.Message.Data = append([]byte(nil), a.Message.Data...) // the inbox's buffer is not ours
	w.answer = a
	d.forget(w)
	d.ended(w, true)
	d.delivered.Add(1)
	close(w.done)
}

// notHeard counts an answer that nobody waits for. The caller holds the lock.
func (d *Desk) notHeard(correlation string) {
	e, known := d.over[correlation]
	u := d.unheard[e.target]
	if e.answered {
		d.duplicate.Add(1)
		u.Duplicate++
	} else {
		d.late.Add(1)
		u.Late++
	}
	if known { // the targets are resources: few
		d.unheard[e.target] = u
	}
}

// Unheard is what nobody waited for of the answers to requests of a target.
func (d *Desk) Unheard(target string) Unheard {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unheard[target]
}

// Stats are counts since the start, and how many requests wait now.
type Stats struct {
	Delivered, Late, Duplicate, Malformed int64
	Repeated                              int64 // requests that joined one which waited already
	Waiting                               int
}

// Stats is a snapshot.
func (d *Desk) Stats() Stats {
	d.mu.Lock()
	waiting := len(d.byID)
	d.mu.Unlock()
	return Stats{Delivered: d.delivered.Load(), Late: d.late.Load(), Duplicate: d.duplicate.Load(), Malformed: d.malformed.Load(), Repeated: d.repeated.Load(), Waiting: waiting}
}

// Close gives the inbox up. Whoever still waits waits until its own context ends.
func (d *Desk) Close() {
	d.stop()
	<-d.done
}
