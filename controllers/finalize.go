package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Finalizer keeps a resource until its work is finished and what has to go with it on the broker is gone.
const Finalizer = "waybill.dev/farewell"

// drainPoll is how often Pods that are ending are counted: they are in no cache.
const drainPoll = 2 * time.Second

// needsFarewell: a Broker waits for its users, what has objects on a broker for those. The rest leaves nothing behind.
func (c *Controller) needsFarewell(k *kind, o client.Object, f *facts) bool {
	return k.name == "Broker" || len(f.verdict.owned) > 0 ||
		f.set != nil && len(f.set.Kept) > 0 && k.parts(o).deletion == v1alpha1.DeletionDelete
}

func (c *Controller) setFinalizer(ctx context.Context, o client.Object, on bool) error {
	before := o.DeepCopyObject().(client.Object)
	change := controllerutil.RemoveFinalizer
	if on {
		change = controllerutil.AddFinalizer
	}
	if !change(o, Finalizer) {
		return nil
	}
	err := c.client.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), fieldOwner)
	if on {
		return err // for one that is gone nothing must be made any more: nobody would take it away
	}
	return client.IgnoreNotFound(err)
}

// leave goes the way out: Pods stop and finish what is in flight, then the broker's objects go as the deletion policy says, then the resource
// itself. The problem says what it waits for; nil: it is gone.
func (c *Controller) leave(ctx context.Context, k *kind, o client.Object, f *facts) error {
	if !controllerutil.ContainsFinalizer(o, Finalizer) {
		return nil
	}
	var err error
	if k.name == "Broker" {
		err = c.leaveBroker(ctx, f)
	} else {
		if err = c.stop(ctx, f); err == nil {
			err = c.leaveObjects(ctx, k, o, f)
		}
		if err == nil && k.parts(o).deletion == v1alpha1.DeletionDelete {
			err = c.dropCheckpoint(ctx, f)
		}
	}
	if err != nil {
		return err
	}
	return c.setFinalizer(ctx, o, false)
}

// leaveBroker waits for those that use the Broker, for without it their own objects could not be looked after.
func (c *Controller) leaveBroker(ctx context.Context, f *facts) error {
	if users := f.verdict.users; len(users) > 0 && !f.verdict.namespaceEnds {
		const most = 3
		names := strings.Join(users[:min(most, len(users))], ", ")
		if len(users) > most {
			names += fmt.Sprintf(" and %d more", len(users)-most)
		}
		return &problem{class: waits, reason: v1alpha1.ReasonInUse, message: "Waits for those that use it: " + names + "."}
	}
	if err := c.dropCopies(ctx, f, nil); err != nil {
		return err
	}
	c.options.Brokers.Forget(keyOf(f.resource))
	return nil
}

// stop ends the Pods and waits until they are gone: until then they may hold messages.
func (c *Controller) stop(ctx context.Context, f *facts) error {
	set := &workload.Set{Workload: f.resource.Child()}
	state, err := c.rollout(ctx, f.resource, set)
	if err != nil {
		return err
	}
	if state.exists && state.wanted != 0 {
		d := new(unstructured.Unstructured)
		d.SetGroupVersionKind(deploymentKind)
		d.SetNamespace(f.resource.Namespace)
		d.SetName(set.Workload)
		none := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
		if err := client.IgnoreNotFound(c.client.Patch(ctx, d, none, fieldOwner)); err != nil {
			return err
		}
		return draining("")
	}
	if !state.stopped() {
		if state.replicas == 0 {
			return draining("") // nobody has told it yet to have none
		}
		return draining(fmt.Sprintf(" %d Pods still run.", state.replicas))
	}
	pods := new(metav1.PartialObjectMetadataList)
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	if err := c.direct.List(ctx, pods, client.InNamespace(f.resource.Namespace), client.MatchingLabels(workload.SelectorLabels(f.resource))); err != nil {
		return err
	}
	if n := len(pods.Items); n > 0 {
		return draining(fmt.Sprintf(" %d Pods are ending.", n))
	}
	return nil
}

func draining(how string) *problem {
	return &problem{class: waits, reason: v1alpha1.ReasonDraining, again: drainPoll, message: "Work in flight is being finished before the resource goes." + how}
}

