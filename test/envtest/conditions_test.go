package envtest

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
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

func statusOf(u *unstructured.Unstructured) v1alpha1.ResourceStatus {
	GinkgoHelper()
	var o struct {
		Status v1alpha1.ResourceStatus `json:"status"`
	}
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &o)).To(Succeed())
	return o.Status
}

func conditionsOf(u *unstructured.Unstructured) []metav1.Condition {
	GinkgoHelper()
	return statusOf(u).Conditions
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

// What must not be in a message, for with it a status would never settle: times of day and of waiting, ports that a connection had by chance,
// and names that Kubernetes generates.
var unsettled = regexp.MustCompile(`\d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT|\d\.\d+(ms|µs|s)\b|:\d+->|\b0x[0-9a-f]{6,}|-[a-z0-9]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-`)

// examples may have all of that.
var examples = regexp.MustCompile(`such as \S+`)

func expectSettled(message, who string) {
	GinkgoHelper()
	Expect(examples.ReplaceAllString(message, "")).NotTo(MatchRegexp(unsettled.String()), who)
}

// goesOn are the reasons for which the operator waits or tries again; for all others somebody has to change something.
var goesOn = []v1alpha1.Reason{
	v1alpha1.ReasonReferenceNotFound, v1alpha1.ReasonReferenceInvalid, v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonWaitingForBroker, v1alpha1.ReasonUnreachable,
	v1alpha1.ReasonUnreachableFromManager, v1alpha1.ReasonRollingOut, v1alpha1.ReasonDraining, v1alpha1.ReasonNotEmpty, v1alpha1.ReasonInUse,
}

// checkConditions looks at everything that is said of resources in a namespace, after every spec.
func checkConditions(ctx context.Context, namespace string) {
	GinkgoHelper()
	if runs() {
		Eventually(func(g Gomega) {
			for _, u := range everything(ctx, namespace) {
				g.Expect(statusOf(&u).ObservedGeneration).To(Equal(u.GetGeneration()), u.GetKind()+"/"+u.GetName())
			}
		}).WithContext(ctx).Should(Succeed(), "a status speaks of the spec that there is")
	}
	reasons := declaredReasons()
	for _, u := range everything(ctx, namespace) {
		checkStatus(&u, reasons)
	}
	var events corev1.EventList
	Expect(k8s.List(ctx, &events, client.InNamespace(namespace))).To(Succeed())
	for _, e := range events.Items {
		expectSettled(e.Message, "event of "+e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name)
	}
}

// checkStatus holds one status against what is true of all.
func checkStatus(u *unstructured.Unstructured, reasons map[string]bool) {
	GinkgoHelper()
	checkComputed(u)
	who, status := u.GetKind()+"/"+u.GetName(), statusOf(u)
	if len(status.Conditions) == 0 {
		return // nobody has looked at it yet
	}
	Expect(status.ObservedGeneration).To(And(BeNumerically(">", 0), BeNumerically("<=", u.GetGeneration())), who)
	conditions := map[v1alpha1.ConditionType]metav1.Condition{}
	for _, c := range status.Conditions {
		conditions[v1alpha1.ConditionType(c.Type)] = c
		Expect(c.ObservedGeneration).To(Equal(status.ObservedGeneration), "%s: %s", who, c.Type)
		Expect(c.LastTransitionTime.IsZero()).To(BeFalse(), who)
		Expect(reasons).To(HaveKey(c.Reason), "%s has a reason that is declared nowhere", who)
		Expect(c.Message).NotTo(BeEmpty(), who)
		expectSettled(c.Message, who)
	}
	for _, t := range []v1alpha1.ConditionType{v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed, v1alpha1.ConditionReady} {
		Expect(conditions).To(HaveKey(t), who)
	}
	accepted, programmed, ready := conditions[v1alpha1.ConditionAccepted], conditions[v1alpha1.ConditionProgrammed], conditions[v1alpha1.ConditionReady]
	reconciling, goes := conditions[v1alpha1.ConditionReconciling]
	stalled, stands := conditions[v1alpha1.ConditionStalled]
	if ready.Status == metav1.ConditionTrue {
		Expect(goes || stands).To(BeFalse(), "%s is ready and said to go on or to stall", who)
		Expect(accepted.Status).To(Equal(metav1.ConditionTrue), who)
		Expect(programmed.Status).To(Equal(metav1.ConditionTrue), who)
		return
	}
	Expect(goes).NotTo(Equal(stands), "%s is not ready: either it goes on or it stalls", who)
	held := reconciling
	if stands {
		held = stalled
	}
	Expect(held.Status).To(Equal(metav1.ConditionTrue), "%s: %s is there only while it is true", who, held.Type)
	Expect(held.Reason+" "+held.Message).To(Equal(ready.Reason+" "+ready.Message), who)
	if u.GetDeletionTimestamp() != nil {
		return // then everything passes, after its deadline
	}
	Expect(slices.Contains(goesOn, v1alpha1.Reason(held.Reason))).To(Equal(goes), "%s: %s with reason %s", who, held.Type, held.Reason)
	if accepted.Status != metav1.ConditionTrue {
		for _, c := range []metav1.Condition{programmed, ready} {
			Expect(c.Status).To(Equal(metav1.ConditionFalse), "%s: %s", who, c.Type)
			Expect(c.Reason).To(Equal(accepted.Reason), "%s: %s", who, c.Type)
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
		var all sync.WaitGroup
		for _, u := range everything(ctx, namespace) {
			all.Go(func() { // what could not be done is there still, and done again
				if u.GetDeletionTimestamp() == nil {
					_ = k8s.Delete(ctx, &u)
				}
				_ = k8s.Patch(ctx, &u, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))
			})
		}
		all.Wait()
		g.Expect(everything(ctx, namespace)).To(BeEmpty())
	}).WithContext(ctx).Should(Succeed())
}
