package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
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
	// DeadLetter is the broker object that takes what cannot be delivered: that of the Mailbox which deadLetter names, else one of its own,
	// which a Mailbox with that externalName reads.
	DeadLetter string `json:"deadLetter,omitempty"`
	// Declared is what the broker that is declared would give, where that is something else.
	Declared *promise `json:"declared,omitempty"`
}

// A promise is what a resource can be relied on for.
type promise struct {
	Guarantee string `json:"guarantee"`
	Ordering  string `json:"ordering"`
}

// declaredOtherwise is what o would be on the broker that is declared, nil where that is the same.
func declaredOtherwise(o *compile.Outcome, declared *compile.Result) *promise {
	there := declared.Outcome(o.Resource)
	if there == nil || there.Effective.Guarantee == "" || there.Effective.Guarantee == o.Effective.Guarantee && there.Effective.Ordering == o.Effective.Ordering {
		return nil
	}
	return &promise{there.Effective.Guarantee, there.Effective.Ordering}
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
	out   io.Writer
	json  bool
	begun bool // the header of the list of resources was printed
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
			s.line(event{"ready", o.Resource.Kind, o.Resource.Namespace, o.Resource.Name, address(o), o.Effective.Guarantee, o.Effective.Ordering, deadLetter(o), declaredOtherwise(o, elsewhere)})
		}
		return
	}
	if len(outcomes) == 0 {
		return
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if !s.begun {
		fmt.Fprintln(w, "RESOURCE\tGUARANTEE\tORDERING\tADDRESS")
		s.begun = true
	}
	for i := range outcomes {
		o := &outcomes[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.Resource, dash(o.Effective.Guarantee), dash(o.Effective.Ordering), dash(address(o)))
	}
	_ = w.Flush() // what cannot be printed cannot be told
	s.deadLetters(outcomes)
	for i := range outcomes {
		o := &outcomes[i]
		if there := declaredOtherwise(o, elsewhere); there != nil {
			fmt.Fprintf(s.out, "%s: on the broker that is declared %s, ordering %s; here %s, ordering %s\n", o.Resource,
				there.Guarantee, dash(there.Ordering), dash(o.Effective.Guarantee), dash(o.Effective.Ordering))
		}
	}
}