// leaveObjects does with the broker's objects as the deletion policy says.
func (c *Controller) leaveObjects(ctx context.Context, k *kind, o client.Object, f *facts) error {
	var own []plan.Object
	for _, obj := range slices.Backward(f.verdict.owned) { // what stands on another one goes first
		if !obj.External {
			own = append(own, obj)
		}
	}
	policy := k.parts(o).deletion
	if policy == "" || policy == v1alpha1.DeletionRetain || len(own)+len(f.verdict.unknown) == 0 {
		return nil
	}
	// The object that is deleted now may have a successor of its name, made while an older leader still looks at its own cache.
	live := k.new()
	if err := c.direct.Get(ctx, keyOf(f.resource), live); err != nil {
		return client.IgnoreNotFound(err)
	}
	if live.GetUID() != o.GetUID() {
		return nil
	}
	err := c.deleteObjects(ctx, own, policy)
	if err == nil && len(f.verdict.unknown) > 0 {
		err = &problem{class: waits, reason: v1alpha1.ReasonReferenceNotFound,
			message: "What it refers to is gone, so nobody can tell where " + strings.Join(f.verdict.unknown, ", ") + " would have to be deleted."}
		own = nil
	}
	if err == nil {
		return nil
	}
	p := problemOf(err)
	deadline, why := c.options.AwayDeadline, "the broker did not answer"
	switch {
	case f.verdict.namespaceEnds:
		deadline, why = c.options.GoneDeadline, "the namespace is being deleted"
	case p.reason == v1alpha1.ReasonReferenceNotFound || p.reason == v1alpha1.ReasonSecretNotFound || p.reason == v1alpha1.ReasonDenied:
		deadline, why = c.options.GoneDeadline, "the Broker or its credentials are gone"
	case p.reason == v1alpha1.ReasonNotEmpty:
		return p // it is what was asked for; deletionPolicy Retain or Delete lets it go
	}
	left := time.Until(o.GetDeletionTimestamp().Add(deadline))
	if left > 0 {
		p.class = waits
		p.again = min(left+time.Second, max(p.again, time.Second))
		return p
	}
	c.leaveBehind(ctx, o, f, own, why, p)
	return nil
}

// deleteObjects deletes from last to first; with DeleteIfEmpty none while one of them has messages.
func (c *Controller) deleteObjects(ctx context.Context, own []plan.Object, policy v1alpha1.DeletionPolicy) error {
	connections := make([]Connection, len(own))
	for i, obj := range own {
		to, ok := c.world.connection(obj.Broker)
		if !ok {
			return &problem{class: waits, reason: v1alpha1.ReasonReferenceNotFound, message: "Broker " + obj.Broker + " cannot be used any more, so what the resource has there cannot be deleted."}
		}
		connections[i] = to
	}
	onlyIfEmpty := policy == v1alpha1.DeletionDeleteIfEmpty
	if onlyIfEmpty {
		for i, obj := range own {
			states, err := c.options.Brokers.Inspect(ctx, connections[i], []plan.Ref{obj.Ref})
			if err != nil {
				return err
			}
			if n := states[0].Messages; n > 0 && (states[0].Owner == "" || states[0].Owner == obj.Owner) {
				return &problem{class: waits, reason: v1alpha1.ReasonNotEmpty, again: 5 * drainPoll,
					message: fmt.Sprintf("Waits until it is empty: %s %s has %d messages left. deletionPolicy Retain or Delete lets it go.", obj.Kind, obj.Name, n)}
			}
		}
	}
	for i, obj := range own {
		err := c.options.Brokers.Delete(ctx, connections[i], obj.Ref, obj.Owner, onlyIfEmpty)
		if brokerReason(err) == v1alpha1.ReasonConflict {
			log.FromContext(ctx).Info("Not deleted, for it belongs to another owner", "object", obj.Name, "broker", obj.Broker, "error", err.Error())
			continue
		}
		if err != nil {
			return fmt.Errorf("deleting %s %s on Broker %s: %w", obj.Kind, obj.Name, obj.Broker, err)
		}
	}
	return nil
}

// leaveBehind tells what stays on the broker. Nothing can be written into a namespace that ends, so the event is on the Broker.
func (c *Controller) leaveBehind(ctx context.Context, o client.Object, f *facts, own []plan.Object, why string, p *problem) {
	c.left.Add(float64(len(own) + len(f.verdict.unknown)))
	for _, name := range f.verdict.unknown {
		log.FromContext(ctx).Info("Left behind on a broker that cannot be told any more", "object", name, "why", why)
		c.events.Eventf(o, nil, corev1.EventTypeWarning, "LeftBehind", "Delete", "%s was to be deleted and may still be there: what led to it is gone", name)
	}
	for _, obj := range own {
		log.FromContext(ctx).Info("Left behind on the broker", "object", obj.Name, "broker", obj.Broker, "why", why, "error", p.Error())
		if key, ok := brokerKey(obj.Broker); ok {
			c.warn(ctx, plan.Resource{Kind: "Broker", Namespace: key.Namespace, Name: key.Name}, "LeftBehind", "Delete",
				"%s %s of %s was to be deleted and is still there, for %s", obj.Kind, obj.Name, f.resource, why)
		}
	}
}

// dropCheckpoint deletes what outlives a Poller unless it is told not to.
func (c *Controller) dropCheckpoint(ctx context.Context, f *facts) error {
	if f.resource.Kind != "Poller" {
		return nil
	}
	checkpoint := new(unstructured.Unstructured) // by its name, for a Poller that is refused has no plan to tell of it
	checkpoint.SetGroupVersionKind(configMapKind)
	checkpoint.SetNamespace(f.resource.Namespace)
	checkpoint.SetName(f.resource.Checkpoint())
	live, err := c.live(ctx, checkpoint)
	if err != nil || live == nil || !hasLabels(live, workload.SelectorLabels(f.resource)) {
		return err
	}
	return c.remove(ctx, live)
}
