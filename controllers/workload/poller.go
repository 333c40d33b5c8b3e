package workload

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applyrbac "k8s.io/client-go/applyconfigurations/rbac/v1"
)

// serviceAccount is an identity to which nothing is mounted unasked.
func serviceAccount(namespace, name string) *applycore.ServiceAccountApplyConfiguration {
	return applycore.ServiceAccount(name, namespace).WithAutomountServiceAccountToken(false)
}

// checkpoint is made before its Poller runs, which then may read and replace this one ConfigMap and nothing else. Its content is not ours.
func (w *worker) checkpoint() *applycore.ConfigMapApplyConfiguration {
	return applycore.ConfigMap(w.owner.Checkpoint(), w.owner.Namespace)
}

func (w *worker) role() *applyrbac.RoleApplyConfiguration {
	return applyrbac.Role(w.owner.Child(), w.owner.Namespace).
		WithRules(applyrbac.PolicyRule().
			WithAPIGroups(corev1.GroupName).
			WithResources("configmaps").
			WithResourceNames(w.owner.Checkpoint()).
			WithVerbs("get", "update"))
}

func (w *worker) roleBinding() *applyrbac.RoleBindingApplyConfiguration {
	name := w.owner.Child()
	return applyrbac.RoleBinding(name, w.owner.Namespace).
		WithRoleRef(applyrbac.RoleRef().WithAPIGroup(rbacv1.GroupName).WithKind("Role").WithName(name)).
		WithSubjects(applyrbac.Subject().WithKind(rbacv1.ServiceAccountKind).WithName(name).WithNamespace(w.owner.Namespace))
}
