package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// A story is all that happens in one run of the property test. It is drawn first, so that a failure can be shrunk, and then told in fake time.
type story struct {
	ordering  driver.Ordering
	onFailure OnFailure
	inFlight  int
	batch     int
	window    int
	attempts  int
	lease     bool
	messages  []fate
	events    []event
}

// A fate is what a message does to whoever handles it.
type fate struct {
	id    string
	key   string
	part  string
	takes time.Duration
	fault string // "" and "fails" times over
	fails int
	stale int // so many settlements of it are stale
	slow  int // so many fail in passing
}

type event struct {
	after time.Duration
	what  string
	part  string
	limit time.Duration
}

var kinds = []string{"500", "unreachable", "busy", "address", "broker", "poison", "panic", "cut"}

func (k fate) err() error {
	switch k.fault {
	case "unreachable":
		return refused
	case "busy":
		return &Fault{Blame: Busy, After: 3 * time.Second, Err: errors.New("HTTP 429")}
	case "address":
		return nowhere404
	case "broker":
		return &Fault{Blame: Broker, Err: errors.New("away")}
	case "poison":
		return poison
	case "cut":
		return errCut
	case "panic":
		panic("a stage fails on " + k.id)
	}
	return errDown
}

func drawStory(t *rapid.T) story {
	draw := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	number := func(name string, low, high int) int { return rapid.IntRange(low, high).Draw(t, name) }
	s := story{
		ordering:  driver.Ordering(draw("ordering", "Key", "Key", "None", "Strict")),
		onFailure: OnFailure(draw("onFailure", "Park", "Block")),
		inFlight:  number("inFlight", 1, 6), batch: number("batch", 1, 6), window: number("window", 1, 30),
		attempts: number("attempts", 1, 4), lease: rapid.Bool().Draw(t, "lease"),
	}
	parts := number("parts", 1, 2)
	if s.ordering == driver.Strict {
		parts = 1
	}
	for i := range number("messages", 1, 30) {
		key := draw("key", "a", "b", "c", "d", "")
		m := fate{id: key + "." + strconv.Itoa(i), key: key, takes: time.Duration(number("takes", 0, 3)) * 400 * time.Millisecond}
		if key != "" {
			m.part = strconv.Itoa(int(key[0]) % parts)
		} else {
			m.part = "0"
		}
		if number("faulty", 0, 2) == 0 {
			m.fault, m.fails = draw("fault", kinds...), number("fails", 1, 6)
		}
		if number("odd settling", 0, 5) == 0 {
			m.stale, m.slow = number("stale", 0, 2), number("slow", 0, 2)
		}
		s.messages = append(s.messages, m)
	}
	for range number("events", 0, 6) {
		s.events = append(s.events, event{
			after: time.Duration(number("after", 0, 50)) * 100 * time.Millisecond,
			what:  draw("what", "lose", "revoke", "restart", "break", "add"), part: strconv.Itoa(number("part", 0, parts-1)),
			limit: time.Duration(number("limit", 0, 2)) * time.Second,
		})
	}
	return s
}

func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawStory(rt)
		var faults []string
		synctest.Test(t, func(t *testing.T) { faults = s.tell(t) })
		for _, f := range faults {
			rt.Error(f)
		}
	})
}

