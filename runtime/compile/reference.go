package compile

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
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
	if c.declaredWithFaults(s, field, kind, name) {
		return
	}
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
			hint = fmt.Sprintf("there is one in namespace %s: write namespace: %s beside name, and see that its spec.allowedNamespaces admits %s", r.Namespace, r.Namespace, s.resource.Namespace)
			break
		}
		if r.Kind != kind && r.Kind != s.resource.Kind && key(r) == name && (r.Kind == "Topic" || r.Kind == "Mailbox") && kind != "Broker" {
			hint = "there is a " + r.Kind + " of that name: refer to it by " + referenceField[r.Kind]
			break
		}
	}
	if field == deadLetterField {
		hint += "; or remove deadLetter: then what cannot be delivered is kept in an object of its own"
	}
	s.refuse(field, v1alpha1.ReasonReferenceNotFound, "there is no %s %s in namespace %s: %s", kind, name.Name, name.Namespace, hint)
}

// declaredWithFaults says of a reference that its target is there and refused: what is wrong there is told there.
func (c *compiler) declaredWithFaults(s *subject, field, kind string, name types.NamespacedName) bool {
	r := plan.Resource{Kind: kind, Namespace: name.Namespace, Name: name.Name}
	if !slices.Contains(c.in.Refused, r) {
		return false
	}
	s.refuse(field, v1alpha1.ReasonReferenceInvalid, "%s %s/%s is refused: put right first what is said about it", kind, name.Namespace, name.Name)
	return true
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
		s.refuse("spec.allowedNamespaces.selector", v1alpha1.ReasonInvalid, "is no valid selector: %v", err)
	}
}

// secret returns the keys of a Secret in the subject's namespace. Not known: nobody said which Secrets there are, or there is none.
func (c *compiler) secret(s *subject, field, name string) (keys []string, known bool) {
	if c.in.Secrets == nil {
		return nil, false
	}
	full := types.NamespacedName{Namespace: s.resource.Namespace, Name: name}
	keys, known = c.in.Secrets[full]
	if known || c.declaredWithFaults(s, field, "Secret", full) {
		return keys, known
	}
	hint := "create it, or correct the reference"
	var here, elsewhere []string
	for other := range c.in.Secrets {
		switch {
		case other.Namespace == full.Namespace:
			here = append(here, other.Name)
		case other.Name == name:
			elsewhere = append(elsewhere, other.Namespace)
		}
	}
	if near := spelling.Nearest(name, here); near != "" {
		hint = "did you mean " + near + "?"
	} else if len(elsewhere) > 0 {
		hint = fmt.Sprintf("there is one in namespace %s, and a Secret is read only in the namespace of the one that names it: create it here too", slices.Min(elsewhere))
	}
	s.refuse(field, v1alpha1.ReasonSecretNotFound, "there is no Secret %s in namespace %s: %s", name, full.Namespace, hint)
	return nil, false
}

// otherKey says what to do about a key that is missing. Names of keys are no secrets.
func otherKey(missing string, keys []string, nameable bool) string {
	add := "add " + missing + " to it"
	if len(keys) == 0 {
		return "it is empty: " + add
	}
	has := "it has " + strings.Join(slices.Sorted(slices.Values(keys)), ", ")
	if !nameable {
		return has + ": " + add
	}
	return has + ": name one of them in key, or " + add
}

// secretKeys checks that a Secret has some keys, which are always called so, and that their values are without some flaws.
func (c *compiler) secretKeys(s *subject, field, name string, want []string, without ...secret.Flaw) {
	c.keysOf(s, field, name, false, want...)
	c.usable(s, field, name, want, without...)
}

// usable refuses values of a Secret's keys that have one of some flaws.
func (c *compiler) usable(s *subject, field, name string, keys []string, without ...secret.Flaw) {
	flaws := c.in.Flaws[types.NamespacedName{Namespace: s.resource.Namespace, Name: name}]
	for _, k := range keys {
		if f := flaws[k]; slices.Contains(without, f) {
			s.refuse(field, v1alpha1.ReasonSecretKeyNotFound, "in Secret %s/%s the value of the key %s %s: correct it", s.resource.Namespace, name, k, f)
		}
	}
}

// keysOf checks that a Secret has some keys; nameable: the reference can name others.
func (c *compiler) keysOf(s *subject, field, name string, nameable bool, want ...string) {
	keys, known := c.secret(s, field, name)
	if !known {
		return
	}
	for _, k := range want {
		if !slices.Contains(keys, k) {
			s.refuse(field, v1alpha1.ReasonSecretKeyNotFound, "Secret %s/%s has no key %s: %s", s.resource.Namespace, name, k, otherKey(k, keys, nameable))
		}
	}
}

// secretKey checks a reference to one key, whose value must be without some flaws, and fills in the key that it has by default.
func (c *compiler) secretKey(s *subject, field string, r v1alpha1.SecretKeyReference, byDefault string, without ...secret.Flaw) plan.SecretRef {
	out := plan.SecretRef{Name: r.Name, Key: or(r.Key, byDefault)}
	c.keysOf(s, field, out.Name, true, out.Key)
	c.usable(s, field, out.Name, []string{out.Key}, without...)
	return out
}
