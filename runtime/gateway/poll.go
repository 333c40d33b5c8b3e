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

var errTooManyPolls = errors.New("too many long polls wait")

// A pollDesk shares the deliveries of one source among long polls, the longest waiting first. Nothing is asked of the broker but while a
// poll waits: a lease begins to run when the broker hands the message out.
type pollDesk struct {
	open func(context.Context) (driver.Source, error)
	// admit says whether a delivery is to be handed out; what it keeps, it has settled.
	admit func(context.Context, *driver.Delivery) bool
	// release hands a delivery back that nobody takes.
	release func([]driver.Delivery)
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	waiting []*poll
	running bool
	idle    chan struct{}      // closed when the goroutine ends
	stop    context.CancelFunc // ends the Receive that is under way
	closed  bool
	src     driver.Source // of the goroutine
}

// poll is one long poll.
type poll struct {
	limit int
	got   []driver.Delivery
	err   error
	done  chan struct{} // closed when got or err is set
}

func (d *pollDesk) init() { d.ctx, d.cancel = context.WithCancel(context.Background()) }

// wait returns up to limit deliveries, none when ctx ends first or the desk closes.
func (d *pollDesk) wait(ctx context.Context, limit int) ([]driver.Delivery, error) {
	p := &poll{limit: limit, done: make(chan struct{})}
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
	if !d.running {
		d.running, d.idle = true, make(chan struct{})
		go d.run(d.idle)
	}
	d.mu.Unlock()
	select {
	case <-p.done:
		return p.got, p.err
	case <-ctx.Done():
	}
	d.mu.Lock()
	for i, q := range d.waiting {
		if q == p {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			if len(d.waiting) == 0 && d.stop != nil {
				d.stop()
			}
			d.mu.Unlock()
			return nil, nil
		}
	}
	d.mu.Unlock()
	<-p.done // it was served in the same moment
	return p.got, p.err
}

// demand is how many deliveries the waiting polls would take, and the context for receiving them; 0: nobody waits, and the goroutine has
// to end.
func (d *pollDesk) demand() (int, context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, p := range d.waiting {
		n += p.limit
	}
	if n == 0 || d.closed {
		d.running = false
		return 0, nil
	}
	ctx, stop := context.WithCancel(d.ctx)
	d.stop = stop
	return min(n, maxMessages), ctx
}

func (d *pollDesk) run(idle chan struct{}) {
	defer close(idle)
	into := make([]driver.Delivery, maxMessages)
	for {
		n, ctx := d.demand()
		if n == 0 {
			return
		}
		got, err := d.receive(ctx, into[:n])
		d.mu.Lock()
		d.stop()
		d.stop = nil
		d.mu.Unlock()
		kept := into[:0]
		for i := range into[:got] {
			if d.admit(d.ctx, &into[i]) {
				kept = append(kept, into[i])
			}
		}
		if left := d.hand(kept); len(left) > 0 {
			d.release(left)
		}
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
