package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	applynet "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

const (
	// brokerGrace is for writing what is in memory and closing files.
	brokerGrace = 60 * time.Second
	// A stream of many gigabytes takes minutes to be read through after a crash.
	brokerStartup = 20 * time.Minute
	// A StatefulSet's name is part of a label of its Pods, with a dash and ten characters behind it.
	maxStatefulSetName = 63 - 11
)

// BuildBroker gives what an Embedded Broker needs: one server with a volume of its own. nil for every other type.
func BuildBroker(b *v1alpha1.Broker, s Settings) (*Set, error) {
	if b.Spec.Type != v1alpha1.BrokerEmbedded {
		return nil, nil
	}
	owner, err := OwnerOf(b)
	if err != nil {
		return nil, err
	}
	storage := compile.EmbeddedStorage(b)
	set := &Set{
		Workload: statefulSetName(owner.Resource), Replicas: 1,
		Selector: labels.SelectorFromSet(SelectorLabels(owner.Resource)).String(),
		Secrets:  secretUses(owner, map[string][]string{credentialsName(b): {v1alpha1.SecretKeyUsername, v1alpha1.SecretKeyPassword}}),
	}
	var out builder
	out.shared(serviceAccount(owner.Namespace, sharedAccount), sharedPolicy(owner.Namespace))
	out.kept(owner, volumeClaim(owner, b.Spec.Embedded, storage.DeepCopy()))
	from := []*applynet.NetworkPolicyPeerApplyConfiguration{ownNamespace()}
	if o := others(owner.AllowedNamespaces); o != nil {
		from = append(from, o)
	}
	if s.ManagerNamespace != "" && s.ManagerNamespace != owner.Namespace {
		from = append(from, namespaceNamed(s.ManagerNamespace))
	}
	out.owned(owner, brokerNetwork(owner, from), brokerService(owner), statefulSet(owner, credentialsName(b), s, storage.Value()/10*9))
	return out.into(set)
}

func brokerNetwork(o Owner, from []*applynet.NetworkPolicyPeerApplyConfiguration) *applynet.NetworkPolicyApplyConfiguration {
	return networkPolicy(o.Child(), o.Namespace, podsOf(o.Resource), ingress(portBroker, from...))
}

func brokerService(o Owner) *applycore.ServiceApplyConfiguration {
	return service(o.Resource, servicePort(portBroker, plan.BrokerPort), servicePort(portHealth, plan.HealthPort).WithAppProtocol("http"))
}

// statefulSetName is NAME-broker, cut and made unlike any other where that is too long.
func statefulSetName(r plan.Resource) string {
	name := r.Child()
	if len(name) <= maxStatefulSetName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxStatefulSetName-9] + "-" + hex.EncodeToString(sum[:])[:8]
}

// volumeClaim is made apart from the StatefulSet, whose own claims cannot be enlarged.
func volumeClaim(o Owner, e *v1alpha1.EmbeddedBroker, storage resource.Quantity) *applycore.PersistentVolumeClaimApplyConfiguration {
	spec := applycore.PersistentVolumeClaimSpec().
		WithAccessModes(corev1.ReadWriteOnce).
		WithResources(applycore.VolumeResourceRequirements().WithRequests(corev1.ResourceList{corev1.ResourceStorage: storage}))
	if e != nil && e.StorageClassName != "" {
		spec.WithStorageClassName(e.StorageClassName)
	}
	return applycore.PersistentVolumeClaim(o.Child(), o.Namespace).WithSpec(spec)
}

func statefulSet(o Owner, secret string, s Settings, maxStore int64) *applyapps.StatefulSetApplyConfiguration {
	s.Env = nil
	c := container(o, s, map[string]int32{portBroker: plan.BrokerPort, portHealth: healthPort},
		"broker", "--data="+dataPath, "--secrets="+secretsPath, "--secret="+secret, "--max-store="+strconv.FormatInt(maxStore, 10)).
		WithStartupProbe(probe("/healthz").WithPeriodSeconds(5).WithTimeoutSeconds(3).WithFailureThreshold(int32(brokerStartup/(5*time.Second)))).
		WithVolumeMounts(
			applycore.VolumeMount().WithName("data").WithMountPath(dataPath),
			applycore.VolumeMount().WithName("secrets").WithMountPath(secretsPath).WithReadOnly(true))
	t := podTemplate(o, brokerGrace, sharedAccount, c)
	t.Spec.SecurityContext.WithFSGroupChangePolicy(corev1.FSGroupChangeOnRootMismatch) // else each start walks through all files
	t.Spec.WithVolumes(
		applycore.Volume().WithName("data").WithPersistentVolumeClaim(applycore.PersistentVolumeClaimVolumeSource().WithClaimName(o.Child())),
		secretsVolume([]mounted{{name: secret, required: []string{v1alpha1.SecretKeyPassword, v1alpha1.SecretKeyUsername}, optional: []string{plan.PreviousPasswordKey}}}))
	return applyapps.StatefulSet(statefulSetName(o.Resource), o.Namespace).
		WithSpec(applyapps.StatefulSetSpec().
			WithReplicas(1).
			WithServiceName(o.Child()).
			WithRevisionHistoryLimit(2).
			WithSelector(applymeta.LabelSelector().WithMatchLabels(SelectorLabels(o.Resource))).
			WithTemplate(t))
}
