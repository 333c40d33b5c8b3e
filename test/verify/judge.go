package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Promise is what an observer was promised.
type Promise struct {
	Ordered     bool // within a key
	ExactlyOnce bool
	// Wants tells which messages are meant for it; nil: all. It must see those that are stored, and no other.
	Wants func(Mark) bool
}

func (p *Promise) wants(m Mark) bool { return p.Wants == nil || p.Wants(m) }

// A Verdict is what is to be said of one observer.
type Verdict struct {
	Observer   string
	Promise    Promise
	Seen       int    // different messages
	Lost       []Mark // Stored, and never seen
	Duplicates int    // sightings beyond the first of each message
	Reordered  []Mark // first seen after a later one of its key
	Unheard    []Mark // seen, and never published
	Unwanted   []Mark // seen, and meant for somebody else
}

// Judge compares what was published with what an observer saw. Duplicates are folded before the order is looked at: the first sighting of
// each message counts.
func Judge(h *History, observer string, p Promise) Verdict {
	published := map[Mark]Fate{}
	for _, one := range h.Publications {
		published[one.Mark] = one.Fate
	}
	v := Verdict{Observer: observer, Promise: p}
	seen, last := map[Mark]bool{}, map[string]int{}
	for _, s := range h.Sightings {
		if s.Observer != observer {
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
		if !p.wants(s.Mark) {
			v.Unwanted = append(v.Unwanted, s.Mark)
		}
		if s.Seq < last[s.Key] {
			v.Reordered = append(v.Reordered, s.Mark)
		}
		last[s.Key] = max(last[s.Key], s.Seq)
	}
	v.Seen = len(seen)
	for m, fate := range published {
		if fate == Stored && !seen[m] && p.wants(m) {
			v.Lost = append(v.Lost, m)
		}
	}
	slices.SortFunc(v.Lost, byMark)
	return v
}

func byMark(a, b Mark) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Seq, b.Seq)) }

// Broken says how the promise was broken; "" when it was kept.
func (v *Verdict) Broken() string {
	var faults []string
	add := func(what string, marks []Mark) {
		if len(marks) > 0 {
			faults = append(faults, fmt.Sprintf("%d %s: %s", len(marks), what, some(marks)))
		}
	}
	add("lost", v.Lost)
	add("seen but never published", v.Unheard)
	add("seen that were not meant for it", v.Unwanted)
	if v.Promise.Ordered {
		add("out of order", v.Reordered)
	}
	if v.Promise.ExactlyOnce && v.Duplicates > 0 {
		faults = append(faults, fmt.Sprintf("%d seen again", v.Duplicates))
	}
	if faults == nil {
		return ""
	}
	return v.Observer + ": " + strings.Join(faults, "; ")
}

func (v *Verdict) String() string {
	order := "no order promised"
	if v.Promise.Ordered {
		order = fmt.Sprintf("%d out of order", len(v.Reordered))
	}
	return fmt.Sprintf("%s: %d seen, %d lost, %d duplicates, %s", v.Observer, v.Seen, len(v.Lost), v.Duplicates, order)
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
