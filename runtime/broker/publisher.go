package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// A Publisher writes to one object, over as many sessions as that takes. Safe for concurrent use.
type Publisher struct {
	b       *Broker
	ref     driver.Ref
	opened  atomic.Pointer[openPublisher]
	opening chan struct{} // one at a time
	stored  atomic.Uint64 // messages
}

type openPublisher struct {
	driver.Publisher
	conn driver.Conn
	life uint64
}

// Publish returns when each message is stored or has failed: nil, or one error a message. What may pass by itself (a session lost, a
// throttle, a fate that is not known) is tried again while ctx lives; what may not (too large, full, missing, denied) is returned at once.
//
// Order is kept per key: of the messages with one key those stored are a prefix, also when Publish gave up in between. A message that
// waited for an earlier one of its key which failed for good gets an error that wraps ErrHeld. Messages without a key are independent.
func (p *Publisher) Publish(ctx context.Context, ms []message.Message) []error {
	if len(ms) == 0 {
		return nil
	}
	errs := p.publish(ctx, ms)
	stored := len(ms)
	for i, err := range errs {
		if err == nil {
			continue
		}
		stored--
		if errors.Is(err, driver.ErrFull) { // whoever reads this has to make room there
			errs[i] = fmt.Errorf("%s %s: %w", p.ref.Kind, p.ref.Name, err)
		}
	}
	p.stored.Add(uint64(stored))
	return errs
}

func (p *Publisher) publish(ctx context.Context, ms []message.Message) []error {
	r := round{ms: ms}
	wait := backoff{first: firstRetry, last: lastRetry}
	for {
		o, err := p.open(ctx)
		if o == nil {
			return r.giveUp(err)
		}
		var after time.Duration
		if err == nil {
			batch := r.batch()
			errs := o.Publish(ctx, batch)
			if errs == nil {
				return r.errs
			}
			after = r.sort(o.conn, errs)
		} else if again, pause := passing(o.conn, err); !again {
			return r.giveUp(fmt.Errorf("opening %s %s on broker %s: %w", p.ref.Kind, p.ref.Name, p.b.cfg.Name, err))
		} else {
			after, r.last = pause, err
		}
		if r.retry != nil && len(r.retry) == 0 {
			return r.errs
		}
		if !sleep(ctx, wait.pause(after)) {
			if away := p.b.publish.why(); away != nil {
				return r.giveUp(fmt.Errorf("%w: %w: %w", ErrAway, away, r.last))
			}
			return r.giveUp(r.last)
		}
	}
}

// open gives the driver's publisher of the session that is there now. Without a session the first result is nil; with a session in which
// it could not be opened both are set.
func (p *Publisher) open(ctx context.Context) (*openPublisher, error) {
	conn, life, err := p.b.publish.get(ctx)
	if err != nil {
		return nil, err
	}
	if o := p.opened.Load(); o != nil && o.life == life {
		return o, nil
	}
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if o := p.opened.Load(); o != nil && o.life >= life {
		return o, nil
	}
	pub, err := conn.Publisher(ctx, driver.PublisherSpec{Object: p.ref})
	o := &openPublisher{Publisher: pub, conn: conn, life: life}
	if err != nil {
		return o, err
	}
	if old := p.opened.Swap(o); old != nil {
		p.b.later(func() { p.discard(old) })
	}
	return o, nil
}

// discard closes a publisher of an earlier session.
func (p *Publisher) discard(o *openPublisher) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		p.b.log.Debug("Closing the publisher of an old session", "object", p.ref.Name, "error", err)
	}
}

func (p *Publisher) close(ctx context.Context) error {
	if o := p.opened.Load(); o != nil {
		return o.Close(ctx)
	}
	return nil
}

// A round is the state of one Publish call. Nothing of it is allocated while all goes well.
type round struct {
	ms    []message.Message
	errs  []error
	retry []int // indexes still to be stored, ascending; nil: all
	held  map[string]int
	last  error
	buf   []message.Message
}

func (r *round) batch() []message.Message {
	if r.retry == nil {
		return r.ms
	}
	r.buf = r.buf[:0]
	for _, i := range r.retry {
		r.buf = append(r.buf, r.ms[i])
	}
	return r.buf
}

// sort makes of the driver's answers what is done, what failed for good and what is to be tried again, and returns for how long the broker
// asked us to wait.
func (r *round) sort(conn driver.Conn, errs []error) (after time.Duration) {
	if r.retry == nil {
		r.retry = make([]int, len(r.ms))
		for i := range r.retry {
			r.retry[i] = i
		}
		r.errs = nil
	}
	// Those that failed for good come first: what stands behind one of them in its key is held, whatever its own answer was.
	for n, i := range r.retry {
		if errs[n] == nil {
			continue
		}
		if again, pause := passing(conn, errs[n]); again {
			after = max(after, pause)
			if r.last == nil || !errors.Is(errs[n], driver.ErrHeldBack) {
				r.last = errs[n]
			}
			continue
		}
		r.fail(i, errs[n])
		if key := r.ms[i].Key; key != "" {
			if r.held == nil {
				r.held = map[string]int{}
			}
			if at, ok := r.held[key]; !ok || i < at {
				r.held[key] = i
			}
		}
	}
	n := -1
	r.retry = slices.DeleteFunc(r.retry, func(i int) bool {
		n++
		if errs[n] == nil || (r.errs != nil && r.errs[i] != nil) {
			return true
		}
		if at, ok := r.held[r.ms[i].Key]; ok && at < i {
			r.fail(i, fmt.Errorf("%w: %w", ErrHeld, r.errs[at]))
			return true
		}
		return false
	})
	if len(r.retry) == 0 {
		r.retry = r.retry[:0]
	}
	return after
}

func (r *round) fail(i int, err error) {
	if r.errs == nil {
		r.errs = make([]error, len(r.ms))
	}
	r.errs[i] = err
}

// giveUp fails what is left.
func (r *round) giveUp(err error) []error {
	if r.retry == nil {
		for i := range r.ms {
			r.fail(i, err)
		}
	}
	for _, i := range r.retry {
		r.fail(i, err)
	}
	return r.errs
}
