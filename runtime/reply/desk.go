package reply

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// ErrAway says that no inbox is open: a request sent now could not be answered.
var ErrAway = errors.New("the inbox for replies is not open: the broker is away")

// How many answered requests a Desk remembers to tell a duplicate answer from a late one.
const remembered = 4096

// Desk is where requests wait for their answers. It keeps one inbox open and opens it again when it is lost. Safe for concurrent use.
type Desk struct {
	open func(context.Context) (driver.Inbox, error)
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{}
	key  []byte // makes correlations of pairs

	mu       sync.Mutex
	address  string
	opened   chan struct{} // closed while an inbox is open
	byPair   map[pair]*waiting
	byID     map[string]*waiting // by correlation
	answered map[string]struct{}
	ring     [remembered]string // the keys of answered, oldest at next
	next     int

	late, duplicate, malformed, delivered, repeated atomic.Int64
}

// pair identifies a request: CloudEvents' source and id, and what is waited for.
type pair struct {
	source, id string
	want       Kind
}

// waiting is one request with everybody who waits for it.
type waiting struct {
	pair        pair
	correlation string
	address     string
	calls       int
	done        chan struct{} // closed once answer is set
	answer      Answer
}

// NewDesk starts a desk over a broker's Inbox. Close ends it.
func NewDesk(open func(context.Context) (driver.Inbox, error), log *slog.Logger) *Desk {
	ctx, stop := context.WithCancel(context.Background())
	d := &Desk{open: open, log: log, stop: stop, done: make(chan struct{}), opened: make(chan struct{}),
		key: []byte(rand.Text()), byPair: map[pair]*waiting{}, byID: map[string]*waiting{}, answered: map[string]struct{}{}}
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
	// Joined: a request with the same source and id waits already. It must not be published again; its answer is this call's too.
	Joined bool
}

// Expect registers a waiter for a request before it is published. want is Reply or Processed. ErrAway: no inbox is open.
func (d *Desk) Expect(source, id string, want Kind) (*Call, error) {
	p := pair{source, id, want}
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.byPair[p]; w != nil {
		w.calls++
		d.repeated.Add(1)
		return &Call{desk: d, w: w, Joined: true}, nil
	}
	if d.address == "" {
		return nil, ErrAway
	}
	w := &waiting{pair: p, correlation: d.correlation(p), address: d.address, calls: 1, done: make(chan struct{})}
	delete(d.answered, w.correlation) // asked anew
	d.byPair[p] = w
	d.byID[w.correlation] = w
	return &Call{desk: d, w: w}, nil
}

// correlation is the same for the same pair: when a requester gave up and asks again, the broker may drop the repeated request as a
// duplicate, and the answer to the first one is its answer too.
func (d *Desk) correlation(p pair) string {
	prefix := byte(wantsReply)
	if p.want == Processed {
		prefix = wantsProcessed
	}
	h := hmac.New(sha256.New, d.key)
	h.Write([]byte(p.source))
	h.Write([]byte{0})
	h.Write([]byte(p.id))
	sum := h.Sum(make([]byte, 0, sha256.Size))
	return string(base64.RawURLEncoding.AppendEncode([]byte{prefix}, sum[:18]))
}

// Stamp returns m with the address and correlation that its answer needs.
func (c *Call) Stamp(m message.Message) message.Message {
	attrs := make([]message.Attribute, 0, len(m.Attributes)+3)
	for _, a := range m.Attributes {
		if a.Name != message.ReplyTo && a.Name != message.Correlation {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, message.Attribute{Name: message.ReplyTo, Value: c.w.address}, message.Attribute{Name: message.Correlation, Value: c.w.correlation})
	m.Attributes = attrs
	return m
}

// Wait returns the first answer. An answer that is there already wins over an ended ctx.
func (c *Call) Wait(ctx context.Context) (Answer, error) {
	select {
	case <-c.w.done:
		return c.w.answer, nil
	default:
	}
	select {
	case <-c.w.done:
		return c.w.answer, nil
	case <-ctx.Done():
		return Answer{}, context.Cause(ctx)
	}
}

// Close ends the wait. Once the last waiter of a request has gone, its answer is late.
func (c *Call) Close() {
	d := c.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if c.w.calls--; c.w.calls == 0 {
		d.forget(c.w)
	}
}

// forget takes a request off the books. The caller holds the lock.
func (d *Desk) forget(w *waiting) {
	delete(d.byID, w.correlation)
	if d.byPair[w.pair] == w {
		delete(d.byPair, w.pair)
	}
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
		if _, twice := d.answered[correlation]; twice {
			d.duplicate.Add(1)
		} else {
			d.late.Add(1)
		}
		return
	}
	if a.Kind != Failed && a.Kind != w.pair.want {
		d.malformed.Add(1) // no Sender does this: the correlation says what is wanted
		return
	}
	a.Message.Data = append([]byte(nil), a.Message.Data...) // the inbox's buffer is not ours
	w.answer = a
	d.forget(w)
	delete(d.answered, d.ring[d.next])
	d.ring[d.next] = correlation
	d.next = (d.next + 1) % remembered
	d.answered[correlation] = struct{}{}
	d.delivered.Add(1)
	close(w.done)
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
