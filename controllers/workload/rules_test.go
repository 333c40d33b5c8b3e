package workload

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/waybill-dev/waybill/runtime/plan"
)

// everything is what all test data becomes.
func everything(t testing.TB) []built {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	var all []built
	for _, f := range files {
		all = append(all, build(t, settings, f)...)
	}
	return slices.DeleteFunc(all, func(b built) bool { return b.set == nil })
}

func objectsOf(s *Set) []*unstructured.Unstructured { return slices.Concat(s.Shared, s.Kept, s.Owned) }

// typed reads an object as the API server does, strictly.
func typed(t testing.TB, u *unstructured.Unstructured) runtime.Object {
	t.Helper()
	var o runtime.Object
	switch u.GetKind() {
	case "ConfigMap":
		o = new(corev1.ConfigMap)
	case "Service":
		o = new(corev1.Service)
	case "ServiceAccount":
		o = new(corev1.ServiceAccount)
	case "PersistentVolumeClaim":
		o = new(corev1.PersistentVolumeClaim)
	case "Deployment":
		o = new(appsv1.Deployment)
	case "StatefulSet":
		o = new(appsv1.StatefulSet)
	case "NetworkPolicy":
		o = new(networkingv1.NetworkPolicy)
	case "PodDisruptionBudget":
		o = new(policyv1.PodDisruptionBudget)
	case "Role":
		o = new(rbacv1.Role)
	case "RoleBinding":
		o = new(rbacv1.RoleBinding)
	default:
		t.Fatalf("%s is of a kind that nothing watches", u.GetKind())
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, o, true); err != nil {
		t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
	}
	return o
}

// find returns the one object of a kind that a Set has.
func find[T runtime.Object](t testing.TB, s *Set, kind string) T {
	t.Helper()
	var zero T
	for _, u := range objectsOf(s) {
		if u.GetKind() == kind && u.GetName() != sharedAccount {
			return typed(t, u).(T)
		}
	}
	t.Fatalf("no %s for %s", kind, s.Workload)
	return zero
}

func templateOf(t testing.TB, s *Set) corev1.PodTemplateSpec {
	t.Helper()
	for _, u := range s.Owned {
		switch o := typed(t, u).(type) {
		case *appsv1.Deployment:
			return o.Spec.Template
		case *appsv1.StatefulSet:
			return o.Spec.Template
		}
	}
	t.Fatalf("%s runs nothing", s.Workload)
	return corev1.PodTemplateSpec{}
}

// The restricted profile of the Pod Security Standards, control by control.
func TestEveryPodMeetsTheRestrictedProfile(t *testing.T) {
	for _, b := range everything(t) {
		pod := templateOf(t, b.set).Spec
		is := func(ok bool, what string) {
			if !ok {
				t.Errorf("%s: %s", b.owner, what)
			}
		}
		is(!pod.HostNetwork && !pod.HostPID && !pod.HostIPC, "host namespaces")
		sc := pod.SecurityContext
		is(sc != nil && sc.RunAsNonRoot != nil && *sc.RunAsNonRoot && sc.RunAsUser != nil && *sc.RunAsUser != 0, "runs as root")
		is(sc.SeccompProfile != nil && sc.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "seccomp")
		is(sc.SELinuxOptions == nil && len(sc.Sysctls) == 0 && sc.AppArmorProfile == nil && sc.WindowsOptions == nil, "SELinux, AppArmor, sysctls, host processes")
		is(len(pod.InitContainers) == 0 && len(pod.Containers) == 1, "containers that this test does not look at")
		for _, v := range pod.Volumes {
			is(v.ConfigMap != nil || v.Projected != nil || v.PersistentVolumeClaim != nil, "a volume of another type: "+v.Name)
		}
		c := pod.Containers[0]
		s := c.SecurityContext
		is(s.Privileged == nil || !*s.Privileged, "privileged")
		is(s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation, "privilege escalation")
		is(s.RunAsNonRoot != nil && *s.RunAsNonRoot && s.RunAsUser == nil, "runs as root")
		is(len(s.Capabilities.Drop) == 1 && s.Capabilities.Drop[0] == "ALL" && len(s.Capabilities.Add) == 0, "capabilities")
		is(s.ProcMount == nil && s.SELinuxOptions == nil && s.SeccompProfile == nil && s.AppArmorProfile == nil, "proc mount, SELinux, seccomp")
		for _, p := range c.Ports {
			is(p.HostPort == 0, "a port of the host")
		}
		// Ours besides.
		is(s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem, "a writable root")
		is(pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken, "a token of the API")
		is(c.LivenessProbe != nil && c.ReadinessProbe != nil && c.LivenessProbe.HTTPGet.Path == "/healthz" && c.ReadinessProbe.HTTPGet.Path == "/readyz", "probes")
		for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[r], c.Resources.Limits[r]
			is(!request.IsZero() && !limit.IsZero() && request.Cmp(limit) <= 0, "requests and limits of "+string(r))
		}
	}
}

