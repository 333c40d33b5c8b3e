package workload

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// OwnerOf takes from an object of one of the seven kinds what its workload depends on. It is an error to hand it anything else.
func OwnerOf(object metav1.Object) (Owner, error) {
	o := Owner{Resource: plan.Resource{Namespace: object.GetNamespace(), Name: object.GetName()}, UID: object.GetUID()}
	switch r := object.(type) {
	case *v1alpha1.Broker:
		o.Kind, o.AllowedNamespaces = "Broker", r.Spec.AllowedNamespaces
		if e := r.Spec.Embedded; e != nil {
			o.Workload = e.Workload
		}
	case *v1alpha1.Topic:
		o.Kind, o.Replicas, o.AllowedNamespaces, o.Workload = "Topic", r.Spec.Replicas, r.Spec.AllowedNamespaces, r.Spec.Workload
	case *v1alpha1.Subscription:
		o.Kind, o.Replicas, o.Workload = "Subscription", r.Spec.Replicas, r.Spec.Workload
	case *v1alpha1.Mailbox:
		o.Kind, o.Replicas, o.AllowedNamespaces, o.Workload = "Mailbox", r.Spec.Replicas, r.Spec.AllowedNamespaces, r.Spec.Workload
	case *v1alpha1.Poller:
		o.Kind, o.Workload = "Poller", r.Spec.Workload
	case *v1alpha1.Endpoint:
		o.Kind, o.Replicas, o.AllowedNamespaces, o.Workload = "Endpoint", r.Spec.Replicas, r.Spec.AllowedNamespaces, r.Spec.Workload
	case *v1alpha1.Pipeline:
		o.Kind, o.Replicas, o.Workload = "Pipeline", r.Spec.Replicas, r.Spec.Workload
	default:
		return Owner{}, fmt.Errorf("workload: %T is none of Waybill's kinds", object)
	}
	return o, nil
}
