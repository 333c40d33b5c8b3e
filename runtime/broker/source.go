package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	// The floor of a positional source is committed this often, or sooner after this many were done.
	commitEvery = 100 * time.Millisecond
	commitAfter = 1000
	// maxGap is how many deliveries may lie behind one that is not done: the bound on duplicates after a crash.
	maxGap = 10_000
	// minCarried is how many bytes of what became of messages are kept at the least before no more are received.
	minCarried = 16 << 20
	// A source that failed this often in a row while its session lived is opened anew.
	reopenAfter = 3
	// The life of the session is kept in the upper half of the epochs that callers see, the driver's own epoch in the lower.
	lifeShift = 32
)

// A Source reads one object for one group, over as many sessions as that takes. Outwardly it settles a message at a time, in any order;
// where the broker knows only positions, it commits the low watermark of each claim.
//
// With Into it is a driver.Carrier: what became of a message is kept until all before it is settled too, and then stored together with the
// position, in the order in which the messages were given out.
//
// When a session is lost, Lost is called for its claims, their deliveries settle with driver.ErrStale from then on, and Receive goes on
// with the next session, whose claims have higher epochs.
type Source struct {
	b    *Broker
	spec driver.SourceSpec
	room chan struct{} // a floor rose or a claim went
	work sync.WaitGroup

	mu       sync.Mutex
	cur      *openSource // nil between sessions
	opens    uint64
	draining bool
	closed   bool
	blocked  time.Time // since when the gap is full; zero: it is not
	unkept   int       // claims that were lost with something done and not committed, since Flush last told so

	// Of the one caller of Receive: ctx and source for which both was made.
	both    context.Context
	bothOf  *openSource
	bothCtx context.Context
	release func()
	fails   int
	wait    backoff
}

// An openSource is the driver's source in one session.
type openSource struct {
	driver.Source
	conn   driver.Conn
	number uint64
	ctx    context.Context // ends when it is given up
	cancel context.CancelFunc
	dirty  chan struct{} // something is to be committed
	full   chan struct{} // so much that it should not wait
	saving sync.Mutex
	gather gather

	// Under Source.mu.
	claims     map[driver.Claim]*watermark // by the driver's own claims
	lastClaim  driver.Claim
	lastMark   *watermark
	positional bool
	unsaved    int
}

// Source opens a source and waits for a session while ctx lives.
func (b *Broker) Source(ctx context.Context, spec driver.SourceSpec) (driver.Source, error) {
	s := &Source{b: b, spec: spec, room: make(chan struct{}, 1), wait: backoff{first: firstRetry, last: lastRetry}}
	for {
		_, err := s.open(ctx)
		if err == nil {
			return s, nil
		}
		failed, ok := errors.AsType[*openError](err)
		if !ok {
			return nil, err
		}
		if again, after := passing(failed.conn, failed.err); !again || !sleep(ctx, s.wait.pause(after)) {
			return nil, err
		}
	}
}

// An openError is a driver's refusal to open a source.
type openError struct {
	conn driver.Conn
	text string
	err  error
}

func (e *openError) Error() string { return e.text + e.err.Error() }
func (e *openError) Unwrap() error { return e.err }

func (s *Source) carries() bool { return s.spec.Into.Name != "" }

// Fits says why what became of one message can never be stored in one step with its position. Between sessions nobody knows, and nil is
// answered: what does not fit then is refused when it is to be stored, and the source opened anew.
func (s *Source) Fits(out []message.Message) error {
	s.mu.Lock()
	o := s.cur
	s.mu.Unlock()
	if o == nil {
		return nil
	}
	if c, ok := o.Source.(driver.Carrier); ok {
		return c.Fits(out)
	}
	return nil
}

// Settling is always per message, outwardly.
func (s *Source) Settling() driver.Settling { return driver.PerMessage }

// open gives the source of the session that is there, opening one where necessary. One caller at a time.
func (s *Source) open(ctx context.Context) (*openSource, error) {
	s.mu.Lock()
	cur, draining, closed := s.cur, s.draining, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return nil, ErrClosed
	case cur != nil:
		return cur, nil
	case draining:
		return nil, driver.ErrDrained
	}
	conn, _, err := s.b.consume.get(ctx)
	if err != nil {
		return nil, err
	}
	o := &openSource{
		conn: conn, dirty: make(chan struct{}, 1), full: make(chan struct{}, 1), claims: map[driver.Claim]*watermark{},
	}
	s.mu.Lock()
	s.opens++
	o.number = s.opens
	s.mu.Unlock()
	o.ctx, o.cancel = context.WithCancel(s.b.ctx)
	spec := s.spec
	spec.Revoke = func(ctx context.Context, c []driver.Claim) { s.revoke(ctx, o, c) }
	spec.Lost = func(c []driver.Claim) { s.lose(o, c) }
	src, err := conn.Source(ctx, spec)
	if err != nil {
		o.cancel()
		return nil, &openError{conn, fmt.Sprintf("opening %s %s on broker %s: ", s.spec.Object.Kind, s.spec.Object.Name, s.b.cfg.Name), err}
	}
	s.mu.Lock()
	o.Source, o.positional = src, src.Settling() == driver.Positional && s.spec.Live == nil
	if s.closed {
		s.mu.Unlock()
		o.cancel()
		return nil, errors.Join(ErrClosed, src.Close(ctx))
	}
	s.cur = o
	draining = s.draining
	s.mu.Unlock()
	if draining {
		src.Drain()
	}
	s.work.Go(func() { s.watch(o) })
	return o, nil
}

