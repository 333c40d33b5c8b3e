package flow

import (
	"container/heap"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// An item is one delivery in the window, from its receipt to its settlement. The flow's lock guards all of it but what is atomic; while a
// worker has it in hands the worker alone reads d.
type item struct {
	d    driver.Delivery
	in   *intake
	lane *lane
	solo lane // the lane of a message that has no order to keep

	prev, next       *item // in the lane
	before, after    *item // in the window, by arrival
	worker           *worker
	size             int
	received         time.Time
	expires          time.Time    // zero: never
	deadline         atomic.Int64 // d.Deadline in Unix nanoseconds, which extension moves; 0: none
	gone             atomic.Bool  // the claim is lost: whatever comes of the attempt is ignored
	revoked          bool         // the claim is being given up: what is not done is forgotten
	settled          bool         // before handling: AtMostOnce
	serial           uint64       // tells this use of a pooled item from the next
	handlings        int
	attempts         int // counted failures
	tries            int // failures in a row, counted or not: the exponent of the backoff
	due              time.Time
	demanded         bool // due was asked for by the destination
	brokers          bool // due waits for a broker, not for the destination
	blocked          bool
	hurried          int  // how often its backoff was cut short, as a breaker closed
	alone            bool // its batch panicked: it is handled by itself from now on
	dead             Reason
	died             time.Time // when the dead letter was first tried
	firstErr, errNow string
	at               string // the address that gave errNow

	// Of the run of destination faults: which run, how much of attempts it accounts for, how many faults are this one's, and the stage of
	// the last of them.
	run, inRun, faults, stage int
	// How many messages had got through when its address was first refused, or its connection last ended before an answer.
	refused   bool
	refusedAt uint64
	suspect   bool // it was cut off: it is tried by itself, one such message at a time
	named     bool // the log has said so
	full      bool // what it goes to on the broker had no room
	cuts      int  // of attempts
	doubt     doubt
}

// since is from when on its age is counted.
func (it *item) since() time.Time {
	if it.d.Stored.IsZero() {
		return it.received
	}
	return it.d.Stored
}

// A lane is an order to keep: its items are handled one after the other, and while its first one waits all of it waits.
type lane struct {
	key        string
	head, tail *item // those not in a worker's hands
	aside      *item // up to this one they wait until what follows them was tried (see doubt); nil: none does
	fresh      int   // of them, not yet started
	busy       bool  // a worker has some
	place      place
	prev, next *lane // in a queue
	index      int   // in the heap
	due        time.Time
}

type place uint8

const (
	nowhere place = iota
	inReady
	inSuspects
	inDead
	inWaiting
)

// first is the item that is handled next.
func (l *lane) first() *item {
	if l.aside != nil {
		return l.aside.next
	}
	return l.head
}

// append puts an item behind its lane.
func (f *Flow) append(l *lane, it *item) {
	it.lane, it.prev, it.next = l, l.tail, nil
	if l.tail == nil {
		l.head = it
	} else {
		l.tail.next = it
	}
	l.tail = it
	f.fresh(l, it, 1)
}

// prepend puts an item that was taken back where it was: first in its lane.
func (f *Flow) prepend(l *lane, it *item) {
	it.lane, it.prev, it.next = l, l.aside, l.first()
	if it.next == nil {
		l.tail = it
	} else {
		it.next.prev = it
	}
	if it.prev == nil {
		l.head = it
	} else {
		it.prev.next = it
	}
	f.fresh(l, it, 1)
}

// detach takes an item out of its lane.
func (f *Flow) detach(l *lane, it *item) {
	if l.aside == it {
		l.aside = it.prev
	}
	if it.prev == nil {
		l.head = it.next
	} else {
		it.prev.next = it.next
	}
	if it.next == nil {
		l.tail = it.prev
	} else {
		it.next.prev = it.prev
	}
	it.prev, it.next = nil, nil
	f.fresh(l, it, -1)
}

// fresh counts an item that was not started. Those of lanes that wait are not hoarded: they only count in the window.
func (f *Flow) fresh(l *lane, it *item, n int) {
	if it.handlings == 0 {
		l.fresh += n
		if l.place != inWaiting {
			f.unstarted += n
		}
	}
}

// A queue of lanes, first in first out.
type queue struct{ first, last *lane }

func (q *queue) push(l *lane) {
	l.prev, l.next = q.last, nil
	if q.last == nil {
		q.first = l
	} else {
		q.last.next = l
	}
	q.last = l
}

func (q *queue) remove(l *lane) {
	if l.prev == nil {
		q.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		q.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
}

// waitingLanes is a heap by due.
type waitingLanes []*lane

func (h waitingLanes) Len() int           { return len(h) }
func (h waitingLanes) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h waitingLanes) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *waitingLanes) Push(x any) {
	l := x.(*lane)
	l.index = len(*h)
	*h = append(*h, l)
}
func (h *waitingLanes) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}

