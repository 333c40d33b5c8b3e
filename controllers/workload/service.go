package workload

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	applynet "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func (w *worker) service() *applycore.ServiceApplyConfiguration {
	return service(w.owner.Resource,
		servicePort(portHTTP, plan.ServicePort).WithAppProtocol("http"),
		servicePort(portHealth, plan.HealthPort).WithAppProtocol("http"))
}

func service(r plan.Resource, ports ...*applycore.ServicePortApplyConfiguration) *applycore.ServiceApplyConfiguration {
	return applycore.Service(r.Child(), r.Namespace).
		WithSpec(applycore.ServiceSpec().WithSelector(SelectorLabels(r)).WithPorts(ports...))
}

// servicePort leads to the container's port of the same name.
func servicePort(name string, port int32) *applycore.ServicePortApplyConfiguration {
	return applycore.ServicePort().WithName(name).WithPort(port).WithTargetPort(intstr.FromString(name)).WithProtocol(corev1.ProtocolTCP)
}

// sharedNetwork is the name of the NetworkPolicy that a namespace has for all its workers.
const sharedNetwork = "waybill-worker"

// sharedPolicy admits a worker's own namespace to what it serves, and everybody in the cluster to health and metrics, which show names and
// counts: whoever collects metrics lives in a namespace that only the cluster's owner knows. It is one for all workers of a namespace, where a
// thousand of them would have the same; policies add up, so a resource that admits more says so in one of its own.
func sharedPolicy(namespace string) *applynet.NetworkPolicyApplyConfiguration {
	return networkPolicy(sharedNetwork, namespace,
		applymeta.LabelSelector().WithMatchExpressions(applymeta.LabelSelectorRequirement().WithKey(LabelKind).WithOperator(metav1.LabelSelectorOpExists)),
		ingress(portHTTP, ownNamespace()), ingress(portHealth, everyNamespace()))
}

// networkPolicy of a resource is nil where it admits nobody but its own namespace.
func (w *worker) networkPolicy() *applynet.NetworkPolicyApplyConfiguration {
	from := others(w.owner.AllowedNamespaces)
	if from == nil {
		return nil
	}
	return networkPolicy(w.owner.Child(), w.owner.Namespace, podsOf(w.owner.Resource), ingress(portHTTP, from))
}

func podsOf(r plan.Resource) *applymeta.LabelSelectorApplyConfiguration {
	return applymeta.LabelSelector().WithMatchLabels(SelectorLabels(r))
}

func networkPolicy(name, namespace string, pods *applymeta.LabelSelectorApplyConfiguration, rules ...*applynet.NetworkPolicyIngressRuleApplyConfiguration) *applynet.NetworkPolicyApplyConfiguration {
	return applynet.NetworkPolicy(name, namespace).
		WithSpec(applynet.NetworkPolicySpec().
			WithPodSelector(pods).
			WithPolicyTypes(networkingv1.PolicyTypeIngress).
			WithIngress(rules...))
}

func ingress(port string, from ...*applynet.NetworkPolicyPeerApplyConfiguration) *applynet.NetworkPolicyIngressRuleApplyConfiguration {
	return applynet.NetworkPolicyIngressRule().
		WithPorts(applynet.NetworkPolicyPort().WithPort(intstr.FromString(port)).WithProtocol(corev1.ProtocolTCP)).
		WithFrom(from...)
}

// others are the namespaces that are allowed beside the own one; nil: none.
func others(allowed *v1alpha1.AllowedNamespaces) *applynet.NetworkPolicyPeerApplyConfiguration {
	if allowed == nil {
		return nil
	}
	switch allowed.From {
	case v1alpha1.NamespacesAll:
		return everyNamespace()
	case v1alpha1.NamespacesSelector:
		if allowed.Selector != nil {
			return applynet.NetworkPolicyPeer().WithNamespaceSelector(labelSelector(allowed.Selector))
		}
	case v1alpha1.NamespacesSame:
	}
	return nil
}

func ownNamespace() *applynet.NetworkPolicyPeerApplyConfiguration {
	return applynet.NetworkPolicyPeer().WithPodSelector(applymeta.LabelSelector())
}

func everyNamespace() *applynet.NetworkPolicyPeerApplyConfiguration {
	return applynet.NetworkPolicyPeer().WithNamespaceSelector(applymeta.LabelSelector())
}

// namespaceNamed picks a namespace by the label that the API server gives each.
func namespaceNamed(name string) *applynet.NetworkPolicyPeerApplyConfiguration {
	return applynet.NetworkPolicyPeer().WithNamespaceSelector(applymeta.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: name}))
}

func labelSelector(s *metav1.LabelSelector) *applymeta.LabelSelectorApplyConfiguration {
	out := applymeta.LabelSelector()
	if len(s.MatchLabels) > 0 {
		out.WithMatchLabels(s.MatchLabels)
	}
	for _, e := range s.MatchExpressions {
		out.WithMatchExpressions(applymeta.LabelSelectorRequirement().WithKey(e.Key).WithOperator(e.Operator).WithValues(e.Values...))
	}
	return out
}
