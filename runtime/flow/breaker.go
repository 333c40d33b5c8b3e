package flow

import (
	"errors"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

const (
	// openAfter destination faults in a row over at least openOver messages open the breaker.
	openAfter = 10
	openOver  = 3
	// tellAfter destination faults in a row the state says so.
	tellAfter = 3
	// probeMost bounds the pause between two probes, whatever the backoff of messages: what is well again is soon in use again.
	probeMost = 30 * time.Second
)

// A breaker keeps an outage of the destination from using up the attempts of the messages. Open, it lets one message at a time through as
// a probe, with backoff, and counts nothing; whatever gets through closes it.
type breaker struct {
	open    bool
	since   time.Time
	probing bool
	next    time.Time // of the next probe
	fails   int       // probes in a row
}

func (b *breaker) due(now time.Time) bool { return !b.probing && !now.Before(b.next) }

// A run is an unbroken row of destination faults.
type run struct {
	id       int
	faults   int
	messages int
	stage    int     // the last one that failed any of them
	held     int     // of these messages, those that are in the window still
	counted  []*item // whose attempts it has counted, while the breaker is closed
	last     string  // the latest fault, for people
}

// leaveRun forgets an item that leaves the window.
func (f *Flow) leaveRun(it *item) {
	if it.run != f.run.id || it.run == 0 {
		return
	}
	it.run = 0
	f.run.held--
	for i, other := range f.run.counted {
		if other == it {
			last := len(f.run.counted) - 1
			f.run.counted[i] = f.run.counted[last]
			f.run.counted[last] = nil
			f.run.counted = f.run.counted[:last]
			return
		}
	}
}

// through notes that a message of l got through to the destination: the run is broken, and the breaker closes.
func (f *Flow) through(l *lane, now time.Time) {
	f.successes++
	if f.run.faults > 0 {
		clear(f.run.counted)
		f.run = run{id: f.run.id + 1, counted: f.run.counted[:0]}
	}
	f.convict(now)
	f.overtaken(l, now)
	f.close(now)
}

// partly notes that a message got through the first stages only, while a later one has failed others: what they failed is no part of the
// run any more. It convicts nothing.
func (f *Flow) partly(stages int, now time.Time) {
	r := &f.run
	for it := f.oldest; it != nil; it = it.after {
		if it.run == r.id && it.stage < stages {
			r.faults -= it.faults
			r.messages--
			f.leaveRun(it)
		}
	}
	if r.messages == 0 {
		r.faults, r.stage = 0, 0
	}
	if r.messages < openOver {
		f.close(now)
	}
}

// close closes the breaker if it is open.
func (f *Flow) close(now time.Time) {
	if !f.breaker.open {
		return
	}
	f.log.Info("The destination answers again", "away", now.Sub(f.breaker.since).Round(time.Millisecond))
	f.breaker = breaker{}
	// What waits only because of the outage need not wait longer; but each time a bit more: what fails again may be what opened the breaker.
	for i := 0; i < len(f.waiting); {
		it := f.waiting[i].first()
		soon := time.Time{}
		if it.hurried > 0 {
			soon = now.Add(f.jitter(f.p.Retry.wait(it.hurried)))
		}
		if it.dead != "" || it.demanded || it.brokers || it.blocked || !soon.Before(it.due) {
			i++
			continue
		}
		it.due = soon
		it.hurried++
		f.mended = append(f.mended, f.waiting[i])
		i++
	}
	for i, l := range f.mended {
		f.pull(l)
		f.put(l, now)
		f.mended[i] = nil
	}
	f.mended = f.mended[:0]
}

// judge decides what follows from a failed attempt; it returns whether it was the destination's fault and for how long that asked to be left
// alone. stage is the one that failed. The counting is docs/guarantees.md to the letter.
func (f *Flow) judge(it *item, err error, stage int, now time.Time) (destination bool, after time.Duration) {
	fault, ok := errors.AsType[*Fault](err)
	if !ok {
		fault = &Fault{Blame: Destination, Err: err}
	}
	it.errNow = err.Error()
	if it.firstErr == "" {
		it.firstErr = it.errNow
	}
	it.tries++
	was := it.doubt
	f.decide(it)
	it.demanded, it.brokers, it.full, it.at = false, false, false, fault.At
	wait := f.jitter(f.p.Retry.wait(it.tries))
	switch fault.Blame {
	case Message:
		it.attempts++
		f.giveUp(it, Terminal, now)
		return false, 0
	case Broker:
		it.brokers, it.full = true, errors.Is(err, driver.ErrFull)
		it.due = now.Add(wait)
		return false, 0
	}
	if after = min(fault.After, maxPause); after > wait {
		wait, it.demanded = after, true
	}
	it.due = now.Add(wait)
	switch counted := f.fault(it, fault.Blame, stage, after, now); {
	case was == cutOff && (fault.Blame == Cut || fault.Blame == Unreachable):
		f.doubtful(it, cutOff) // that it failed once more while nothing else was tried tells nothing
	case !counted || it.attempts < f.p.Retry.MaxAttempts:
	case fault.Blame == Cut:
		if it.cuts >= openOver {
			f.doubtful(it, cutOff)
		}
	case f.run.messages >= openOver:
	case f.unasked(now) && (f.run.messages > 1 || it.attempts < patience*f.p.Retry.MaxAttempts):
		f.doubtful(it, exhausted)
	default:
		f.giveUp(it, AttemptsExhausted, now)
	}
	return true, after
}

// fault adds a destination fault to the run and reports whether it was counted as an attempt.
func (f *Flow) fault(it *item, blame Blame, stage int, after time.Duration, now time.Time) bool {
	counts := blame == Destination
	switch blame {
	case Address:
		counts = it.refused && f.successes > it.refusedAt
		if !it.refused {
			it.refused, it.refusedAt = true, f.successes
		}
	case Cut:
		// Others that were on their way are cut off with it, and may open the breaker: this count is none of the run's.
		counts = it.suspect && f.successes > it.refusedAt && !it.worker.probe
		it.suspect, it.refusedAt = true, f.successes
		if counts {
			it.attempts++
			it.cuts++
		}
		if it.tries >= openOver && !it.named && !f.breaker.open { // an outage soon tells of itself
			it.named = true
			f.log.Warn("The connection of a message ended before an answer, time and again: it may be what ends its subscriber", "message", it.name(), "error", it.trouble())
		}
	}
	r := &f.run
	r.faults++
	r.stage = max(r.stage, stage)
	r.last = it.trouble()
	if it.run != r.id {
		it.run, it.inRun, it.faults = r.id, 0, 0
		r.held++
		if r.messages++; r.messages == openOver {
			f.trust(now)
		}
	}
	it.stage, it.faults = stage, it.faults+1
	if f.breaker.open {
		return counts && blame == Cut
	}
	if counts && blame != Cut {
		it.attempts++
		if it.inRun++; it.inRun == 1 {
			r.counted = append(r.counted, it)
		}
	}
	if r.faults < openAfter || r.messages < openOver {
		return counts
	}
	for i, other := range r.counted {
		other.attempts -= other.inRun
		other.inRun = 0
		r.counted[i] = nil
	}
	r.counted = r.counted[:0]
	f.breaker = breaker{open: true, since: now, fails: 1, next: now.Add(f.untilProbe(1, after))}
	f.log.Warn("The destination is down: one message at a time is tried until one gets through", "faults", r.faults, "error", errorText(it.errNow))
	return counts && blame == Cut
}

// giveUp parks an item, or blocks its lane.
func (f *Flow) giveUp(it *item, why Reason, now time.Time) {
	if f.p.OnFailure != Block {
		it.dead, it.due, it.tries = why, time.Time{}, 0
		f.dying++
		f.leaveRun(it)
		return
	}
	if !it.blocked {
		it.blocked = true
		if f.blocked++; f.blocked == 1 {
			f.log.Warn("A message that cannot be delivered blocks what follows it; it is tried again until it is", "message", it.name(), "error", it.trouble())
		}
	}
	it.demanded = false
	it.due = now.Add(f.jitter(f.p.Retry.Max))
}

// longestName bounds an id and a source as they are told.
const longestName = 128

// name tells those who run the flow which message it is: by its id and source, and nothing else of it.
func (it *item) name() string {
	m := &it.d.Message
	return "id=" + errorText(m.ID[:min(len(m.ID), longestName)]) + " source=" + errorText(m.Source[:min(len(m.Source), longestName)])
}

// trouble is an item's latest error for those who run the flow.
func (it *item) trouble() string {
	text := errorText(it.errNow)
	if it.at != "" {
		text += " (" + it.at + ")"
	}
	return text
}

// probed takes in what a probe found out: a fault (the next one waits longer) or nothing about the destination (the next one goes at once).
func (f *Flow) probed(destination bool, after time.Duration, now time.Time) {
	b := &f.breaker
	if !b.open {
		return
	}
	b.probing = false
	b.next = now
	if destination {
		b.fails++
		b.next = now.Add(f.untilProbe(b.fails, after))
	}
}

// untilProbe is the pause before the nth probe; the destination may have asked for more.
func (f *Flow) untilProbe(n int, after time.Duration) time.Duration {
	return max(min(f.jitter(f.p.Retry.wait(n)), probeMost), after)
}
