package flow

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

const (
	firstSettleRetry = 50 * time.Millisecond
	lastSettleRetry  = 5 * time.Second
	// parkTimeout bounds one try to store a dead letter, so that a dead letter that is away does not keep workers from healthy messages.
	parkTimeout = 10 * time.Second
)

var errNoDeadLetter = errors.New("the flow has no dead letter")

// A worker carries one batch at a time through the stages. What it needs it keeps, so that a batch allocates nothing.
type worker struct {
	f      *Flow
	ctx    context.Context // of its attempts
	cancel context.CancelFunc

	items       []*item
	park, probe bool // what it took them for
	suspect     bool // its one item is a suspect
	began       time.Time

	// Of the attempt, parallel to items.
	batch     Batch
	lanes     []*lane
	deaths    []message.Message
	stale     []bool              // settling said that it comes again
	unparked  []error             // why the dead letter does not have it
	outs      [][]message.Message // what became of each, where the source stores it
	cancelled bool
	panicked  bool

	at       []int
	list     []driver.Settlement
	extended []driver.Delivery
	told     []Settled
}

func newWorker(f *Flow) *worker {
	w := &worker{f: f}
	w.renew()
	return w
}

// renew gives a worker whose attempt was cancelled by itself a context for the next.
func (w *worker) renew() {
	if w.ctx == nil || w.ctx.Err() != nil && w.f.attempts.Err() == nil {
		w.ctx, w.cancel = context.WithCancel(w.f.attempts)
	}
}

// serve is a worker's life: put back what it had, take what is next, handle it. It starts with its flow's lock free.
func (f *Flow) serve(w *worker) {
	defer func() { w.cancel() }()
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		now := time.Now()
		f.finish(w, now)
		w.renew()
		for !f.take(w, now) {
			if f.over {
				f.workers--
				f.quiet.Broadcast()
				return
			}
			f.idle++
			f.work.Wait()
			now = time.Now()
		}
		if f.runnable(now) {
			f.wake()
		}
		f.mu.Unlock()
		w.began = now
		if w.park {
			w.parkAll()
		} else {
			w.attempt()
		}
		f.mu.Lock()
	}
}

// attempt takes the items through the stages and settles what came through.
func (w *worker) attempt() {
	f, b := w.f, &w.batch
	w.prepare()
	for n, s := range f.cfg.Stages {
		b.stage = n
		if err := w.ctx.Err(); err != nil {
			b.FailAll(err)
		}
		if len(b.Events) == 0 {
			break
		}
		w.call(s, func() { s.Process(w.ctx, b) })
		b.compact()
	}
	if f.p.Carries && len(b.Events) > 0 {
		w.carry()
	}
	w.cancelled = w.ctx.Err() != nil
	for _, c := range f.committers {
		w.call(c, func() { c.Commit(b) })
	}
	w.at = w.at[:0]
	for i, it := range w.items {
		if b.Inputs[i].Err == nil && !it.gone.Load() && !it.settled {
			w.at = append(w.at, i)
		}
	}
	w.settle()
	if f.cfg.Settled == nil {
		return
	}
	w.told = w.told[:0]
	for i, it := range w.items {
		in := &b.Inputs[i]
		switch {
		case w.stale[i] || it.gone.Load():
		case in.Err != nil && it.settled && (w.cancelled || !errors.Is(in.Err, errHeld)):
			w.told = append(w.told, Settled{Delivery: &it.d, Outcome: Failed, Err: errorText(in.Err.Error())})
		case in.Err != nil:
		case in.Dropped != "":
			w.told = append(w.told, Settled{Delivery: &it.d, Outcome: Dropped, Reason: in.Dropped})
		default:
			w.told = append(w.told, Settled{Delivery: &it.d, Outcome: Done})
		}
	}
	w.tell()
}

// prepare fills the batch.
func (w *worker) prepare() {
	b := &w.batch
	clear(b.Inputs)
	clear(b.Events)
	b.Inputs, b.Events, w.lanes, w.stale = b.Inputs[:0], b.Events[:0], w.lanes[:0], w.stale[:0]
	clear(w.outs)
	w.outs = w.outs[:0]
	w.cancelled, w.panicked = false, false
	ordered := w.f.p.Ordering != driver.None
	for i, it := range w.items {
		in := Input{Delivery: &it.d, Attempt: it.handlings}
		if !it.expires.IsZero() && it.handlings == 1 && time.Now().After(it.expires) {
			in.Dropped = Expired
		} else {
			b.Events = append(b.Events, Event{Message: it.d.Message, Input: i})
		}
		b.Inputs = append(b.Inputs, in)
		w.stale = append(w.stale, false)
		if ordered {
			w.lanes = append(w.lanes, it.lane)
		}
	}
	b.lanes = nil
	if ordered {
		b.lanes = w.lanes
	}
}

