package compile

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// terms are the fields that a Subscription, a Pipeline and a Mailbox with a handler have in common.
type terms struct {
	guarantee     v1alpha1.Guarantee
	ordering      v1alpha1.Ordering
	orderingField string
	ackWait       plan.Duration
	maxInFlight   *int32
	retry         *v1alpha1.Retry
	onFailure     v1alpha1.OnFailure
	deadLetter    *v1alpha1.DeadLetter
	startFrom     *v1alpha1.StartFrom
	replicas      *int32
	whenExpired   v1alpha1.WhenExpired
}

func (t *terms) onFail() v1alpha1.OnFailure { return or(t.onFailure, defaultOnFailure) }

func duration(d *metav1.Duration, otherwise time.Duration) plan.Duration {
	if d == nil {
		return plan.Duration(otherwise)
	}
	return plan.Duration(d.Duration)
}

func startOf(s *v1alpha1.StartFrom) *plan.Start {
	if s == nil {
		return &plan.Start{Position: string(defaultStart)}
	}
	start := &plan.Start{Position: string(s.Position)}
	if s.Position == v1alpha1.StartTime && s.Time != nil {
		start.Time = s.Time.UTC()
	}
	return start
}

// flow makes a consumer's flow and decides what it can promise.
func (c *compiler) flow(con *consumer, t terms, steps []plan.Step, sink plan.Sink) *plan.Flow {
	s, src := con.subject, con.source
	f := &plan.Flow{Steps: steps, Sink: sink}
	f.Policy = plan.Policy{
		Guarantee: string(t.guarantee), Retry: retry(t.retry), OnFailure: string(t.onFail()),
		WhenExpired: string(t.whenExpired), DeadLetter: con.deadRef(),
	}
	s.dead = f.Policy.DeadLetter
	c.onFailure(con, &t, f)
	if src == nil || src.broker == nil {
		return f
	}
	p := src.broker.protocol
	f.Source = plan.Source{
		Object: src.object.Ref, Ordering: string(t.ordering), AckWait: t.ackWait,
		WindowMessages: defaultWindowMessages, WindowBytes: max(defaultWindowBytes, 2*src.maxMessageBytes),
	}
	if con.group != nil {
		f.Source.Group = con.group.Name
	}
	c.inFlight(s, p, &t, f)
	c.start(s, p, &t)
	c.ordering(con, &t)
	c.guarantee(con, &t, f)

	if h := horizon(f.Policy.Retry); p.MaxHold > 0 && h > p.MaxHold {
		s.refuse("spec.retry", v1alpha1.ReasonNotSupported, "the attempts take up to %s, and %s holds a message for %s: lower maxAttempts or backOff.max", h.Round(time.Second), p.Title, p.MaxHold)
	}
	if p.MaxHold > 0 && t.ackWait > plan.Duration(p.MaxHold) {
		s.refuse("spec.ackWait", v1alpha1.ReasonNotSupported, "%s is longer than %s holds a message (%s): shorten it", t.ackWait, p.Title, p.MaxHold)
	}
	if p.MaxHold > 0 && t.onFail() == v1alpha1.OnFailureBlock {
		s.refuse("spec.onFailure", v1alpha1.ReasonNotSupported, "Block holds a message until it succeeds, and %s holds one for %s: use Park", p.Title, p.MaxHold)
	}
	s.effective = c.flowEffective(con, &t, f)
	return f
}

// onFailure checks the terms on which messages fail against each other.
func (c *compiler) onFailure(con *consumer, t *terms, f *plan.Flow) {
	s := con.subject
	if t.guarantee == v1alpha1.GuaranteeAtMostOnce {
		const why = "AtMostOnce makes one attempt, without retry and dead letter: remove it, or use AtLeastOnce"
		if t.retry != nil {
			s.refuse("spec.retry", v1alpha1.ReasonInvalid, why)
		}
		if t.deadLetter != nil {
			s.refuse("spec.deadLetter", v1alpha1.ReasonInvalid, why)
		}
		if t.onFailure == v1alpha1.OnFailureBlock {
			s.refuse("spec.onFailure", v1alpha1.ReasonInvalid, why)
		}
		f.Policy.Retry.MaxAttempts = 1
		f.Policy.DeadLetter, s.dead = nil, nil
		return
	}
	if t.onFail() == v1alpha1.OnFailureBlock {
		if t.deadLetter != nil {
			s.refuse("spec.deadLetter", v1alpha1.ReasonInvalid, "Block keeps a failed message in its place and sends none to a dead letter: remove deadLetter, or use onFailure: Park")
		}
		f.Policy.DeadLetter, s.dead = nil, nil
	}
	dl := con.deadLetter
	if dl == nil || con.source == nil {
		return
	}
	if dl.maxMessageBytes < con.source.maxMessageBytes {
		s.refuse(deadLetterField, v1alpha1.ReasonInvalid, "%s takes messages of %d bytes, and %s has some of %d: raise maxMessageBytes of the dead letter to that", dl, dl.maxMessageBytes, con.source, con.source.maxMessageBytes)
	}
}

