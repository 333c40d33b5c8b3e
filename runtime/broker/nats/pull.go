package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

const (
	// pullExpiry is how long the server keeps a pull request.
	pullExpiry = 30 * time.Second
	// heartbeat is how often the server says that a pull request is alive; after two missing ones it is taken for lost.
	heartbeat = 5 * time.Second
	// expirySlack is how near to its end a request is left to end by itself, and how long after it that is waited for.
	expirySlack = 250 * time.Millisecond
)

// Why a puller must be rebuilt before more can come.
var (
	errNotStarted   = errors.New("not started")
	errConsumerGone = errors.New("the consumer is gone")
	errReconnected  = errors.New("the connection was renewed")
	errSilent       = errors.New("the server has gone silent")
	errNotPurged    = errors.New("what is done could not be removed")
	errPaused       = errors.New("nobody received, so nothing was asked for")
)

// A puller asks a consumer for messages so that no more are on their way or in hand than the window allows. Messages come to its own
// inbox; what is asked for and has not come is credit, what has come and is not settled is held.
//
// Pull requests are made here rather than by nats.go's Consume because that bounds only what the caller has not looked at yet, while the
// window must also count what is being worked on.
type puller struct {
	conn    *conn
	subject string // of pull requests
	window  driver.Window
	retain  bool // arrivals count as held until release is called; else until they are taken

	// Of a puller for one fetch: see newFetch.
	once  bool
	until time.Time // nothing is asked for beyond it; zero: no end
	alone bool      // ask for one message only

	mu        sync.Mutex
	sub       *natsgo.Subscription
	sess      *session
	epoch     int // of sub: what an earlier one still brings is dropped
	arrivals  []arrival
	credit    amount
	held      amount
	oversize  bool // the next message is larger than what is left of the window
	lastHeard time.Time
	takers    int // are in take
	lastTaken time.Time
	broken    error // errConsumerGone and the like, until restart
	stopping  bool
	wake      chan struct{} // for take
	drained   chan struct{} // closed when nothing can arrive any more
}

type amount struct{ messages, bytes int }

// arrival is a message with the time it came.
type arrival struct {
	m       *natsgo.Msg
	at      time.Time
	session *session
}

func newPuller(c *conn, w driver.Window, retain bool) *puller {
	if w.Messages <= 0 {
		w.Messages = 1
	}
	return &puller{conn: c, window: w, retain: retain, broken: errNotStarted, wake: make(chan struct{}, 1), drained: make(chan struct{})}
}

// newFetch makes a puller that is done when something has come: the server gives what it has at once, or the first that comes, and ends the
// request by itself then or at the deadline of ctx. Taking a request back is avoided, for what is on its way then is delivered again by the
// server, which counts it.
func newFetch(ctx context.Context, c *conn, w driver.Window) *puller {
	p := newPuller(c, w, true)
	p.once = true
	p.until, _ = ctx.Deadline()
	return p
}

// complete reports whether a fetch has all that it gets. Called with mu held.
func (p *puller) complete() bool { return p.held.messages > 0 && p.credit.messages == 0 }

// start begins to pull from a consumer, or begins anew after a break. What had arrived stays.
func (p *puller) start(stream, consumer string) error {
	sess, err := p.conn.online()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sub != nil {
		_ = p.sub.Unsubscribe() // fails only when the connection is closed
	}
	p.epoch++
	epoch := p.epoch
	p.subject = p.conn.apiPrefix + "CONSUMER.MSG.NEXT." + stream + "." + consumer
	sub, err := p.conn.nc.Subscribe(p.conn.nc.NewInbox(), func(m *natsgo.Msg) { p.arrived(epoch, m) })
	if err != nil {
		return fmt.Errorf("stream %s: %w", stream, err)
	}
	_ = sub.SetPendingLimits(-1, -1) // credit bounds it
	now := time.Now()
	p.sub, p.sess, p.broken, p.credit, p.lastHeard, p.lastTaken = sub, sess, nil, amount{}, now, now
	p.ask()
	return nil
}

// arrived is nats.go's callback.
func (p *puller) arrived(epoch int, m *natsgo.Msg) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch != p.epoch {
		return
	}
	p.lastHeard = now
	if m.Reply == "" {
		p.status(m)
		return
	}
	size := m.Size()
	p.credit.take(1, size)
	p.held.messages++
	p.held.bytes += size
	p.arrivals = append(p.arrivals, arrival{m, now, p.sess})
	p.ask()
	p.signal()
}

