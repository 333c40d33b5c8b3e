package compile

import (
	"slices"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// consumer is what takes messages out of a channel: a Subscription, a Pipeline, or a Mailbox itself (by leases or a handler).
type consumer struct {
	*subject
	source *channel // nil: not found
	// outs are the channels that its messages go on to, dead letter included.
	outs []out
	// group is its position on a Topic.
	group *plan.Object
	// deadLetter is the declared one, dead the one of its own where none is declared.
	deadLetter *channel
	dead       *plan.Object
}

type out struct {
	field string
	to    *channel
}

// resolve finds what everyone reads and writes, oldest first.
func (c *compiler) resolve() {
	for _, m := range sorted(c.mailboxes) {
		con := &consumer{subject: m.subject, source: m}
		con.declared(c, m.mailbox.Spec.DeadLetter)
		c.consumers = append(c.consumers, con)
	}
	for _, it := range c.subscriptions {
		spec := &it.api.Spec
		con := &consumer{subject: it.subject}
		con.paused = spec.State == v1alpha1.StatePaused
		con.source = c.channelOf(it.subject, "spec.topicRef", "Topic", spec.TopicRef)
		con.writes(c, "spec.deliverTo", spec.DeliverTo.TopicRef, spec.DeliverTo.MailboxRef)
		if spec.Reply != nil {
			con.writes(c, "spec.reply", &spec.Reply.TopicRef, nil)
		}
		con.declared(c, spec.DeadLetter)
		c.consumers = append(c.consumers, con)
	}
	for _, it := range c.pipelines {
		spec := &it.api.Spec
		con := &consumer{subject: it.subject}
		con.paused = spec.State == v1alpha1.StatePaused
		switch {
		case spec.From.TopicRef != nil:
			con.source = c.channelOf(it.subject, "spec.from.topicRef", "Topic", *spec.From.TopicRef)
		case spec.From.MailboxRef != nil:
			con.source = c.channelOf(it.subject, "spec.from.mailboxRef", "Mailbox", *spec.From.MailboxRef)
		}
		con.writes(c, "spec.to", spec.To.TopicRef, spec.To.MailboxRef)
		con.declared(c, spec.DeadLetter)
		c.consumers = append(c.consumers, con)
	}
	slices.SortFunc(c.consumers, func(a, b *consumer) int { return compareAge(a.subject, b.subject) })
}

// writes resolves the channel that one of a union's references names.
func (con *consumer) writes(c *compiler, field string, topic, mailbox *v1alpha1.ResourceReference) {
	if topic != nil {
		field += ".topicRef"
		if ch := c.channelOf(con.subject, field, "Topic", *topic); ch != nil {
			con.outs = append(con.outs, out{field, ch})
		}
		return
	}
	if mailbox != nil {
		field += ".mailboxRef"
		if ch := c.channelOf(con.subject, field, "Mailbox", *mailbox); ch != nil {
			con.outs = append(con.outs, out{field, ch})
		}
	}
}

// to is the channel that a field names.
func (con *consumer) to(field string) *channel {
	for _, o := range con.outs {
		if o.field == field {
			return o.to
		}
	}
	return nil
}

const deadLetterField = "spec.deadLetter.mailboxRef"

// declared resolves a declared dead letter.
func (con *consumer) declared(c *compiler, d *v1alpha1.DeadLetter) {
	if d == nil {
		return
	}
	if d.MailboxRef == nil {
		con.refuse("spec.deadLetter", v1alpha1.ReasonInvalid, "deadLetter needs mailboxRef: name a Mailbox, or remove deadLetter to have an object of its own")
		return
	}
	con.deadLetter = c.channelOf(con.subject, deadLetterField, "Mailbox", *d.MailboxRef)
	if con.deadLetter == nil {
		return
	}
	con.outs = append(con.outs, out{deadLetterField, con.deadLetter})
}

// deadRef is where undeliverable messages go; nil: nowhere.
func (con *consumer) deadRef() *plan.Ref {
	switch {
	case con.deadLetter != nil:
		r := con.deadLetter.object.Ref
		return &r
	case con.dead != nil:
		r := con.dead.Ref
		return &r
	}
	return nil
}

// deadObjects are the objects that the dead letter needs.
func (con *consumer) deadObjects() []plan.Object {
	switch {
	case con.deadLetter != nil && con.deadLetter.broker != nil:
		return []plan.Object{con.deadLetter.object}
	case con.deadLetter == nil && con.dead != nil:
		return []plan.Object{*con.dead}
	}
	return nil
}

func (ch *channel) consumer(c *compiler) *consumer { return c.consumerOf(ch.subject) }

func (c *compiler) consumerOf(s *subject) *consumer {
	for _, con := range c.consumers {
		if con.subject == s {
			return con
		}
	}
	return nil
}

// modes gives each Mailbox that a Pipeline reads to that Pipeline. A handler of the Mailbox's own comes before any Pipeline, and among
// Pipelines the oldest.
func (c *compiler) modes() {
	for _, con := range c.consumers {
		m := con.source
		if con.resource.Kind != "Pipeline" || m == nil || m.mailbox == nil {
			continue
		}
		const field = "spec.from.mailboxRef"
		switch m.mode {
		case modeHandler:
			con.refuse(field, v1alpha1.ReasonModeConflict, "%s pushes its messages to a handler (spec.deliverTo), and a Mailbox has one recipient: remove deliverTo there, or read another Mailbox", m)
		case modePipeline:
			con.refuse(field, v1alpha1.ReasonModeConflict, "%s is read by %s already, and a Mailbox has one recipient: let one Pipeline read a Topic instead, or give this one a Mailbox of its own", m, m.pipeline)
		default:
			m.mode, m.pipeline = modePipeline, con.subject
		}
	}
}

// own names the objects that consumers make for themselves: positions and dead letters.
func (c *compiler) own() {
	for _, con := range c.consumers {
		src := con.source
		if src == nil || src.broker == nil {
			continue
		}
		b := src.broker
		external, ackWait := "", plan.Duration(0)
		var start *plan.Start
		var ordering v1alpha1.Ordering
		deadLettered := true
		switch con.resource.Kind {
		case "Mailbox":
			// A reader of its own sees to its own dead letter.
			deadLettered = src.mode == modeLeases || src.mode == modeHandler && src.mailbox.Spec.OnFailure != v1alpha1.OnFailureBlock
		case "Subscription":
			spec := &findIn(c.subscriptions, con.subject).Spec
			external, ordering, ackWait, start = spec.ExternalName, spec.Ordering, duration(spec.AckWait, defaultAckWait), startOf(spec.StartFrom)
			deadLettered = spec.Guarantee != v1alpha1.GuaranteeAtMostOnce && spec.OnFailure != v1alpha1.OnFailureBlock
		case "Pipeline":
			spec := &findIn(c.pipelines, con.subject).Spec
			external, ordering, ackWait, start = spec.ExternalName, spec.Ordering, duration(spec.AckWait, defaultAckWait), startOf(spec.StartFrom)
			deadLettered = spec.Guarantee != v1alpha1.GuaranteeAtMostOnce && spec.OnFailure != v1alpha1.OnFailureBlock
		}
		names, prefix := b.protocol.names, b.api.Spec.Prefix
		if src.topic != nil {
			name := or(external, names.object(prefix, con.resource))
			con.group = &plan.Object{Ref: b.ref("Group", name), Owner: con.resource.String(), External: external != "",
				Ordering: string(or(ordering, defaultOrdering)), AckWait: ackWait, Start: start}
			con.group.Of = src.object.Name
		}
		if deadLettered && con.deadLetter == nil {
			// It takes whatever the broker takes, so that no message is too large for it.
			con.dead = &plan.Object{Ref: b.ref("Queue", names.object(prefix, con.resource, "dead")), Owner: con.resource.String(),
				Ordering: string(v1alpha1.OrderingNone), AckWait: plan.Duration(defaultAckWait)}
		}
	}
}
