package compile

import (
	"fmt"
	"time"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// guarantee refuses what source, steps and destination cannot give together.
func (c *compiler) guarantee(con *consumer, t *terms, f *plan.Flow) {
	if t.guarantee != v1alpha1.GuaranteeExactlyOnce {
		return
	}
	const field, atLeast = "spec.guarantee", "use AtLeastOnce and let the receiver drop what it has seen, by source and id"
	s, src := con.subject, con.source
	refuse := func(format string, args ...any) {
		s.refuse(field, v1alpha1.ReasonGuaranteeNotAvailable, format, args...)
	}
	switch {
	case s.resource.Kind == "Subscription":
		refuse("a Subscription cannot give ExactlyOnce, for its effect and its position are not stored in one step: use a Pipeline from the Topic to a Topic on the same broker; or %s", atLeast)
		return
	case f.Sink.Push != nil || f.Sink.Reply != nil:
		refuse("ExactlyOnce cannot be given over HTTP, where an answer can be lost: send to a Topic on the same broker; or %s", atLeast)
		return
	case f.Sink.Publish == nil:
		return // rows in PostgreSQL, which any broker can give, or nothing
	}
	to := con.to("spec.to.topicRef")
	switch {
	case src.topic == nil || con.to("spec.to.mailboxRef") != nil:
		refuse("ExactlyOnce is given from a Topic to a Topic, for a Mailbox has no position that could be stored with the messages: use Topics on both ends; or %s", atLeast)
	case to == nil || to.broker == nil:
	case to.object.External:
		refuse("%s is a stream that Waybill did not make (spec.externalName), and ExactlyOnce keeps its position in the stream that it writes to: use a Topic without externalName; or %s", to, atLeast)
	case to.broker.identity != src.broker.identity:
		refuse("ExactlyOnce is given on one broker, and %s and %s are two: use a Topic on %s; or %s", src.broker.subject, to.broker.subject, src.broker.subject, atLeast)
	default:
		a := src.broker.protocol.ExactlyOnceTopic
		switch {
		case !a.Can: // whatever a probe finds
			refuse("%s: %s", a.How, a.Instead)
		case src.broker.waiting:
		case !src.broker.has(a):
			refuse("%s was not found to have %s, which ExactlyOnce needs (%s): %s; or %s", src.broker.subject, a.Needs, a.How, a.Instead, atLeast)
		}
		c.oneReader(s, t, f, src.broker.protocol)
	}
}

// oneReader refuses what ExactlyOnce leaves no room for.
func (c *compiler) oneReader(s *subject, t *terms, f *plan.Flow, p Protocol) {
	if n := deref(t.replicas, 1); n > 1 && t.ordering == v1alpha1.OrderingNone && !p.OrderedReplicas.Can {
		s.refuse("spec.replicas", v1alpha1.ReasonGuaranteeNotAvailable, "%d replicas cannot give ExactlyOnce, for one position is stored with all that is sent: set replicas to 1", n)
	}
	for i, st := range f.Steps {
		if st.Dedupe != nil {
			s.refuse(index("spec.steps", i)+".dedupe", v1alpha1.ReasonGuaranteeNotAvailable, "dedupe remembers a key before what became of the message is stored, and would drop the message when it comes again: remove the step, or use AtLeastOnce")
		}
	}
}

// ordering refuses an order that the source cannot keep.
func (c *compiler) ordering(con *consumer, t *terms) {
	s, src := con.subject, con.source
	p := src.broker.protocol
	if t.ordering == v1alpha1.OrderingNone {
		return
	}
	a := p.Key
	if t.ordering == v1alpha1.OrderingStrict {
		a = p.Strict
		if src.topic != nil && src.keeps() != v1alpha1.OrderingStrict {
			s.refuse(t.orderingField, v1alpha1.ReasonOrderingNotAvailable, "%s has partitions, and there is no order between them: give the Topic partitions: 1, or use ordering Key", src)
		}
	}
	if !a.Can {
		s.refuse(t.orderingField, v1alpha1.ReasonOrderingNotAvailable, "%s: %s", a.How, a.Instead)
	}
	if n := deref(t.replicas, 1); n > 1 && !p.OrderedReplicas.Can {
		s.refuse("spec.replicas", v1alpha1.ReasonOrderingNotAvailable, "%d replicas cannot keep ordering %s, for %s: %s", n, t.ordering, p.OrderedReplicas.How, p.OrderedReplicas.Instead)
	}
}

// flowEffective is what a flow gives: the guarantee and the ordering asked for, by which means, and where it ends.
func (c *compiler) flowEffective(con *consumer, t *terms, f *plan.Flow) plan.Effective {
	p := con.source.broker.protocol
	e := plan.Effective{Guarantee: string(t.guarantee), Ordering: string(t.ordering)}
	limit := func(format string, args ...any) { e.Limits = append(e.Limits, fmt.Sprintf(format, args...)) }
	switch rows := f.Sink.Postgres; {
	case t.guarantee == v1alpha1.GuaranteeAtMostOnce:
		e.Mechanism = "a message is acknowledged to its broker before the one attempt that is made"
		limit("a message whose attempt fails, or is cut short by a crash, is lost and counted")
	case t.guarantee == v1alpha1.GuaranteeExactlyOnce && f.Sink.Publish != nil:
		e.Mechanism = p.ExactlyOnceTopic.How
		e.Limits = append(e.Limits, p.ExactlyOnceTopic.Limits...)
	case rows != nil && rows.Identity != nil:
		rowsOnce(p, &e, rows)
	default:
		e.Mechanism = "a message is acknowledged to its broker only after " + confirmed(f.Sink)
		limit("a crash between the two repeats the message")
		if rows != nil && rows.Conflict == nil {
			limit("a repeated message is a second row, or fails where a unique index refuses it: set conflict, or use ExactlyOnce")
		}
	}
	switch t.ordering {
	case v1alpha1.OrderingKey:
		e.Mechanism += "; " + p.Key.How
		limit("messages without a key have no order")
	case v1alpha1.OrderingStrict:
		e.Mechanism += "; " + p.Strict.How
	}
	if t.guarantee != v1alpha1.GuaranteeAtMostOnce {
		c.failureLimits(con, t, f, limit)
	}
	c.stepLimits(f, limit)
	if to := con.to("spec.to.topicRef"); to != nil {
		smaller(con.source, to, limit)
	}
	for _, field := range []string{"spec.to.mailboxRef", "spec.deliverTo.topicRef", "spec.deliverTo.mailboxRef"} {
		if to := con.to(field); to != nil {
			smaller(con.source, to, limit)
		}
	}
	return e
}

func (c *compiler) failureLimits(con *consumer, t *terms, f *plan.Flow, limit func(string, ...any)) {
	if f.Sink.Publish != nil && t.guarantee != v1alpha1.GuaranteeExactlyOnce {
		for _, o := range con.outs {
			if o.field != deadLetterField && o.to.broker != nil && o.to.broker.protocol.Dedup.Can {
				limit("a repeated message is stored once: %s", o.to.broker.protocol.Dedup.How)
			}
		}
	}
	switch {
	case t.onFail() == v1alpha1.OnFailureBlock && t.ordering == v1alpha1.OrderingNone:
		limit("a message that fails is tried for ever; the others go on")
	case t.onFail() == v1alpha1.OnFailureBlock:
		limit("a message that fails stops those behind it until it succeeds")
	case t.ordering != v1alpha1.OrderingNone:
		limit("a message that fails %d times goes to the dead letter and is missing from the order of those behind it", f.Policy.Retry.MaxAttempts)
	default:
		limit("a message that fails %d times goes to the dead letter", f.Policy.Retry.MaxAttempts)
	}
	if src := con.source; src.object.MaxAge > 0 && time.Duration(src.object.MaxAge) <= horizon(f.Policy.Retry) {
		limit("%s deletes messages after %s, which may be before their last attempt", src, src.object.MaxAge)
	}
}

func (c *compiler) stepLimits(f *plan.Flow, limit func(string, ...any)) {
	for _, st := range f.Steps {
		switch {
		case st.HTTP != nil:
			limit("step %s may call its server more than once for a message", st.Name)
		case st.Dedupe != nil:
			limit("step %s remembers keys in memory only, each replica its own: it reduces repetitions and rules out none", st.Name)
		}
	}
}

// smaller tells when a destination takes less than its source may hold.
func smaller(from, to *channel, limit func(string, ...any)) {
	if to.maxMessageBytes < from.maxMessageBytes {
		limit("%s takes %d bytes, and %s may hold messages of %d: larger ones fail", to, to.maxMessageBytes, from, from.maxMessageBytes)
	}
}

func confirmed(sink plan.Sink) string {
	switch {
	case sink.Publish != nil:
		return "the destination's broker has stored it"
	case sink.Reply != nil:
		return "the reply has been sent"
	case sink.Postgres != nil:
		return "the database has committed its row"
	default:
		return "the destination has answered 2xx"
	}
}

// mailboxEffective is what a Mailbox gives to those who receive from it, or to the Pipeline that reads it.
func mailboxEffective(ch *channel) plan.Effective {
	p := ch.broker.protocol
	e := plan.Effective{Guarantee: string(v1alpha1.GuaranteeAtLeastOnce), Ordering: ch.object.Ordering}
	if ch.mode == modePipeline {
		e.Mechanism = "Stored is answered once the broker has stored the message, and " + ch.pipeline.String() + " takes it"
		e.Limits = dedupLimits(ch.broker)
		return e
	}
	e.Mechanism = "a message is the broker's until the recipient has acknowledged its lease; " + p.Leases.How
	if ch.object.Ordering == string(v1alpha1.OrderingStrict) {
		e.Mechanism += "; one message is lent out at a time"
	}
	e.Limits = append([]string{"a lease that ends unacknowledged is handed out again"}, p.Leases.Limits...)
	e.Limits = append(e.Limits, dedupLimits(ch.broker)...)
	if ch.object.MaxAge > 0 {
		e.Limits = append(e.Limits, fmt.Sprintf("messages older than %s are deleted, taken or not", ch.object.MaxAge))
	}
	return e
}

// endpointGuarantee checks and states what a caller gets.
func (c *compiler) endpointGuarantee(s *subject, spec *v1alpha1.EndpointSpec, e *plan.Endpoint, to *channel) {
	const field = "spec.guarantee"
	forget := spec.Pattern == v1alpha1.PatternRequestForget
	gives := v1alpha1.GuaranteeAtLeastOnce
	if forget {
		gives = v1alpha1.GuaranteeAtMostOnce
	}
	if want := or(spec.Guarantee, gives); want != gives {
		switch {
		case want == v1alpha1.GuaranteeExactlyOnce:
			s.refuse(field, v1alpha1.ReasonGuaranteeNotAvailable, "ExactlyOnce cannot be given over HTTP, where an answer can be lost and a caller asks again: use %s; a request repeated with the same id is one message where the broker drops repetitions", gives)
		case forget:
			s.refuse(field, v1alpha1.ReasonGuaranteeNotAvailable, "RequestForget answers before the message is stored, so it gives AtMostOnce: use pattern RequestAck for %s", want)
		default:
			s.refuse(field, v1alpha1.ReasonGuaranteeNotAvailable, "%s stores the message before it answers and may store it twice, so it gives AtLeastOnce: use pattern RequestForget for %s", spec.Pattern, want)
		}
	}
	if to == nil || to.broker == nil {
		return
	}
	eff := plan.Effective{Guarantee: string(gives), Ordering: string(v1alpha1.OrderingNone)}
	switch {
	case forget:
		eff.Mechanism = "Accepted is answered at once; the message is held in memory until the broker has stored it"
		eff.Limits = []string{"what is in memory when the process dies is lost"}
	case spec.Pattern == v1alpha1.PatternRequestResponse:
		eff.Mechanism = "the request is stored in the Mailbox, and the first reply to it is the answer"
		eff.Limits = append(eff.Limits, "after "+e.Timeout.String()+" the answer is 504 and the outcome unknown; a late reply is counted")
		if e.WhenExpired == string(v1alpha1.ExpiredDrop) {
			eff.Limits = append(eff.Limits, "a request that was not begun by then is dropped and counted")
		}
	case e.AckWhen == string(v1alpha1.AckProcessed):
		eff.Mechanism = "Processed is answered once the Mailbox's recipient has acknowledged the message and the broker has taken that"
		eff.Limits = append(eff.Limits, "after "+e.Timeout.String()+" the answer is 504 and the outcome unknown")
	default:
		eff.Mechanism = "Stored is answered once the broker has stored the message"
	}
	if !forget {
		eff.Limits = append(eff.Limits, dedupLimits(to.broker)...)
	}
	s.effective = eff
}

// pollerEffective is what a Poller gives.
func pollerEffective(p *plan.Poller, to *channel) plan.Effective {
	e := plan.Effective{
		Guarantee: string(v1alpha1.GuaranteeAtLeastOnce), Ordering: string(v1alpha1.OrderingStrict),
		Mechanism: "a page's items are stored by the broker in their order before the checkpoint moves on",
		Limits:    []string{"a crash between the two publishes that page again with the same ids"},
	}
	e.Limits = append(e.Limits, dedupLimits(to.broker)...)
	switch v1alpha1.Detect(p.Detect) {
	case v1alpha1.DetectChanged:
		e.Limits = append(e.Limits, "at most 4096 items are remembered; a source with more needs detect: Cursor or ETag")
	case v1alpha1.DetectCursor:
		const behind = "%s that appears later with a cursor more than %s below the last one is not seen, nor one below the newest 4096 %s, which is all that is remembered"
		late := "an item that appears later with a cursor below the last one is not seen"
		switch {
		case p.SQL != nil && p.SQL.Overlap > 0:
			late = fmt.Sprintf(behind, "a row", p.SQL.Overlap, "rows")
		case p.HTTP != nil && p.HTTP.Overlap > 0:
			late = fmt.Sprintf(behind, "an item", p.HTTP.Overlap, "items")
		}
		e.Limits = append(e.Limits, late)
	}
	return e
}
