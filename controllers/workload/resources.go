package workload

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// resources are requests and limits of a container.
type resources struct{ Requests, Limits corev1.ResourceList }

// resourcesOf fills in what a workload leaves out. An idle worker takes some 20 MiB; a flow holds up to 64 MiB of messages, and a gateway as
// much of requests, each twice while it is encoded.
func resourcesOf(w *v1alpha1.Workload) resources {
	out := resources{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("512Mi")},
	}
	if w == nil || w.Resources == nil {
		return out
	}
	requests, limits := listOf(w.Resources.Requests), listOf(w.Resources.Limits)
	maps.Copy(out.Requests, requests)
	maps.Copy(out.Limits, limits)
	// Where only one of the two was given, ours gives way: a request above its limit is refused.
	for name, request := range out.Requests {
		limit, ok := out.Limits[name]
		if !ok || request.Cmp(limit) <= 0 {
			continue
		}
		if _, given := limits[name]; given {
			if _, both := requests[name]; !both {
				out.Requests[name] = limit
			}
		} else {
			out.Limits[name] = request
		}
	}
	return out
}

func listOf(l v1alpha1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, amount := range l {
		out[corev1.ResourceName(name)] = amount
	}
	return out
}
