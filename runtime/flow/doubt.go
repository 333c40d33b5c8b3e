package flow

import "time"

// A doubt is what keeps a message whose attempts are used up from its dead letter: only others can tell whether it is at fault or its
// destination is away. When another one gets through, it was the message.
type doubt uint8

const (
	none doubt = iota
	// exhausted: there are others that were not tried since anything got through. What follows it in its lane is tried each time that it has
	// failed once more, right then, and if that gets through the order goes on without it. When the run of faults covers openOver messages
	// the destination is at fault.
	exhausted
	// cutOff: its connections ended before an answer. Perhaps it ends its subscriber; if so, others get through afterwards.
	cutOff
)

// patience times MaxAttempts a message is tried while others are asked and none of them fails: they may never reach the destination.
const patience = 3

func (f *Flow) doubtful(it *item, why doubt) {
	it.doubt = why
	f.doubts++
}

// decide ends the doubt about an item.
func (f *Flow) decide(it *item) {
	if it.doubt != none {
		it.doubt = none
		f.doubts--
	}
}

// refill is how long what there is to receive may take to come, behind as much as was asked for or once there is room.
const refill = time.Second

// unasked reports whether there are, or may be, messages that did not fail since anything got through, and could be tried.
func (f *Flow) unasked(now time.Time) bool {
	return f.p.OnFailure != Block && (f.full || now.Sub(f.cameAt) < refill || f.held-f.dying > f.run.held)
}

// convict gives up what is in doubt: another message got through. What is in hands is judged when it comes back.
func (f *Flow) convict(now time.Time) {
	if f.doubts == 0 {
		return
	}
	for it := f.oldest; it != nil; it = it.after {
		if it.doubt == none || it.worker != nil {
			continue
		}
		f.decide(it)
		f.giveUp(it, AttemptsExhausted, now)
		if l := it.lane; !l.busy {
			f.pull(l)
			l.aside = nil
			f.put(l, now)
		}
	}
}

// trust ends the doubt about all that may have failed because the destination is away.
func (f *Flow) trust(now time.Time) {
	if f.doubts == 0 {
		return
	}
	for it := f.oldest; it != nil; it = it.after {
		if it.doubt != exhausted {
			continue
		}
		f.decide(it)
		if l := it.lane; l.aside != nil && !l.busy { // a busy lane looks when what it has in hands comes back
			f.pull(l)
			l.aside = nil
			f.put(l, now)
		}
	}
}

// setAside lets a lane go on behind its exhausted messages, or back to the first of them. first is the first item that a worker has given
// back to it; nil: none, whatever it had is done with.
func (f *Flow) setAside(l *lane, first *item) {
	switch {
	case first != nil && first.doubt == exhausted && l != &first.solo && (l.aside == nil || l.aside.doubt == exhausted):
		l.aside = first
		if next := first.next; next != nil && !next.demanded && !next.brokers {
			next.due = time.Time{}
		}
	case l.aside != nil && (first != nil || l.aside.doubt != exhausted):
		l.aside = nil
	}
}

// overtaken gives up what a lane has set aside: what follows it got through, and the order goes on without it.
func (f *Flow) overtaken(l *lane, now time.Time) {
	if l.aside == nil {
		return
	}
	for it := l.head; it != l.aside.next; it = it.next {
		if it.dead == "" {
			f.decide(it)
			f.giveUp(it, AttemptsExhausted, now)
		}
	}
}
