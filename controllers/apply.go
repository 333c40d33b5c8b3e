package controllers

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// fieldOwner is whose the fields are that the operator applies.
const fieldOwner = client.FieldOwner("waybill")

var (
	namespaceKind = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
	configMapKind = schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	claimKind     = schema.GroupVersionKind{Version: "v1", Kind: "PersistentVolumeClaim"}
)

// madeKinds are the kinds of all objects that are applied. Those that bear our label are cached.
func madeKinds() []schema.GroupVersionKind { return append(workload.OwnedKinds(), claimKind) }

// apply makes the cluster have what set says, one object after the other, and deletes what is not wanted any more.
func (c *Controller) apply(ctx context.Context, owner client.Object, r plan.Resource, set *workload.Set) error {
	wanted := map[string]bool{}
	for _, list := range []struct {
		objects []*unstructured.Unstructured
		ours    func(*unstructured.Unstructured) bool
	}{
		{set.Shared, func(live *unstructured.Unstructured) bool {
			return live.GetLabels()[workload.LabelManagedBy] == workload.ManagedBy
		}},
		{set.Kept, func(live *unstructured.Unstructured) bool { return hasLabels(live, workload.SelectorLabels(r)) }},
		{set.Owned, func(live *unstructured.Unstructured) bool { return metav1.IsControlledBy(live, owner) }},
	} {
		for _, desired := range list.objects {
			wanted[desired.GetKind()+"/"+desired.GetName()] = true
			if err := c.applyOne(ctx, r, desired, list.ours); err != nil {
				return err
			}
		}
	}
	return c.prune(ctx, owner, r, set, wanted)
}

// applyOne applies desired unless it is in place already, or the object that is there belongs to somebody else.
func (c *Controller) applyOne(ctx context.Context, r plan.Resource, desired *unstructured.Unstructured, ours func(*unstructured.Unstructured) bool) error {
	live, err := c.live(ctx, desired)
	if err != nil {
		return err
	}
	if live != nil {
		switch {
		case !ours(live) && live.GetDeletionTimestamp() != nil, !ours(live) && hasLabels(live, workload.SelectorLabels(r)) && metav1.GetControllerOf(live) != nil:
			return &problem{class: waits, reason: v1alpha1.ReasonRollingOut, again: lookAgain,
				message: fmt.Sprintf("%s %s of an earlier %s of this name is still being removed", live.GetKind(), live.GetName(), r.Kind)}
		case !ours(live):
			return &problem{class: stalls, reason: v1alpha1.ReasonConflict, again: lookAgain,
				message: fmt.Sprintf("%s %s exists and was not made by Waybill for this %s: delete or rename it, or give the %s another name", live.GetKind(), live.GetName(), r.Kind, r.Kind)}
		case live.GetDeletionTimestamp() != nil:
			return &problem{class: waits, reason: v1alpha1.ReasonRollingOut, message: fmt.Sprintf("%s %s is being deleted and will be made anew", live.GetKind(), live.GetName())}
		}
		if inPlace(desired, live) {
			return nil
		}
	}
	if live != nil && desired.GetKind() == configMapKind.Kind && isTrue(live, "immutable") {
		// A plan cannot be mended, only made anew; the Pods that run it have read it.
		return c.remove(ctx, live)
	}
	return c.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(desired.DeepCopy()), fieldOwner, client.ForceOwnership)
}

// live is the object of the same name; nil when there is none. What does not bear our label is in no cache: before something is made the API
// server itself is asked.
func (c *Controller) live(ctx context.Context, desired *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	key := client.ObjectKeyFromObject(desired)
	for _, from := range []client.Reader{c.client, c.direct} {
		live := new(unstructured.Unstructured)
		live.SetGroupVersionKind(desired.GroupVersionKind())
		err := from.Get(ctx, key, live)
		if err == nil {
			return live, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return nil, nil
}

// prune deletes what the resource owns and does not want. A plan is kept while a ReplicaSet could start Pods with it.
func (c *Controller) prune(ctx context.Context, owner client.Object, r plan.Resource, set *workload.Set, wanted map[string]bool) error {
	var inUse map[string]bool
	for _, gvk := range workload.OwnedKinds() {
		list := new(unstructured.UnstructuredList)
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err := c.client.List(ctx, list, client.InNamespace(r.Namespace), client.MatchingFields{ownerIndex: string(owner.GetUID())}, client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
		for i := range list.Items {
			o := &list.Items[i]
			if wanted[gvk.Kind+"/"+o.GetName()] || o.GetDeletionTimestamp() != nil {
				continue
			}
			if gvk == configMapKind {
				if inUse == nil {
					var err error
					if inUse, err = c.plansInUse(ctx, r, set); err != nil {
						return err
					}
				}
				if inUse[strings.TrimPrefix(o.GetName(), r.Child()+"-")] || inUse["*"] {
					continue
				}
			}
			if err := c.remove(ctx, o.DeepCopy()); err != nil {
				return err
			}
		}
	}
	return nil
}

// plansInUse are the hashes of the plans that ReplicaSets have; "*" is all of them, while a rollout goes on.
func (c *Controller) plansInUse(ctx context.Context, r plan.Resource, set *workload.Set) (map[string]bool, error) {
	state, err := c.rollout(ctx, r, set)
	if err != nil {
		return nil, err
	}
	if !state.complete() {
		return map[string]bool{"*": true}, nil
	}
	var sets appsv1.ReplicaSetList
	if err := c.direct.List(ctx, &sets, client.InNamespace(r.Namespace), client.MatchingLabels(workload.SelectorLabels(r))); err != nil {
		return nil, err
	}
	inUse := map[string]bool{}
	for i := range sets.Items {
		inUse[sets.Items[i].Spec.Template.Annotations[workload.AnnotationPlan]] = true
	}
	return inUse, nil
}

// remove deletes this very object, and not one of its name that has come after it.
func (c *Controller) remove(ctx context.Context, o client.Object) error {
	return client.IgnoreNotFound(c.client.Delete(ctx, o, client.Preconditions{UID: new(o.GetUID())}))
}

// create makes an object that is made once and then left alone, as a Secret with random bytes is.
func (c *Controller) create(ctx context.Context, o *corev1.Secret) error {
	err := c.client.Create(ctx, o, fieldOwner)
	if apierrors.IsAlreadyExists(err) {
		return nil // somebody was quicker, or it is not in the cache yet
	}
	return err
}

func hasLabels(o client.Object, want map[string]string) bool {
	have := o.GetLabels()
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func isTrue(u *unstructured.Unstructured, field string) bool {
	v, _, _ := unstructured.NestedBool(u.Object, field)
	return v
}
