package workload

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Settings are the operator's own, the same for all that it builds.
type Settings struct {
	// WorkerImage runs every Pod: plans, and an Embedded broker too.
	WorkerImage string
	// PullPolicy of that image: Always, IfNotPresent, Never; "": the cluster's default.
	PullPolicy string
	// Drain is how long a worker lets what is in flight finish when its Pod ends; 0: 30s. The grace period is somewhat longer.
	Drain time.Duration
	// Env are variables of every worker that runs a plan, by name. A resource's own word counts before them. An Embedded broker has none of
	// them: it would be restarted when they change, and everything that is on it with it.
	Env map[string]string
	// ManagerNamespace is where the manager runs: it has to reach Embedded brokers and the workers' status. "": outside of the cluster.
	ManagerNamespace string
	// AllowPrivateDial lets manifests make workers call loopback and link-local addresses. For tests.
	AllowPrivateDial bool
}

// Owner is the resource that a Set belongs to, as far as its workload depends on it.
type Owner struct {
	plan.Resource
	UID types.UID
	// Replicas that are wanted; nil: 1. Set 0 to stop the Pods and keep the rest.
	Replicas *int32
	// AllowedNamespaces may reach the gateway beside the resource's own.
	AllowedNamespaces *v1alpha1.AllowedNamespaces
	Workload          *v1alpha1.Workload
}
