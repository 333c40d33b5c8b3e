package compile

import (
	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// subscription makes the flow that delivers a Topic's messages to one group of subscribers.
func (c *compiler) subscription(it *item[v1alpha1.Subscription]) {
	s, spec := it.subject, &it.api.Spec
	con := c.consumerOf[s]
	c.workload(s, "spec.workload", spec.Workload)
	if spec.ExternalName != "" {
		if spec.DeletionPolicy == v1alpha1.DeletionDelete {
			refuseDelete(s)
		}
		if con.source != nil && con.source.broker != nil {
			checkExternal(s, con.source.broker, spec.ExternalName)
		}
	}
	t := terms{
		guarantee: or(spec.Guarantee, defaultGuarantee), ordering: or(spec.Ordering, defaultOrdering), orderingField: "spec.ordering",
		ackWait: duration(spec.AckWait, defaultAckWait), maxInFlight: spec.MaxInFlight, retry: spec.Retry, onFailure: spec.OnFailure,
		deadLetter: spec.DeadLetter, startFrom: spec.StartFrom, replicas: spec.Replicas, whenExpired: v1alpha1.ExpiredDeliver,
	}
	var steps []plan.Step
	if e := c.expression(s, "spec.filter", spec.Filter, expr.Message, expr.Bool); e != nil {
		steps = []plan.Step{{Name: "filter", Filter: e}}
	}
	var sink plan.Sink
	d := &spec.DeliverTo
	if exactlyOne(s, "spec.deliverTo", []string{"uri", "serviceRef", "mailboxRef", "topicRef"}, d.URI != "", d.ServiceRef != nil, d.MailboxRef != nil, d.TopicRef != nil) {
		if d.URI != "" || d.ServiceRef != nil {
			sink.Push = &plan.Push{HTTPCall: c.httpCall(s, "spec.deliverTo", d.URI, d.ServiceRef, duration(spec.Timeout, defaultTimeout)), Response: "Drop"}
			if spec.Reply != nil {
				sink.Push.Response = "Topic"
				sink.Push.ReplyTo = con.to("spec.reply.topicRef").publish()
			}
		} else {
			field, kind := "spec.deliverTo.mailboxRef", "Mailbox"
			if d.TopicRef != nil {
				field, kind = "spec.deliverTo.topicRef", "Topic"
			}
			sink.Publish = con.to(field).publish()
			if spec.Reply != nil {
				s.refuse("spec.reply", v1alpha1.ReasonInvalid, "a %s gives no response that could be published: remove reply, or deliver to a uri or serviceRef", kind)
			}
			if spec.Timeout != nil {
				s.refuse("spec.timeout", v1alpha1.ReasonInvalid, "timeout bounds a request over HTTP, and a %s is none: remove it", kind)
			}
		}
	}
	s.plan = &plan.Plan{Flow: c.flow(con, t, steps, sink), Objects: con.objects()}
}
