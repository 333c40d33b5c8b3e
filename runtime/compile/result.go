package compile

import (
	"cmp"
	"slices"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// result decides who is refused because of others, and gathers plans and diagnostics.
func (c *compiler) result() Result {
	refused := map[*subject]bool{}
	for _, s := range c.subjects {
		c.finishPlan(s)
		refused[s] = len(s.diags) > 0
	}
	// Being refused spreads to those who refer, and to those who refer to them. Collected first, then told, so that what is told does not
	// depend on the order.
	for spread := true; spread; {
		spread = false
		for _, s := range c.subjects {
			if !refused[s] && slices.ContainsFunc(s.needs, func(n need) bool { return refused[n.on] }) {
				refused[s], spread = true, true
			}
		}
	}
	for _, s := range c.subjects {
		for _, n := range s.needs {
			if refused[n.on] && n.on != s {
				s.refuse(n.field, v1alpha1.ReasonReferenceInvalid, "%s is refused: put right first what is said about it", n.on)
			}
		}
	}

	var res Result
	for _, s := range c.subjects {
		out := Outcome{Resource: s.resource, Paused: s.paused, Reserved: c.reserved(s), mark: c.mark(s.resource)}
		if len(s.diags) == 0 {
			out.Effective, out.DeadLetter, out.Mirrors = s.effective, s.dead, s.mirrors
			out.Connection = c.administered(s)
		}
		c.unready(s)
		slices.SortFunc(s.diags, compareDiagnostics)
		s.diags = slices.Compact(s.diags)
		if out.Refused = len(s.diags) > 0; !out.Refused && s.plan != nil {
			out.Plan = s.plan
			out.Canonical, _ = plan.Marshal(s.plan) // finishPlan has seen that it can be
		}
		res.Outcomes = append(res.Outcomes, out)
		res.Diagnostics = append(res.Diagnostics, s.diags...)
	}
	slices.SortFunc(res.Diagnostics, compareDiagnostics)
	return res
}

// reserved are a resource's own objects.
func (c *compiler) reserved(s *subject) []plan.Object {
	var all []plan.Object
	for _, ch := range []*channel{c.topics[key(s.resource)], c.mailboxes[key(s.resource)]} {
		if ch != nil && ch.subject == s && ch.broker != nil {
			all = append(all, ch.object)
		}
	}
	if con := c.consumerOf[s]; con != nil {
		for _, o := range []*plan.Object{con.group, con.dead} {
			if o != nil {
				all = append(all, *o)
			}
		}
	}
	return inOrder(ownedBy(c.mark(s.resource), all))
}

// unready says of whom the broker is not one that could run now, although nothing is wrong with the declaration.
func (c *compiler) unready(s *subject) {
	uses := s.brokers
	if s.resource.Kind == "Broker" {
		uses = []brokerUse{{"spec.type", c.brokers[key(s.resource)]}}
	}
	for _, u := range uses {
		switch {
		case !u.b.protocol.Built && u.b.protocol.Name != "":
			s.refuse(u.field, ReasonBrokerNotBuilt, "%s is of type %s, for which this build of Waybill has no driver: use a Broker of type NATS or Embedded, or on a laptop --broker %s=nats://HOST:PORT or %s=embedded:",
				u.b.subject, u.b.api.Spec.Type, u.b.resource.Name, u.b.resource.Name)
		case u.b.waiting:
			s.refuse(u.field, v1alpha1.ReasonWaitingForBroker, "%s has not been reached yet, so what it can do is not known", u.b.subject)
		}
	}
}

// finishPlan fills in what follows from the rest of the plan.
func (c *compiler) finishPlan(s *subject) {
	if s.plan == nil {
		return
	}
	p := s.plan
	p.Version, p.Resource, p.Effective, p.Paused = plan.Version, s.resource, s.effective, s.paused
	p.Brokers = nil
	for _, u := range s.brokers {
		b, mirrors := u.b.connection(s.resource.Namespace)
		p.Brokers = append(p.Brokers, b)
		for _, m := range mirrors {
			if at := slices.IndexFunc(s.mirrors, func(o Mirror) bool { return o.To == m.To && o.Broker == m.Broker }); at >= 0 {
				s.mirrors[at] = s.mirrors[at].With(m.Keys)
			} else {
				s.mirrors = append(s.mirrors, m)
			}
		}
	}
	slices.SortFunc(p.Brokers, func(a, b plan.Broker) int { return cmp.Compare(a.Name, b.Name) })
	p.Objects = inOrder(p.Objects)

	canonical, err := plan.Marshal(p)
	switch {
	case err != nil:
		s.refuse("spec", v1alpha1.ReasonInvalid, "the plan cannot be written: %v", err)
	case len(canonical) > maxPlanBytes:
		field := "spec"
		if p.Topic != nil && len(p.Topic.Schema) > maxPlanBytes/2 {
			field = "spec.schema.jsonSchema"
		}
		s.refuse(field, v1alpha1.ReasonPlanTooLarge, "the compiled plan has %d bytes and may have %d: make schemas and expressions smaller, or divide the resource", len(canonical), maxPlanBytes)
	}
}

// inOrder sorts objects so that each comes after those it stands on, and drops repetitions.
func inOrder(objects []plan.Object) []plan.Object {
	rank := map[string]int{"Topic": 0, "Queue": 1, "Group": 2}
	slices.SortStableFunc(objects, func(a, b plan.Object) int {
		return cmp.Or(cmp.Compare(rank[a.Kind], rank[b.Kind]), cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Of, b.Of), cmp.Compare(a.Owner, b.Owner))
	})
	return slices.CompactFunc(objects, func(a, b plan.Object) bool { return a.Ref == b.Ref })
}
