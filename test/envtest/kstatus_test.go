package envtest

import (
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// computed is what kstatus itself, by which kubectl plugins, Flux and Argo CD wait for resources, makes of an object.
func computed(u *unstructured.Unstructured) status.Status {
	GinkgoHelper()
	result, err := status.Compute(u)
	Expect(err).NotTo(HaveOccurred())
	return result.Status
}

// checkComputed holds it against what the object's conditions say.
func checkComputed(u *unstructured.Unstructured) {
	GinkgoHelper()
	want, told := status.InProgressStatus, statusOf(u)
	switch is := trueOf(told); {
	case u.GetDeletionTimestamp() != nil:
		want = status.TerminatingStatus
	case told.ObservedGeneration != u.GetGeneration(): // nobody has looked at what is declared now
	case is[v1alpha1.ConditionReady]:
		want = status.CurrentStatus
	case is[v1alpha1.ConditionStalled]:
		want = status.FailedStatus
	}
	Expect(computed(u)).To(Equal(want), "%s/%s: %v", u.GetKind(), u.GetName(), told)
}

func trueOf(s v1alpha1.ResourceStatus) map[v1alpha1.ConditionType]bool {
	is := map[v1alpha1.ConditionType]bool{}
	for _, c := range s.Conditions {
		is[v1alpha1.ConditionType(c.Type)] = c.Status == "True"
	}
	return is
}

var _ = Describe("kstatus", func() {
	It("sees a resource of each kind in progress until it is ready, failed when somebody has to mend it, and terminating at its end", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		stopOperator()
		all := []client.Object{natsBroker(namespace, "main"), topic(namespace, "orders"), subscription(namespace, "billing", "orders")}
		for _, l := range leavers(namespace) {
			if l.GetName() == "retained" || l.kind == "Endpoint" { // one of each kind
				all = append(all, l.Object)
			}
		}
		is := func(want status.Status) {
			GinkgoHelper()
			Eventually(func(g Gomega) {
				now := everything(ctx, namespace)
				g.Expect(now).NotTo(BeEmpty())
				for _, u := range now {
					g.Expect(computed(&u)).To(Equal(want), u.GetKind()+"/"+u.GetName())
				}
			}).WithContext(ctx).Should(Succeed())
		}
		apply(ctx, all[1:]...)
		is(status.InProgressStatus) // nobody has looked at them
		startOperator()
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionAccepted)).Should(Equal("False/ReferenceNotFound"))
		is(status.InProgressStatus)
		apply(ctx, all[0], topic(namespace, "quiet"),
			&v1alpha1.Mailbox{ObjectMeta: named(namespace, "sink"), Spec: v1alpha1.MailboxSpec{BrokerRef: v1alpha1.ResourceReference{Name: "main"}}})
		is(status.CurrentStatus)
		kinds := map[string]bool{}
		for _, u := range everything(ctx, namespace) {
			kinds[u.GetKind()] = true
		}
		Expect(kinds).To(HaveLen(len(kindNames)))

		of := func(kind, name string) func() status.Status {
			return func() status.Status {
				u := new(unstructured.Unstructured)
				u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
				Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, u)).To(Succeed())
				return computed(u)
			}
		}
		patch(ctx, all[2], `{"spec":{"filter":{"cel":"datas.total > 100"}}}`)
		Eventually(of("Subscription", "billing")).Should(Equal(status.FailedStatus))
		release := pods.hold(ctx, &appsv1.Deployment{ObjectMeta: named(namespace, "orders-topic")})
		patch(ctx, all[1], `{"spec":{"replicas":2}}`)
		Eventually(of("Topic", "orders")).Should(Equal(status.InProgressStatus))
		Expect(k8s.Delete(ctx, all[1])).To(Succeed())
		Expect(of("Topic", "orders")()).To(Equal(status.TerminatingStatus))
		release()
	}, NodeTimeout(patience))
})
