package compile

import (
	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// endpoint makes an HTTP front door.
func (c *compiler) endpoint(it *item[v1alpha1.Endpoint]) {
	s, spec := it.subject, &it.api.Spec
	c.workload(s, "spec.workload", spec.Workload)
	e := &plan.Endpoint{
		Pattern: string(spec.Pattern), Path: or(spec.Path, defaultPath),
		Key:     c.expression(s, "spec.key", spec.Key, expr.Message, expr.String),
		Timeout: duration(spec.Timeout, defaultEndpointTimeout),
		Auth:    c.gatewayAuth(s, "spec.auth", spec.Auth),
	}
	e.WhenExpired = string(or(spec.WhenExpired, v1alpha1.ExpiredDeliver))
	switch spec.Pattern {
	case v1alpha1.PatternRequestResponse:
		// Nobody waits for the reply any more: handling it would only delay those who do.
		e.WhenExpired = string(or(spec.WhenExpired, v1alpha1.ExpiredDrop))
	case v1alpha1.PatternRequestAck:
		e.AckWhen = string(or(spec.AckWhen, v1alpha1.AckStored))
	case v1alpha1.PatternRequestForget:
	default:
		s.refuse("spec.pattern", v1alpha1.ReasonInvalid, "%s", choiceFault(string(spec.Pattern), "RequestResponse", "RequestAck", "RequestForget"))
	}
	if spec.AckWhen != "" && spec.Pattern != v1alpha1.PatternRequestAck {
		s.refuse("spec.ackWhen", v1alpha1.ReasonInvalid, "ackWhen belongs to pattern RequestAck: remove it, or change pattern")
	}
	waits := spec.Pattern == v1alpha1.PatternRequestResponse || e.AckWhen == string(v1alpha1.AckProcessed)
	if !waits && spec.WhenExpired != "" {
		s.refuse("spec.whenExpired", v1alpha1.ReasonInvalid, "whenExpired is about requests that somebody waits for, and this Endpoint makes nobody wait: remove it")
	}
	s.plan = &plan.Plan{Endpoint: e}
	to := c.endpointTarget(s, spec, waits)
	e.MaxMessageBytes = defaultMaxMessageBytes
	if to != nil {
		e.MaxMessageBytes, e.To, e.Schema = to.maxMessageBytes, to.object.Ref, to.schema
		if to.broker != nil {
			s.plan.Objects = []plan.Object{to.object}
		}
	}
	e.MaxBodyBytes = e.MaxMessageBytes
	if l := spec.Limits; l != nil {
		e.RatePerSecond = int(deref(l.RatePerSecond, 0))
		if q := l.MaxBodyBytes; q != nil {
			if n := q.Value(); n < 1 || n > int64(e.MaxMessageBytes) {
				s.refuse("spec.limits.maxBodyBytes", v1alpha1.ReasonInvalid, "%s is not between 1 and the %d bytes that the target takes: lower it, or raise maxMessageBytes of the target", q.String(), e.MaxMessageBytes)
			} else {
				e.MaxBodyBytes = int(n)
			}
		}
	}
	c.endpointGuarantee(s, spec, e, to)
}

// endpointTarget finds where requests go and whether somebody there will answer them.
func (c *compiler) endpointTarget(s *subject, spec *v1alpha1.EndpointSpec, waits bool) *channel {
	if !exactlyOne(s, "spec.to", []string{"mailboxRef", "topicRef"}, spec.To.MailboxRef != nil, spec.To.TopicRef != nil) {
		return nil
	}
	if spec.To.TopicRef != nil {
		if waits {
			if spec.Pattern == v1alpha1.PatternRequestAck {
				s.refuse("spec.ackWhen", v1alpha1.ReasonInvalid, "Processed needs one consumer whose receipt is waited for, and a Topic may have any number: use to.mailboxRef, or ackWhen: Stored")
			} else {
				s.refuse("spec.to.topicRef", v1alpha1.ReasonInvalid, "RequestResponse needs one consumer that answers, and a Topic may have any number: use to.mailboxRef, or pattern RequestAck")
			}
		}
		return c.channelOf(s, "spec.to.topicRef", "Topic", *spec.To.TopicRef)
	}
	const field = "spec.to.mailboxRef"
	m := c.channelOf(s, field, "Mailbox", *spec.To.MailboxRef)
	if m == nil || !waits {
		return m
	}
	if m.broker != nil && !m.broker.protocol.Inbox.Can {
		at := "spec.pattern"
		if spec.Pattern == v1alpha1.PatternRequestAck {
			at = "spec.ackWhen"
		}
		s.refuse(at, v1alpha1.ReasonNotSupported, "%s: %s", m.broker.protocol.Inbox.How, m.broker.protocol.Inbox.Instead)
	}
	if spec.Pattern == v1alpha1.PatternRequestResponse && m.mode == modePipeline {
		if p := findIn(c.pipelines, m.pipeline); p == nil || p.Spec.To.Reply == nil {
			s.refuse(field, v1alpha1.ReasonInvalid, "%s is read by %s, which does not reply, so no caller would ever get an answer: give the Pipeline to.reply: {}, let a handler (deliverTo) take the messages, or use pattern RequestAck", m, m.pipeline)
		}
	}
	return m
}
