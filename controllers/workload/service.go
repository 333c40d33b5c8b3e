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

func (w *worker) networkPolicy() *applynet.NetworkPolicyApplyConfiguration {
	return networkPolicy(w.owner.Resource, portHTTP, peers(w.owner.AllowedNamespaces))
}

// networkPolicy admits peers to a port, and everybody in the cluster to health and metrics, which show names and counts: whoever collects
// metrics lives in a namespace that only the cluster's owner knows.
func networkPolicy(r plan.Resource, port string, from []*applynet.NetworkPolicyPeerApplyConfiguration) *applynet.NetworkPolicyApplyConfiguration {
	rule := func(port string, from ...*applynet.NetworkPolicyPeerApplyConfiguration) *applynet.NetworkPolicyIngressRuleApplyConfiguration {
		return applynet.NetworkPolicyIngressRule().
			WithPorts(applynet.NetworkPolicyPort().WithPort(intstr.FromString(port)).WithProtocol(corev1.ProtocolTCP)).
			WithFrom(from...)
	}
	return applynet.NetworkPolicy(r.Child(), r.Namespace).
		WithSpec(applynet.NetworkPolicySpec().
			WithPodSelector(applymeta.LabelSelector().WithMatchLabels(SelectorLabels(r))).
			WithPolicyTypes(networkingv1.PolicyTypeIngress).
			WithIngress(rule(port, from...), rule(portHealth, everyNamespace())))
}

// peers are the own namespace and those that are allowed.
func peers(allowed *v1alpha1.AllowedNamespaces) []*applynet.NetworkPolicyPeerApplyConfiguration {
	own := applynet.NetworkPolicyPeer().WithPodSelector(applymeta.LabelSelector())
	out := []*applynet.NetworkPolicyPeerApplyConfiguration{own}
	if allowed == nil {
		return out
	}
	switch allowed.From {
	case v1alpha1.NamespacesAll:
		return append(out, everyNamespace())
	case v1alpha1.NamespacesSelector:
		if allowed.Selector != nil {
			return append(out, applynet.NetworkPolicyPeer().WithNamespaceSelector(labelSelector(allowed.Selector)))
		}
	case v1alpha1.NamespacesSame:
	}
	return out
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
