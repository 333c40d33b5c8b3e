package workload

import (
	"encoding/json"

	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	applypolicy "k8s.io/client-go/applyconfigurations/policy/v1"

	"github.com/waybill-dev/waybill/runtime/plan"
)

func (w *worker) deployment() *applyapps.DeploymentApplyConfiguration {
	d := applyapps.Deployment(w.owner.Child(), w.owner.Namespace)
	if len(w.settings.Env) > 0 {
		text, _ := json.Marshal(w.settings.Env) // of strings, and sorted
		d.WithAnnotations(map[string]string{AnnotationEnv: string(text)})
	}
	return d.
		WithSpec(applyapps.DeploymentSpec().
			WithReplicas(w.replicas).
			WithRevisionHistoryLimit(2). // each keeps its plan
			WithStrategy(w.strategy()).
			WithSelector(applymeta.LabelSelector().WithMatchLabels(SelectorLabels(w.owner.Resource))).
			WithTemplate(w.template()))
}

// strategy: a gateway always has a Pod that answers; what must not run twice is ended before it is started anew.
func (w *worker) strategy() *applyapps.DeploymentStrategyApplyConfiguration {
	if w.exclusive() {
		return applyapps.DeploymentStrategy().WithType(appsv1.RecreateDeploymentStrategyType)
	}
	surge := intstr.FromInt32(1)
	if !w.served {
		surge = intstr.FromString("25%")
	}
	return applyapps.DeploymentStrategy().WithType(appsv1.RollingUpdateDeploymentStrategyType).
		WithRollingUpdate(applyapps.RollingUpdateDeployment().WithMaxSurge(surge).WithMaxUnavailable(intstr.FromInt32(0)))
}

func (w *worker) template() *applycore.PodTemplateSpecApplyConfiguration {
	ports := map[string]int32{portHealth: healthPort}
	if w.served {
		ports[portHTTP] = httpPort
	}
	c := container(w.owner, w.settings, ports, w.args()...).
		WithVolumeMounts(applycore.VolumeMount().WithName("plans").WithMountPath(plansPath).WithReadOnly(true))
	account := sharedAccount
	volumes := []*applycore.VolumeApplyConfiguration{
		applycore.Volume().WithName("plans").WithConfigMap(applycore.ConfigMapVolumeSource().WithName(w.planName()).WithDefaultMode(readable)),
	}
	if len(w.secrets) > 0 {
		c.WithVolumeMounts(applycore.VolumeMount().WithName("secrets").WithMountPath(secretsPath).WithReadOnly(true))
		volumes = append(volumes, secretsVolume(w.secrets))
	}
	if w.plan.Poller != nil {
		account = w.owner.Child()
		c.WithVolumeMounts(applycore.VolumeMount().WithName("api").WithMountPath(apiPath).WithReadOnly(true))
		volumes = append(volumes, apiVolume())
	}
	t := podTemplate(w.owner, w.grace(), account, c).WithAnnotations(map[string]string{AnnotationPlan: w.hash})
	t.Spec.WithVolumes(volumes...)
	if w.exclusive() {
		leaveSoon(w.owner, t.Spec)
	}
	if w.replicas > 1 {
		spread(w.owner, t.Spec)
	}
	return t
}

func (w *worker) args() []string {
	args := []string{"--plans=" + plansPath, "--secrets=" + secretsPath, "--drain=" + w.settings.drain().String()}
	if w.served {
		args = append(args, "--linger="+linger.String())
	}
	if w.plan.Poller != nil {
		args = append(args, "--checkpoints=configmap")
	}
	if w.settings.AllowPrivateDial {
		args = append(args, "--allow-private-dial")
	}
	return args
}

// disruptionBudget lets one of several replicas be moved at a time. One of a kind gets none: it would keep its node from being drained.
func disruptionBudget(r plan.Resource) *applypolicy.PodDisruptionBudgetApplyConfiguration {
	return applypolicy.PodDisruptionBudget(r.Child(), r.Namespace).
		WithSpec(applypolicy.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow).
			WithSelector(applymeta.LabelSelector().WithMatchLabels(SelectorLabels(r))))
}
