package workload

import "github.com/waybill-dev/waybill/runtime/plan"

// Labels and annotations of what is built.
const (
	// LabelManagedBy is ManagedBy on every object that the operator makes.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "waybill"
	// LabelKind and LabelName name the resource that an object was made for, in the object's own namespace.
	LabelKind = "waybill.dev/kind"
	LabelName = "waybill.dev/name"
	// LabelBrokerNamespace, LabelBroker and LabelBrokerUID are on a Secret that was copied from the namespace of a Broker.
	LabelBrokerNamespace = "waybill.dev/broker-namespace"
	LabelBroker          = "waybill.dev/broker"
	LabelBrokerUID       = "waybill.dev/broker-uid"
	// AnnotationRotate on a Secret that the operator made asks for new content: any value that AnnotationRotated, which the operator writes
	// when it begins, does not have. AnnotationRotation says while it goes on which step was taken and when.
	AnnotationRotate   = "waybill.dev/rotate"
	AnnotationRotated  = "waybill.dev/rotated"
	AnnotationRotation = "waybill.dev/rotation"
	// AnnotationPlan on a Pod template, and so on its Pods and ReplicaSets, is the hash of the plan that they run.
	AnnotationPlan = "waybill.dev/plan"
	// AnnotationApplied is a hash of the object as it was applied. Where the live object bears another one, or lacks a field of the desired
	// object, it has to be applied again; else there is nothing to do.
	AnnotationApplied = "waybill.dev/applied"
	// AnnotationEnv on a Deployment has Settings.Env as JSON: in its Pods nobody can tell these variables from the resource's own.
	AnnotationEnv = "waybill.dev/worker-env"
)

// SelectorLabels pick what belongs to a resource; its Pods bear them too, and no other's do.
func SelectorLabels(r plan.Resource) map[string]string {
	return map[string]string{LabelKind: r.Kind, LabelName: r.Name}
}

// Labels are on every object that a resource becomes.
func Labels(r plan.Resource) map[string]string {
	labels := SelectorLabels(r)
	labels["app.kubernetes.io/name"] = "waybill"
	labels["app.kubernetes.io/instance"] = r.Child()
	labels[LabelManagedBy] = ManagedBy
	return labels
}
