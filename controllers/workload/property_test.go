package workload

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

var (
	names    = rapid.StringMatching(`[a-z]([-a-z0-9]{0,46}[a-z0-9])?`)
	words    = rapid.StringMatching(`[a-z]{1,8}`)
	amounts  = rapid.SampledFrom([]string{"1m", "0.5", "1", "16Mi", "1500M", "2Gi", "1e3"})
	computes = rapid.SampledFrom([]string{"cpu", "memory", "ephemeral-storage"})
)

// workloads are overrides of every kind.
var workloads = rapid.Custom(func(t *rapid.T) *v1alpha1.Workload {
	list := func(label string) v1alpha1.ResourceList {
		out := v1alpha1.ResourceList{}
		for name, text := range rapid.MapOf(computes, amounts).Draw(t, label) {
			out[name] = resource.MustParse(text)
		}
		return out
	}
	w := &v1alpha1.Workload{
		Resources:    &v1alpha1.ResourceRequirements{Requests: list("requests"), Limits: list("limits")},
		NodeSelector: rapid.MapOf(words, words).Draw(t, "nodeSelector"),
		Annotations:  rapid.MapOf(words, words).Draw(t, "annotations"),
	}
	for _, name := range rapid.SliceOfDistinct(words, rapid.ID).Draw(t, "env") {
		e := v1alpha1.EnvVar{Name: name, Value: rapid.SampledFrom([]string{"", "x"}).Draw(t, "value")}
		if e.Value == "" && rapid.Bool().Draw(t, "secret") {
			e.SecretRef = &v1alpha1.SecretKeyReference{Name: words.Draw(t, "secretName")}
		}
		w.Env = append(w.Env, e)
	}
	return w
})

// The same resource gives the same bytes, in whatever order maps and lists of names come, and names of every length give names that can be.
func TestTheSameBytesEachTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name, namespace := names.Draw(t, "name"), names.Draw(t, "namespace")
		meta := metav1.ObjectMeta{Name: name, Namespace: namespace, UID: types.UID("uid")}
		broker := &v1alpha1.Broker{ObjectMeta: meta, Spec: v1alpha1.BrokerSpec{Type: v1alpha1.BrokerEmbedded}}
		replicas := rapid.Int32Range(0, 3).Draw(t, "replicas")
		w := workloads.Draw(t, "workload")
		mailbox := &v1alpha1.Mailbox{ObjectMeta: meta, Spec: v1alpha1.MailboxSpec{
			BrokerRef: v1alpha1.ResourceReference{Name: name}, Replicas: &replicas, Workload: w,
			Auth: &v1alpha1.MailboxAuth{Bearer: &v1alpha1.BearerAuth{SecretRef: v1alpha1.SecretKeyReference{Name: words.Draw(t, "auth")}}},
		}}
		once := func() (*Set, string) {
			res := compile.Compile(compile.Input{Brokers: []*v1alpha1.Broker{broker}, Mailboxes: []*v1alpha1.Mailbox{mailbox}})
			if len(res.Diagnostics) > 0 {
				t.Fatal(res.Diagnostics)
			}
			owner, err := OwnerOf(mailbox)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(res.Outcomes, func(o compile.Outcome) bool { return o.Resource.Kind == "Mailbox" })
			set, err := Build(&res.Outcomes[i], owner, settings)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(set)
			if err != nil {
				t.Fatal(err)
			}
			return set, string(text)
		}
		set, first := once()
		w.Env = rapid.Permutation(w.Env).Draw(t, "order")
		w.NodeSelector, w.Annotations = maps.Clone(w.NodeSelector), maps.Clone(w.Annotations)
		if _, again := once(); again != first {
			t.Fatalf("%s\n%s", first, again)
		}
		for _, u := range objectsOf(set) {
			if u.GetKind() != "ConfigMap" && len(u.GetName()) > 63 || len(u.GetName()) > 253 {
				t.Fatalf("%s %s", u.GetKind(), u.GetName())
			}
			for k, v := range u.GetLabels() {
				if len(v) > 63 {
					t.Fatalf("label %s: %s", k, v)
				}
			}
		}
		if n := statefulSetName(plan.Resource{Kind: "Broker", Namespace: namespace, Name: name}); len(n) > maxStatefulSetName {
			t.Fatalf("StatefulSet %s", n)
		}
	})
}
