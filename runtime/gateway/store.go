package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	// publishTimeout is how long one batch may take, the broker's short absences included, and publishEach what each of its events adds: one
	// request may bring more of them than a slow disk takes in that time.
	publishTimeout = 10 * time.Second
	publishEach    = 2 * time.Millisecond
	// What is published together at the most: concurrent requests share one batch, and with it the broker's sync to disk.
	batchEvents = 512
	batchBytes  = 4 << 20
	// maxQueued bounds the events that wait.
	maxQueued = 50_000
	// acceptedPause is how long accepted events wait before they are tried again.
	acceptedPause = 500 * time.Millisecond
)

var (
	errBuffersFull = errors.New("too many events wait to be stored")
	// errNotStored: the request gave up before its events were on their way.
	errNotStored = errors.New("not stored in time")
)

// A store carries events to the broker object of a handler. One batch is on its way at a time, and what arrives meanwhile goes with the
// next: that is the order of storing. Its one goroutine lives while there is something to do.
type store struct {
	publish func(context.Context, []message.Message) []error
	budget  *budget
	stats   *counters
	log     *slog.Logger
	ctx     context.Context // ends when a drain has run out of time
	cancel  context.CancelFunc

	mu      sync.Mutex
	queue   []*entry
	queued  int // events
	running bool
	idle    chan struct{} // closed when the goroutine ends
	closed  bool
}

// entry is the events of one request.
type entry struct {
	events   []message.Message
	bytes    int64
	accepted bool // nobody waits: it is kept until it is stored
	taken    bool // it is on its way
	done     chan struct{}
	errs     []error // after done: nil, or one for each event
}

func newStore(publish func(context.Context, []message.Message) []error, b *budget, stats *counters, log *slog.Logger) *store {
	s := &store{publish: publish, budget: b, stats: stats, log: log}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// put takes a request's events, and with them its bytes of the budget.
func (s *store) put(in *intake, accepted bool) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.queued+len(in.events) > maxQueued {
		return nil, errBuffersFull
	}
	e := &entry{events: in.events, bytes: in.bytes, accepted: accepted, done: make(chan struct{})}
	in.bytes = 0
	s.queue = append(s.queue, e)
	s.queued += len(e.events)
	s.stats.buffered.Add(int64(len(e.events)))
	if accepted {
		s.stats.accepted.Add(int64(len(e.events)))
	}
	if !s.running {
		s.running, s.idle = true, make(chan struct{})
		go s.run(s.idle)
	}
	return e, nil
}

// stored puts the events and waits until the broker has confirmed them. The result is nil, or one error for each event.
func (s *store) stored(ctx context.Context, in *intake) []error {
	n := len(in.events)
	e, err := s.put(in, false)
	if err != nil {
		return repeated(err, n)
	}
	return s.await(ctx, e)
}

// await waits for the result of an entry that nobody else waits for. When ctx ends first the entry is taken back, unless it is on its way.
func (s *store) await(ctx context.Context, e *entry) []error {
	n := len(e.events)
	select {
	case <-e.done:
		return e.errs
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-e.done:
		return e.errs
	default:
	}
	if e.taken {
		return repeated(driver.ErrUnknown, n)
	}
	for i, q := range s.queue {
		if q == e {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			break
		}
	}
	s.finish(e, repeated(errNotStored, n))
	return e.errs
}

func repeated(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// finish ends an entry. The caller holds the lock.
func (s *store) finish(e *entry, errs []error) {
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
		}
	}
	if failed == 0 {
		errs = nil
	}
	s.stats.stored.Add(int64(len(e.events) - failed))
	if e.accepted {
		s.stats.lost.Add(int64(failed))
	}
	s.stats.buffered.Add(-int64(len(e.events)))
	s.queued -= len(e.events)
	s.budget.give(e.bytes)
	e.errs = errs
	close(e.done)
}

func (s *store) run(idle chan struct{}) {
	defer close(idle)
	var ms []message.Message
	for {
		batch := s.take()
		if batch == nil {
			return
		}
		ms = ms[:0]
		for _, e := range batch {
			ms = append(ms, e.events...)
		}
		ctx, cancel := context.WithTimeout(s.ctx, publishTimeout+time.Duration(len(ms))*publishEach)
		errs := s.publish(ctx, ms)
		cancel()
		clear(ms)
		if s.settle(batch, errs) {
			select {
			case <-time.After(acceptedPause):
			case <-s.ctx.Done():
			}
		}
	}
}

// take gives the entries of the next batch; nil when there is none, and then the goroutine has to end.
func (s *store) take() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.running = false
		return nil
	}
	n, events, bytes := 0, 0, int64(0)
	for _, e := range s.queue {
		if events, bytes = events+len(e.events), bytes+e.bytes; n > 0 && (events > batchEvents || bytes > batchBytes) {
			break
		}
		e.taken = true
		n++
	}
	batch := append([]*entry(nil), s.queue[:n]...)
	s.queue = append(s.queue[:0], s.queue[n:]...)
	clear(s.queue[len(s.queue):cap(s.queue)])
	return batch
}

