package workload

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Whatever two neighbouring states of the Secret two Pods have seen, each opens what the other seals: the first key seals, all open.
func TestLeaseKeysAreExchangedWithoutARefusedToken(t *testing.T) {
	opens := func(s *corev1.Secret) []string {
		var keys []string
		for _, k := range []string{LeaseKeyCurrent, leaseKeyNext, leaseKeyPrevious} {
			if v := s.Data[k]; v != nil {
				keys = append(keys, string(v))
			}
		}
		return keys
	}
	first := LeaseKeys("shop", []byte("one"))
	s := first
	for step, fresh := range []string{"two", "unused", "unused", "three"} {
		next := RotateLeaseKeys(s, step%3+1, []byte(fresh))
		for _, pair := range [][2]*corev1.Secret{{s, next}, {next, s}} {
			if sealed := opens(pair[0])[0]; !slices.Contains(opens(pair[1]), sealed) {
				// Only in the last step is a key forgotten, and then none seals with it any more.
				t.Errorf("step %d: a token sealed with %q is refused by %v", step+1, sealed, opens(pair[1]))
			}
		}
		if len(next.Data) > 2 || next.Name != plan.LeaseKeySecret || next.Namespace != "shop" {
			t.Errorf("step %d: %v", step+1, next)
		}
		s = next
	}
	if got := opens(s); !slices.Equal(got, []string{"two", "three"}) || !slices.Equal(opens(first), []string{"one"}) {
		t.Errorf("after a whole rotation and a step of the next: %v; the first is %v", got, opens(first))
	}
}

func TestCredentialsOfAnEmbeddedBroker(t *testing.T) {
	b := &v1alpha1.Broker{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "main", UID: types.UID("uid")}, Spec: v1alpha1.BrokerSpec{Type: v1alpha1.BrokerEmbedded}}
	s := BrokerCredentials(b, "pass")
	if s.Name != "main-broker" || string(s.Data["username"]) != "waybill" || string(s.Data["password"]) != "pass" || !metav1.IsControlledBy(s, b) {
		t.Errorf("got %v", s)
	}
	next := s
	for step, want := range []string{"pass word", "word pass", "word "} {
		before := next
		next = RotateBrokerCredentials(before, step+1, "word")
		if got := string(next.Data["password"]) + " " + string(next.Data[plan.PreviousPasswordKey]); got != want || string(s.Data["password"]) != "pass" {
			t.Errorf("step %d: %q", step+1, got)
		}
		// What clients use before and after a step is taken by a server that has seen it, and from the second step on by one that has not yet.
		if used := string(next.Data["password"]); step > 0 && used != string(before.Data["password"]) && used != string(before.Data[plan.PreviousPasswordKey]) {
			t.Errorf("step %d: a server that has not seen it refuses %q", step+1, used)
		}
	}
	// Without what the step before has left there is nothing to change to.
	if s := RotateBrokerCredentials(s, 2, "x"); string(s.Data["password"]) != "pass" || RotateLeaseKeys(LeaseKeys("shop", []byte("one")), 2, nil).Data[LeaseKeyCurrent] == nil {
		t.Error("what was in use is lost")
	}
	next = RotateBrokerCredentials(s, 1, "word")
	next.Data["password"] = []byte("word")
	m := compile.Mirror{From: types.NamespacedName{Namespace: "shop", Name: "main-broker"}, To: types.NamespacedName{Namespace: "team", Name: "waybill.shop.main-broker"}, Keys: []string{"password", "username"}}
	next.Type, next.Data["tls.key"] = corev1.SecretTypeTLS, []byte("nobody else's")
	copied := Mirror(next, m, plan.Resource{Kind: "Broker", Namespace: "shop", Name: "main"}, "1-2-3")
	if copied.Namespace != "team" || copied.Name != m.To.Name || string(copied.Data["password"]) != "word" || len(copied.Data) != 2 || copied.Type != corev1.SecretTypeOpaque ||
		copied.Labels[LabelBroker] != "main" || copied.Labels[LabelBrokerNamespace] != "shop" || copied.Labels[LabelBrokerUID] != "1-2-3" || len(copied.OwnerReferences) != 0 {
		t.Errorf("the copy is %v", copied)
	}
	b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "own"}
	if BrokerCredentials(b, "x") != nil {
		t.Error("a Secret is made although the spec names one")
	}
	b.Spec = v1alpha1.BrokerSpec{Type: v1alpha1.BrokerNATS}
	if set, err := BuildBroker(b, settings); set != nil || err != nil || BrokerCredentials(b, "x") != nil {
		t.Errorf("a NATS broker runs %v, %v", set, err)
	}
}

func TestResourcesFitTogether(t *testing.T) {
	q := resource.MustParse
	for name, c := range map[string]struct {
		in              *v1alpha1.ResourceRequirements
		request, limits string // of memory
	}{
		"nothing said":            {nil, "64Mi", "512Mi"},
		"a request above our own": {&v1alpha1.ResourceRequirements{Requests: v1alpha1.ResourceList{"memory": q("2Gi")}}, "2Gi", "2Gi"},
		"a limit below our own":   {&v1alpha1.ResourceRequirements{Limits: v1alpha1.ResourceList{"memory": q("32Mi")}}, "32Mi", "32Mi"},
		"both":                    {&v1alpha1.ResourceRequirements{Requests: v1alpha1.ResourceList{"memory": q("1Gi")}, Limits: v1alpha1.ResourceList{"memory": q("3Gi")}}, "1Gi", "3Gi"},
	} {
		got := resourcesOf(&v1alpha1.Workload{Resources: c.in})
		request, limit := got.Requests[corev1.ResourceMemory], got.Limits[corev1.ResourceMemory]
		if request.String() != c.request || limit.String() != c.limits {
			t.Errorf("%s: %s of %s", name, request.String(), limit.String())
		}
	}
}
