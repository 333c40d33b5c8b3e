package envtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/test/laptop"
)

// read gives what manifests declare, in a namespace, as the command line reads it.
func read(namespace, path string) []client.Object {
	GinkgoHelper()
	set, faults, err := manifest.Read([]string{path}, manifest.Options{})
	Expect(err).NotTo(HaveOccurred())
	Expect(faults).To(BeEmpty())
	var all []client.Object
	add := func(o client.Object) {
		o.SetNamespace(namespace)
		all = append(all, o)
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
	return all
}

// inputOf is what manifests declare, for the compiler.
func inputOf(set *manifest.Set) compile.Input {
	return compile.Input{
		Brokers: set.Brokers, Topics: set.Topics, Subscriptions: set.Subscriptions, Mailboxes: set.Mailboxes,
		Pollers: set.Pollers, Endpoints: set.Endpoints, Pipelines: set.Pipelines, Namespaces: set.Namespaces,
	}
}

// printed are the plans that `waybill compile -o json` prints of manifests in some namespaces, given what the operator's probes found.
func printed(ctx context.Context, namespaces []string, folder string) []*plan.Plan {
	GinkgoHelper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	Expect(err).NotTo(HaveOccurred())
	args, dir := []string{"compile", "-o", "json", "-f", "-"}, GinkgoT().TempDir()
	var input bytes.Buffer
	for _, file := range files {
		for _, u := range documents(file) {
			if u.GroupVersionKind().Group != v1alpha1.GroupVersion.Group && u.GetKind() != "Secret" {
				continue
			}
			for _, namespace := range namespaces {
				u.SetNamespace(namespace)
				text, err := yaml.Marshal(u.Object)
				Expect(err).NotTo(HaveOccurred())
				fmt.Fprintf(&input, "---\n%s", text)
				if u.GetKind() == "Broker" {
					args = append(args, probed(ctx, u, dir)...)
				}
			}
		}
	}
	cmd := exec.CommandContext(ctx, laptop.Build(suite, "./cmd/waybill", laptop.AsTests()...), args...)
	cmd.Stdin, cmd.Stderr = &input, GinkgoWriter
	out, err := cmd.Output()
	Expect(err).NotTo(HaveOccurred())
	var plans []*plan.Plan
	for line := range bytes.Lines(out) {
		p, err := plan.Unmarshal(line)
		Expect(err).NotTo(HaveOccurred())
		plans = append(plans, p)
	}
	return plans
}

// probed are the flags that tell the command what the operator found of a Broker; none where it has reached none.
func probed(ctx context.Context, u client.Object, dir string) []string {
	GinkgoHelper()
	var live v1alpha1.Broker
	Expect(k8s.Get(ctx, client.ObjectKeyFromObject(u), &live)).To(Succeed())
	if live.Status.Features == nil {
		return nil
	}
	text, err := yaml.Marshal(live.Status.Features)
	Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(dir, live.Namespace+"-"+live.Name)
	Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	return []string{"--features", live.Namespace + "/" + live.Name + "=" + file}
}

// orders in which each sample is applied, each in a namespace of its own; -ginkgo.seed has the same ones again.
const orders = 4

var _ = Describe("The samples", func() {
	patterns, err := filepath.Glob(filepath.Join(root, "config", "samples", "patterns", "*"))
	if err != nil || len(patterns) < 6 {
		panic("the samples of the patterns have moved")
	}
	for _, path := range append(patterns, filepath.Join(root, "config", "samples"), filepath.Join(root, "config", "samples", "quickstart")) {
		folder := strings.TrimPrefix(path, root+"/")
		It("of "+folder+" become ready in many orders, with the plans of the command line", func(ctx SpecContext) {
			random := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 0))
			var namespaces []string
			var all []client.Object
			for range orders {
				namespace := newNamespace(ctx)
				objects := read(namespace, filepath.Join(root, folder))
				random.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
				namespaces, all = append(namespaces, namespace), append(all, objects...)
			}
			apply(ctx, all...)
			away := map[string]bool{"shared-nats": true} // a server that there is not
			for _, o := range all {
				if _, secret := o.(*corev1.Secret); secret {
					continue
				}
				owner, err := workload.OwnerOf(o)
				Expect(err).NotTo(HaveOccurred())
				want := HavePrefix("True/")
				if away[o.GetName()] {
					want = Equal("False/Unreachable")
				}
				Eventually(condition(ctx, owner.Kind, owner.Namespace, owner.Name, v1alpha1.ConditionReady)).Should(want, owner.String())
			}

			plans := printed(ctx, namespaces, filepath.Join(root, folder))
			Expect(plans).NotTo(BeEmpty())
			for _, p := range plans {
				p.Objects, p.Effective = nil, plan.Effective{} // the operator's business, which no Pod is told
				text, err := plan.Marshal(p)
				Expect(err).NotTo(HaveOccurred())
				var live corev1.ConfigMap
				Expect(k8s.Get(ctx, client.ObjectKey{Namespace: p.Resource.Namespace, Name: p.Resource.Child() + "-" + plan.Hash(text)}, &live)).To(Succeed(), p.Resource.String())
				Expect(live.Data["plan.json"]).To(Equal(string(text)), p.Resource.String())
			}
		}, NodeTimeout(patience))
	}
})
