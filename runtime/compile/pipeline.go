package compile

import (
	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// pipeline makes the flow from a source through steps to a destination.
func (c *compiler) pipeline(it *item[v1alpha1.Pipeline]) {
	s, spec := it.subject, &it.api.Spec
	con := c.consumerOf[s]
	c.workload(s, "spec.workload", spec.Workload)
	t := terms{
		guarantee: or(spec.Guarantee, defaultGuarantee), ordering: or(spec.Ordering, defaultOrdering), orderingField: "spec.ordering",
		ackWait: duration(spec.AckWait, defaultAckWait), maxInFlight: spec.MaxInFlight, retry: spec.Retry, onFailure: spec.OnFailure,
		deadLetter: spec.DeadLetter, startFrom: spec.StartFrom, replicas: spec.Replicas, whenExpired: v1alpha1.ExpiredDeliver,
	}
	exactlyOne(s, "spec.from", []string{"topicRef", "mailboxRef"}, spec.From.TopicRef != nil, spec.From.MailboxRef != nil)
	if spec.From.MailboxRef != nil {
		c.fromMailbox(con, spec, &t)
	}
	if spec.ExternalName != "" {
		if spec.DeletionPolicy == v1alpha1.DeletionDelete {
			refuseDelete(s)
		}
		if con.source != nil && con.source.broker != nil {
			checkExternal(s, con.source.broker, spec.ExternalName)
		}
	}
	steps := c.steps(s, spec.Steps)
	sink := c.pipelineSink(con, spec)
	s.plan = &plan.Plan{Flow: c.flow(con, t, steps, sink), Objects: con.objects()}
}

// fromMailbox lets the Mailbox say what is the Mailbox's to say.
func (c *compiler) fromMailbox(con *consumer, spec *v1alpha1.PipelineSpec, t *terms) {
	t.whenExpired = v1alpha1.ExpiredDrop
	if spec.StartFrom != nil {
		con.refuse("spec.startFrom", v1alpha1.ReasonInvalid, "startFrom is a place in a Topic, and a Mailbox has none: remove it")
		t.startFrom = nil
	}
	if spec.ExternalName != "" {
		con.refuse("spec.externalName", v1alpha1.ReasonInvalid, "a Pipeline that reads a Mailbox has no position of its own to be named: remove it")
	}
	m := con.source
	if m == nil {
		return
	}
	t.ordering = m.ordering()
	if want := spec.Ordering; rank(want) > rank(t.ordering) {
		con.refuse("spec.ordering", v1alpha1.ReasonOrderingNotAvailable, "%s hands its messages out with ordering %s: use that, or create a Mailbox with ordering: %s", m, t.ordering, want)
	}
	if spec.AckWait != nil && plan.Duration(spec.AckWait.Duration) != m.object.AckWait {
		con.refuse("spec.ackWait", v1alpha1.ReasonInvalid, "ackWait of messages in %s is set there (%s): remove it here", m, m.object.AckWait)
	}
	t.ackWait = m.object.AckWait
}

func rank(o v1alpha1.Ordering) int {
	switch o {
	case v1alpha1.OrderingKey:
		return 1
	case v1alpha1.OrderingStrict:
		return 2
	}
	return 0
}

func (c *compiler) pipelineSink(con *consumer, spec *v1alpha1.PipelineSpec) plan.Sink {
	s, to := con.subject, &spec.To
	key := c.expression(s, "spec.key", spec.Key, expr.Message, expr.String)
	if !exactlyOne(s, "spec.to", []string{"topicRef", "mailboxRef", "http", "reply", "postgres"},
		to.TopicRef != nil, to.MailboxRef != nil, to.HTTP != nil, to.Reply != nil, to.Postgres != nil) {
		return plan.Sink{}
	}
	publish := func(field string) plan.Sink {
		p := con.to(field).publish()
		p.Key = key
		return plan.Sink{Publish: p}
	}
	switch {
	case to.TopicRef != nil:
		return publish("spec.to.topicRef")
	case to.MailboxRef != nil:
		return publish("spec.to.mailboxRef")
	}
	if key != nil {
		s.refuse("spec.key", v1alpha1.ReasonInvalid, "key is what a Topic or Mailbox keeps in order, and messages go to neither: remove it")
	}
	switch {
	case to.HTTP != nil:
		call := c.httpCall(s, "spec.to.http", to.HTTP.URI, to.HTTP.ServiceRef, duration(to.HTTP.Timeout, defaultTimeout))
		return plan.Sink{Push: &plan.Push{HTTPCall: call, Response: "Drop"}}
	case to.Reply != nil:
		if spec.From.MailboxRef == nil {
			s.refuse("spec.to.reply", v1alpha1.ReasonInvalid, "reply answers a request in a Mailbox: use from.mailboxRef, or another destination")
		}
		if src := con.source; src != nil && src.broker != nil {
			if inbox := src.broker.protocol.Inbox; !inbox.Can {
				s.refuse("spec.to.reply", v1alpha1.ReasonNotSupported, "%s: %s", inbox.How, inbox.Instead)
			}
		}
		return plan.Sink{Reply: &plan.Reply{}}
	default:
		return plan.Sink{Postgres: c.postgres(con, to.Postgres, spec.Guarantee)}
	}
}
