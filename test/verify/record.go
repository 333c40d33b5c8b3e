package verify

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Record collects a history while it happens. The zero value is ready.
type Record struct {
	mu        sync.Mutex
	history   History
	stored    []Mark
	observers map[string]*observer
	objected  []string
	changed   chan struct{} // closed and forgotten when more has happened
}

// observer is what one of them has seen.
type observer struct {
	promise Promise
	marks   map[Mark]bool
	missing map[Mark]bool // Stored, meant for it and not seen
}

// payload is the data of every message.
type payload struct {
	Run string `json:"run"`
	Mark
}

// Read is the mark of a message from its data.
func Read(data []byte) (Mark, error) {
	var p payload
	if err := json.Unmarshal(data, &p); err != nil {
		return Mark{}, fmt.Errorf("this is no message of a verifier: %w", err)
	}
	if p.Key == "" || p.Seq < 1 {
		return Mark{}, fmt.Errorf("this is no message of a verifier: %.200q", data)
	}
	return p.Mark, nil
}

// Promise says what an observer is promised; without it all messages are meant for it, in any order.
func (r *Record) Promise(name string, p Promise) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.of(name)
	o.promise, o.missing = p, map[Mark]bool{}
	for _, m := range r.stored {
		o.miss(m)
	}
}

// Saw notes that an observer took a message. Call it in the order of taking.
func (r *Record) Saw(name string, m Mark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Sightings = append(r.history.Sightings, Sighting{m, name, time.Now()})
	o := r.of(name)
	o.marks[m] = true
	delete(o.missing, m)
	r.signal()
}

// Note adds what else happened to the history.
func (r *Record) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Events = append(r.history.Events, Event{fmt.Sprintf(format, args...), time.Now()})
}

// Object notes that an observer was given what nobody should be given: it breaks the run.
func (r *Record) Object(name, format string, args ...any) {
	text := name + ": " + fmt.Sprintf(format, args...)
	r.Note("%s", text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.objected = append(r.objected, text)
}

func (r *Record) published(p Publication) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Publications = append(r.history.Publications, p)
	if p.Fate == Stored {
		r.stored = append(r.stored, p.Mark)
		for _, o := range r.observers {
			o.miss(p.Mark)
		}
	}
	r.signal()
}

func (o *observer) miss(m Mark) {
	if !o.marks[m] && o.promise.wants(m) {
		o.missing[m] = true
	}
}

func (r *Record) of(name string) *observer {
	if r.observers == nil {
		r.observers = map[string]*observer{}
	}
	o := r.observers[name]
	if o == nil {
		o = &observer{marks: map[Mark]bool{}, missing: map[Mark]bool{}}
		for _, m := range r.stored {
			o.miss(m)
		}
		r.observers[name] = o
	}
	return o
}

func (r *Record) signal() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// History is a copy of what was recorded until now.
func (r *Record) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &History{slices.Clone(r.history.Publications), slices.Clone(r.history.Sightings), slices.Clone(r.history.Events)}
}

// Missing is what an observer has not seen of what is Stored and meant for it, and a channel that is closed when more has happened.
func (r *Record) Missing(name string) ([]Mark, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var missing []Mark
	for m := range r.of(name).missing {
		missing = append(missing, m)
	}
	slices.SortFunc(missing, byMark)
	return missing, r.watch()
}

// Seen is how many different messages an observer has seen, and a channel that is closed when more has happened.
func (r *Record) Seen(name string) (int, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.of(name).marks), r.watch()
}

func (r *Record) watch() <-chan struct{} {
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// Verdicts judges all observers, by name, and tells what they objected to.
func (r *Record) Verdicts() (all []Verdict, objections []string) {
	h := r.History()
	r.mu.Lock()
	promises := map[string]Promise{}
	for name, o := range r.observers {
		promises[name] = o.promise
	}
	objections = slices.Clone(r.objected)
	r.mu.Unlock()
	for name, p := range promises {
		all = append(all, Judge(h, name, p))
	}
	slices.SortFunc(all, func(a, b Verdict) int { return strings.Compare(a.Observer, b.Observer) })
	return all, objections
}
