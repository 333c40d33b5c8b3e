package compile

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/spelling"
)

// target is the full name of what a reference names.
func target(s *subject, r v1alpha1.ResourceReference) types.NamespacedName {
	return types.NamespacedName{Namespace: or(r.Namespace, s.resource.Namespace), Name: r.Name}
}

// channelOf finds the Topic or Mailbox that a reference names and says what stands against it. Nil when there is none that may be used.
func (c *compiler) channelOf(s *subject, field, kind string, r v1alpha1.ResourceReference) *channel {
	name := target(s, r)
	from := c.topics
	if kind == "Mailbox" {
		from = c.mailboxes
	}
	ch := from[name]
	if ch == nil {
		c.notFound(s, field, kind, name)
		return nil
	}
	if !c.admits(ch.resource.Namespace, ch.allowed, s.resource.Namespace) {
		s.refuse(field, v1alpha1.ReasonReferenceNotAllowed, "%s does not admit namespace %s: add it to the %s's spec.allowedNamespaces", ch, s.resource.Namespace, kind)
		return nil
	}
	s.on(field, ch.subject)
	if ch.broker == nil {
		return ch
	}
	if !c.admits(ch.broker.resource.Namespace, ch.broker.api.Spec.AllowedNamespaces, s.resource.Namespace) {
		s.refuse(field, v1alpha1.ReasonReferenceNotAllowed, "%s lies on %s, which does not admit namespace %s, so workers there have no credentials for it: add the namespace to the Broker's spec.allowedNamespaces",
			ch, ch.broker.subject, s.resource.Namespace)
		return ch
	}
	s.uses(field, ch.broker)
	return ch
}

// brokerOf finds the Broker that a reference names; nil when there is none that could be used.
func (c *compiler) brokerOf(s *subject, field string, r v1alpha1.ResourceReference) *broker {
	name := target(s, r)
	b := c.brokers[name]
	if b == nil {
		c.notFound(s, field, "Broker", name)
		return nil
	}
	if !c.admits(b.resource.Namespace, b.api.Spec.AllowedNamespaces, s.resource.Namespace) {
		s.refuse(field, v1alpha1.ReasonReferenceNotAllowed, "%s does not admit namespace %s: add it to the Broker's spec.allowedNamespaces", b.subject, s.resource.Namespace)
		return nil
	}
	s.on(field, b.subject)
	if b.protocol.Name == "" {
		return nil // refused for its type; nothing can be said about those who use it
	}
	s.uses(field, b)
	return b
}

// notFound names what was looked for, and where one of that name is if it is not there.
func (c *compiler) notFound(s *subject, field, kind string, name types.NamespacedName) {
	hint := "create it, or correct the reference"
	var known []string
	for _, other := range c.subjects {
		if r := other.resource; r.Kind == kind && r.Namespace == name.Namespace {
			known = append(known, r.Name)
		}
	}
	if near := spelling.Nearest(name.Name, known); near != "" {
		hint = "did you mean " + near + "?"
	}
	for _, other := range c.subjects {
		r := other.resource
		if r.Kind == kind && r.Name == name.Name && r.Namespace != name.Namespace {
			hint = "there is one in namespace " + r.Namespace + ", which the reference has to name"
			break
		}
		if r.Kind != kind && r.Kind != s.resource.Kind && key(r) == name && (r.Kind == "Topic" || r.Kind == "Mailbox") && kind != "Broker" {
			hint = "there is a " + r.Kind + " of that name: refer to it by " + referenceField[r.Kind]
			break
		}
	}
	s.refuse(field, v1alpha1.ReasonReferenceNotFound, "there is no %s %s in namespace %s: %s", kind, name.Name, name.Namespace, hint)
}

var referenceField = map[string]string{"Topic": "topicRef", "Mailbox": "mailboxRef"}

// namespaceLabel is the label that Kubernetes puts on every namespace.
const namespaceLabel = "kubernetes.io/metadata.name"

// admits tells whether a resource of one namespace may be used from another.
func (c *compiler) admits(home string, allowed *v1alpha1.AllowedNamespaces, from string) bool {
	if home == from {
		return true
	}
	if allowed == nil {
		return false
	}
	switch allowed.From {
	case v1alpha1.NamespacesAll:
		return true
	case v1alpha1.NamespacesSelector:
		selector, err := metav1.LabelSelectorAsSelector(allowed.Selector)
		if err != nil {
			return false // selectorFault has said so where it stands
		}
		set, known := c.in.Namespaces[from]
		if !known {
			set = map[string]string{namespaceLabel: from}
		}
		return selector.Matches(labels.Set(set))
	}
	return false
}

// checkAllowed says what is wrong with a selector of namespaces.
func checkAllowed(s *subject, allowed *v1alpha1.AllowedNamespaces) {
	if allowed == nil || allowed.Selector == nil {
		return
	}
	if _, err := metav1.LabelSelectorAsSelector(allowed.Selector); err != nil {
		s.refuse("spec.allowedNamespaces.selector", v1alpha1.ReasonInvalid, "the selector is not valid: %v", err)
	}
}

// secret returns the keys of a Secret in the subject's namespace. Not known: nobody said which Secrets there are, or there is none.
func (c *compiler) secret(s *subject, field, name string) (keys []string, known bool) {
	if c.in.Secrets == nil {
		return nil, false
	}
	keys, known = c.in.Secrets[types.NamespacedName{Namespace: s.resource.Namespace, Name: name}]
	if !known {
		s.refuse(field, v1alpha1.ReasonSecretNotFound, "there is no Secret %s in namespace %s: create it, or correct the reference", name, s.resource.Namespace)
	}
	return keys, known
}

// secretKeys checks that a Secret has some keys.
func (c *compiler) secretKeys(s *subject, field, name string, want ...string) {
	keys, known := c.secret(s, field, name)
	if !known {
		return
	}
	for _, k := range want {
		if !slices.Contains(keys, k) {
			s.refuse(field, v1alpha1.ReasonSecretKeyNotFound, "Secret %s/%s has no key %s: add it, or name another one", s.resource.Namespace, name, k)
		}
	}
}

// secretKey checks a reference to one key and fills in the key that it has by default.
func (c *compiler) secretKey(s *subject, field string, r v1alpha1.SecretKeyReference, byDefault string) plan.SecretRef {
	out := plan.SecretRef{Name: r.Name, Key: or(r.Key, byDefault)}
	c.secretKeys(s, field, out.Name, out.Key)
	return out
}
