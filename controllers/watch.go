package controllers

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/plan"
)

type queue = workqueue.TypedRateLimitingInterface[plan.Resource]

// ownerIndex finds objects by the UID of the resource that owns them.
const ownerIndex = "waybill.dev/owner"

// ManagerOptions are what the controller relies on in its manager, leaving the rest to the caller.
func ManagerOptions(scheme *runtime.Scheme) manager.Options {
	return manager.Options{
		Scheme: scheme,
		Cache:  cacheOptions(),
		Client: client.Options{Cache: &client.CacheOptions{Unstructured: true}},
	}
}

// cacheOptions are the caches that the controller needs and no more: the seven kinds, the names and labels of namespaces, and of all else only
// what bears our label. Other Secrets are watched one by one, by name (secrets.go).
func cacheOptions() cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{workload.LabelManagedBy: workload.ManagedBy})}
	by := map[client.Object]cache.ByObject{new(corev1.Secret): ours}
	for _, gvk := range madeKinds() {
		u := new(unstructured.Unstructured)
		u.SetGroupVersionKind(gvk)
		by[u] = ours
	}
	return cache.Options{ByObject: by, DefaultTransform: cache.TransformStripManagedFields()}
}

// watch says what makes the world be compiled anew and who is reconciled when.
func (c *Controller) watch(mgr manager.Manager, ctl controller.TypedController[plan.Resource]) error {
	sources := []source.TypedSource[plan.Resource]{
		// The world is compiled for as long as the controller runs.
		source.TypedFunc[plan.Resource](func(ctx context.Context, q queue) error {
			go c.world.run(ctx, q.Add)
			go c.watchCredentials(ctx)
			return nil
		}),
	}
	all := mgr.GetCache()
	for _, k := range c.kinds {
		sources = append(sources, source.TypedKind(all, k.new(), c.declared(k)))
	}
	namespace := new(metav1.PartialObjectMetadata)
	namespace.SetGroupVersionKind(namespaceKind)
	sources = append(sources, source.TypedKind(all, namespace, c.namespaces()))
	// A Secret of ours may be what several resources of its namespace wait for, or a copy that somebody changed.
	sources = append(sources, source.TypedKind(all, new(corev1.Secret), handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, s *corev1.Secret) []plan.Resource {
		if b := s.Labels[workload.LabelBroker]; b != "" {
			return append(c.world.in(s.Namespace), plan.Resource{Kind: "Broker", Namespace: s.Labels[workload.LabelBrokerNamespace], Name: b})
		}
		return c.world.in(s.Namespace)
	})))
	for _, gvk := range madeKinds() {
		u := new(unstructured.Unstructured)
		u.SetGroupVersionKind(gvk)
		if err := all.IndexField(context.Background(), u, ownerIndex, ownersOf); err != nil {
			return err
		}
		sources = append(sources, source.TypedKind(all, u, handler.TypedEnqueueRequestsFromMapFunc(c.makers)))
	}
	for _, s := range sources {
		if err := ctl.Watch(s); err != nil {
			return err
		}
	}
	return nil
}

// declared handles a change of a resource: it is reconciled, and everything is compiled when more than its status has changed. What a probe
// found of a Broker is in its status, and is compiled.
func (c *Controller) declared(k *kind) handler.TypedEventHandler[client.Object, plan.Resource] {
	reconcile := func(o client.Object, q queue) { q.Add(resourceOf(k.name, o)) }
	return handler.TypedFuncs[client.Object, plan.Resource]{
		CreateFunc: func(context.Context, event.TypedCreateEvent[client.Object], queue) { c.world.changed() },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[client.Object], q queue) {
			if matters(e.ObjectOld, e.ObjectNew) {
				c.world.changed()
			}
			reconcile(e.ObjectNew, q)
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[client.Object], q queue) {
			c.world.changed()
			reconcile(e.Object, q)
		},
	}
}

func matters(old, now client.Object) bool {
	if old.GetUID() != now.GetUID() || old.GetGeneration() != now.GetGeneration() || old.GetDeletionTimestamp().IsZero() != now.GetDeletionTimestamp().IsZero() {
		return true
	}
	b, ok := now.(*v1alpha1.Broker)
	return ok && !reflect.DeepEqual(old.(*v1alpha1.Broker).Status.Features, b.Status.Features)
}

// namespaces handles a change of a namespace's labels, which selectors read, and its end.
func (c *Controller) namespaces() handler.TypedEventHandler[*metav1.PartialObjectMetadata, plan.Resource] {
	return handler.TypedFuncs[*metav1.PartialObjectMetadata, plan.Resource]{
		CreateFunc: func(context.Context, event.TypedCreateEvent[*metav1.PartialObjectMetadata], queue) { c.world.changed() },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*metav1.PartialObjectMetadata], _ queue) {
			if !maps.Equal(e.ObjectOld.Labels, e.ObjectNew.Labels) || e.ObjectOld.DeletionTimestamp.IsZero() != e.ObjectNew.DeletionTimestamp.IsZero() {
				c.world.changed()
			}
		},
		DeleteFunc: func(context.Context, event.TypedDeleteEvent[*metav1.PartialObjectMetadata], queue) { c.world.changed() },
	}
}

// makers are the resources for which an object was made: that of its labels, or everyone in the namespace where it is shared.
func (c *Controller) makers(_ context.Context, o *unstructured.Unstructured) []plan.Resource {
	l := o.GetLabels()
	if l[workload.LabelKind] == "" {
		return c.world.in(o.GetNamespace())
	}
	if c.kinds[l[workload.LabelKind]] == nil {
		return nil
	}
	return []plan.Resource{{Kind: l[workload.LabelKind], Namespace: o.GetNamespace(), Name: l[workload.LabelName]}}
}

func ownersOf(o client.Object) []string {
	if owner := metav1.GetControllerOf(o); owner != nil && strings.HasPrefix(owner.APIVersion, v1alpha1.GroupVersion.Group+"/") {
		return []string{string(owner.UID)}
	}
	return nil
}

// brokerKey reads the name that plans give a Broker, NAMESPACE/NAME.
func brokerKey(name string) (types.NamespacedName, bool) {
	namespace, name, ok := strings.Cut(name, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}, ok
}

func containsAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}
