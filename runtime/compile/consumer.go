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
	// What of its spec names and shapes these objects.
	external  string
	ordering  v1alpha1.Ordering
	ackWait   plan.Duration
	startFrom *v1alpha1.StartFrom
	// parks: messages that fail for good are put aside.
	parks bool
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
	c.consumerOf = map[*subject]*consumer{}
	keep := func(con *consumer, deadLetter *v1alpha1.DeadLetter) {
		con.declared(c, deadLetter)
		c.consumers = append(c.consumers, con)
		c.consumerOf[con.subject] = con
	}
	parks := func(g v1alpha1.Guarantee, f v1alpha1.OnFailure) bool {
		return g != v1alpha1.GuaranteeAtMostOnce && f != v1alpha1.OnFailureBlock
	}
	for _, m := range sorted(c.mailboxes) {
		spec := &m.mailbox.Spec
		// A lease can be rejected whatever onFailure says.
		keep(&consumer{subject: m.subject, source: m, parks: m.mode == modeLeases || parks("", spec.OnFailure)}, spec.DeadLetter)
	}
	for _, it := range c.subscriptions {
		spec := &it.api.Spec
		con := &consumer{
			subject: it.subject, external: spec.ExternalName, ordering: spec.Ordering, ackWait: duration(spec.AckWait, defaultAckWait),
			startFrom: spec.StartFrom, parks: parks(spec.Guarantee, spec.OnFailure),
		}
		con.paused = spec.State == v1alpha1.StatePaused
		con.source = c.channelOf(it.subject, "spec.topicRef", "Topic", spec.TopicRef)
		con.writes(c, "spec.deliverTo", spec.DeliverTo.TopicRef, spec.DeliverTo.MailboxRef)
		if spec.Reply != nil {
			con.writes(c, "spec.reply", &spec.Reply.TopicRef, nil)
		}
		keep(con, spec.DeadLetter)
	}
	for _, it := range c.pipelines {
		spec := &it.api.Spec
		con := &consumer{
			subject: it.subject, external: spec.ExternalName, ordering: spec.Ordering, ackWait: duration(spec.AckWait, defaultAckWait),
			startFrom: spec.StartFrom, parks: parks(spec.Guarantee, spec.OnFailure),
		}
		con.paused = spec.State == v1alpha1.StatePaused
		switch {
		case spec.From.TopicRef != nil:
			con.source = c.channelOf(it.subject, "spec.from.topicRef", "Topic", *spec.From.TopicRef)
		case spec.From.MailboxRef != nil:
			con.source = c.channelOf(it.subject, "spec.from.mailboxRef", "Mailbox", *spec.From.MailboxRef)
		}
		con.writes(c, "spec.to", spec.To.TopicRef, spec.To.MailboxRef)
		if spec.Guarantee == v1alpha1.GuaranteeExactlyOnce && spec.To.TopicRef != nil && or(spec.Ordering, defaultOrdering) == v1alpha1.OrderingNone {
			con.ordering = v1alpha1.OrderingKey // of its position, which is one for all that it reads
		}
		keep(con, spec.DeadLetter)
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
		con.refuse(deadLetterField, v1alpha1.ReasonInvalid, "is required")
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
		names, prefix := b.protocol.names, b.api.Spec.Prefix
		if src.topic != nil {
			name := or(con.external, names.object(prefix, con.resource))
			con.group = &plan.Object{
				Ref: b.ref("Group", name), Owner: c.mark(con.resource), External: con.external != "",
				Ordering: string(or(con.ordering, defaultOrdering)), AckWait: con.ackWait, Start: startOf(con.startFrom),
			}
			con.group.Of = src.object.Name
		}
		// A Mailbox that a Pipeline reads leaves failures to that.
		reader := con.resource.Kind != "Mailbox" || src.mode != modePipeline
		if con.parks && reader && con.deadLetter == nil {
			// It takes whatever the broker takes, so that no message is too large for it.
			con.dead = &plan.Object{
				Ref: b.ref("Queue", names.object(prefix, con.resource, "dead")), Owner: c.mark(con.resource),
				Ordering: string(v1alpha1.OrderingNone), AckWait: plan.Duration(defaultAckWait),
			}
		}
	}
}
