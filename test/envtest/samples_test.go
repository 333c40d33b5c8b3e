package envtest

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// declared are the resources of some manifests in a namespace, read as the command line reads them.
type declared struct {
	set     *manifest.Set
	objects []client.Object
}

func read(namespace string, paths ...string) declared {
	GinkgoHelper()
	set, faults, err := manifest.Read(paths, manifest.Options{})
	Expect(err).NotTo(HaveOccurred())
	Expect(faults).To(BeEmpty())
	d := declared{set: set}
	add := func(o client.Object) {
		o.SetNamespace(namespace)
		d.objects = append(d.objects, o)
	}
	for _, o := range set.Brokers {
		add(o)
	}
	for _, o := range set.Topics {
		add(o)
	}
	for _, o := range set.Subscriptions {
		add(o)
	}
	for _, o := range set.Mailboxes {
		add(o)
	}
	for _, o := range set.Pollers {
		add(o)
	}
	for _, o := range set.Endpoints {
		add(o)
	}
	for _, o := range set.Pipelines {
		add(o)
	}
	for _, s := range set.Secrets {
		add(&corev1.Secret{ObjectMeta: named(namespace, s.Name), Data: s.Data})
	}
	return d
}

// inputOf is what manifests declare, for the compiler.
func inputOf(set *manifest.Set) compile.Input {
	return compile.Input{
		Brokers: set.Brokers, Topics: set.Topics, Subscriptions: set.Subscriptions, Mailboxes: set.Mailboxes,
		Pollers: set.Pollers, Endpoints: set.Endpoints, Pipelines: set.Pipelines, Namespaces: set.Namespaces,
	}
}

// compiled is what the command line makes of them, given what the operator's probes found.
func (d declared) compiled(ctx context.Context) compile.Result {
	GinkgoHelper()
	in := inputOf(d.set)
	in.Features = map[types.NamespacedName]v1alpha1.BrokerFeatures{}
	for _, b := range d.set.Brokers {
		var live v1alpha1.Broker
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(b), &live)).To(Succeed())
		if live.Status.Features != nil {
			in.Features[client.ObjectKeyFromObject(b)] = *live.Status.Features
		}
	}
	return compile.Compile(in)
}

func (d declared) owner(r plan.Resource) client.Object {
	GinkgoHelper()
	i := slices.IndexFunc(d.objects, func(o client.Object) bool {
		owner, err := workload.OwnerOf(o)
		return err == nil && owner.Resource == r
	})
	Expect(i).NotTo(BeNumerically("<", 0), "%s is not declared", r)
	return d.objects[i]
}

var _ = Describe("The samples", func() {
	patterns, err := filepath.Glob(filepath.Join(root, "config", "samples", "patterns", "*"))
	if err != nil || len(patterns) < 6 {
		panic("the samples of the patterns have moved")
	}
	for _, path := range append(patterns, filepath.Join(root, "config", "samples"), filepath.Join(root, "config", "samples", "quickstart")) {
		folder := strings.TrimPrefix(path, root+"/")
		It("of "+folder+" become ready in any order, with the plans of the command line", func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			d := read(namespace, filepath.Join(root, folder))
			rand.Shuffle(len(d.objects), func(i, j int) { d.objects[i], d.objects[j] = d.objects[j], d.objects[i] })
			for _, o := range d.objects {
				Expect(k8s.Create(ctx, o)).To(Succeed())
			}
			away := map[string]bool{"shared-nats": true} // a server that there is not
			for _, o := range d.objects {
				if _, secret := o.(*corev1.Secret); secret {
					continue
				}
				owner, err := workload.OwnerOf(o)
				Expect(err).NotTo(HaveOccurred())
				want := HavePrefix("True/")
				if away[o.GetName()] {
					want = Equal("False/Unreachable")
				}
				Eventually(condition(ctx, owner.Kind, namespace, o.GetName(), v1alpha1.ConditionReady)).Should(want, owner.Resource.String())
			}

			result := d.compiled(ctx)
			for _, o := range result.Outcomes {
				if o.Plan == nil {
					continue
				}
				owner, err := workload.OwnerOf(d.owner(o.Resource))
				Expect(err).NotTo(HaveOccurred())
				set, err := workload.Build(&o, owner, settings)
				Expect(err).NotTo(HaveOccurred())
				var live corev1.ConfigMap
				Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: o.Resource.Child() + "-" + set.PlanHash}, &live)).To(Succeed(), o.Resource.String())
				Expect(live.Data["plan.json"]).To(Equal(planIn(set)), o.Resource.String())
			}
		}, NodeTimeout(time1m))
	}
})

// planIn is the plan that a Set's ConfigMap holds.
func planIn(set *workload.Set) string {
	for _, u := range set.Owned {
		if u.GetKind() == "ConfigMap" {
			data, _ := u.Object["data"].(map[string]any)
			text, _ := data["plan.json"].(string)
			return text
		}
	}
	return ""
}
