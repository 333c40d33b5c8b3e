package verify

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Record collects a history while it happens. The zero value is ready.
type Record struct {
	mu      sync.Mutex
	history History
	stored  map[Mark]bool
	seen    map[string]*sight
	changed chan struct{} // closed and forgotten when more has happened
}

// sight is what one observer has seen.
type sight struct {
	marks  map[Mark]bool
	stored int // of them, how many are known to be stored
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
		return Mark{}, fmt.Errorf("this is no message of a verifier: %q", data)
	}
	return p.Mark, nil
}

// Saw notes that an observer took a message. Call it in the order of taking.
func (r *Record) Saw(observer string, m Mark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Sightings = append(r.history.Sightings, Sighting{m, observer, time.Now()})
	o := r.of(observer)
	if !o.marks[m] {
		o.marks[m] = true
		if r.stored[m] {
			o.stored++
		}
	}
	r.signal()
}

func (r *Record) published(p Publication) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Publications = append(r.history.Publications, p)
	if p.Fate == Stored {
		if r.stored == nil {
			r.stored = map[Mark]bool{}
		}
		r.stored[p.Mark] = true
		for _, o := range r.seen {
			if o.marks[p.Mark] {
				o.stored++
			}
		}
	}
	r.signal()
}

func (r *Record) of(observer string) *sight {
	if r.seen == nil {
		r.seen = map[string]*sight{}
	}
	o := r.seen[observer]
	if o == nil {
		o = &sight{marks: map[Mark]bool{}}
		r.seen[observer] = o
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
	return &History{slices.Clone(r.history.Publications), slices.Clone(r.history.Sightings)}
}

// Missing counts what is Stored and not yet seen by an observer, and gives a channel that is closed when more has happened.
func (r *Record) Missing(observer string) (int, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return len(r.stored) - r.of(observer).stored, r.changed
}
