package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// maxPolls bounds the long polls that wait at a replica.
const maxPolls = 2000

// heldFor is how long deliveries that nobody takes any more are kept for the next poll before they go back. It lies within leaseMargin, which
// leases lose from their length as it is.
const heldFor = leaseMargin / 4

// askedFor is how long one request to the broker lasts: as long, a poll that hung up may still cause messages to come.
const askedFor = 2 * time.Second

var errTooManyPolls = errors.New("too many long polls wait")

// A pollDesk shares the deliveries of one source among long polls, the longest waiting first. Nothing is asked of the broker but while a
// poll waits: a lease begins to run when the broker hands the message out.
type pollDesk struct {
	open func(context.Context) (driver.Source, error)
	// admit says whether a delivery is to be handed out. aside takes the others, once those have been handed out.
	admit func(*driver.Delivery) bool
	aside func(context.Context, []driver.Delivery)
	// release hands a delivery back that nobody takes.
	release func([]driver.Delivery, time.Duration)
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	waiting []*poll
	running bool
	idle    chan struct{} // closed when the goroutine ends
	arrived chan struct{} // holds one when a poll has come since it was looked at last
	closed  bool
	look    bool          // receive once, though nobody waits
	src     driver.Source // of the goroutine

	// released are the deliveries that went back without that anybody got them: the broker counts them, but no attempt was made.
	released tally
}

// poll is one long poll.
type poll struct {
	limit int
	end   time.Time // when it waits no longer; zero: unknown
	got   []driver.Delivery
	err   error
	done  chan struct{} // closed when got or err is set
}

func (d *pollDesk) init() {
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.arrived = make(chan struct{}, 1)
}

// wait returns up to limit deliveries, none when ctx ends first or the desk closes.
func (d *pollDesk) wait(ctx context.Context, limit int) ([]driver.Delivery, error) {
	p := &poll{limit: limit, done: make(chan struct{})}
	p.end, _ = ctx.Deadline()
	d.mu.Lock()
	switch {
	case d.closed:
		d.mu.Unlock()
		return nil, nil
	case len(d.waiting) >= maxPolls:
		d.mu.Unlock()
		return nil, errTooManyPolls
	}
	d.waiting = append(d.waiting, p)
	select {
	case d.arrived <- struct{}{}:
	default:
	}
	d.start()
	d.mu.Unlock()
	select {
	case <-p.done:
		return p.got, p.err
	case <-ctx.Done():
	}
	d.mu.Lock()
	for i, q := range d.waiting {
		if q == p {
			// What is asked of the broker is too much now, for askedFor at most. It is not taken back: a message on its way would be
			// delivered again, and counted, without that anybody here had seen it.
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			d.mu.Unlock()
			return nil, nil
		}
	}
	d.mu.Unlock()
	<-p.done // it was served in the same moment
	return p.got, p.err
}

// demand is how many deliveries the waiting polls would take, and the context for receiving them, which ends with the first of them, so that
// the broker ends the request by itself; 0: nobody waits, and the goroutine has to end.
func (d *pollDesk) demand() (int, context.Context, context.CancelFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, end := 0, time.Now().Add(askedFor)
	for _, p := range d.waiting {
		n += p.limit
		if !p.end.IsZero() && p.end.Before(end) {
			end = p.end
		}
	}
	if n == 0 && d.look && !d.closed {
		d.look = false
		ctx, stop := context.WithTimeout(d.ctx, lookTimeout)
		return 1, ctx, stop
	}
	if n == 0 || d.closed {
		d.running = false
		return 0, nil, nil
	}
	d.look = false
	ctx, stop := context.WithDeadline(d.ctx, end)
	return min(n, maxMessages), ctx, stop
}

// lookTimeout bounds the receive that nobody waits for.
const lookTimeout = time.Second

// lookOnce has one delivery received even when nobody waits, so that admit sees a message that has used its attempts up. When it is
// another one, it is kept for heldFor and given back, and others than this replica take that for an attempt: it is asked for only where a
// message is known to have used its attempts up, and to be there still.
func (d *pollDesk) lookOnce() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.look = true
	d.start()
}

// start runs the goroutine unless it runs already. The caller holds the lock.
func (d *pollDesk) start() {
	if !d.running {
		d.running, d.idle = true, make(chan struct{})
		go d.run(d.idle)
	}
}

