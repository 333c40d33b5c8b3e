package flow

import (
	"strconv"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// An arrival is what the flow must know of a delivery before it takes it in, found out without the lock.
type arrival struct {
	size    int
	expires time.Time
	loop    bool
}

func (f *Flow) look(d *driver.Delivery) (a arrival) {
	a.size = d.Message.Size()
	request := false
	for i := range d.Message.Attributes {
		switch at := &d.Message.Attributes[i]; at.Name {
		case message.ExpiryTime:
			if f.p.WhenExpired == Drop {
				a.expires, _ = message.ParseTime(at.Value) // not a time: it never expires
			}
		case message.ReplyTo:
			request = at.Value != ""
		case message.Hops:
			n, err := strconv.Atoi(at.Value)
			a.loop = err == nil && n > MaxHops
		}
	}
	if !request { // the time that an event's own publisher has given it is data
		a.expires = time.Time{}
	}
	return a
}

// admit takes deliveries into the window and wakes who can handle them.
func (f *Flow) admit(in *intake, ds []driver.Delivery, as []arrival, settled bool) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Received += uint64(len(ds))
	for i := range ds {
		if !settled && in.isGone(ds[i].Claim) {
			f.stats.Forgotten++
			continue
		}
		if settled && as[i].loop {
			f.drop(string(Loop))
			continue
		}
		it := f.newItem()
		it.d, it.in, it.size, it.received, it.expires, it.settled = ds[i], in, as[i].size, now, as[i].expires, settled
		f.heldBytes += it.size
		f.largest = max(f.largest, it.size)
		if !settled && !it.d.Deadline.IsZero() {
			it.deadline.Store(it.d.Deadline.UnixNano())
			f.extendFrom(in)
		}
		switch {
		case as[i].loop:
			it.dead, it.errNow = Loop, "the message went through more than "+strconv.Itoa(MaxHops)+" flows"
		case !settled && f.p.OnFailure != Block && it.d.Count > 3*f.p.Retry.MaxAttempts+10:
			it.dead, it.errNow = CrashLoop, "the broker delivered the message "+strconv.Itoa(it.d.Count)+" times and no handling of it came to an end"
			it.attempts = it.d.Count
		}
		if it.dead != "" {
			f.dying++
		}
		it.firstErr = it.errNow
		l := f.laneOf(it)
		f.append(l, it)
		if !l.busy && l.place == nowhere {
			f.put(l, now)
		}
	}
	if f.runnable(now) {
		f.wake()
	}
}

// room is how many more messages may be received now. Receiving goes on in portions, not one by one as each message is done.
func (f *Flow) room() int {
	limit := max(hoard*f.p.MaxInFlight, f.p.BatchSize)
	n := min(f.p.Window.Messages-f.held, limit-f.unstarted)
	if left := f.p.Window.Bytes - f.heldBytes; f.held > 0 && f.largest > 0 {
		n = min(n, left/f.largest)
	}
	if n < limit/4 && f.unstarted > 0 {
		return 0
	}
	return n
}

// runnable reports whether a worker would find something to do.
func (f *Flow) runnable(now time.Time) bool {
	switch {
	case f.draining:
		// When the time is up nothing can be parked any more: it would be tried again and again, at once.
		return f.dead.first != nil && f.attempts.Err() == nil || f.p.AtMostOnce && f.ready.first != nil
	case f.dead.first != nil:
		return true
	case !f.breaker.open:
		return f.ready.first != nil || f.suspects.first != nil && !f.suspected
	default:
		return f.breaker.due(now) && (f.ready.first != nil || f.suspects.first != nil || len(f.waiting) > 0)
	}
}

// wake makes one worker look; that one wakes the next if there is more.
func (f *Flow) wake() {
	switch {
	case f.idle > 0:
		f.idle--
		f.work.Signal()
	case f.workers < f.p.workers() && !f.over:
		f.workers++
		go f.serve(newWorker(f))
	}
}