// The window: every item that is held, by arrival.

func (f *Flow) newItem() *item {
	it := f.freeItems
	if it == nil {
		it = new(item)
	} else {
		f.freeItems = it.next
		it.next = nil
	}
	it.before = f.newest
	if f.newest == nil {
		f.oldest = it
	} else {
		f.newest.after = it
	}
	f.newest = it
	f.held++
	return it
}

// free takes an item out of the window. It is in no lane and in nobody's hands.
func (f *Flow) free(it *item) {
	if it.before == nil {
		f.oldest = it.after
	} else {
		it.before.after = it.after
	}
	if it.after == nil {
		f.newest = it.before
	} else {
		it.after.before = it.before
	}
	f.held--
	f.heldBytes -= it.size
	if it.blocked {
		f.blocked--
	}
	if it.dead != "" {
		f.dying--
	}
	f.leaveRun(it)
	f.decide(it)
	it.reset()
	it.next = f.freeItems
	f.freeItems = it
}

// reset clears what the next use must not see, releasing the client's memory.
func (it *item) reset() {
	it.d = driver.Delivery{}
	it.in, it.lane, it.worker = nil, nil, nil
	it.prev, it.next, it.before, it.after = nil, nil, nil, nil
	it.solo = lane{}
	it.expires, it.due, it.died = time.Time{}, time.Time{}, time.Time{}
	if it.deadline.Load() != 0 {
		it.deadline.Store(0)
	}
	if it.gone.Load() {
		it.gone.Store(false)
	}
	it.revoked, it.settled, it.demanded, it.brokers, it.blocked, it.alone, it.refused, it.suspect, it.named, it.full = false, false, false, false, false, false, false, false, false, false
	it.serial++
	it.handlings, it.attempts, it.tries, it.hurried, it.run, it.inRun, it.cuts, it.faults, it.stage = 0, 0, 0, 0, 0, 0, 0, 0, 0
	it.dead, it.firstErr, it.errNow, it.at = "", "", "", ""
}

// laneOf finds or makes the lane that an item keeps its order in.
func (f *Flow) laneOf(it *item) *lane {
	switch key := it.d.Message.Key; {
	case f.p.Ordering == driver.Strict:
		return &f.strict
	case f.p.Ordering == driver.Key && key != "":
		l := f.lanes[key]
		if l == nil {
			if l = f.freeLanes; l == nil {
				l = new(lane)
			} else {
				f.freeLanes = l.next
				l.next = nil
			}
			l.key = key
			f.lanes[key] = l
		}
		return l
	default:
		return &it.solo
	}
}

// put gives a lane the place that its first item asks for. It is in none, and not busy.
func (f *Flow) put(l *lane, now time.Time) {
	head := l.first()
	if head == nil && l.aside != nil {
		l.aside = nil
		head = l.head
	}
	switch {
	case head == nil:
		if l.key != "" {
			delete(f.lanes, l.key)
			*l = lane{next: f.freeLanes}
			f.freeLanes = l
		}
	case head.due.After(now):
		l.due, l.place = head.due, inWaiting
		heap.Push(&f.waiting, l)
		f.unstarted -= l.fresh
	case head.dead != "":
		l.place = inDead
		f.dead.push(l)
	case head.suspect:
		l.place = inSuspects
		f.suspects.push(l)
	default:
		l.place = inReady
		f.ready.push(l)
	}
}

// pull takes a lane out of its place.
func (f *Flow) pull(l *lane) {
	switch l.place {
	case inReady:
		f.ready.remove(l)
	case inSuspects:
		f.suspects.remove(l)
	case inDead:
		f.dead.remove(l)
	case inWaiting:
		heap.Remove(&f.waiting, l.index)
		f.unstarted += l.fresh
	}
	l.place = nowhere
}