func (a *amount) take(messages, bytes int) {
	a.messages = max(0, a.messages-messages)
	a.bytes = max(0, a.bytes-bytes)
	if a.messages == 0 { // a request that is filled gives back the bytes it did not use without saying so
		a.bytes = 0
	}
}

func (p *puller) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// status reads a message about a pull request.
func (p *puller) status(m *natsgo.Msg) {
	code := m.Header.Get("Status")
	text := strings.ToLower(m.Header.Get("Description"))
	switch {
	case code == "100":
		return
	case code == "503", strings.Contains(text, "consumer deleted"):
		p.broken = errConsumerGone
		p.signal()
		return
	case strings.Contains(text, "leadership"), strings.Contains(text, "server shutdown"), strings.Contains(text, "interest"):
		p.broken = errSilent
		p.signal()
		return
	case strings.Contains(text, "maxbytes"):
		p.oversize = p.held.messages == 0
		p.alone = p.oversize
	case strings.Contains(text, "requests pending"): // others wait for more than there is
		p.alone = true
	case code == "400", code == "409" && strings.HasPrefix(text, "exceeded"), strings.Contains(text, "push based"):
		p.broken = fmt.Errorf("the consumer refuses to be pulled from (%s): %w", text, driver.ErrConflict)
		p.signal()
		return
	}
	left, _ := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
	bytes, _ := strconv.Atoi(m.Header.Get("Nats-Pending-Bytes"))
	p.credit.take(left, bytes)
	if p.once {
		p.credit = amount{} // its one request is over, whatever is left of it
		p.signal()
	}
	p.ask()
}

// ask sends a pull request when enough of the window is free to be worth one. Called with mu held.
func (p *puller) ask() {
	if p.stopping || p.broken != nil || p.sub == nil {
		return
	}
	free := p.window.Messages - p.held.messages - p.credit.messages
	if free <= 0 || p.credit.messages > 0 && free < (p.window.Messages+3)/4 {
		return
	}
	bytes := 0
	if p.window.Bytes > 0 {
		bytes = p.window.Bytes - p.held.bytes - p.credit.bytes
		switch {
		case p.held.messages == 0 && p.credit.messages == 0 && (p.oversize || bytes <= 0):
			free, bytes = 1, 0 // one message must always fit, however large
		case bytes <= 0:
			return
		case p.oversize:
			return // until what is held has been settled
		}
	}
	expires, beat := pullExpiry, heartbeat
	if p.once {
		if p.credit.messages > 0 || p.held.messages > 0 {
			return
		}
		if p.alone {
			free, bytes, p.alone = 1, 0, false
		}
		if !p.until.IsZero() {
			if expires = min(expires, time.Until(p.until)); expires <= 0 {
				return
			}
			beat = min(beat, expires/2) // the server refuses longer ones
		}
	}
	b := make([]byte, 0, 112)
	if p.once && free > 1 {
		b = append(b, `{"no_wait":true,"expires":`...) // with both it waits for the first and gives what else there is then
	} else {
		b = append(b, `{"expires":`...)
	}
	b = strconv.AppendInt(b, int64(expires), 10)
	b = append(b, `,"batch":`...)
	b = strconv.AppendInt(b, int64(free), 10)
	if bytes > 0 {
		b = append(b, `,"max_bytes":`...)
		b = strconv.AppendInt(b, int64(bytes), 10)
	}
	b = append(b, `,"idle_heartbeat":`...)
	b = strconv.AppendInt(b, int64(beat), 10)
	b = append(b, '}')
	if err := p.conn.nc.PublishRequest(p.subject, p.sub.Subject, b); err != nil {
		p.broken = errReconnected // away just now: begin anew when it is back
		p.signal()
		return
	}
	p.oversize = false
	if p.credit.messages == 0 {
		p.lastHeard = time.Now() // without a request the server had nothing to say
	}
	p.credit.messages += free
	p.credit.bytes += bytes
}

// interrupt makes the next take return err, and forgets what has arrived.
func (p *puller) interrupt(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
	p.arrivals, p.held = nil, amount{}
	p.signal()
}

// forget drops what has arrived: it will come again.
func (p *puller) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrivals, p.held = nil, amount{}
	p.epoch++ // of the present subscription nothing more is wanted
}