// deadLetters names the objects that take what cannot be delivered where no Mailbox is declared for that: another Mailbox on the object of a
// declared one would be refused.
func (s *speaker) deadLetters(outcomes []compile.Outcome) {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	first := true
	for i := range outcomes {
		o := &outcomes[i]
		if !slices.ContainsFunc(o.Owned(), func(own plan.Object) bool { return o.DeadLetter != nil && own.Ref == *o.DeadLetter }) {
			continue
		}
		if first {
			fmt.Fprint(s.out, "\nWhat cannot be delivered is kept; a Mailbox with this externalName reads it:\n")
			first = false
		}
		fmt.Fprintf(w, "  %s\t%s\n", o.Resource, o.DeadLetter.Name)
	}
	_ = w.Flush() // as above
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

// up tells that all that can start has, and gives a newcomer something to try.
func (s *speaker) up(took time.Duration, lap *laptop, outcomes []compile.Outcome, left string, dir string) {
	if s.json {
		s.line(event{Event: "up"})
		return
	}
	kept := "keeps its state in " + dir
	switch {
	case dir == "" && lap.embedded == nil:
		kept = "keeps nothing here (messages stay on their broker)"
	case dir == "":
		kept = "keeps nothing"
	}
	fmt.Fprintf(s.out, "%s\nUp after %d ms; %s; %s/status and /metrics tell what goes on; Ctrl-C drains and stops.\n", left, took.Milliseconds(), kept, lap.origin)
	if try := firstRequest(lap, outcomes); try != "" {
		fmt.Fprintf(s.out, "Try:  %s\n", try)
	}
	fmt.Fprintln(s.out)
}

// notStarted repeats what does not run and what would be right: it was said before all that does run, and is out of sight. fresh: nothing
// has run here before.
func notStarted(out []manifest.Diagnostic, result *compile.Result, fresh bool) string {
	var order []plan.Resource
	why := map[plan.Resource]string{}
	for _, d := range out {
		r := plan.Resource{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name}
		if why[r] == "" {
			order = append(order, r)
			why[r] = manifest.Visible(manifest.Shorten(d.Message))
		}
	}
	if len(order) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s did not start:\n", count(len(order), "resource"))
	for _, r := range order {
		fmt.Fprintf(&b, "  %s: %s\n", r, why[r])
		if missed := meanwhile(result.Outcome(r), fresh); missed != "" {
			fmt.Fprintf(&b, "    %s\n", missed)
		}
	}
	return b.String()
}

// meanwhile says what becomes of what is published to a Topic while o, which reads it, does not run: a position is made by the first start,
// and the Topic keeps its messages whoever reads them.
func meanwhile(o *compile.Outcome, fresh bool) string {
	if o == nil {
		return ""
	}
	at := slices.IndexFunc(o.Reserved, func(obj plan.Object) bool { return obj.Start != nil })
	if at < 0 {
		return ""
	}
	text := "what is published before it starts is delivered then, as far as the Topic still keeps it"
	if start := o.Reserved[at].Start; start.Position == string(v1alpha1.StartLatest) {
		text = "what is published before its first start does not reach it (startFrom Latest)"
		if !fresh {
			text += "; if it ran before, it goes on from where it was"
		}
	}
	return text
}

// firstRequest is a command that sends something to where what is declared begins. A Topic takes anything, and so does an Endpoint that only
// stores; a Mailbox is read by somebody in particular; and the handler of a RequestResponse Endpoint may take offence at a greeting.
func firstRequest(lap *laptop, outcomes []compile.Outcome) string {
	for _, begins := range []func(*plan.Plan) bool{
		func(p *plan.Plan) bool { return p.Topic != nil && len(p.Topic.Schema) == 0 },
		func(p *plan.Plan) bool {
			return p.Endpoint != nil && p.Endpoint.Pattern == "RequestAck" && len(p.Endpoint.Schema) == 0
		},
		func(p *plan.Plan) bool { return p.Mailbox != nil },
	} {
		for i := range outcomes {
			o := &outcomes[i]
			if o.Plan == nil || o.Paused || !begins(o.Plan) {
				continue
			}
			address, token := lap.address(o), ""
			if o.Plan.Mailbox != nil {
				address += "/messages"
			}
			if asksForToken(o.Plan) {
				token = " -H 'Authorization: Bearer TOKEN'"
			}
			return "curl " + address + token + ` -H 'Content-Type: application/json' -d '{"hello": "world"}'`
		}
	}
	return ""
}

// asksForToken reports whether publishing to what p serves needs a bearer token.
func asksForToken(p *plan.Plan) bool {
	switch {
	case p.Topic != nil:
		return p.Topic.Publish != nil
	case p.Mailbox != nil:
		return p.Mailbox.Publish != nil
	case p.Endpoint != nil:
		return p.Endpoint.Auth != nil
	}
	return false
}

// neverUp tells that the run was told to end before anything began.
func (s *speaker) neverUp() {
	if s.json {
		s.line(drainedEvent{Event: "drained", Complete: true})
		return
	}
	fmt.Fprintln(s.out, "Told to end before it was up: nothing had begun.")
}

// draining tells a person what the silence after Ctrl-C is.
func (s *speaker) draining(limit time.Duration) {
	if !s.json {
		fmt.Fprintf(s.out, "Draining for up to %s; Ctrl-C again ends at once.\n", limit)
	}
}

// drained tells what the drain finished and handed back. gone: the broker that held it all ends with this process, and undelivered messages
// with it.
func (s *speaker) drained(parts []engine.Drained, complete, gone bool, undelivered int64) {
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
	fmt.Fprintf(s.out, "Drained: %d in flight finished", e.Finished)
	if !gone {
		fmt.Fprintf(s.out, ", %d handed back for the next run", e.Released)
	}
	if e.Lost > 0 {
		fmt.Fprintf(s.out, ", %d lost that had no promise to be kept (accepted, or at most once)", e.Lost)
	}
	fmt.Fprintln(s.out)
	cutOff := "what was cut off comes again with the next run"
	switch {
	case gone:
		cutOff = "what was cut off is gone"
	case e.Lost > 0:
		cutOff += ", but for what was lost"
	}
	if !complete {
		fmt.Fprintf(s.out, "The time was over before everything had ended: %s. --drain gives it longer.\n", cutOff)
	}
	if gone {
		fmt.Fprintf(s.out, "--ephemeral kept nothing: dead letters, positions and %d undelivered messages (one counts for each of its readers) are gone. --data DIR keeps them.\n", undelivered)
	}
}
