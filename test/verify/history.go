// Package verify tells whether a running Waybill keeps its promises: it publishes numbered messages of many keys from outside, as a user's
// traffic would, records what each observer saw, and reports what was lost, seen twice or seen out of order.
//
// It knows nothing of brokers or processes: whoever uses it starts, breaks and stops those meanwhile.
package verify

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Mark names one message of a run: the Seq-th of its key, from 1.
type Mark struct {
	Key string `json:"key"`
	Seq int    `json:"seq"`
}

func (m Mark) String() string { return fmt.Sprintf("%s/%d", m.Key, m.Seq) }

// Fate is what a publisher knows of a message.
type Fate string

const (
	Stored  Fate = "Stored"  // answered as durable
	Refused Fate = "Refused" // answered with an error that says that it was not taken
	Unknown Fate = "Unknown" // no answer, or one that leaves it open
)

// A Publication is the end of one message's publishing.
type Publication struct {
	Mark
	Fate Fate      `json:"fate"`
	At   time.Time `json:"at"`
}

// A Sighting is one time that an observer was given a message and took it.
type Sighting struct {
	Mark
	Observer string    `json:"observer"`
	At       time.Time `json:"at"`
}

// A History is what happened in a run. Sightings of one observer stand in the order in which it took them.
type History struct {
	Publications []Publication `json:"publications"`
	Sightings    []Sighting    `json:"sightings"`
}

// WriteTo writes the history as JSON lines: {"published": …} and {"seen": …}.
func (h *History) WriteTo(w io.Writer) (int64, error) {
	counted := &counter{w: w}
	enc := json.NewEncoder(counted)
	for i := range h.Publications {
		if err := enc.Encode(map[string]any{"published": &h.Publications[i]}); err != nil {
			return counted.n, err
		}
	}
	for i := range h.Sightings {
		if err := enc.Encode(map[string]any{"seen": &h.Sightings[i]}); err != nil {
			return counted.n, err
		}
	}
	return counted.n, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// A Verdict is what is to be said of one observer.
type Verdict struct {
	Observer   string
	Seen       int    // different messages
	Lost       []Mark // Stored, and never seen
	Duplicates int    // sightings beyond the first of each message
	Reordered  []Mark // first seen after a later one of its key
	Unheard    []Mark // seen, and never published
}

// Judge compares what was published with what each of the observers saw. Duplicates are folded before the order is looked at: the first
// sighting of each message counts.
func Judge(h *History, observers ...string) []Verdict {
	published := map[Mark]Fate{}
	for _, p := range h.Publications {
		published[p.Mark] = p.Fate
	}
	var all []Verdict
	for _, o := range observers {
		v := Verdict{Observer: o}
		seen, last := map[Mark]bool{}, map[string]int{}
		for _, s := range h.Sightings {
			if s.Observer != o {
				continue
			}
			if seen[s.Mark] {
				v.Duplicates++
				continue
			}
			seen[s.Mark] = true
			if _, ok := published[s.Mark]; !ok {
				v.Unheard = append(v.Unheard, s.Mark)
			}
			if s.Seq < last[s.Key] {
				v.Reordered = append(v.Reordered, s.Mark)
			}
			last[s.Key] = max(last[s.Key], s.Seq)
		}
		v.Seen = len(seen)
		for m, fate := range published {
			if fate == Stored && !seen[m] {
				v.Lost = append(v.Lost, m)
			}
		}
		slices.SortFunc(v.Lost, byMark)
		all = append(all, v)
	}
	return all
}

func byMark(a, b Mark) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Seq, b.Seq)) }

// Promise is what an observer was promised.
type Promise struct {
	Ordered     bool // within a key
	ExactlyOnce bool
}

// Broken says how a verdict breaks a promise; "" when it does not.
func (v *Verdict) Broken(p Promise) string {
	var faults []string
	add := func(what string, marks []Mark) {
		if len(marks) > 0 {
			faults = append(faults, fmt.Sprintf("%d %s: %s", len(marks), what, some(marks)))
		}
	}
	add("lost", v.Lost)
	add("seen but never published", v.Unheard)
	if p.Ordered {
		add("out of order", v.Reordered)
	}
	if p.ExactlyOnce && v.Duplicates > 0 {
		faults = append(faults, fmt.Sprintf("%d seen again", v.Duplicates))
	}
	if faults == nil {
		return ""
	}
	return v.Observer + ": " + strings.Join(faults, "; ")
}

func (v *Verdict) String() string {
	return fmt.Sprintf("%s: %d seen, %d lost, %d duplicates, %d out of order", v.Observer, v.Seen, len(v.Lost), v.Duplicates, len(v.Reordered))
}

func some(marks []Mark) string {
	const few = 10
	var b strings.Builder
	for i, m := range marks[:min(few, len(marks))] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(m.String())
	}
	if len(marks) > few {
		b.WriteString(", …")
	}
	return b.String()
}
