package compile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// A Diagnostic is a fact about one resource that keeps it from running: what is wrong and what would be right. The reasons are those of the
// resource's conditions.
type Diagnostic struct {
	Kind      string          `json:"kind"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Field     string          `json:"field"` // path within the object: spec.steps[2].filter.cel
	Reason    v1alpha1.Reason `json:"reason"`
	Message   string          `json:"message"`
	// OfValue: the value is wrong whatever else is written, or left out.
	OfValue bool `json:"-"`
}

// ReasonBrokerNotBuilt: the resource is valid on the broker that it declares, but this build has no driver for it. A host that runs something
// else in the broker's place compiles again with that, and disregards diagnostics of this reason about the declared one.
const ReasonBrokerNotBuilt v1alpha1.Reason = "BrokerNotBuilt"

func compareDiagnostics(a, b Diagnostic) int {
	return cmp.Or(
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name),
		cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message),
	)
}

// A subject is one resource while it is compiled. It collects what is found out about it.
type subject struct {
	resource plan.Resource
	order    order
	diags    []Diagnostic
	// needs are the resources that must not be refused if this one is to run, by the field that names them.
	needs []need
	// brokers are the brokers that its plan uses, by the field that leads to them.
	brokers []brokerUse
	mirrors []Mirror
	// plan is what it becomes when nothing is refused.
	plan      *plan.Plan
	effective plan.Effective
	paused    bool
	dead      *plan.Ref
}

type need struct {
	field string
	on    *subject
}

type brokerUse struct {
	field string
	b     *broker
}

// refuse records a fault of the resource.
func (s *subject) refuse(field string, reason v1alpha1.Reason, format string, args ...any) {
	s.diags = append(s.diags, Diagnostic{
		Kind: s.resource.Kind, Namespace: s.resource.Namespace, Name: s.resource.Name,
		Field: field, Reason: reason, Message: fmt.Sprintf(format, args...),
	})
}

// refuseValue records what is wrong with a value by itself; "" is nothing.
func (s *subject) refuseValue(field, fault string) {
	if fault != "" {
		s.refuse(field, v1alpha1.ReasonInvalid, "%s", fault)
		s.diags[len(s.diags)-1].OfValue = true
	}
}

// on says that the resource cannot run without another one.
func (s *subject) on(field string, other *subject) {
	s.needs = append(s.needs, need{field, other})
}

// uses says that the resource's plan has a connection to b.
func (s *subject) uses(field string, b *broker) {
	if !slices.ContainsFunc(s.brokers, func(u brokerUse) bool { return u.b == b }) {
		s.brokers = append(s.brokers, brokerUse{field, b})
	}
}

// String names the resource as messages do: "Topic default/orders".
func (s *subject) String() string {
	return s.resource.Kind + " " + s.resource.Namespace + "/" + s.resource.Name
}