// inFlight decides how many messages are on their way at once, and how many of them together.
func (c *compiler) inFlight(s *subject, p Protocol, t *terms, f *plan.Flow) {
	policy := &f.Policy
	calls := 0 // requests at once of the step that makes the fewest
	for _, st := range f.Steps {
		if st.HTTP != nil && (calls == 0 || st.HTTP.Concurrency < calls) {
			calls = st.HTTP.Concurrency
		}
	}
	switch {
	case f.Sink.Publish == nil && f.Sink.Postgres == nil:
		policy.BatchSize, policy.MaxInFlight = 1, int(deref(t.maxInFlight, defaultMaxInFlight))
		if t.maxInFlight == nil && calls > 0 {
			policy.MaxInFlight = min(policy.MaxInFlight, calls)
		}
	case t.maxInFlight != nil:
		policy.MaxInFlight = int(*t.maxInFlight)
		policy.BatchSize = min(defaultBatchSize, max(1, policy.MaxInFlight/defaultBatchesAtOnce))
	case calls > 0:
		// One batch keeps the step busy, and the next one waits behind it.
		policy.BatchSize, policy.MaxInFlight = calls, 2*calls
	default:
		policy.BatchSize, policy.MaxInFlight = defaultBatchSize, defaultBatchSize*defaultBatchesAtOnce
	}
	if t.ordering == v1alpha1.OrderingStrict {
		if n := deref(t.maxInFlight, 1); n > 1 {
			s.refuse("spec.maxInFlight", v1alpha1.ReasonInvalid, "ordering Strict handles one message at a time, not %d: remove maxInFlight, or use ordering Key", n)
		}
		policy.BatchSize, policy.MaxInFlight = 1, 1
	}
	if p.MaxWindow > 0 {
		if n := int(deref(t.maxInFlight, 0)); n > p.MaxWindow {
			s.refuse("spec.maxInFlight", v1alpha1.ReasonNotSupported, "%d are more than %s can hand out at once: at most %d", n, p.Title, p.MaxWindow)
		}
		f.Source.WindowMessages = p.MaxWindow
		policy.MaxInFlight = min(policy.MaxInFlight, p.MaxWindow)
		policy.BatchSize = min(policy.BatchSize, policy.MaxInFlight)
		return
	}
	f.Source.WindowMessages = max(f.Source.WindowMessages, 2*policy.MaxInFlight)
}

// start checks where reading begins.
func (c *compiler) start(s *subject, p Protocol, t *terms) {
	if t.startFrom == nil {
		return
	}
	a := p.Latest
	switch t.startFrom.Position {
	case v1alpha1.StartEarliest:
		a = p.Earliest
	case v1alpha1.StartTime:
		a = p.Time
	}
	if !a.Can {
		s.refuse("spec.startFrom.position", v1alpha1.ReasonNotSupported, "%s: %s", a.How, a.Instead)
	}
	if t.startFrom.Position == v1alpha1.StartTime && t.startFrom.Time == nil {
		s.refuse("spec.startFrom.time", v1alpha1.ReasonInvalid, "time is required with position Time, such as 2026-01-31T12:00:00Z, and refused with any other")
	}
}

// expression checks a CEL expression where one may stand.
func (c *compiler) expression(s *subject, field string, e *v1alpha1.Expression, scope expr.Scope, want expr.Kind) *plan.Expr {
	if e == nil {
		return nil
	}
	return c.cel(s, field+".cel", e.CEL, scope, want)
}

// An expression is what a check of one depends on.
type expression struct {
	source string
	scope  expr.Scope
	want   expr.Kind
}

func (c *compiler) cel(s *subject, field, source string, scope expr.Scope, want expr.Kind) *plan.Expr {
	e := expression{source, scope, want}
	err, known := c.checked[e]
	if !known {
		err = expr.Check(source, scope, want)
		c.checked[e] = err
	}
	if err != nil {
		s.refuse(field, v1alpha1.ReasonInvalidExpression, "%v", err)
	}
	return &plan.Expr{CEL: source}
}

// httpCall is a request to a server.
func (c *compiler) httpCall(s *subject, field, uri string, service *v1alpha1.ServiceReference, timeout plan.Duration) plan.HTTPCall {
	return plan.HTTPCall{HTTPTarget: c.httpTarget(s, field, "uri", uri, service), Timeout: timeout}
}

func (c *compiler) httpTarget(s *subject, field, member, uri string, service *v1alpha1.ServiceReference) plan.HTTPTarget {
	if !exactlyOne(s, field, []string{member, "serviceRef"}, uri != "", service != nil) {
		return plan.HTTPTarget{}
	}
	if service != nil {
		return plan.HTTPTarget{Service: &plan.Service{
			Name: service.Name, Namespace: s.resource.Namespace,
			Port: int(deref(service.Port, defaultServicePort)), Path: or(service.Path, defaultPath),
		}}
	}
	s.refuseValue(field+"."+member, urlFault(uri, exampleURL[member]))
	return plan.HTTPTarget{URL: uri}
}

var exampleURL = map[string]string{"uri": "https://example.com/events", "url": "https://api.example.com/v1/changes"}

// objects are all that a flow needs on its brokers.
func (con *consumer) objects() []plan.Object {
	var all []plan.Object
	if con.source != nil && con.source.broker != nil {
		all = append(all, con.source.object)
	}
	for _, o := range con.outs {
		if o.to.broker != nil && o.to != con.deadLetter {
			all = append(all, o.to.object)
		}
	}
	if con.group != nil {
		all = append(all, *con.group)
	}
	return append(all, con.deadObjects()...)
}

// duplicates names each step that another one is called like.
func duplicates(s *subject, steps []v1alpha1.Step) {
	for i, st := range steps {
		if j := slices.IndexFunc(steps, func(o v1alpha1.Step) bool { return cmp.Compare(o.Name, st.Name) == 0 }); j < i {
			s.refuse(index("spec.steps", i), v1alpha1.ReasonDuplicate, "another item has the same name, %s: it must be unique", st.Name)
		}
	}
}
