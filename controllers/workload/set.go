package workload

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/waybill-dev/waybill/runtime/compile"
)

// Set is everything that one resource needs in the cluster, but for the Secrets that hold random bytes.
type Set struct {
	// Owned carry an ownerReference to the resource and its labels (see Labels). They are applied in this order. What bears the labels and
	// the ownerReference and is not among them any more is to be deleted, but for plan ConfigMaps that a ReplicaSet still mounts.
	Owned []*unstructured.Unstructured
	// Kept bear the labels and no ownerReference, for what they hold outlives the resource: a Poller's checkpoint, an Embedded broker's
	// volume. They are applied like the others, which leaves their content alone, and deleted only with deletionPolicy Delete.
	Kept []*unstructured.Unstructured
	// Shared belong to the namespace: every Set there has the same ones. They are applied and never pruned.
	Shared []*unstructured.Unstructured

	// Secrets must be there, with these keys, before Owned are applied: a Pod without them would not start. Sorted by name.
	Secrets []compile.SecretUse
	// NeedsLeaseKeys says that the Secret LeaseKeySecret of the namespace is among them: make it with LeaseKeys where it is missing.
	NeedsLeaseKeys bool

	// Workload is the name of the Deployment, or of the StatefulSet of an Embedded Broker.
	Workload string
	// PlanHash is the hash of the plan as Pods run it, which AnnotationPlan of the Pod template bears; "" for an Embedded Broker.
	PlanHash string
	// Address is status.address.url; "" where nothing is served.
	Address string
	// Selector picks the Pods, as status.selector has it.
	Selector string
	// Replicas is how many Pods are wanted.
	Replicas int32
}

// OwnedKinds are the kinds of which a Set's Owned can be, each with a cache filtered by LabelManagedBy to be watched and pruned.
func OwnedKinds() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"},
		{Version: "v1", Kind: "Service"},
		{Version: "v1", Kind: "ServiceAccount"},
		{Group: "apps", Version: "v1", Kind: "Deployment"},
		{Group: "apps", Version: "v1", Kind: "StatefulSet"},
		{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"},
		{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "Role"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"},
	}
}
