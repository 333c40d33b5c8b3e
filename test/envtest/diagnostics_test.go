package envtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/manifest"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// unsaid are what a condition says besides the command line's words: that does not mind whether there is a driver yet, and tells of a fault only
// where it is.
var unsaid = regexp.MustCompile(`is refused: put right first what is said about it$|, for which this build of Waybill has no driver: `)

// floorOf is what a probe finds of a Broker at least: of the addresses here none answers.
func floorOf(u *unstructured.Unstructured) v1alpha1.BrokerFeatures {
	kind, _, _ := unstructured.NestedString(u.Object, "spec", "type")
	for _, p := range compile.Protocols() {
		if slices.Contains(p.Types, v1alpha1.BrokerType(kind)) {
			return p.Floor
		}
	}
	return v1alpha1.BrokerFeatures{}
}

// A removal takes what a file declares to namespaces of its own.
type removal struct {
	namespaces map[string]string // from those in the file
}

func (r *removal) namespace(ctx context.Context, name string) string {
	if r.namespaces[name] == "" {
		r.namespaces[name] = newNamespace(ctx)
	}
	return r.namespaces[name]
}

// references changes the namespaces in references, and the names of broker objects, which begin with a namespace.
func (r *removal) references(ctx context.Context, node any) {
	switch n := node.(type) {
	case map[string]any:
		for k, v := range n {
			text, isText := v.(string)
			switch {
			case isText && k == "namespace":
				n[k] = r.namespace(ctx, text)
			case isText && k == "externalName" && strings.HasPrefix(text, "default_"):
				n[k] = r.namespace(ctx, "default") + strings.TrimPrefix(text, "default")
			default:
				r.references(ctx, v)
			}
		}
	case []any:
		for _, v := range n {
			r.references(ctx, v)
		}
	}
}

// declareAll gives the API server what a file declares, and returns what it took, as it is there.
func declareAll(ctx context.Context, file string) []*unstructured.Unstructured {
	GinkgoHelper()
	var taken []*unstructured.Unstructured
	to := &removal{map[string]string{}}
	for _, u := range documents(file) {
		status := u.Object["status"]
		switch {
		case u.GetAPIVersion() == "": // options for the compiler's own test
			continue
		case u.GetKind() == "Namespace":
			namespace := &corev1.Namespace{ObjectMeta: named("", to.namespace(ctx, u.GetName()))}
			labels, err := json.Marshal(u.GetLabels())
			Expect(err).NotTo(HaveOccurred())
			patch(ctx, namespace, `{"metadata":{"labels":%s}}`, labels)
			u.SetName(namespace.Name)
			taken = append(taken, u)
			continue
		case u.GetNamespace() == "":
			u.SetNamespace("default")
		case u.GetKind() == "Secret": // in another namespace; of it only the command line can know, for the operator reads none that nobody there names
			continue
		}
		to.references(ctx, u.Object)
		err := k8s.Create(ctx, u, client.FieldValidation("Strict"))
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			continue // it has no status, so nothing can be said there
		}
		Expect(err).NotTo(HaveOccurred(), "%s/%s of %s", u.GetKind(), u.GetName(), file)
		if status == nil && u.GetKind() == "Broker" {
			status = map[string]any{"features": floorOf(u)}
		}
		if status != nil {
			text, err := json.Marshal(map[string]any{"status": status})
			Expect(err).NotTo(HaveOccurred())
			Expect(k8s.Status().Patch(ctx, u, client.RawPatch("application/merge-patch+json", text))).To(Succeed())
		}
		u.SetManagedFields(nil)
		taken = append(taken, u)
	}
	return taken
}

// validated is what `waybill validate` finds in objects, told as it tells it.
func validated(objects []*unstructured.Unstructured) map[plan.Resource][]manifest.Diagnostic {
	GinkgoHelper()
	var input bytes.Buffer
	for _, u := range objects {
		text, err := yaml.Marshal(u.Object)
		Expect(err).NotTo(HaveOccurred())
		input.WriteString("---\n")
		input.Write(text)
	}
	set, found, err := manifest.Read([]string{"-"}, manifest.Options{Stdin: &input})
	Expect(err).NotTo(HaveOccurred())
	in := inputOf(set)
	in.Secrets, in.Flaws = map[types.NamespacedName][]string{}, map[types.NamespacedName]map[string]secret.Flaw{}
	for _, s := range set.Secrets {
		name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
		in.Secrets[name], in.Flaws[name] = slices.Collect(maps.Keys(s.Data)), secret.FlawsOf(s.Data)
	}
	for _, d := range compile.Compile(in).Diagnostics {
		if d.Reason != v1alpha1.ReasonReferenceInvalid && d.Reason != v1alpha1.ReasonBrokerNotBuilt {
			found = append(found, manifest.Diagnostic{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, Field: d.Field, Reason: string(d.Reason), Message: d.Message})
		}
	}
	faults := map[plan.Resource][]manifest.Diagnostic{}
	for _, d := range found {
		r := plan.Resource{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name}
		faults[r] = append(faults[r], d)
	}
	return faults
}