func TestNamesPortsAndPathsCanBe(t *testing.T) {
	for _, b := range everything(t) {
		if errs := validation.IsDNS1123Label(b.set.Workload); len(errs) > 0 {
			t.Errorf("%s: %v", b.owner, errs)
		}
		for _, u := range objectsOf(b.set) {
			errs := validation.IsDNS1123Subdomain(u.GetName())
			if u.GetKind() == "Service" {
				errs = validation.IsDNS1035Label(u.GetName())
			}
			for k, v := range u.GetLabels() {
				errs = append(errs, validation.IsValidLabelValue(v)...)
				errs = append(errs, validation.IsQualifiedName(k)...)
			}
			if len(errs) > 0 || u.GetNamespace() != b.owner.Namespace {
				t.Errorf("%s: %s %s/%s: %v", b.owner, u.GetKind(), u.GetNamespace(), u.GetName(), errs)
			}
		}
		pod := templateOf(t, b.set).Spec
		ports, seen := map[string]int32{}, map[int32]bool{}
		for _, p := range pod.Containers[0].Ports {
			if ports[p.Name] != 0 || seen[p.ContainerPort] || len(validation.IsValidPortName(p.Name)) > 0 {
				t.Errorf("%s: port %s %d", b.owner, p.Name, p.ContainerPort)
			}
			ports[p.Name], seen[p.ContainerPort] = p.ContainerPort, true
		}
		for _, u := range b.set.Owned {
			if svc, ok := typed(t, u).(*corev1.Service); ok {
				for _, p := range svc.Spec.Ports {
					if ports[p.TargetPort.StrVal] == 0 {
						t.Errorf("%s: the Service leads to a port %q that there is not", b.owner, p.TargetPort.StrVal)
					}
				}
			}
		}
		mounts, paths := map[string]bool{}, map[string]bool{}
		for _, m := range pod.Containers[0].VolumeMounts {
			if m.SubPath != "" || m.SubPathExpr != "" {
				t.Errorf("%s: what is mounted by a subPath at %s would never change", b.owner, m.MountPath)
			}
			mounts[m.Name] = true
		}
		for _, v := range pod.Volumes {
			if !mounts[v.Name] {
				t.Errorf("%s: volume %s is not mounted", b.owner, v.Name)
			}
			if v.Projected == nil || v.Name != "secrets" {
				continue
			}
			for _, s := range v.Projected.Sources {
				for _, item := range s.Secret.Items {
					if paths[item.Path] || item.Path != s.Secret.Name+"/"+item.Key {
						t.Errorf("%s: key %s of Secret %s at %s", b.owner, item.Key, s.Secret.Name, item.Path)
					}
					paths[item.Path] = true
				}
			}
		}
	}
}

// What the API server would fill in, or take for an opinion that we have not, is not said.
func TestObjectsHoldOnlyWhatWeDecide(t *testing.T) {
	var look func(path string, v any)
	selectors := []string{".podSelector", ".namespaceSelector"} // empty ones say something: everybody
	look = func(path string, v any) {
		switch v := v.(type) {
		case nil:
			t.Errorf("%s is null", path)
		case map[string]any:
			if len(v) == 0 && !slices.ContainsFunc(selectors, func(s string) bool { return strings.HasSuffix(path, s) }) {
				t.Errorf("%s is empty", path)
			}
			for k, one := range v {
				look(path+"."+k, one)
			}
		case []any:
			for _, one := range v {
				look(path+"[]", one)
			}
		}
	}
	for _, b := range everything(t) {
		for _, u := range objectsOf(b.set) {
			look(u.GetKind()+" "+u.GetName()+" ", u.Object)
			for _, field := range [][]string{{"status"}, {"metadata", "creationTimestamp"}, {"spec", "template", "metadata", "creationTimestamp"}, {"spec", "clusterIP"}} {
				if _, found, _ := unstructured.NestedFieldNoCopy(u.Object, field...); found {
					t.Errorf("%s %s sets %v", u.GetKind(), u.GetName(), field)
				}
			}
			typed(t, u)
		}
	}
}