// Receive waits for the first delivery and returns those at hand. What may pass by itself it waits out; an error is one that does not:
// driver.ErrDrained, driver.ErrPositionLost, a missing object, a refusal.
func (s *Source) Receive(ctx context.Context, into []driver.Delivery) (int, error) {
	for {
		o, err := s.open(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return 0, nil
			}
			if failed, ok := errors.AsType[*openError](err); ok {
				if again, after := passing(failed.conn, failed.err); again {
					s.pause(ctx, nil, after)
					continue
				}
			}
			return 0, err
		}
		room := s.awaitRoom(ctx, o)
		if room == 0 {
			if ctx.Err() != nil {
				return 0, nil
			}
			continue
		}
		n, err := o.Receive(s.join(ctx, o), into[:min(len(into), room)])
		if n > 0 {
			s.fails = 0
			s.wait.reset()
			if n = s.admit(o, into[:n]); n > 0 {
				return n, nil
			}
			continue
		}
		switch {
		case ctx.Err() != nil:
			return 0, nil
		case o.ctx.Err() != nil || err == nil:
			continue
		case errors.Is(err, driver.ErrPositionLost):
			return 0, err
		case errors.Is(err, driver.ErrDrained):
			if s.isDraining() {
				return 0, err
			}
		default:
			if again, _ := passing(o.conn, err); !again {
				return 0, err
			}
		}
		if s.fails++; s.fails >= reopenAfter {
			s.fails = 0
			s.b.log.Warn("A source keeps failing and is opened anew", "object", s.spec.Object.Name, "error", err)
			s.drop(o)
		}
		s.pause(ctx, o, pauseOf(err))
	}
}

func (s *Source) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

func (s *Source) pause(ctx context.Context, o *openSource, atLeast time.Duration) {
	if o != nil {
		ctx = s.join(ctx, o)
	}
	sleep(ctx, s.wait.pause(atLeast))
}

// join is ctx that ends with o too. A caller that always uses the same ctx costs nothing.
func (s *Source) join(ctx context.Context, o *openSource) context.Context {
	if s.bothOf == o && s.both == ctx {
		return s.bothCtx
	}
	if s.release != nil {
		s.release()
	}
	c, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(o.ctx, cancel)
	s.both, s.bothOf, s.bothCtx = ctx, o, c
	s.release = func() { stop(); cancel() }
	return c
}

// admit notes what was received and gives it the epochs that callers see. What a source gives after it was given up is dropped.
func (s *Source) admit(o *openSource, ds []driver.Delivery) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != o {
		clear(ds)
		return 0
	}
	for i := range ds {
		d := &ds[i]
		w, ok := o.lastMark, o.lastClaim == d.Claim && o.lastMark != nil
		if !ok {
			if w, ok = o.claims[d.Claim]; !ok {
				w = &watermark{carries: s.carries()}
				o.claims[d.Claim] = w
			}
			o.lastClaim, o.lastMark = d.Claim, w
		}
		if o.positional {
			w.add(d.Position, d.Stored, d.Ref)
		}
		d.Claim = o.outer(d.Claim)
	}
	return len(ds)
}

func (o *openSource) outer(c driver.Claim) driver.Claim {
	c.Epoch = o.number<<lifeShift | c.Epoch&(1<<lifeShift-1)
	return c
}

// inner is the driver's claim, where c is of this life.
func (o *openSource) inner(c driver.Claim) (driver.Claim, bool) {
	if c.Epoch>>lifeShift != o.number {
		return c, false
	}
	c.Epoch &= 1<<lifeShift - 1
	return c, true
}

// Settle settles in any order. ErrStale: the delivery is of a claim or session that is gone.
func (s *Source) Settle(ctx context.Context, list []driver.Settlement) []error {
	if s.spec.Live != nil {
		return nil // no position is kept
	}
	s.mu.Lock()
	o := s.cur
	if o == nil {
		s.mu.Unlock()
		return all(len(list), driver.ErrStale)
	}
	if o.positional {
		defer s.mu.Unlock()
		return s.mark(o, list)
	}
	s.mu.Unlock()
	return s.forward(ctx, o, list)
}