var _ = Describe("What the compiler refuses", func() {
	It("is told in conditions in the command line's words", func(ctx SpecContext) {
		var objects []*unstructured.Unstructured
		for _, pattern := range []string{"compile/testdata/refused-*.in.yaml", "manifest/testdata/wrong/*.yaml"} {
			files, err := filepath.Glob(filepath.Join(root, "runtime", pattern))
			Expect(err).NotTo(HaveOccurred())
			Expect(files).NotTo(BeEmpty(), pattern)
			for _, file := range files {
				if filepath.Base(file) == "refused-waiting.in.yaml" {
					continue // the command line waits for no broker
				}
				objects = append(objects, declareAll(ctx, file)...)
			}
		}
		faults, refused := validated(objects), 0
		reasons := map[string]bool{}
		for _, u := range objects {
			if u.GroupVersionKind().Group != v1alpha1.GroupVersion.Group {
				continue
			}
			r := plan.Resource{Kind: u.GetKind(), Namespace: u.GetNamespace(), Name: u.GetName()}
			Eventually(func(g Gomega) { compareWords(ctx, g, r, faults[r]) }).WithContext(ctx).Should(Succeed(), "%s %v", r, faults[r])
			for _, d := range faults[r] {
				reasons[d.Reason] = true
			}
			if len(faults[r]) > 0 {
				refused++
			}
			delete(faults, r)
		}
		Expect(faults).To(BeEmpty(), "faults of what is not there")
		Expect(len(reasons)).To(BeNumerically(">=", 14), "%v", reasons)
		suite.Attr("report", fmt.Sprintf("compiler's diagnostics as conditions: %d resources with faults, %d reasons", refused, len(reasons)))
	}, NodeTimeout(2*patience))
})

// compareWords compares a resource's conditions with what the command line has against it.
func compareWords(ctx context.Context, g Gomega, r plan.Resource, faults []manifest.Diagnostic) {
	c := full(ctx, r.Kind, r.Namespace, r.Name, v1alpha1.ConditionAccepted)
	g.Expect(c).NotTo(BeNil())
	var said, besides []string
	if c.Status != "True" {
		for line := range strings.SplitSeq(c.Message, "\n") {
			if unsaid.MatchString(line) {
				besides = append(besides, line)
			} else {
				said = append(said, line)
			}
		}
	}
	var want, reasons []string
	stalls := slices.ContainsFunc(besides, func(line string) bool { return strings.Contains(line, "has no driver") })
	if stalls {
		reasons = append(reasons, string(v1alpha1.ReasonBrokerNotBuilt))
	}
	for _, d := range faults {
		words := d.Field + ": " + d.Message
		if !slices.Contains(want, words) {
			want = append(want, words)
		}
		if !slices.Contains(goesOn, v1alpha1.Reason(d.Reason)) {
			stalls, reasons = true, append(reasons, d.Reason)
		}
	}
	g.Expect(said).To(ConsistOf(want))
	if len(said)+len(besides) == 0 {
		return
	}
	if !stalls {
		for _, reason := range goesOn {
			reasons = append(reasons, string(reason))
		}
	}
	g.Expect(reasons).To(ContainElement(c.Reason))
	held := v1alpha1.ConditionReconciling
	if stalls {
		held = v1alpha1.ConditionStalled
	}
	for _, t := range []v1alpha1.ConditionType{held, v1alpha1.ConditionProgrammed, v1alpha1.ConditionReady} {
		other := full(ctx, r.Kind, r.Namespace, r.Name, t)
		g.Expect(other).NotTo(BeNil(), string(t))
		g.Expect(other.Reason+" "+other.Message).To(Equal(c.Reason+" "+c.Message), string(t))
	}
}