func TestWhoOwnsWhat(t *testing.T) {
	for _, b := range everything(t) {
		for _, u := range b.set.Owned {
			refs := u.GetOwnerReferences()
			if len(refs) != 1 || refs[0].UID != b.owner.UID || refs[0].Kind != b.owner.Kind || refs[0].Name != b.owner.Name || refs[0].Controller == nil || !*refs[0].Controller {
				t.Errorf("%s: %s %s is owned by %v", b.owner, u.GetKind(), u.GetName(), refs)
			}
			if !slices.Contains(OwnedKinds(), u.GroupVersionKind()) {
				t.Errorf("%s: nobody watches %s", b.owner, u.GroupVersionKind())
			}
		}
		for _, u := range slices.Concat(b.set.Kept, b.set.Shared) {
			if len(u.GetOwnerReferences()) != 0 {
				t.Errorf("%s: %s %s would be deleted with it", b.owner, u.GetKind(), u.GetName())
			}
		}
		for _, u := range objectsOf(b.set) {
			if u.GetLabels()[LabelManagedBy] != ManagedBy || u.GetAnnotations()[AnnotationApplied] == "" {
				t.Errorf("%s: %s %s is not marked as ours", b.owner, u.GetKind(), u.GetName())
			}
		}
	}
}

// named picks one resource of the test data.
func named(t testing.TB, file, resource string) built {
	t.Helper()
	for _, b := range build(t, settings, "testdata/"+file+".in.yaml") {
		if b.outcome.Resource.String() == resource {
			return b
		}
	}
	t.Fatalf("%s is not in %s", resource, file)
	return built{}
}

func TestAPollerMayDoOneThing(t *testing.T) {
	b := named(t, "pollers", "Poller/shop/rates")
	role, binding := find[*rbacv1.Role](t, b.set, "Role"), find[*rbacv1.RoleBinding](t, b.set, "RoleBinding")
	rules, err := json.Marshal(role.Rules)
	if want := `[{"verbs":["get","update"],"apiGroups":[""],"resources":["configmaps"],"resourceNames":["rates-poller-checkpoint"]}]`; err != nil || string(rules) != want {
		t.Errorf("its rights are %s", rules)
	}
	if binding.RoleRef.Name != role.Name || len(binding.Subjects) != 1 || binding.Subjects[0].Name != "rates-poller" {
		t.Errorf("the binding is %v to %v", binding.RoleRef, binding.Subjects)
	}
	if len(b.set.Kept) != 1 || b.set.Kept[0].GetName() != "rates-poller-checkpoint" || b.set.Kept[0].Object["data"] != nil {
		t.Errorf("its checkpoint is %v", b.set.Kept)
	}
	if account := templateOf(t, b.set).Spec.ServiceAccountName; account != "rates-poller" {
		t.Errorf("it runs as %s", account)
	}
	for _, other := range everything(t) {
		if other.owner.Kind == "Poller" {
			continue
		}
		pod := templateOf(t, other.set).Spec
		if pod.ServiceAccountName != sharedAccount || slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "api" }) {
			t.Errorf("%s runs as %s", other.owner, pod.ServiceAccountName)
		}
	}
}

