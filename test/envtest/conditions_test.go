package envtest

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

var kindNames = []string{"Broker", "Topic", "Subscription", "Mailbox", "Poller", "Endpoint", "Pipeline"}

// everything lists all resources of a namespace.
func everything(ctx context.Context, namespace string) []unstructured.Unstructured {
	GinkgoHelper()
	var all []unstructured.Unstructured
	for _, kind := range kindNames {
		list := new(unstructured.UnstructuredList)
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind + "List"))
		Expect(k8s.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		all = append(all, list.Items...)
	}
	return all
}

func conditionsOf(u *unstructured.Unstructured) []metav1.Condition {
	GinkgoHelper()
	var status struct {
		Status v1alpha1.ResourceStatus `json:"status"`
	}
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &status)).To(Succeed())
	return status.Status.Conditions
}

// condition reads one condition as "STATUS/REASON"; "" while it is not there, or speaks of an earlier generation.
func condition(ctx context.Context, kind, namespace, name string, t v1alpha1.ConditionType) func() string {
	return func() string {
		c := full(ctx, kind, namespace, name, t)
		if c == nil {
			return ""
		}
		return string(c.Status) + "/" + c.Reason
	}
}

func says(ctx context.Context, kind, namespace, name string, t v1alpha1.ConditionType) func() string {
	return func() string {
		if c := full(ctx, kind, namespace, name, t); c != nil {
			return c.Message
		}
		return ""
	}
}

func full(ctx context.Context, kind, namespace, name string, t v1alpha1.ConditionType) *metav1.Condition {
	u := new(unstructured.Unstructured)
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	if k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, u) != nil {
		return nil
	}
	c := meta.FindStatusCondition(conditionsOf(u), string(t))
	if c == nil || c.ObservedGeneration != u.GetGeneration() {
		return nil
	}
	return c
}

// What must not be in a message, for with it a status would never settle: times of day, and names that Kubernetes generates.
var unsettled = regexp.MustCompile(`\d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT|-[0-9a-f]{8,10}-[a-z0-9]{5}\b`)

// checkConditions looks at every condition in a namespace, after every spec.
func checkConditions(ctx context.Context, namespace string) {
	GinkgoHelper()
	reasons := declaredReasons()
	for _, u := range everything(ctx, namespace) {
		who := u.GetKind() + "/" + u.GetName()
		types := map[string]metav1.ConditionStatus{}
		for _, c := range conditionsOf(&u) {
			types[c.Type] = c.Status
			Expect(c.ObservedGeneration).To(BeNumerically(">", 0), who)
			Expect(c.ObservedGeneration).To(BeNumerically("<=", u.GetGeneration()), who)
			Expect(reasons).To(HaveKey(c.Reason), "%s has a reason that is declared nowhere", who)
			Expect(c.Message).NotTo(BeEmpty(), who)
			Expect(c.Message).NotTo(MatchRegexp(unsettled.String()), who)
		}
		if len(types) == 0 {
			continue // nobody has looked at it yet
		}
		for _, t := range []v1alpha1.ConditionType{v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed, v1alpha1.ConditionReady} {
			Expect(types).To(HaveKey(string(t)), who)
		}
		for _, t := range []v1alpha1.ConditionType{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
			if status, there := types[string(t)]; there {
				Expect(status).To(Equal(metav1.ConditionTrue), "%s: %s is there only while it is true", who, t)
				Expect(types[string(v1alpha1.ConditionReady)]).NotTo(Equal(metav1.ConditionTrue), who)
			}
		}
		if types[string(v1alpha1.ConditionReady)] == metav1.ConditionTrue {
			Expect(types[string(v1alpha1.ConditionAccepted)]).To(Equal(metav1.ConditionTrue), who)
			Expect(types[string(v1alpha1.ConditionProgrammed)]).To(Equal(metav1.ConditionTrue), who)
		} else {
			Expect(types).To(Or(HaveKey("Reconciling"), HaveKey("Stalled")), "%s is not ready and says neither that it goes on nor that it stalls", who)
		}
	}
}

// declaredReasons are the typed reasons of the API.
func declaredReasons() map[string]bool {
	GinkgoHelper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "api", "v1alpha1", "conditions.go"), nil, 0)
	Expect(err).NotTo(HaveOccurred())
	reasons := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if t, ok := spec.Type.(*ast.Ident); ok && t.Name == "Reason" {
				text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				Expect(err).NotTo(HaveOccurred())
				reasons[text] = true
			}
		}
		return true
	})
	return reasons
}

// removeAll takes everything away, whatever waits: there is no garbage collector here, and specs should not see each other.
func removeAll(ctx context.Context, namespace string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		all := everything(ctx, namespace)
		for i := range all {
			u := &all[i]
			if u.GetDeletionTimestamp() == nil {
				g.Expect(client.IgnoreNotFound(k8s.Delete(ctx, u))).To(Succeed())
			}
			patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
			g.Expect(client.IgnoreNotFound(k8s.Patch(ctx, u, patch))).To(Succeed())
		}
		g.Expect(everything(ctx, namespace)).To(BeEmpty())
	}).WithContext(ctx).Should(Succeed())
}
