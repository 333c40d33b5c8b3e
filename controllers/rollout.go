package controllers

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/plan"
)

var (
	deploymentKind  = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	statefulSetKind = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "StatefulSet"}
)

// rollout is how far the Pods of a resource are on their way to what is wanted.
type rollout struct {
	exists bool
	// current: what was read is what was applied last. A cache is behind at first, and would tell of the rollout before.
	current            bool
	generation         int64
	observed           int64
	wanted             int64
	replicas           int64
	updated, available int64
	// stuck says what Kubernetes gave up on; "" while it goes on trying. look is the kind of objects that tell more.
	stuck, look string
}

// complete: every Pod that there is, and as many as there should be, runs the current template.
func (r rollout) complete() bool {
	return r.current && r.observed >= r.generation && r.updated == r.wanted && r.replicas == r.wanted && r.available == r.wanted
}

// stopped: the workload has no Pod but such as are ending.
func (r rollout) stopped() bool {
	return !r.exists || r.observed >= r.generation && r.wanted == 0 && r.replicas == 0
}

// rollout reads the Deployment or StatefulSet of a resource.
func (c *Controller) rollout(ctx context.Context, r plan.Resource, set *workload.Set) (rollout, error) {
	u := new(unstructured.Unstructured)
	u.SetGroupVersionKind(workloadKind(r))
	if err := c.client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: set.Workload}, u); err != nil {
		return rollout{}, client.IgnoreNotFound(err)
	}
	state := rolloutOf(u)
	state.current = false
	for _, desired := range set.Owned {
		if desired.GroupVersionKind() == u.GroupVersionKind() {
			state.current = u.GetAnnotations()[workload.AnnotationApplied] == desired.GetAnnotations()[workload.AnnotationApplied] && contained(desired.Object, u.Object)
		}
	}
	if state.stuck != "" {
		state.stuck += "; kubectl describe " + state.look + " -l " + set.Selector + " says why"
	}
	return state, nil
}

// rolloutOf reads how far a Deployment or StatefulSet is on its own way.
func rolloutOf(u *unstructured.Unstructured) rollout {
	number := func(path ...string) int64 {
		n, _, _ := unstructured.NestedInt64(u.Object, path...)
		return n
	}
	state := rollout{
		exists: true, current: true, generation: u.GetGeneration(), observed: number("status", "observedGeneration"), wanted: number("spec", "replicas"),
		replicas: number("status", "replicas"), updated: number("status", "updatedReplicas"), available: number("status", "availableReplicas"),
	}
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, e := range conditions {
		switch cond, _ := e.(map[string]any); {
		case cond["type"] == "ReplicaFailure" && cond["status"] == "True":
			state.stuck, state.look = "Kubernetes refuses to create Pods", "replicasets"
		case cond["type"] == "Progressing" && cond["status"] == "False" && state.stuck == "":
			state.stuck, state.look = "Pods do not become ready", "pods"
		}
	}
	return state
}

func workloadKind(r plan.Resource) schema.GroupVersionKind {
	if r.Kind == "Broker" {
		return statefulSetKind
	}
	return deploymentKind
}
