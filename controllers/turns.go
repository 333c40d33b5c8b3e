package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// rollAtOnce is how many resources change to another worker image, or to other variables of the manager's --worker-env, at a time. A new release
// of the operator brings a new image for all of them, and to replace every Pod of a cluster at once would be an outage of its own; an image
// that does not run stops after so many.
const rollAtOnce = 20

// turns says whose Pods may change to another image, or other variables, now. A turn ends when the rollout is complete, and not when Kubernetes gives up on it: what
// is wrong with the image would be wrong with the next ones. Who was not complete before needs no turn, for it has nothing to lose, and who
// could not take one leaves the queue: so no resource with a fault of its own holds up others.
type turns struct {
	mu     sync.Mutex
	held   map[plan.Resource]bool
	queue  []plan.Resource
	seeded bool
}

// take reports whether r has a turn or gets one; else it is in the queue. seed, asked once, names those that were on their way when this
// process began.
func (t *turns) take(r plan.Resource, seed func() ([]plan.Resource, error)) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.seeded {
		rolling, err := seed()
		if err != nil {
			return false, err
		}
		t.held, t.seeded = map[plan.Resource]bool{}, true
		for _, r := range rolling {
			t.held[r] = true
		}
	}
	if t.held[r] {
		return true, nil
	}
	at := slices.Index(t.queue, r)
	if free := rollAtOnce - len(t.held); free <= 0 || at >= free || at < 0 && len(t.queue) >= free {
		if at < 0 {
			t.queue = append(t.queue, r)
		}
		return false, nil
	}
	t.drop(r)
	t.held[r] = true
	return true, nil
}

// done ends the turn of r, or its wait for one, and names those whose it may be now.
func (t *turns) done(r plan.Resource) []plan.Resource {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, r)
	return t.drop(r)
}

// leave ends only the wait of r, and names those whose turn it may be now.
func (t *turns) leave(r plan.Resource) []plan.Resource {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.drop(r)
}

func (t *turns) drop(r plan.Resource) (next []plan.Resource) {
	t.queue = slices.DeleteFunc(t.queue, func(q plan.Resource) bool { return q == r })
	return slices.Clone(t.queue[:min(len(t.queue), max(rollAtOnce-len(t.held), 0))])
}

// waits reports whether r is in the queue.
func (t *turns) waits(r plan.Resource) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.queue, r)
}

// counts are those that roll and those that wait.
func (t *turns) counts() (rolling, waiting int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.held), len(t.queue)
}

// turnOver lets the next ones have their turn.
func (c *Controller) turnOver(r plan.Resource) {
	for _, next := range c.turns.done(r) {
		c.world.wake(next)
	}
}

// leaveQueue lets those behind r go on while r has a fault. A turn that it has stays its own: its Pods may be on their way.
func (c *Controller) leaveQueue(r plan.Resource) {
	for _, next := range c.turns.leave(r) {
		c.world.wake(next)
	}
}

// keepRelease builds the resource's objects with the image and the manager's variables that its Pods run with, while it is not its turn to
// change them, and reports whether it did: all else that is declared goes on at once. But for the plan, which an older worker might not
// understand: that waits too.
func (c *Controller) keepRelease(ctx context.Context, o client.Object, f *facts) (bool, error) {
	at := slices.IndexFunc(f.set.Owned, func(u *unstructured.Unstructured) bool { return workload.Image(u) != "" })
	if at < 0 {
		return false, nil
	}
	desired, live := f.set.Owned[at], new(unstructured.Unstructured)
	live.SetGroupVersionKind(desired.GroupVersionKind())
	if err := c.client.Get(ctx, client.ObjectKeyFromObject(desired), live); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	switch {
	case !metav1.IsControlledBy(live, o), c.sameRelease(live, desired), !rolloutOf(live).complete() && !c.turns.waits(f.resource):
		return false, nil
	}
	ok, err := c.turns.take(f.resource, func() ([]plan.Resource, error) { return c.rolling(ctx) })
	switch {
	case err != nil || ok:
		return false, err
	case planOf(live) != planOf(desired):
		return true, &problem{class: waits, reason: v1alpha1.ReasonRollingOut,
			message: fmt.Sprintf("Waits for its turn: %d resources at a time change to another worker image or --worker-env, and the new plan needs the new one.", rollAtOnce)}
	}
	settings := c.options.Settings
	settings.WorkerImage, settings.Env = workload.Image(live), workload.Env(live, settings.Env)
	f.set, err = c.build(o, f.verdict, settings)
	return true, err
}

// sameRelease: these run one image, with the same variables of a manager.
func (c *Controller) sameRelease(a, b *unstructured.Unstructured) bool {
	now := c.options.Settings.Env
	return workload.Image(a) == workload.Image(b) && maps.Equal(workload.Env(a, now), workload.Env(b, now))
}

// rolling are the resources whose Pods are on their way to the current image and variables, but those that Kubernetes has given up on.
func (c *Controller) rolling(ctx context.Context) ([]plan.Resource, error) {
	var out []plan.Resource
	for _, kind := range []string{deploymentKind.Kind, statefulSetKind.Kind} {
		list := new(unstructured.UnstructuredList)
		list.SetGroupVersionKind(deploymentKind.GroupVersion().WithKind(kind + "List"))
		if err := c.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, err
		}
		for i := range list.Items {
			o := &list.Items[i]
			current := workload.Image(o) == c.options.Settings.WorkerImage &&
				(kind == statefulSetKind.Kind || maps.Equal(workload.Env(o, c.options.Settings.Env), c.options.Settings.Env)) // an Embedded broker has none
			if state := rolloutOf(o); current && !state.complete() && state.stuck == "" {
				out = append(out, plan.Resource{Kind: o.GetLabels()[workload.LabelKind], Namespace: o.GetNamespace(), Name: o.GetLabels()[workload.LabelName]})
			}
		}
	}
	return out, nil
}

func planOf(u *unstructured.Unstructured) string {
	plan, _, _ := unstructured.NestedString(u.Object, "spec", "template", "metadata", "annotations", workload.AnnotationPlan)
	return plan
}
