package compile

import (
	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func (c *compiler) declareMailbox(it *item[v1alpha1.Mailbox]) *channel {
	spec := &it.api.Spec
	ch := &channel{subject: it.subject, mailbox: it.api, allowed: spec.AllowedNamespaces}
	c.declare(ch, "Queue", spec.BrokerRef, spec.ExternalName, spec.MaxMessageBytes)
	ch.paused = spec.State == v1alpha1.StatePaused
	ch.object.Ordering = string(or(spec.Ordering, defaultOrdering))
	ch.object.AckWait = duration(spec.AckWait, defaultAckWait)
	ch.mode = modeLeases
	if spec.DeliverTo != nil {
		ch.mode = modeHandler
	}
	if r := spec.Retention; r != nil {
		if r.MaxAge != nil {
			ch.object.MaxAge = plan.Duration(r.MaxAge.Duration)
		}
		ch.object.MaxMessages = deref(r.MaxMessages, 0)
		ch.object.MaxBytes = amount(ch.subject, "spec.retention.maxBytes", r.MaxBytes)
	}
	return ch
}

// mailbox makes the gateway of a Mailbox and, where it has a handler, the flow that pushes to it.
func (c *compiler) mailbox(ch *channel) {
	spec := &ch.mailbox.Spec
	con := c.consumerOf[ch.subject]
	if spec.ExternalName != "" && spec.DeletionPolicy == v1alpha1.DeletionDelete {
		refuseDelete(ch.subject)
	}
	c.workload(ch.subject, "spec.workload", spec.Workload)
	gateway := &plan.Mailbox{
		Object: ch.object.Ref, Mode: ch.mode, Ordering: ch.object.Ordering, AckWait: ch.object.AckWait, MaxMessageBytes: ch.maxMessageBytes,
	}
	gateway.Publish, gateway.Receive = c.mailboxAuth(ch.subject, spec.Auth)
	ch.plan = &plan.Plan{Mailbox: gateway, Objects: []plan.Object{ch.object}}
	ch.plan.Objects = append(ch.plan.Objects, con.deadObjects()...)

	t := terms{
		guarantee: defaultGuarantee, ordering: ch.ordering(), orderingField: "spec.ordering", ackWait: ch.object.AckWait, maxInFlight: spec.MaxInFlight,
		retry: spec.Retry, onFailure: spec.OnFailure, deadLetter: spec.DeadLetter, replicas: spec.Replicas, whenExpired: v1alpha1.ExpiredDrop,
	}
	if b := ch.broker; b != nil {
		c.mailboxBroker(ch, b)
	}
	switch ch.mode {
	case modeLeases:
		if t.onFail() == v1alpha1.OnFailurePark {
			gateway.MaxAttempts = retry(spec.Retry).MaxAttempts
		}
		gateway.DeadLetter = con.deadRef()
		ch.dead = con.deadRef()
	case modeHandler:
		call := c.httpCall(ch.subject, "spec.deliverTo", spec.DeliverTo.URI, spec.DeliverTo.ServiceRef, duration(spec.Timeout, defaultTimeout))
		ch.plan.Flow = c.flow(con, t, nil, plan.Sink{Push: &plan.Push{HTTPCall: call, Response: "Requester"}})
		return
	}
	if ch.broker != nil {
		ch.effective = mailboxEffective(ch)
	}
}

// mailboxBroker checks what the broker has to do for a Mailbox.
func (c *compiler) mailboxBroker(ch *channel, b *broker) {
	spec, p := &ch.mailbox.Spec, b.protocol
	if r := spec.Retention; r != nil && !p.Counts.Can {
		if r.MaxMessages != nil {
			ch.refuse("spec.retention.maxMessages", v1alpha1.ReasonNotSupported, "%s: %s", p.Counts.How, p.Counts.Instead)
		}
		if r.MaxBytes != nil {
			ch.refuse("spec.retention.maxBytes", v1alpha1.ReasonNotSupported, "%s: %s", p.Counts.How, p.Counts.Instead)
		}
	}
	if ch.mode != modeLeases {
		return
	}
	if ch.ordering() == v1alpha1.OrderingKey && !p.KeyLeases.Can {
		ch.refuse("spec.ordering", v1alpha1.ReasonOrderingNotAvailable, "%s: %s", p.KeyLeases.How, p.KeyLeases.Instead)
	}
	if n := deref(spec.Replicas, 1); n > 1 && !p.LeaseReplicas.Can {
		ch.refuse("spec.replicas", v1alpha1.ReasonNotSupported, "%d replicas cannot hand out leases: %s; %s", n, p.LeaseReplicas.How, p.LeaseReplicas.Instead)
	}
	if p.MaxHold > 0 && ch.object.AckWait > plan.Duration(p.MaxHold) {
		ch.refuse("spec.ackWait", v1alpha1.ReasonNotSupported, "%s is longer than %s holds a message (%s): shorten it", ch.object.AckWait, p.Title, p.MaxHold)
	}
}

func (c *compiler) mailboxAuth(s *subject, a *v1alpha1.MailboxAuth) (publish, receive *plan.Auth) {
	if a == nil {
		return nil, nil
	}
	if (a.Bearer != nil) == (a.Publish != nil || a.Receive != nil) {
		s.refuse("spec.auth", v1alpha1.ReasonInvalid, "either bearer, or publish and receive apart, must be set, and not both")
		return nil, nil
	}
	if a.Bearer != nil {
		auth := c.gatewayAuth(s, "spec.auth", &v1alpha1.GatewayAuth{Bearer: a.Bearer})
		return auth, auth
	}
	return c.gatewayAuth(s, "spec.auth.publish", a.Publish), c.gatewayAuth(s, "spec.auth.receive", a.Receive)
}