// drop removes those arrivals that which says.
func (p *puller) drop(which func(*arrival) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrivals = slices.DeleteFunc(p.arrivals, func(a arrival) bool {
		if !which(&a) {
			return false
		}
		p.held.messages--
		p.held.bytes -= a.m.Size()
		return true
	})
}

// release gives n messages back to the window.
func (p *puller) release(messages, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held.messages = max(0, p.held.messages-messages)
	p.held.bytes = max(0, p.held.bytes-bytes)
	p.ask()
}

// restartable reports whether start may mend what take returned.
func restartable(err error) bool {
	return errors.Is(err, errNotStarted) || errors.Is(err, errConsumerGone) || errors.Is(err, errReconnected) || errors.Is(err, errSilent) ||
		errors.Is(err, errNotPurged) || errors.Is(err, errPaused)
}

// take waits for arrivals and moves up to max of them to into; none and nil when ctx ends. ErrDrained once nothing can come any more;
// a restartable error when start must be called first.
func (p *puller) take(ctx context.Context, into []arrival, limit int) ([]arrival, error) {
	p.mu.Lock()
	p.takers++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.takers--
		p.lastTaken = time.Now()
		p.mu.Unlock()
	}()
	var timer *time.Timer
	for {
		p.mu.Lock()
		// After a break what has arrived may be unknown to the server: start looks first.
		doubtful := p.retain && !p.stopping && p.sess != nil && p.sess.ctx.Err() != nil
		if n := min(limit, len(p.arrivals)); n > 0 && !doubtful && (!p.once || p.complete()) {
			into = append(into, p.arrivals[:n]...)
			rest := copy(p.arrivals, p.arrivals[n:])
			clear(p.arrivals[rest:])
			p.arrivals = p.arrivals[:rest]
			if !p.retain {
				for i := range into {
					p.held.messages--
					p.held.bytes -= into[i].m.Size()
				}
				p.ask()
			}
			p.mu.Unlock()
			return into, nil
		}
		err := p.broken
		switch {
		case p.isDrained():
			err = driver.ErrDrained
		case p.stopping:
			err = nil
		case err == nil && p.sess != nil && p.sess.ctx.Err() != nil:
			err = errReconnected
		case err == nil && p.credit.messages > 0 && time.Since(p.lastHeard) > 2*heartbeat+heartbeat/2:
			err = errSilent
		}
		var lost <-chan struct{}
		if p.sess != nil && !p.stopping {
			lost = p.sess.ctx.Done()
		}
		p.mu.Unlock()
		if err != nil {
			return into, err
		}
		if timer == nil {
			timer = time.NewTimer(heartbeat)
			defer timer.Stop() //nolint:gocritic // made once, and only where there is something to wait for
		} else {
			timer.Reset(heartbeat)
		}
		select {
		case <-p.wake:
		case <-p.drained:
		case <-lost:
		case <-timer.C:
		case <-ctx.Done():
			return into, nil
		case <-p.conn.done:
			return into, fmt.Errorf("nats: %w", natsgo.ErrConnectionClosed)
		}
	}
}

// settle waits until the request of a fetch is over where that is soon: messages are coming, or its time is up.
func (p *puller) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*expirySlack)
	defer cancel()
	for {
		p.mu.Lock()
		soon := p.held.messages > 0 || !p.until.IsZero() && time.Until(p.until) < expirySlack
		over := p.credit.messages == 0 || p.broken != nil || p.sess == nil || p.sess.ctx.Err() != nil
		p.mu.Unlock()
		if over || !soon {
			return
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (p *puller) isDrained() bool {
	select {
	case <-p.drained:
		return true
	default:
		return false
	}
}

// stop asks for nothing more; drained follows when all that was on its way has arrived.
func (p *puller) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return
	}
	p.stopping = true
	sub := p.sub
	if sub == nil || p.sess.ctx.Err() != nil || !p.conn.nc.IsConnected() {
		if sub != nil {
			_ = sub.Unsubscribe()
		}
		close(p.drained)
		return
	}
	sub.SetClosedHandler(func(string) { close(p.drained) })
	if err := sub.Drain(); err != nil {
		sub.SetClosedHandler(nil)
		close(p.drained)
	}
}

// stopped waits until stop has taken effect.
func (p *puller) stopped(ctx context.Context) {
	select {
	case <-p.drained:
	case <-p.conn.done:
	case <-ctx.Done():
	}
}

// rest returns what has arrived and was not taken.
func (p *puller) rest() []arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.arrivals
	p.arrivals = nil
	return a
}
