package envtest

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// patience is how long a spec may take, beside many other tests: it mostly waits for others.
const patience = 5 * time.Minute

func named(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// natsBroker leads to the NATS server of this process.
func natsBroker(namespace, name string) *v1alpha1.Broker {
	return &v1alpha1.Broker{ObjectMeta: named(namespace, name), Spec: v1alpha1.BrokerSpec{
		Type: v1alpha1.BrokerNATS, NATS: &v1alpha1.NATSBroker{Servers: []v1alpha1.BrokerAddress{v1alpha1.BrokerAddress(server.Addr())}}}}
}

func topic(namespace, name string, change ...func(*v1alpha1.TopicSpec)) *v1alpha1.Topic {
	t := &v1alpha1.Topic{ObjectMeta: named(namespace, name), Spec: v1alpha1.TopicSpec{BrokerRef: v1alpha1.ResourceReference{Name: "main"}}}
	for _, f := range change {
		f(&t.Spec)
	}
	return t
}

func subscription(namespace, name, topic string, change ...func(*v1alpha1.SubscriptionSpec)) *v1alpha1.Subscription {
	s := &v1alpha1.Subscription{ObjectMeta: named(namespace, name), Spec: v1alpha1.SubscriptionSpec{
		TopicRef: v1alpha1.ResourceReference{Name: topic}, DeliverTo: v1alpha1.Destination{URI: "https://example.com/events"}}}
	for _, f := range change {
		f(&s.Spec)
	}
	return s
}

func apply(ctx context.Context, objects ...client.Object) {
	GinkgoHelper()
	for _, o := range objects {
		Expect(k8s.Create(ctx, o)).To(Succeed())
	}
}

// ready waits until resources of a kind are.
func ready(ctx context.Context, namespace, kind string, names ...string) {
	GinkgoHelper()
	for _, name := range names {
		Eventually(condition(ctx, kind, namespace, name, v1alpha1.ConditionReady)).WithContext(ctx).Should(HavePrefix("True/"), kind+"/"+name)
	}
}

// settled waits until the operator writes nothing into a namespace any more.
func settled(ctx context.Context, namespace string) {
	GinkgoHelper()
	last := -1
	Eventually(func() bool {
		now := len(writes.in(namespace))
		same := now == last
		last = now
		return same
	}).WithContext(ctx).WithPolling(500 * time.Millisecond).Should(BeTrue())
}

var _ = Describe("A converged resource", func() {
	var namespace string
	BeforeEach(func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"), subscription(namespace, "billing", "orders"))
		ready(ctx, namespace, "Broker", "main")
		ready(ctx, namespace, "Topic", "orders")
		ready(ctx, namespace, "Subscription", "billing")
		counted(ctx, namespace, "billing")
		settled(ctx, namespace)
	}, NodeTimeout(patience))

	It("is left alone by a hundred further reconciles", func(ctx SpecContext) {
		before := writes.in(namespace)
		for range 100 {
			for _, r := range []plan.Resource{{Kind: "Broker", Namespace: namespace, Name: "main"}, {Kind: "Topic", Namespace: namespace, Name: "orders"}, {Kind: "Subscription", Namespace: namespace, Name: "billing"}} {
				_, err := operator.Reconcile(ctx, r)
				Expect(err).NotTo(HaveOccurred())
			}
		}
		Expect(writes.in(namespace)[len(before):]).To(BeEmpty())
		AddReportEntry("writes", len(before))
	}, NodeTimeout(patience))

	It("is repaired where somebody changed it by hand", func(ctx SpecContext) {
		d := &appsv1.Deployment{ObjectMeta: named(namespace, "orders-topic")}
		Expect(k8s.Patch(ctx, d, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":7,"template":{"spec":{"serviceAccountName":"default"}}}}`)))).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
			g.Expect(*d.Spec.Replicas).To(Equal(int32(1)))
			g.Expect(d.Spec.Template.Spec.ServiceAccountName).NotTo(Equal("default"))
		}).Should(Succeed())

		s := &corev1.Service{ObjectMeta: named(namespace, "orders-topic")}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(s), s)).To(Succeed())
		old := s.UID
		Expect(k8s.Delete(ctx, s)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(s), s)).To(Succeed())
			g.Expect(s.UID).NotTo(Equal(old))
		}).Should(Succeed())
		ready(ctx, namespace, "Topic", "orders")
	}, NodeTimeout(patience))

	It("keeps what others add", func(ctx SpecContext) {
		d := &appsv1.Deployment{ObjectMeta: named(namespace, "orders-topic")}
		Expect(k8s.Patch(ctx, d, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"example.com/note":"ours"}}}`)))).To(Succeed())
		settled(ctx, namespace)
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		Expect(d.Annotations).To(HaveKeyWithValue("example.com/note", "ours"))
	}, NodeTimeout(patience))
})

var _ = Describe("A reference", func() {
	It("to what does not exist waits, and proceeds when it appears", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, subscription(namespace, "billing", "orders"))
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionAccepted)).Should(Equal("False/ReferenceNotFound"))
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionReconciling)).Should(Equal("True/ReferenceNotFound"))
		Expect(says(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionAccepted)()).To(HavePrefix("spec.topicRef: there is no Topic orders in namespace"))
		apply(ctx, topic(namespace, "orders"))
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionAccepted)).Should(Equal("False/ReferenceNotFound"))
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionAccepted)).Should(Equal("False/ReferenceInvalid"))
		apply(ctx, natsBroker(namespace, "main"))
		ready(ctx, namespace, "Subscription", "billing")

		var events corev1.EventList
		Expect(k8s.List(ctx, &events, client.InNamespace(namespace))).To(Succeed())
		ours := 0
		for _, e := range events.Items {
			if e.ReportingController != "waybill" {
				continue // the API server has some of its own about Services
			}
			ours++
			Expect(e.Type).To(Equal(corev1.EventTypeNormal), "%s: %s", e.Reason, e.Message)
		}
		Expect(ours).NotTo(BeZero())
	}, NodeTimeout(patience))

	It("into another namespace is admitted by allowedNamespaces, and the Secret is handed over and taken back", func(ctx SpecContext) {
		home, guest := newNamespace(ctx), newNamespace(ctx)
		b := natsBroker(home, "main")
		b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "nats-user"}
		apply(ctx, b)
		Eventually(condition(ctx, "Broker", home, "main", v1alpha1.ConditionAccepted)).Should(Equal("False/SecretNotFound"))
		secret := &corev1.Secret{ObjectMeta: named(home, "nats-user"), StringData: map[string]string{"username": "waybill", "password": "one"}}
		apply(ctx, secret, topic(guest, "orders", func(s *v1alpha1.TopicSpec) { s.BrokerRef.Namespace = home }))
		ready(ctx, home, "Broker", "main")
		Eventually(condition(ctx, "Topic", guest, "orders", v1alpha1.ConditionAccepted)).Should(Equal("False/ReferenceNotAllowed"))
		Eventually(condition(ctx, "Topic", guest, "orders", v1alpha1.ConditionStalled)).Should(Equal("True/ReferenceNotAllowed"))

		admit := func(from v1alpha1.NamespacesFrom) {
			GinkgoHelper()
			Eventually(func(g Gomega) {
				g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(b), b)).To(Succeed())
				b.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{From: from}
				g.Expect(k8s.Update(ctx, b)).To(Succeed())
			}).Should(Succeed())
		}
		admit(v1alpha1.NamespacesAll)
		ready(ctx, guest, "Topic", "orders")
		copied := &corev1.Secret{ObjectMeta: named(guest, "waybill."+home+".nats-user")}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(copied), copied)).To(Succeed())
		Expect(string(copied.Data["password"])).To(Equal("one"))

		secret.StringData = map[string]string{"password": "two"}
		Expect(k8s.Update(ctx, secret)).To(Succeed())
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(copied), copied)).To(Succeed())
			g.Expect(string(copied.Data["password"])).To(Equal("two"))
		}).Should(Succeed())

		admit(v1alpha1.NamespacesSame)
		Eventually(gone(ctx, copied)).Should(BeTrue())
		Eventually(condition(ctx, "Topic", guest, "orders", v1alpha1.ConditionAccepted)).Should(Equal("False/ReferenceNotAllowed"))
	}, NodeTimeout(patience))
})