// call keeps a stage's panic to its batch.
func (w *worker) call(stage any, process func()) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		w.panicked = true
		// Only the runtime's own errors are shown: any other value may hold what a message held.
		what := fmt.Sprintf("%T", p)
		if err, ok := p.(runtime.Error); ok {
			what = err.Error()
		}
		if w.f.panicked.CompareAndSwap(false, true) {
			w.f.log.Error("A stage panicked; its messages are tried again one by one", "stage", fmt.Sprintf("%T", stage), "panic", what, "stack", string(debug.Stack()))
		}
		w.batch.FailAll(fmt.Errorf("stage %T panicked: %s", stage, what))
	}()
	process()
}

// settle acknowledges the items at w.at. A settlement that fails in passing is tried again until it is taken, or the delivery is not ours
// any more.
func (w *worker) settle() {
	f := w.f
	pause := firstSettleRetry
	for len(w.at) > 0 {
		w.list, w.extended = w.list[:0], w.extended[:0]
		src := w.items[w.at[0]].in.src
		keep := w.at[:0]
		now := int64(0)
		for _, i := range w.at {
			it := w.items[i]
			d := it.deadline.Load()
			if d != 0 && now == 0 {
				now = time.Now().UnixNano()
			}
			// The broker may not fence: once the lease is over, our acknowledgement could settle what somebody else holds.
			if it.gone.Load() || d != 0 && d <= now {
				w.stale[i] = true
				continue
			}
			keep = append(keep, i)
			of := &it.d
			if d != 0 { // as it was extended: the driver looks at it too. In a copy, for the next extension reads the item's own
				w.extended = append(w.extended, it.d)
				of = &w.extended[len(w.extended)-1]
				of.Deadline = time.Unix(0, d)
			}
			w.list = append(w.list, driver.Settlement{D: of, Verb: driver.Done, Out: w.out(i)})
		}
		w.at = keep
		if len(w.list) == 0 {
			return
		}
		errs := src.Settle(f.settling, w.list)
		clear(w.list)
		clear(w.extended)
		if errs == nil {
			return
		}
		keep = w.at[:0]
		var failed error
		for n, i := range w.at {
			switch {
			case errs[n] == nil:
			case errors.Is(errs[n], driver.ErrStale) || f.settling.Err() != nil:
				w.stale[i] = true
			default:
				failed = errs[n]
				keep = append(keep, i)
			}
		}
		w.at = keep
		if len(keep) == 0 {
			return
		}
		if pause == firstSettleRetry {
			f.log.Warn("Messages were handled but could not be acknowledged; trying again", "messages", len(keep), "error", failed)
		}
		sleep(f.settling, f.jitter(pause))
		pause = min(2*pause, lastSettleRetry)
	}
}

// parkAll stores dead letters and then settles what they hold: a crash in between leaves a second copy, never none.
func (w *worker) parkAll() {
	f := w.f
	clear(w.outs)
	w.outs = w.outs[:0]
	w.deaths, w.unparked, w.stale, w.at = w.deaths[:0], w.unparked[:0], w.stale[:0], w.at[:0]
	now := time.Now()
	for _, it := range w.items {
		if it.died.IsZero() { // it stays when the dead letter is tried again: with it the letter is the same one to the broker
			it.died = now
		}
		w.deaths = append(w.deaths, DeadLetter(it.d.Message, Death{
			Reason: it.dead, Attempts: it.attempts, First: it.firstErr, Last: it.errNow, Origin: f.cfg.Name, Time: it.died,
		}))
		w.stale = append(w.stale, false)
		w.unparked = append(w.unparked, nil)
	}
	if f.cfg.DeadLetter == nil {
		for i := range w.unparked {
			w.unparked[i] = errNoDeadLetter
		}
	} else {
		ctx, cancel := context.WithTimeout(f.attempts, parkTimeout)
		copy(w.unparked, Bury(ctx, f.cfg.DeadLetter, w.deaths))
		cancel()
	}
	clear(w.deaths)
	for i := range w.items {
		if w.unparked[i] == nil {
			w.at = append(w.at, i)
		}
	}
	w.settle()
	if f.cfg.Settled == nil {
		return
	}
	w.told = w.told[:0]
	for i, it := range w.items {
		if w.unparked[i] == nil && !w.stale[i] {
			w.told = append(w.told, Settled{Delivery: &it.d, Outcome: DeadLettered, Reason: string(it.dead), Err: errorText(it.errNow)})
		}
	}
	w.tell()
}

