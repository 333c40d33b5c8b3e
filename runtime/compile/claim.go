package compile

import (
	"cmp"
	"slices"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// A claim is one resource's wish to have a broker object for itself.
type claim struct {
	by    *subject
	field string
	what  string // the object's identity: server, and name there
	name  string
	names bool // it names an object instead of making one
}

// claims refuses the younger of two resources that would share one broker object, also when two Brokers lead to the same server. The dead
// letter that a resource makes for itself may be read by one Mailbox of the same namespace, by its externalName.
func (c *compiler) claims() {
	dead := map[string]*consumer{}
	var all []claim
	add := func(s *subject, b *broker, of, name, external string) string {
		field := "metadata.name"
		if external != "" {
			field = "spec.externalName"
		}
		what := b.identity + "\n" + of + "\n" + name
		all = append(all, claim{s, field, what, name, external != ""})
		return what
	}
	for _, con := range c.consumers {
		if con.group != nil {
			external := ""
			if con.group.External {
				external = con.group.Name
			}
			add(con.subject, con.source.broker, con.group.Of, con.group.Name, external)
		}
		if con.dead != nil {
			dead[add(con.subject, con.source.broker, "", con.dead.Name, "")] = con
		}
	}
	for _, t := range sorted(c.topics) {
		if t.broker != nil {
			add(t.subject, t.broker, "", t.object.Name, t.topic.Spec.ExternalName)
		}
	}
	adopted := map[string]*subject{}
	mailboxes := sorted(c.mailboxes)
	slices.SortFunc(mailboxes, func(a, b *channel) int { return compareAge(a.subject, b.subject) })
	for _, m := range mailboxes {
		if m.broker == nil {
			continue
		}
		external := m.mailbox.Spec.ExternalName
		what := m.broker.identity + "\n\n" + m.object.Name
		con := dead[what]
		if external != "" && con != nil && con.subject != m.subject && con.resource.Namespace == m.resource.Namespace {
			if first := adopted[what]; first != nil {
				m.refuse("spec.externalName", v1alpha1.ReasonConflict, "the dead letter %q is read by %s already: receive from that Mailbox", external, first)
				continue
			}
			adopted[what] = m.subject
			c.adopt(m, con)
			continue
		}
		add(m.subject, m.broker, "", m.object.Name, external)
	}

	// Of the same age, as in files: who makes the object goes before who names it.
	slices.SortStableFunc(all, func(a, b claim) int {
		makes := 0
		if a.names != b.names {
			makes = -1
			if a.names {
				makes = 1
			}
		}
		return cmp.Or(a.by.order.created.Compare(b.by.order.created), makes, compareAge(a.by, b.by))
	})
	owner := map[string]*subject{}
	for _, cl := range all {
		first := owner[cl.what]
		switch {
		case first == nil:
			owner[cl.what] = cl.by
		case first != cl.by:
			cl.by.refuse(cl.field, v1alpha1.ReasonConflict, "the broker object %q is used by %s already, and no two resources share one: name another object, or remove one of the resources", cl.name, first)
		}
	}
}

// adopt lets a Mailbox read the dead letter that a consumer makes: the object stays the consumer's, and is as the Mailbox says.
func (c *compiler) adopt(m *channel, con *consumer) {
	m.object.Owner, m.object.External, m.object.MaxMessageBytes = c.mark(con.resource), false, 0
	dead := m.object
	dead.Broker = con.dead.Broker // two Brokers may lead to one server
	con.dead = &dead
}
