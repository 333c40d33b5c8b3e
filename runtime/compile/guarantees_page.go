package compile

import (
	"fmt"
	"io"
	"strings"
)

// WriteGuarantees writes the table of abilities as a page of Markdown: docs/guarantees.md.
func WriteGuarantees(w io.Writer) error {
	all := Protocols()
	var b strings.Builder
	b.WriteString(`# What each broker can do

This page is made from the table by which the compiler decides (runtime/compile/capability.go); do not edit it. What a broker cannot do is
refused, with the alternative in the message, and never quietly weakened. What a resource gets in fact stands in its status and is printed
by ` + "`waybill run`" + ` and ` + "`waybill compile`" + `.

A number refers to the notes below the table. Of brokers without a driver in this build the table says what they are known to do; nothing of
that has been run with Waybill.

`)
	notes := footnotes{seen: map[string]int{}}
	row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head, rule := []string{""}, []string{"---"}
	for _, p := range all {
		title := p.Title
		if !p.Built {
			title += " (no driver in this build)"
		}
		head, rule = append(head, title), append(rule, "---")
	}
	row(head)
	row(rule)
	for _, line := range lines {
		cells := []string{line.title}
		for i := range all {
			cells = append(cells, notes.cell(line.of(&all[i])))
		}
		row(cells)
	}
	size := []string{"Largest message that a Topic or Mailbox may take, at least (bytes)"}
	for i := range all {
		floor := broker{protocol: all[i], features: all[i].Floor}
		size = append(size, fmt.Sprint(floor.maxMessageBytes()))
	}
	row(size)
	b.WriteString("\n")
	for i, n := range notes.list {
		fmt.Fprintf(&b, "%d. %s\n", i+1, n)
	}
	b.WriteString(`
## What is always so

- Acknowledged means stored: ` + "`Stored`" + ` is answered, and a message is acknowledged to its source, only after the next broker or destination has confirmed it.
- Retry, backoff, attempts and dead letter are Waybill's own on every broker, so they are the same everywhere. A restart, a drain or a lost connection is no attempt.
- A broker that drops a repeated message does so for as long as the table says. A NATS server that was started anew goes on for 2 minutes with what it had stored in the 2 minutes before its start, so an id may be taken for a repetition up to 4 minutes after it was stored. What is to be stored once more needs an id of its own.
- HTTP destinations, HTTP steps and replies are at least once: an answer can be lost. The message's source and id are sent along, so that the other side can drop what it has seen.
- A reader in order on NATS that is killed, or stopped while a message is being tried again, delivers again what it had done behind the oldest message that was not done: of 10,000 messages at the most.
- ` + "`onFailure: Park`" + ` takes a message that fails for good out of its order; ` + "`Block`" + ` keeps the order and stops those behind it.
- ` + "`ExactlyOnce`" + ` to PostgreSQL is of the rows: the first to commit a message's identity writes its rows, and whoever comes later with the same message, after a crash or as a replica that was replaced, writes none. Steps may run, and a dead letter be stored, more than once.
- ` + "`ExactlyOnce`" + ` from Topic to Topic is of what the Pipeline stores. What is published to the source twice is two messages, a step may call its server again, and each reader of what was stored has a guarantee of its own. [exactly-once.md](exactly-once.md) tells how it works.
`)
	_, err := io.WriteString(w, b.String())
	return err
}

var lines = []struct {
	title string
	of    func(*Protocol) Ability
}{
	{"Topics with independent subscriptions", func(p *Protocol) Ability { return p.Topics }},
	{"Start at the earliest message", func(p *Protocol) Ability { return p.Earliest }},
	{"Start at the latest message", func(p *Protocol) Ability { return p.Latest }},
	{"Start at a time", func(p *Protocol) Ability { return p.Time }},
	{"Ordering Key", func(p *Protocol) Ability { return p.Key }},
	{"Ordering Strict", func(p *Protocol) Ability { return p.Strict }},
	{"Several replicas with ordering Key or Strict", func(p *Protocol) Ability { return p.OrderedReplicas }},
	{"Mailbox with leases", func(p *Protocol) Ability { return p.Leases }},
	{"Several replicas that hand out leases", func(p *Protocol) Ability { return p.LeaseReplicas }},
	{"Leases with ordering Key", func(p *Protocol) Ability { return p.KeyLeases }},
	{"Request/Response, Processed", func(p *Protocol) Ability { return p.Inbox }},
	{"Mailbox bounded by messages or bytes", func(p *Protocol) Ability { return p.Counts }},
	{"A message published twice is stored once", func(p *Protocol) Ability { return p.Dedup }},
	{"Exactly once, Topic to Topic on one broker", func(p *Protocol) Ability { return p.ExactlyOnceTopic }},
	{"Exactly once, to PostgreSQL", func(p *Protocol) Ability { return p.ExactlyOncePostgres }},
}

// footnotes number what is said about cells; the same words get the same number.
type footnotes struct {
	seen map[string]int
	list []string
}

func (f *footnotes) cell(a Ability) string {
	answer := "no"
	var said []string
	if a.Can {
		answer = "yes"
		if a.Needs != "" {
			answer = "with " + a.Needs
		}
	}
	if a.How != "" {
		said = append(said, a.How)
	}
	said = append(said, a.Limits...)
	if a.Instead != "" {
		said = append(said, "instead: "+a.Instead)
	}
	if len(said) == 0 {
		return answer
	}
	note := capital(strings.Join(said, "; ")) + "."
	n := f.seen[note]
	if n == 0 {
		f.list = append(f.list, note)
		n = len(f.list)
		f.seen[note] = n
	}
	return fmt.Sprintf("%s (%d)", answer, n)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
