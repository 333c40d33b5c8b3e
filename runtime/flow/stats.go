package flow

import (
	"maps"
	"time"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// State is what a flow is doing, in a word.
type State string

const (
	Starting         State = "Starting"
	Running          State = "Running"
	SourceDown       State = "SourceDown"       // the source broke, or cannot be opened; it is opened again with backoff
	DestinationDown  State = "DestinationDown"  // the breaker is open
	Retrying         State = "Retrying"         // the destination failed several times in a row, over too few messages for the breaker
	DeadLetterDown   State = "DeadLetterDown"   // a dead letter could not be stored
	RetryWindowFull  State = "RetryWindowFull"  // all that may be held waits to be tried again
	BlockedPartition State = "BlockedPartition" // too much lies behind a position that is not done
	BlockedKeys      State = "BlockedKeys"      // the others go on
	PositionLost     State = "PositionLost"     // the broker no longer has the position: the flow has stopped, for it never jumps
	Draining         State = "Draining"
	Stopped          State = "Stopped"
)

// States are all of them.
var States = [...]State{Starting, Running, SourceDown, DestinationDown, Retrying, DeadLetterDown, RetryWindowFull, BlockedPartition, BlockedKeys, PositionLost, Draining, Stopped}

// Stats is a snapshot. The counters only grow.
type Stats struct {
	State  State
	Detail string // of the state: an error with its address and, where one message is at fault, its id and source, or a position; never a payload, key or secret

	Received     uint64
	Done         uint64
	Dropped      map[string]uint64 // by reason, on purpose
	Expired      uint64
	Retried      uint64 // handlings after a message's first
	DeadLettered map[Reason]uint64
	Failed       uint64 // AtMostOnce: the one attempt failed, or a shutdown came before it
	Forgotten    uint64 // given back or lost to another: they come again

	// Latency is of messages that are done: from when the broker stored them, by its clock, to the end of their acknowledgement. Messages
	// of a broker that does not tell are not in it.
	Latency Histogram
	// Handling is of all handlings, whatever came of them: from the first stage to the end of the acknowledgement. What is handled together
	// takes equally long.
	Handling Histogram

	InFlight    int // in handling
	Window      int // held, those in handling included
	WindowBytes int
	WindowLimit driver.Window // of what may be held
	Waiting     int           // keys (without order: messages) that wait for their next try
	Blocked     int           // keys (without order: messages) that wait for their destination to be mended
	// BreakerSince is when the breaker opened; zero: it is closed.
	BreakerSince time.Time
	// Oldest is when the oldest message that is held was stored by the broker or, where the broker does not tell, received; zero: none is.
	Oldest time.Time
}

// Stats takes a snapshot. It costs one short lock.
func (f *Flow) Stats() Stats {
	f.mu.Lock()
	s := f.stats
	s.Dropped, s.DeadLettered = maps.Clone(s.Dropped), maps.Clone(s.DeadLettered)
	s.InFlight, s.Window, s.WindowBytes = f.inHands, f.held, f.heldBytes
	s.Waiting, s.Blocked = len(f.waiting), f.blocked
	s.BreakerSince = f.breaker.since
	s.WindowLimit = f.p.Window
	for it := f.oldest; it != nil; it = it.after {
		if since := it.since(); s.Oldest.IsZero() || since.Before(s.Oldest) {
			s.Oldest = since
		}
	}
	s.State, s.Detail = f.state()
	var src driver.Source
	if f.in != nil {
		src = f.in.src
	}
	f.mu.Unlock()
	if src, ok := src.(blocker); ok && (s.State == Running || s.State == Retrying || s.State == BlockedKeys || s.State == RetryWindowFull) {
		if claim, position, since, ok := src.Blocked(); ok {
			detail := blockedAt(claim, position, since)
			if s.State == BlockedKeys {
				detail += ": " + s.Detail
			}
			s.State, s.Detail = BlockedPartition, detail
		}
	}
	return s
}

// state is the first thing that a person should know; f.mu is held.
func (f *Flow) state() (State, string) {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return errorText(err.Error())
	}
	switch {
	case f.positionLost != nil:
		return PositionLost, text(f.positionLost)
	case f.finished:
		return Stopped, ""
	case f.draining:
		return Draining, ""
	case f.sourceErr != nil:
		return SourceDown, text(f.sourceErr)
	case f.in == nil:
		return Starting, ""
	case f.breaker.open:
		return DestinationDown, f.oldestOf(f.cutLast, f.run.last)
	case f.unparked != nil && f.dying > 0:
		return DeadLetterDown, text(f.unparked)
	case f.room() <= 0 && len(f.waiting) > 0 && f.unstarted == 0:
		return RetryWindowFull, f.oldestOf(func(it *item) bool { return it.errNow != "" }, "")
	case f.blocked > 0:
		return BlockedKeys, f.oldestOf(func(it *item) bool { return it.blocked }, "")
	case f.run.faults >= tellAfter && f.held > 0:
		return Retrying, f.oldestOf(f.cutLast, f.run.last)
	}
	if stuck := f.oldestOf(func(it *item) bool { return it.full && it.tries >= tellAfter }, ""); stuck != "" {
		return Retrying, stuck
	}
	return Running, ""
}

// cutLast reports whether a message is one whose connection ended before an answer, where that is the latest trouble.
func (f *Flow) cutLast(it *item) bool { return it.suspect && it.trouble() == f.run.last }

// oldestOf is the trouble of the oldest message that match picks, and which one that is; otherwise where it picks none.
func (f *Flow) oldestOf(match func(*item) bool, otherwise string) string {
	for it := f.oldest; it != nil; it = it.after {
		if match(it) {
			return it.trouble() + "; message " + it.name()
		}
	}
	return otherwise
}

func (f *Flow) drop(reason string) {
	if f.stats.Dropped == nil {
		f.stats.Dropped = map[string]uint64{}
	}
	f.stats.Dropped[reason]++
}

func (f *Flow) deadLettered(why Reason) {
	if f.stats.DeadLettered == nil {
		f.stats.DeadLettered = map[Reason]uint64{}
	}
	f.stats.DeadLettered[why]++
}