func TestWhatMustNotRunTwice(t *testing.T) {
	for _, c := range []struct {
		file, resource string
		recreate       bool
		replicas       int32
	}{
		{"gateways", "Topic/shop/orders", false, 2},
		{"gateways", "Topic/shop/unserved", false, 0},
		{"gateways", "Mailbox/shop/invoices", false, 1}, // leases: any replica settles
		{"gateways", "Mailbox/shop/ledger", true, 1},
		{"gateways", "Mailbox/shop/stopped", false, 1},
		{"flows", "Subscription/shop/billing", false, 3},
		{"flows", "Subscription/shop/audit", true, 1},
		{"flows", "Subscription/shop/resting", false, 0},
		{"pollers", "Poller/shop/rates", true, 1},
		{"pollers", "Poller/shop/at-rest", true, 0},
	} {
		b := named(t, c.file, c.resource)
		d := find[*appsv1.Deployment](t, b.set, "Deployment")
		if got := d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType; got != c.recreate || *d.Spec.Replicas != c.replicas || b.set.Replicas != c.replicas {
			t.Errorf("%s: %s, %d replicas", c.resource, d.Spec.Strategy.Type, *d.Spec.Replicas)
		}
		budget := slices.ContainsFunc(b.set.Owned, func(u *unstructured.Unstructured) bool { return u.GetKind() == "PodDisruptionBudget" })
		if spread := len(d.Spec.Template.Spec.TopologySpreadConstraints) > 0; budget != (c.replicas > 1) || spread != budget {
			t.Errorf("%s: %d replicas, disruption budget %v, spread %v", c.resource, c.replicas, budget, spread)
		}
		drain := int64(defaultDrain.Seconds())
		if grace := *d.Spec.Template.Spec.TerminationGracePeriodSeconds; grace <= drain {
			t.Errorf("%s: a grace period of %ds for a drain of %ds", c.resource, grace, drain)
		}
	}
}

// ownPolicy is the NetworkPolicy that a resource has beside the one of its namespace; nil: none.
func ownPolicy(t testing.TB, s *Set) *networkingv1.NetworkPolicy {
	for _, u := range s.Owned {
		if u.GetKind() == "NetworkPolicy" {
			return typed(t, u).(*networkingv1.NetworkPolicy)
		}
	}
	return nil
}

// What is no worker's business rolls no Pod, and what is rolls it.
func TestWhatRollsPods(t *testing.T) {
	b := named(t, "gateways", "Topic/shop/orders")
	template := func(change func(p *plan.Plan, o *Owner)) (string, *Set) {
		o, p, owner := *b.outcome, *b.outcome.Plan, b.owner
		o.Plan = &p
		change(&p, &owner)
		set, err := Build(&o, owner, settings)
		if err != nil {
			t.Fatal(err)
		}
		pod, err := json.Marshal(templateOf(t, set))
		if err != nil {
			t.Fatal(err)
		}
		return string(pod), set
	}
	before, _ := template(func(*plan.Plan, *Owner) {})
	if same, set := template(func(p *plan.Plan, o *Owner) {
		p.Objects = []plan.Object{{Ref: plan.Ref{Name: "changed"}}}
		p.Effective = plan.Effective{Guarantee: "AtLeastOnce", Limits: []string{"reworded"}}
		o.AllowedNamespaces = nil
	}); same != before || ownPolicy(t, set) != nil {
		t.Errorf("Pods are rolled, or another namespace is let in:\n%s\n%s", before, same)
	}
	if p := ownPolicy(t, b.set); p == nil || len(p.Spec.Ingress) != 1 || p.Spec.Ingress[0].From[0].NamespaceSelector == nil {
		t.Errorf("who is allowed is not let in: %+v", p)
	}
	after, set := template(func(p *plan.Plan, _ *Owner) { topic := *p.Topic; topic.MaxMessageBytes = 1 << 20; p.Topic = &topic })
	if after == before || !strings.Contains(after, set.PlanHash) || set.PlanHash == b.set.PlanHash || find[*corev1.ConfigMap](t, set, "ConfigMap").Name != "orders-topic-"+set.PlanHash {
		t.Errorf("another plan rolls no Pod: %s", after)
	}
	// The mounted plan is what the annotation says, and a worker can read it.
	text := find[*corev1.ConfigMap](t, set, "ConfigMap").Data["plan.json"]
	if _, err := plan.Unmarshal([]byte(text)); err != nil || plan.Hash([]byte(text)) != set.PlanHash {
		t.Errorf("the plan of hash %s: %v\n%s", set.PlanHash, err, text)
	}
}

func TestARefusedResourceHasNoWorkload(t *testing.T) {
	b := named(t, "gateways", "Topic/shop/orders")
	o := *b.outcome
	o.Plan = nil
	if _, err := Build(&o, b.owner, settings); err == nil || !strings.Contains(err.Error(), "Topic/shop/orders") {
		t.Errorf("got %v", err)
	}
	other := b.owner
	other.Name = "another"
	if _, err := Build(b.outcome, other, settings); err == nil || !strings.Contains(err.Error(), "Topic/shop/another") {
		t.Errorf("got %v", err)
	}
	if _, err := OwnerOf(new(corev1.Pod)); err == nil {
		t.Error("a Pod is a resource of ours")
	}
}
