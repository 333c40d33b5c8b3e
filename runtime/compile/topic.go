package compile

import (
	"fmt"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func (c *compiler) declareTopic(it *item[v1alpha1.Topic]) *channel {
	spec := &it.api.Spec
	ch := &channel{subject: it.subject, topic: it.api, allowed: spec.AllowedNamespaces}
	c.declare(ch, "Topic", spec.BrokerRef, spec.ExternalName, spec.MaxMessageBytes)
	if r := spec.Retention; r != nil {
		if r.MaxAge != nil {
			ch.object.MaxAge = plan.Duration(r.MaxAge.Duration)
		}
		ch.object.MaxBytes = amount(ch.subject, "spec.retention.maxBytes", r.MaxBytes)
	}
	ch.schema = checkSchema(ch.subject, spec.Schema)
	if ch.broker != nil && ch.broker.protocol.Partitions {
		ch.object.Partitions = int(deref(spec.Partitions, 0))
	}
	return ch
}

// topic makes the gateway of a Topic.
func (c *compiler) topic(ch *channel) {
	spec := &ch.topic.Spec
	if spec.ExternalName != "" && spec.DeletionPolicy == v1alpha1.DeletionDelete {
		refuseDelete(ch.subject)
	}
	c.workload(ch.subject, "spec.workload", spec.Workload)
	auth := c.gatewayAuth(ch.subject, "spec.auth", spec.Auth)
	gateway := &plan.Topic{
		Object: ch.object.Ref, MaxMessageBytes: ch.maxMessageBytes,
		Schema: ch.schema, Publish: auth, Receive: auth,
	}
	ch.plan = &plan.Plan{Topic: gateway, Objects: []plan.Object{ch.object}}
	b := ch.broker
	if b == nil {
		return
	}
	if topics := b.protocol.Topics; !b.has(topics) {
		ch.refuse("spec.brokerRef", v1alpha1.ReasonNotSupported, "%s cannot carry a Topic as it is: %s", b.subject, topics.Instead)
	}
	ch.effective = plan.Effective{
		Guarantee: string(v1alpha1.GuaranteeAtLeastOnce),
		Ordering:  string(ch.keeps()),
		Mechanism: "Stored is answered once the broker has stored the message (" + b.protocol.Topics.How + ")",
		Limits:    dedupLimits(b),
	}
	if r := spec.Retention; r != nil && (r.MaxAge != nil || r.MaxBytes != nil) {
		ch.effective.Limits = append(ch.effective.Limits, "messages beyond the retention are deleted, delivered or not")
	}
	ch.effective.Limits = append(ch.effective.Limits, b.protocol.Topics.Limits...)
}

// keeps is the order in which a Topic's messages can be read: as stored, or that of each key where partitions divide it.
func (ch *channel) keeps() v1alpha1.Ordering {
	if ch.broker.protocol.Partitions && ch.object.Partitions != 1 {
		return v1alpha1.OrderingKey
	}
	return v1alpha1.OrderingStrict
}

func dedupLimits(b *broker) []string {
	if b.protocol.Dedup.Can {
		return append([]string{fmt.Sprintf("a message published again is one message: %s; later it is a second one", b.protocol.Dedup.How)}, b.protocol.Dedup.Limits...)
	}
	return []string{"a message published again is a second message: " + b.protocol.Dedup.How}
}

func refuseDelete(s *subject) {
	s.refuse("spec.deletionPolicy", v1alpha1.ReasonInvalid, "an object named by externalName is never deleted: use Retain, or leave deletionPolicy out")
}
