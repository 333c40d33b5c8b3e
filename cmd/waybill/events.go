package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
)

// An event is one line of `waybill run -o json`.
type event struct {
	Event     string `json:"event"` // ready, up, drained
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Address   string `json:"address,omitempty"`
	Guarantee string `json:"guarantee,omitempty"`
	Ordering  string `json:"ordering,omitempty"`
	// DeadLetter is the broker object that takes what cannot be delivered; a Mailbox with that externalName reads it.
	DeadLetter string `json:"deadLetter,omitempty"`
}

// A drainedEvent ends the run.
type drainedEvent struct {
	Event    string `json:"event"` // drained
	Finished int    `json:"finished"`
	Released int    `json:"released"` // handed back uncounted; delivered by the next run
	Lost     int64  `json:"lost"`     // accepted or taken at most once, and never stored or handled
	Complete bool   `json:"complete"` // false: something still ran when the time for draining was over
}

// speaker tells the course of a run: JSON lines, or lines for a person.
type speaker struct {
	out  io.Writer
	json bool
}

func (s *speaker) line(v any) {
	enc := json.NewEncoder(s.out)
	enc.SetEscapeHTML(false)
	enc.Encode(v)
}

// ready tells of each resource that runs: its address and what it can be relied on for.
func (s *speaker) ready(outcomes []compile.Outcome, elsewhere *compile.Result, address func(*compile.Outcome) string) {
	if s.json {
		for i := range outcomes {
			o := &outcomes[i]
			s.line(event{"ready", o.Resource.Kind, o.Resource.Namespace, o.Resource.Name, address(o), o.Effective.Guarantee, o.Effective.Ordering, deadLetter(o)})
		}
		return
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for i := range outcomes {
		o := &outcomes[i]
		fmt.Fprintf(w, "%s\t%s/%s\t%s\t%s\t%s\n", o.Resource.Kind, o.Resource.Namespace, o.Resource.Name,
			dash(o.Effective.Guarantee), dash(o.Effective.Ordering), address(o))
	}
	_ = w.Flush() // what cannot be printed cannot be told
	for i := range outcomes {
		o := &outcomes[i]
		if dead := deadLetter(o); dead != "" {
			fmt.Fprintf(s.out, "%s: what cannot be delivered goes to %s\n", o.Resource, dead)
		}
		there := elsewhere.Outcome(o.Resource)
		if there == nil || there.Effective.Guarantee == o.Effective.Guarantee && there.Effective.Ordering == o.Effective.Ordering {
			continue
		}
		fmt.Fprintf(s.out, "%s: in the cluster %s, ordering %s; here %s, ordering %s\n", o.Resource,
			dash(there.Effective.Guarantee), dash(there.Effective.Ordering), dash(o.Effective.Guarantee), dash(o.Effective.Ordering))
	}
}

// deadLetter is the name of the object that takes what o cannot deliver, "" where there is none.
func deadLetter(o *compile.Outcome) string {
	if o.DeadLetter == nil {
		return ""
	}
	return o.DeadLetter.Name
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func (s *speaker) up(took time.Duration) {
	if s.json {
		s.line(event{Event: "up"})
		return
	}
	fmt.Fprintf(s.out, "up after %d ms; Ctrl-C drains and stops\n", took.Milliseconds())
}

// draining tells a person what the silence after Ctrl-C is.
func (s *speaker) draining(limit time.Duration) {
	if !s.json {
		fmt.Fprintf(s.out, "draining for up to %s; Ctrl-C again ends at once\n", limit)
	}
}

// drained tells what the drain finished and handed back, and returns whether it was complete.
func (s *speaker) drained(parts []engine.Drained, complete bool) {
	e := drainedEvent{Event: "drained", Complete: complete}
	for _, d := range parts {
		e.Finished += d.Finished
		e.Released += d.Released
		e.Lost += int64(d.Lost) + d.AcceptedLost
	}
	if s.json {
		s.line(e)
		return
	}
	fmt.Fprintf(s.out, "drained: %d in flight finished, %d handed back for the next run", e.Finished, e.Released)
	if e.Lost > 0 {
		fmt.Fprintf(s.out, ", %d lost that had no promise to be kept (accepted, or at most once)", e.Lost)
	}
	if !complete {
		fmt.Fprint(s.out, "; the time was over before everything had ended")
	}
	fmt.Fprintln(s.out)
}