// tell runs a story to its end and returns what went wrong.
func (s story) tell(t *testing.T) (wrong []string) {
	r := newRig(t)
	r.cfg.Policy = Policy{
		Ordering: s.ordering, MaxInFlight: s.inFlight, BatchSize: s.batch, Window: driver.Window{Messages: s.window, Bytes: 1 << 20},
		AckWait: 30 * time.Second, Retry: Retry{MaxAttempts: s.attempts, Initial: time.Second, Max: 20 * time.Second, Multiplier: 2, JitterPercent: 20},
		OnFailure: s.onFailure,
	}
	r.sink.strict = s.ordering == driver.Strict
	if s.lease {
		r.script.lease = 30 * time.Second
	}
	var mended, broken atomic.Bool
	fates := map[string]*fate{}
	failures := map[string]int{}
	for i := range s.messages {
		m := s.messages[i]
		fates[m.id] = &m
	}
	r.sink.handle = func(ctx context.Context, id string, _ int) error {
		k := fates[id]
		if err := wait(ctx, k.takes); err != nil {
			return err
		}
		r.sink.mu.Lock() // when it was taken away and came again, a message may have two handlers
		fails := k.fails > 0 && !mended.Load()
		if fails {
			k.fails--
			failures[id]++
		}
		r.sink.mu.Unlock()
		if fails {
			return k.err()
		}
		return nil
	}
	r.script.settleErr = func(rec *record) error {
		k := fates[rec.m.ID]
		switch {
		case k.slow > 0:
			k.slow--
			return errors.New("timeout")
		case k.stale > 0:
			k.stale--
			return driver.ErrStale
		}
		if !r.ended1(rec.m.ID) {
			r.script.faults = append(r.script.faults, rec.m.ID+" was settled, yet neither stored nor dead-lettered")
		}
		return nil
	}
	r.script.receiveErr = func() error {
		if broken.CompareAndSwap(true, false) {
			return errors.New("consumer deleted")
		}
		return nil
	}
	add := func(ms []fate) {
		for _, m := range ms {
			r.script.mu.Lock()
			r.script.msgs = append(r.script.msgs, &record{m: message.Message{ID: m.id, Key: m.key}, part: m.part})
			r.script.mu.Unlock()
		}
		r.script.mu.Lock()
		r.script.notify()
		r.script.mu.Unlock()
	}
	half := len(s.messages) / 2
	add(s.messages[:half])
	rest := s.messages[half:]
	r.start()
	for _, e := range s.events {
		after(e.after)
		wrong = append(wrong, r.flow.inconsistent()...)
		switch e.what {
		case "lose":
			r.script.lose(e.part)
		case "revoke":
			ctx, cancel := context.WithTimeout(context.Background(), e.limit)
			r.script.take(ctx, e.part)
			cancel()
		case "restart":
			r.drain(e.limit)
			if r.script.out != 0 {
				wrong = append(wrong, fmt.Sprintf("%d messages were not given back by a drain", r.script.out))
			}
			r.start()
		case "break":
			broken.Store(true)
			add(nil)
		case "add":
			add(rest)
			rest = nil
		}
	}
	add(rest)
	after(10 * time.Minute)
	wrong = append(wrong, r.flow.inconsistent()...)
	mended.Store(true)
	after(2 * time.Hour)
	wrong = append(wrong, r.flow.inconsistent()...)
	if left := r.script.undone(); left != nil {
		wrong = append(wrong, fmt.Sprintf("left at the end: %v (%+v)", left, r.flow.Stats()))
	}
	r.drain(time.Minute)

	for _, id := range r.sink.overlaps {
		if s.ordering != driver.None {
			wrong = append(wrong, id+" was handled beside another of its key")
		}
	}
	if r.script.mostOut > s.window {
		wrong = append(wrong, fmt.Sprintf("%d held, window %d", r.script.mostOut, s.window))
	}
	wrong = append(wrong, r.script.faults...)
	wrong = append(wrong, s.disorder(r, failures)...)
	for _, m := range r.grave.ms {
		switch m.Attribute(message.Reason) {
		case string(AttemptsExhausted):
			if n, _ := strconv.Atoi(m.Attribute(message.Attempts)); n < s.attempts || failures[m.ID] < s.attempts {
				wrong = append(wrong, fmt.Sprintf("%s gave up after %d attempts, %d failures", m.ID, n, failures[m.ID]))
			}
			if k := fates[m.ID].fault; k != "500" && k != "address" && k != "panic" && k != "cut" {
				wrong = append(wrong, m.ID+": "+k+" was counted")
			}
		case string(Terminal):
			if fates[m.ID].fault != "poison" {
				wrong = append(wrong, m.ID+" is dead as if it were poison")
			}
		default:
			wrong = append(wrong, m.ID+" is dead: "+m.Attribute(message.Reason))
		}
	}
	if s.onFailure == Block && len(r.grave.ms) > 0 {
		wrong = append(wrong, "Block dead-lettered "+r.grave.ids())
	}
	return wrong
}

// ended1 reports whether a message was stored or dead-lettered.
func (r *rig) ended1(id string) bool {
	r.sink.mu.Lock()
	stored := slices.Contains(r.sink.stored, id)
	r.sink.mu.Unlock()
	r.grave.mu.Lock()
	defer r.grave.mu.Unlock()
	return stored || slices.ContainsFunc(r.grave.ms, func(m message.Message) bool { return m.ID == id })
}

