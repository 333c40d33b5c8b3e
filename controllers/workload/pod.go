package workload

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Paths and ports within a Pod.
const (
	plansPath   = "/etc/waybill/plans"
	secretsPath = "/etc/waybill/secrets"
	dataPath    = "/var/lib/waybill"
	// apiPath is where every client of the cluster's API looks for its token.
	apiPath = "/var/run/secrets/kubernetes.io/serviceaccount"

	httpPort   = 8080
	healthPort = plan.HealthPort

	portHTTP   = "http"
	portHealth = "health"
	portBroker = "broker"
)

const (
	// sharedAccount is the one ServiceAccount of a namespace. It has no rights, and no token is mounted.
	sharedAccount = "waybill-worker"
	// user that the container runs as; the worker image has the same one.
	user = 65532
	// readable is the mode of mounted Secrets: by the Pod's group, and by nobody else.
	readable = 0o440
)

// container is the one container that every Pod has.
func container(o Owner, s Settings, ports map[string]int32, args ...string) *applycore.ContainerApplyConfiguration {
	resources := resourcesOf(o.Workload)
	c := applycore.Container().
		WithName("worker").
		WithImage(s.WorkerImage).
		WithArgs(args...).
		WithEnv(environment(s.Env, o.Workload, resources)...).
		WithResources(applycore.ResourceRequirements().WithRequests(resources.Requests).WithLimits(resources.Limits)).
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithSecurityContext(applycore.SecurityContext().
			WithAllowPrivilegeEscalation(false).
			WithPrivileged(false).
			WithReadOnlyRootFilesystem(true).
			WithRunAsNonRoot(true).
			WithCapabilities(applycore.Capabilities().WithDrop("ALL")))
	if s.PullPolicy != "" {
		c.WithImagePullPolicy(corev1.PullPolicy(s.PullPolicy))
	}
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		c.WithPorts(applycore.ContainerPort().WithName(name).WithContainerPort(ports[name]).WithProtocol(corev1.ProtocolTCP))
	}
	// A broker that goes away leaves a worker both alive and ready: to restart it, or to turn its callers away, would help nobody.
	c.WithLivenessProbe(probe("/healthz").WithPeriodSeconds(10).WithTimeoutSeconds(5).WithFailureThreshold(3))
	c.WithReadinessProbe(probe("/readyz").WithPeriodSeconds(5).WithTimeoutSeconds(3).WithFailureThreshold(2))
	return c
}

func probe(path string) *applycore.ProbeApplyConfiguration {
	return applycore.Probe().WithHTTPGet(applycore.HTTPGetAction().WithPath(path).WithPort(intstr.FromString(portHealth)))
}

// podTemplate is a Pod that the restricted profile admits, with what the resource's workload asks for.
func podTemplate(o Owner, grace time.Duration, account string, c *applycore.ContainerApplyConfiguration) *applycore.PodTemplateSpecApplyConfiguration {
	spec := applycore.PodSpec().
		WithServiceAccountName(account).
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithTerminationGracePeriodSeconds(int64(grace / time.Second)).
		WithSecurityContext(applycore.PodSecurityContext().
			WithRunAsNonRoot(true).
			WithRunAsUser(user).
			WithRunAsGroup(user).
			WithFSGroup(user).
			WithSeccompProfile(applycore.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))).
		WithContainers(c)
	t := applycore.PodTemplateSpec().WithLabels(Labels(o.Resource)).WithSpec(spec)
	if w := o.Workload; w != nil {
		if len(w.Annotations) > 0 {
			t.WithAnnotations(w.Annotations)
		}
		if len(w.NodeSelector) > 0 {
			spec.WithNodeSelector(w.NodeSelector)
		}
		for _, ref := range w.ImagePullSecrets {
			spec.WithImagePullSecrets(applycore.LocalObjectReference().WithName(ref.Name))
		}
		for i := range w.Tolerations {
			spec.WithTolerations(toleration(&w.Tolerations[i]))
		}
	}
	return t
}

func toleration(t *v1alpha1.Toleration) *applycore.TolerationApplyConfiguration {
	out := applycore.Toleration()
	if t.Key != "" {
		out.WithKey(t.Key)
	}
	if t.Operator != "" {
		out.WithOperator(corev1.TolerationOperator(t.Operator))
	}
	if t.Value != "" {
		out.WithValue(t.Value)
	}
	if t.Effect != "" {
		out.WithEffect(corev1.TaintEffect(t.Effect))
	}
	if t.TolerationSeconds != nil {
		out.WithTolerationSeconds(*t.TolerationSeconds)
	}
	return out
}

// leaveSoon makes a Pod of which there is only one leave a node that is lost after half a minute instead of five, unless the workload says
// otherwise.
func leaveSoon(o Owner, spec *applycore.PodSpecApplyConfiguration) {
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if o.Workload != nil && slices.ContainsFunc(o.Workload.Tolerations, func(t v1alpha1.Toleration) bool {
			return (t.Key == taint || t.Key == "") && (t.Effect == "" || t.Effect == string(corev1.TaintEffectNoExecute))
		}) {
			continue
		}
		spec.WithTolerations(applycore.Toleration().WithKey(taint).WithOperator(corev1.TolerationOpExists).
			WithEffect(corev1.TaintEffectNoExecute).WithTolerationSeconds(30))
	}
}

// spread keeps replicas apart where there is room.
func spread(o Owner, spec *applycore.PodSpecApplyConfiguration) {
	for _, key := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
		spec.WithTopologySpreadConstraints(applycore.TopologySpreadConstraint().
			WithMaxSkew(1).
			WithTopologyKey(key).
			WithWhenUnsatisfiable(corev1.ScheduleAnyway).
			WithLabelSelector(applymeta.LabelSelector().WithMatchLabels(SelectorLabels(o.Resource))).
			WithMatchLabelKeys("pod-template-hash"))
	}
}

// environment is ours, what the operator was told to give all workers, and the workload's own; the later word counts where several name a
// variable. Sorted by name.
func environment(all map[string]string, w *v1alpha1.Workload, r resources) []*applycore.EnvVarApplyConfiguration {
	vars := map[string]*applycore.EnvVarApplyConfiguration{}
	if memory, ok := r.Limits[corev1.ResourceMemory]; ok {
		// The collector works harder before the kernel ends the process.
		vars["GOMEMLIMIT"] = applycore.EnvVar().WithName("GOMEMLIMIT").WithValue(strconv.FormatInt(memory.Value()/10*9, 10))
	}
	for name, value := range all {
		vars[name] = applycore.EnvVar().WithName(name).WithValue(value)
	}
	if w != nil {
		for _, e := range w.Env {
			v := applycore.EnvVar().WithName(e.Name)
			switch {
			case e.SecretRef != nil:
				v.WithValueFrom(applycore.EnvVarSource().WithSecretKeyRef(
					applycore.SecretKeySelector().WithName(e.SecretRef.Name).WithKey(cmp.Or(e.SecretRef.Key, e.Name))))
			case e.Value != "":
				v.WithValue(e.Value)
			}
			vars[e.Name] = v
		}
	}
	out := slices.Collect(maps.Values(vars))
	slices.SortFunc(out, func(a, b *applycore.EnvVarApplyConfiguration) int { return strings.Compare(*a.Name, *b.Name) })
	return out
}
