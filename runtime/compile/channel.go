package compile

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// channel is a Topic or a Mailbox: what messages are written to and read from.
type channel struct {
	*subject
	topic   *v1alpha1.Topic   // one of the two
	mailbox *v1alpha1.Mailbox //
	allowed *v1alpha1.AllowedNamespaces

	broker *broker // nil when it cannot be told
	object plan.Object
	// maxMessageBytes is the largest data that it takes.
	maxMessageBytes int
	// schema is the JSON Schema that whatever is published to it must meet; nil: none, or one that was refused.
	schema json.RawMessage

	// Of a mailbox: who takes its messages, and the Pipeline where that is one.
	mode     string
	pipeline *subject
}

// Modes of a Mailbox.
const (
	modeLeases   = "Leases"
	modeHandler  = "Handler"
	modePipeline = "Pipeline"
)

func (ch *channel) ordering() v1alpha1.Ordering { return v1alpha1.Ordering(ch.object.Ordering) }

// publish is what a flow that publishes to it is told; nothing where ch is nil, which was told as a fault.
func (ch *channel) publish() *plan.Publish {
	if ch == nil {
		return &plan.Publish{}
	}
	return &plan.Publish{Object: ch.object.Ref, Schema: ch.schema, MaxMessageBytes: ch.maxMessageBytes}
}

// declare fills in what Topic and Mailbox have in common.
func (c *compiler) declare(ch *channel, kind string, ref v1alpha1.ResourceReference, external string, size *resource.Quantity) {
	checkAllowed(ch.subject, ch.allowed)
	ch.maxMessageBytes = defaultMaxMessageBytes
	if size != nil {
		if n := size.Value(); n < minMaxMessageBytes || n > 1<<40 {
			ch.refuse("spec.maxMessageBytes", v1alpha1.ReasonInvalid, "%s is not between 1Ki and the broker's limit: use 512Ki, or leave it out", size.String())
		} else {
			ch.maxMessageBytes = int(n)
		}
	}
	ch.broker = c.brokerOf(ch.subject, "spec.brokerRef", ref)
	if ch.broker == nil {
		return
	}
	b := ch.broker
	name := external
	if external == "" {
		name = b.protocol.names.object(b.api.Spec.Prefix, ch.resource)
	} else {
		checkExternal(ch.subject, b, external)
	}
	ch.object = plan.Object{Ref: b.ref(kind, name), Owner: c.mark(ch.resource), External: external != ""}
	if !b.waiting {
		if most := b.maxMessageBytes(); int64(ch.maxMessageBytes) > most {
			ch.refuse("spec.maxMessageBytes", v1alpha1.ReasonNotSupported,
				"%d bytes are more than %s can take: at most %d here (%d that the broker takes, encoded, less %d for attributes and the history of a dead letter); lower it, or raise the broker's limit",
				ch.maxMessageBytes, b.subject, most, b.features.MaxMessageBytes, headerRoom)
		}
	}
	if external == "" {
		ch.object.MaxMessageBytes = ch.maxMessageBytes + headerRoom
	}
}

// checkExternal says whether the broker could have an object of this name.
func checkExternal(s *subject, b *broker, name string) {
	if n, bad := b.protocol.names.refuses(name); bad {
		s.refuse("spec.externalName", v1alpha1.ReasonInvalid, "%q holds %q, which names on %s cannot: use %s", name, n, b.protocol.Title, b.protocol.names.alphabet)
	}
	if len(name) > b.protocol.names.maxLength {
		s.refuse("spec.externalName", v1alpha1.ReasonInvalid, "%q is longer than the %d characters that names on %s can have: name another object", name, b.protocol.names.maxLength, b.protocol.Title)
	}
}

// amount reads a size that has to be more than nothing.
func amount(s *subject, field string, q *resource.Quantity) int64 {
	if q == nil {
		return 0
	}
	if q.Sign() <= 0 {
		s.refuse(field, v1alpha1.ReasonInvalid, "%s must be more than nothing, such as 10Gi; leave it out for no limit", q.String())
		return 0
	}
	return q.Value()
}