// disorder compares, key by key, the order of first successes with that of publication.
func (s story) disorder(r *rig, failures map[string]int) (wrong []string) {
	if s.ordering == driver.None {
		return nil
	}
	at := map[string]int{}
	for i, m := range s.messages {
		at[m.id] = i
	}
	last, seen := map[string]int{}, map[string]bool{}
	for _, id := range r.sink.stored {
		if seen[id] || slices.ContainsFunc(r.grave.ms, func(m message.Message) bool { return m.ID == id }) {
			continue // a parked message may come again, when its settlement was stale
		}
		if failures[id] >= s.attempts {
			continue // the order went on without it, or would have, had its claim not been lost before it was parked
		}
		seen[id] = true
		key := keyOf(id[:max(0, len(id)-len(id[indexDot(id):]))])
		if s.ordering == driver.Strict {
			key = "*"
		} else if key == "" {
			continue
		}
		if before, ok := last[key]; ok && at[id] < before {
			wrong = append(wrong, fmt.Sprintf("%s was stored after %s", id, s.messages[before].id))
		}
		last[key] = at[id]
	}
	return wrong
}

func indexDot(id string) int {
	for i := range id {
		if id[i] == '.' {
			return i
		}
	}
	return 0
}

// inconsistent checks what must hold between the flow's structures whenever its lock is free.
func (f *Flow) inconsistent() (wrong []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	held, bytes, hands, blocked, dying, doubts, ran, suspects := 0, 0, 0, 0, 0, 0, 0, 0
	lanes := map[*lane]bool{}
	for it := f.oldest; it != nil; it = it.after {
		held++
		bytes += it.size
		if it.worker != nil {
			hands++
			if !it.lane.busy {
				say("%s is in hands and its lane is not busy", it.d.Message.ID)
			}
		}
		if it.blocked {
			blocked++
		}
		if it.dead != "" {
			dying++
		}
		if it.doubt != none {
			doubts++
		}
		if it.run == f.run.id {
			ran++
		}
		if it.worker != nil && it.worker.suspect {
			suspects++
		}
		lanes[it.lane] = true
	}
	if doubts != f.doubts || ran != f.run.held || suspects > 1 || suspects == 1 != f.suspected {
		say("%d in doubt, %d of the run, %d suspects in hands; noted %d, %d, %t", doubts, ran, suspects, f.doubts, f.run.held, f.suspected)
	}
	if held != f.held || bytes != f.heldBytes || hands != f.inHands || blocked != f.blocked || dying != f.dying {
		say("counted %d held, %d bytes, %d in hands, %d blocked, %d dying; noted %d, %d, %d, %d, %d",
			held, bytes, hands, blocked, dying, f.held, f.heldBytes, f.inHands, f.blocked, f.dying)
	}
	if held > f.p.Window.Messages {
		say("%d are held, the window is %d", held, f.p.Window.Messages)
	}
	unstarted, waiting := 0, 0
	for l := range lanes {
		fresh := 0
		for it := l.head; it != nil; it = it.next {
			if it.handlings == 0 {
				fresh++
			}
			if it != l.head && it.handlings > 0 && !it.alone && f.p.BatchSize == 1 && l.head.attempts < f.p.Retry.MaxAttempts {
				say("%s was started behind the head of its lane", it.d.Message.ID)
			}
		}
		if fresh != l.fresh {
			say("lane %q: %d fresh, noted %d", l.key, fresh, l.fresh)
		}
		if l.place == inWaiting {
			waiting++
		} else {
			unstarted += fresh
		}
		if l.head != nil && !l.busy && l.place == nowhere {
			say("lane %q is forgotten", l.key)
		}
	}
	if unstarted != f.unstarted || waiting != len(f.waiting) {
		say("%d not started, %d waiting; noted %d, %d", unstarted, waiting, f.unstarted, len(f.waiting))
	}
	for i, l := range f.waiting {
		if l.index != i || l.place != inWaiting || l.head == nil {
			say("the heap is broken at %d", i)
		}
	}
	for key, l := range f.lanes {
		if l.head == nil && !l.busy {
			say("lane %q is kept empty", key)
		}
	}
	return wrong
}