func (w *worker) tell() {
	if len(w.told) == 0 {
		return
	}
	defer clear(w.told)
	defer func() {
		if p := recover(); p != nil {
			w.f.log.Error("Telling what became of messages panicked; receipts were not sent", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		}
	}()
	w.f.cfg.Settled(w.f.settling, w.told)
}

// finish takes in what became of a worker's items: what is done leaves the window, the rest goes back to the head of its lane, in order.
func (f *Flow) finish(w *worker, now time.Time) {
	if len(w.items) == 0 {
		return
	}
	if !w.park {
		f.stats.Handling.add(now.Sub(w.began), len(w.items))
	}
	if w.suspect {
		f.suspected = false
	}
	destination, after := false, time.Duration(0)
	for i := 0; i < len(w.items); {
		l := w.items[i].lane
		j := i
		for ; j < len(w.items) && w.items[j].lane == l; j++ {
			f.inHands--
			var kept bool
			if w.park {
				kept = f.parked(w, j, now)
			} else {
				var d bool
				var a time.Duration
				kept, d, a = f.attempted(w, j, now)
				destination, after = destination || d, max(after, a)
			}
			if it := w.items[j]; !kept || it.revoked || it.gone.Load() {
				if kept {
					f.stats.Forgotten++
				}
				it.lane = nil
			}
		}
		var first *item
		for k := j - 1; k >= i; k-- {
			it := w.items[k]
			if it.worker = nil; it.lane == nil {
				f.free(it)
			} else {
				f.prepend(l, it)
				first = it
			}
		}
		f.setAside(l, first)
		l.busy = false
		f.put(l, now)
		i = j
	}
	if w.probe {
		f.probed(destination, after, now)
	}
	clear(w.items)
	w.items = w.items[:0]
	f.arm(now)
	if f.room() > 0 {
		f.space.Signal()
	}
	if f.watched {
		f.quiet.Broadcast()
	}
}

// attempted judges one attempt: whether the item is kept, and what it says about the destination.
func (f *Flow) attempted(w *worker, i int, now time.Time) (kept, destination bool, after time.Duration) {
	it, in := w.items[i], &w.batch.Inputs[i]
	switch {
	case it.gone.Load():
		return true, false, 0 // kept by nobody: finish forgets it
	case in.Err == nil:
		switch {
		case in.Dropped == "", in.reached > f.run.stage:
			f.through(it.lane, now)
		case in.reached > 0:
			f.partly(in.reached, now)
		}
		switch {
		case w.stale[i]:
			f.stats.Forgotten++
		case in.Dropped == Expired:
			f.stats.Expired++
		case in.Dropped != "":
			f.drop(in.Dropped)
		default:
			f.stats.Done++
			if !it.d.Stored.IsZero() {
				f.stats.Latency.add(now.Sub(it.d.Stored), 1)
			}
		}
		return false, false, 0
	case errors.Is(in.Err, errHeld) && !w.cancelled:
		it.handlings--
		return true, false, 0
	case it.settled:
		f.stats.Failed++
		return false, false, 0
	case w.cancelled, it.revoked:
		return true, false, 0
	case w.panicked && len(w.items) > 1:
		it.alone = true
		return true, false, 0
	}
	destination, after = f.judge(it, in.Err, in.stage, now)
	return true, destination, after
}

// parked notes whether the dead letter has an item.
func (f *Flow) parked(w *worker, i int, now time.Time) (kept bool) {
	it := w.items[i]
	if err := w.unparked[i]; err != nil {
		if !it.gone.Load() && f.attempts.Err() == nil {
			if f.unparked == nil {
				f.log.Error("A dead letter could not be stored; the message is kept and the dead letter tried again", "error", errorText(err.Error()))
			}
			f.unparked = err
			it.tries++
			it.due = now.Add(f.jitter(f.p.Retry.wait(it.tries)))
		}
		return true
	}
	f.unparked = nil
	f.deadLettered(it.dead)
	return false
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