// settle deals out the answers of one batch. Accepted events that may still be stored go back to the head of the queue; it reports
// whether there are any.
func (s *store) settle(batch []*entry, errs []error) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var back []*entry
	for _, e := range batch {
		var mine []error
		if errs != nil {
			mine, errs = errs[:len(e.events):len(e.events)], errs[len(e.events):]
		}
		if e.accepted && s.ctx.Err() == nil && s.keep(e, mine) {
			e.taken = false
			back = append(back, e)
			continue
		}
		if e.accepted {
			s.logLost(mine)
		}
		s.finish(e, mine)
	}
	if back != nil {
		s.queue = append(back, s.queue...)
	}
	return back != nil
}

// keep takes out of an accepted entry what was stored or can never be, and reports whether something is left to try again.
func (s *store) keep(e *entry, errs []error) bool {
	var left []message.Message
	for i, err := range errs {
		if err != nil && passes(err) {
			left = append(left, e.events[i])
		}
	}
	if left == nil {
		return false
	}
	for i, err := range errs {
		switch {
		case err == nil:
			s.stats.stored.Add(1)
		case !passes(err):
			s.stats.lost.Add(1)
			s.logLost(errs[i : i+1])
		}
	}
	gone := len(e.events) - len(left)
	s.queued -= gone
	s.stats.buffered.Add(-int64(gone))
	e.events = left
	return true
}

func (s *store) logLost(errs []error) {
	n, last := 0, error(nil)
	for _, err := range errs {
		if err != nil {
			n, last = n+1, err
		}
	}
	if n > 0 {
		s.log.Warn("accepted events are lost", "events", n, "error", last)
	}
}

// passes reports whether an event that failed so may be stored when it is tried again. A full object is not waited for: what came after
// would wait too.
func passes(err error) bool {
	if errors.Is(err, driver.ErrHeldBack) { // it wraps what another event failed with
		return true
	}
	for _, never := range [...]error{driver.ErrTooLarge, driver.ErrInvalid, driver.ErrFull, driver.ErrMissing, driver.ErrNoSubscription, broker.ErrClosed} {
		if errors.Is(err, never) {
			return false
		}
	}
	return true
}

// drain waits until nothing is queued. When ctx ends first, what is left is given up.
func (s *store) drain(ctx context.Context) error {
	for {
		s.mu.Lock()
		running, idle := s.running, s.idle
		s.closed = s.closed || !running
		s.mu.Unlock()
		if !running {
			s.cancel()
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			s.giveUp()
			<-idle
			return ctx.Err()
		}
	}
}

// giveUp ends what is on its way and counts what is queued as lost.
func (s *store) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, e := range s.queue {
		errs := repeated(errNotStored, len(e.events))
		if e.accepted {
			s.logLost(errs)
		}
		s.finish(e, errs)
	}
	s.queue = nil
	s.cancel()
}

// storeProblem makes the answer of what the broker said of one event.
func storeProblem(err error, id string) problem {
	p := problem{Status: http.StatusServiceUnavailable, ID: id, RetryAfter: 2 * time.Second}
	switch {
	case errors.Is(err, driver.ErrHeldBack): // first: it wraps what another event failed with
		p.Reason, p.Detail, p.RetryAfter = "NotStored", "an event before it with the same key was not stored, so neither was this one; try again", time.Second
	case errors.Is(err, driver.ErrFull):
		p.Status, p.Reason, p.Detail, p.RetryAfter = http.StatusInsufficientStorage, "Full", "it is full: messages must be taken from it first", 0
	case errors.Is(err, driver.ErrTooLarge):
		p.Status, p.Reason, p.Detail, p.RetryAfter = http.StatusRequestEntityTooLarge, "TooLarge", "the event is larger than the broker takes", 0
	case errors.Is(err, driver.ErrInvalid):
		p.Status, p.Reason, p.Detail, p.RetryAfter = http.StatusBadRequest, "MalformedEvent", "the broker cannot carry this event's attributes", 0
	case errors.Is(err, driver.ErrNoSubscription):
		p.Reason, p.Detail = "NoSubscription", "the topic has no subscription that would store the event"
	case errors.Is(err, driver.ErrMissing):
		p.Reason, p.Detail = "ObjectMissing", "the object does not exist on the broker"
	case errors.Is(err, errBuffersFull):
		p.Reason, p.Detail, p.RetryAfter = "BuffersFull", "too many events wait to be stored; try again", time.Second
	case errors.Is(err, errNotStored):
		p.Reason, p.Detail = "BrokerAway", "the broker did not take the event in time; it was not stored"
	case errors.Is(err, broker.ErrAway):
		p.Reason, p.Detail = "BrokerAway", "the broker is away; the event may or may not be stored: repeat it with the same source and id"
	default:
		p.Reason, p.Detail = "NotConfirmed", "the broker did not confirm the event; it may or may not be stored: repeat it with the same source and id"
	}
	return p
}