// take fills a worker's hands: items whose handling is due, in batches, or dead ones to be parked. False: there is nothing to do.
func (f *Flow) take(w *worker, now time.Time) bool {
	w.items, w.probe, w.suspect, w.park = w.items[:0], false, false, false
	if !f.runnable(now) {
		return false
	}
	switch {
	case f.dead.first != nil:
		w.park = true
		for f.dead.first != nil && len(w.items) < f.p.BatchSize {
			f.grab(w, f.dead.first, 1, now)
		}
	case f.breaker.open && !f.draining:
		for l := f.probe(); l != nil && len(w.items) == 0; l = f.probe() {
			f.grab(w, l, 1, now) // or finds that its lease has ended
		}
		w.probe = len(w.items) > 0
		f.breaker.probing = w.probe
	case f.suspects.first != nil && !f.suspected && !f.draining:
		f.grab(w, f.suspects.first, 1, now)
		if len(w.items) == 0 {
			return f.take(w, now)
		}
		f.suspected, w.suspect = true, true
	default:
		for f.ready.first != nil && len(w.items) < f.p.BatchSize {
			l := f.ready.first
			if l.first().alone {
				if len(w.items) == 0 {
					f.grab(w, l, 1, now)
				}
				break
			}
			n := f.p.BatchSize - len(w.items)
			if l.first().handlings > 0 || f.p.Ordering == driver.Strict {
				n = 1 // what failed before is tried by itself, so that what follows is not handled in vain
			}
			f.grab(w, l, n, now)
		}
	}
	return len(w.items) > 0
}

// probe is the lane that the open breaker tries next: one that was not tried yet or whose backoff is over, else whichever comes first, but
// none that the destination itself asked us to leave alone. It takes the oldest and the latest in turn: many in a row may be at fault
// themselves, and what is well stand behind them.
func (f *Flow) probe() *lane {
	switch {
	case f.ready.first == nil:
	case f.breaker.fails%2 == 0:
		return f.ready.last
	default:
		return f.ready.first
	}
	if f.suspects.first != nil {
		return f.suspects.first
	}
	var first *lane
	for _, l := range f.waiting {
		if it := l.first(); it.dead == "" && !it.demanded && !it.brokers && !it.blocked && (first == nil || l.due.Before(first.due)) {
			first = l
		}
	}
	return first
}

// grab moves up to n items from the head of a lane into a worker's hands.
func (f *Flow) grab(w *worker, l *lane, n int, now time.Time) {
	f.pull(l)
	for ; n > 0 && l.first() != nil; n-- {
		it := l.first()
		if it.dead != "" != w.park || it.alone && !w.park && len(w.items) > 0 {
			break
		}
		if d := it.deadline.Load(); d != 0 && d <= now.UnixNano() {
			f.detach(l, it)
			f.stats.Forgotten++ // its lease has ended: it comes again, here or elsewhere
			f.free(it)
			f.space.Signal() // nobody else may come by to say that there is room
			continue
		}
		f.detach(l, it)
		if !w.park {
			if it.handlings++; it.handlings > 1 {
				f.stats.Retried++
			}
		}
		it.worker = w
		f.inHands++
		w.items = append(w.items, it)
		l.busy = true
	}
	if !l.busy {
		f.put(l, now)
	}
}

// tick moves lanes whose wait is over.
func (f *Flow) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tickAt = time.Time{}
	now := time.Now()
	f.advance(now)
	if f.runnable(now) {
		f.wake()
	}
	f.arm(now)
}

func (f *Flow) advance(now time.Time) {
	for len(f.waiting) > 0 && !f.waiting[0].due.After(now) {
		l := f.waiting[0]
		f.pull(l)
		f.put(l, now)
	}
}

// arm sets the timer for the next lane or probe.
func (f *Flow) arm(now time.Time) {
	var next time.Time
	if len(f.waiting) > 0 {
		next = f.waiting[0].due
	}
	if b := &f.breaker; b.open && !b.probing && b.next.After(now) && (next.IsZero() || b.next.Before(next)) {
		next = b.next
	}
	if next.IsZero() || !f.tickAt.IsZero() && !next.Before(f.tickAt) {
		return
	}
	f.tickAt = next
	f.timer.Reset(max(next.Sub(now), 0))
}