// mark notes what is done of a positional source; s.mu is held. A release needs nothing: what is not done comes again.
func (s *Source) mark(o *openSource, list []driver.Settlement) (errs []error) {
	rose := false
	for i := range list {
		d := list[i].D
		c, ok := o.inner(d.Claim)
		var w *watermark
		if ok {
			if w = o.lastMark; w == nil || o.lastClaim != c {
				w = o.claims[c]
			}
		}
		if w == nil {
			if errs == nil {
				errs = make([]error, len(list))
			}
			errs[i] = driver.ErrStale
			continue
		}
		if list[i].Verb == driver.Done {
			rose = w.done(d.Position, list[i].Out) || rose
			o.unsaved++
		}
	}
	if rose {
		signal(s.room)
		if o.unsaved >= commitAfter || s.carries() {
			signal(o.full) // what is carried gathers while the one before it is stored
		} else {
			signal(o.dirty)
		}
	}
	return errs
}

// settleError makes ErrStale of whatever says so, and of every failure in a session that is gone.
func (s *Source) settleError(o *openSource, err error) error {
	if !errors.Is(err, driver.ErrStale) && (o.ctx.Err() != nil || o.conn.Class(err) == driver.Stale) {
		return fmt.Errorf("%w: %w", driver.ErrStale, err)
	}
	return err
}

// Extend asks for another AckWait and moves each Deadline.
func (s *Source) Extend(ctx context.Context, list []*driver.Delivery) []error {
	s.mu.Lock()
	o := s.cur
	s.mu.Unlock()
	if o == nil {
		return all(len(list), driver.ErrStale)
	}
	ds := make([]driver.Delivery, len(list))
	inner := make([]*driver.Delivery, 0, len(list))
	at := make([]int, 0, len(list))
	var errs []error
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(list))
		}
		errs[i] = err
	}
	for i, d := range list {
		c, ok := o.inner(d.Claim)
		if !ok {
			fail(i, driver.ErrStale)
			continue
		}
		ds[i] = *d
		ds[i].Claim = c
		inner, at = append(inner, &ds[i]), append(at, i)
	}
	if len(inner) == 0 {
		return errs
	}
	for n, err := range o.Extend(ctx, inner) {
		if err != nil {
			fail(at[n], s.settleError(o, err))
		}
	}
	for n, d := range inner {
		list[at[n]].Deadline = d.Deadline
	}
	return errs
}

// Drain fetches no more: Receive gives what was fetched, then driver.ErrDrained. Without a session there is nothing to give.
func (s *Source) Drain() {
	s.mu.Lock()
	s.draining = true
	o := s.cur
	s.mu.Unlock()
	if o != nil {
		o.Drain()
	}
}

// Close commits what is done and hands the rest back, in order.
func (s *Source) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	o := s.cur
	s.mu.Unlock()
	var err error
	if o != nil {
		err = s.save(ctx, o)
		s.mu.Lock()
		s.cur = nil
		s.mu.Unlock()
		o.cancel()
		err = errors.Join(err, o.Close(ctx))
	}
	s.work.Wait()
	return err
}

// Blocked says which position holds up a claim, and since when, while its gap is as large as it may be and nothing more is received.
func (s *Source) Blocked() (claim string, position int64, since time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur == nil || s.blocked.IsZero() {
		return "", 0, time.Time{}, false
	}
	for c, w := range s.cur.claims {
		if w.n > 0 && s.roomFor(w) == 0 {
			return c.Name, w.at(0).position, s.blocked, true
		}
	}
	return "", 0, time.Time{}, false
}

// awaitRoom waits until no claim's gap is full and returns how many more may be received; 0 when ctx or o ended first.
func (s *Source) awaitRoom(ctx context.Context, o *openSource) int {
	for {
		s.mu.Lock()
		room := maxGap
		if o.positional {
			for _, w := range o.claims {
				room = min(room, s.roomFor(w))
			}
		}
		switch {
		case room > 0:
			s.blocked = time.Time{}
		case s.blocked.IsZero():
			s.blocked = time.Now()
		}
		s.mu.Unlock()
		if room > 0 {
			return room
		}
		select {
		case <-s.room:
		case <-ctx.Done():
			return 0
		case <-o.ctx.Done():
			return 0
		}
	}
}

// roomFor is how much more may be received of a claim.
func (s *Source) roomFor(w *watermark) int {
	if w.carries && w.bytes >= max(s.spec.Window.Bytes, minCarried) {
		return 0
	}
	return max(0, maxGap-w.gap())
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func all(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