func (d *pollDesk) run(idle chan struct{}) {
	defer close(idle)
	into := make([]driver.Delivery, maxMessages)
	for {
		n, ctx, stop := d.demand()
		if n == 0 {
			return
		}
		got, err := d.receive(ctx, into[:n])
		stop()
		kept, aside := into[:0], []driver.Delivery(nil)
		for i := range into[:got] {
			one := into[i]
			if n := d.released.of(&one); n > 0 && one.Count > 0 { // no attempts
				one.Count = max(one.Count-n, 1)
			}
			if d.admit(&one) {
				kept = append(kept, one)
			} else {
				aside = append(aside, one)
			}
		}
		left := d.hand(kept)
		if len(aside) > 0 {
			d.aside(d.ctx, aside)
			left = d.fresh(left) // that may have taken long
			if len(kept) == 0 {  // there may be more to be seen to
				d.mu.Lock()
				d.look = true
				d.mu.Unlock()
			}
		}
		d.giveBack(d.handLate(left))
		clear(into)
		if err != nil {
			d.fail(err)
		}
	}
}

func (d *pollDesk) receive(ctx context.Context, into []driver.Delivery) (int, error) {
	if d.src == nil {
		src, err := d.open(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return 0, nil
			}
			return 0, err
		}
		d.src = src
	}
	n, err := d.src.Receive(ctx, into)
	if err != nil {
		d.closeSource()
	}
	return n, err
}

func (d *pollDesk) closeSource() {
	if d.src == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.src.Close(ctx); err != nil {
		d.log.Warn("closing the source of leases", "error", err)
	}
	d.src = nil
}

// giveBack releases deliveries that nobody got, which is no attempt.
func (d *pollDesk) giveBack(ds []driver.Delivery) { d.giveBackAfter(ds, 0) }

// fresh leaves out what the broker is about to deliver again, or has: somebody else may hold it.
func (d *pollDesk) fresh(ds []driver.Delivery) []driver.Delivery {
	now, kept := time.Now(), ds[:0]
	for i := range ds {
		if end := ds[i].Deadline; !end.IsZero() && now.Add(leaseMargin).After(end) {
			d.released.add(&ds[i]) // it counts, and nobody has had it
			continue
		}
		kept = append(kept, ds[i])
	}
	return kept
}

// giveBackAfter has the broker wait before it delivers them again.
func (d *pollDesk) giveBackAfter(ds []driver.Delivery, pause time.Duration) {
	ds = d.fresh(ds)
	if len(ds) == 0 {
		return
	}
	for i := range ds {
		d.released.add(&ds[i])
	}
	d.release(ds, pause)
}

// handLate gives deliveries to those who wait, and what is left over to those who come soon. It returns what nobody took.
func (d *pollDesk) handLate(ds []driver.Delivery) []driver.Delivery {
	if ds = d.hand(ds); len(ds) == 0 {
		return nil
	}
	over := time.NewTimer(heldFor)
	defer over.Stop()
	for len(ds) > 0 {
		select {
		case <-d.arrived:
			ds = d.hand(ds)
		case <-over.C:
			return ds
		case <-d.ctx.Done():
			return ds
		}
	}
	return nil
}

// hand gives deliveries to those who wait and returns what nobody took.
func (d *pollDesk) hand(ds []driver.Delivery) []driver.Delivery {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(ds) > 0 && len(d.waiting) > 0 {
		p := d.waiting[0]
		d.waiting = append(d.waiting[:0], d.waiting[1:]...)
		n := min(p.limit, len(ds))
		p.got = append([]driver.Delivery(nil), ds[:n]...)
		ds = ds[n:]
		close(p.done)
	}
	return ds
}

// fail ends every poll that waits.
func (d *pollDesk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.waiting {
		p.err = err
		close(p.done)
	}
	d.waiting = nil
}

// close ends every poll with nothing, at once, and closes the source.
func (d *pollDesk) close() {
	d.mu.Lock()
	already := d.closed
	d.closed = true
	running, idle := d.running, d.idle
	for _, p := range d.waiting {
		close(p.done)
	}
	d.waiting = nil
	d.mu.Unlock()
	d.cancel()
	if running {
		<-idle
	}
	if !already {
		d.closeSource()
	}
}
