package envtest

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

var _ = Describe("Deleting a whole namespace", func() {
	It("never hangs on us, whatever goes first", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		b := natsBroker(namespace, "main")
		t := topic(namespace, "orders", func(s *v1alpha1.TopicSpec) { s.DeletionPolicy = v1alpha1.DeletionDeleteIfEmpty })
		s := subscription(namespace, "billing", "orders", func(s *v1alpha1.SubscriptionSpec) { s.DeletionPolicy = v1alpha1.DeletionDelete })
		apply(ctx, b, t, s)
		ready(ctx, namespace, "Subscription", "billing")
		publish(ctx, driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"})

		Expect(k8s.Delete(ctx, &corev1.Namespace{ObjectMeta: named("", namespace)})).To(Succeed())
		// As the namespace controller does: everything at once. The Deployments are taken away with all else.
		for _, o := range []client.Object{b, t, s} {
			Expect(k8s.Delete(ctx, o)).To(Succeed())
		}
		Expect(k8s.DeleteAllOf(ctx, &appsv1.Deployment{}, client.InNamespace(namespace))).To(Succeed())
		for _, o := range []client.Object{s, t, b} {
			Eventually(gone(ctx, o)).Should(BeTrue())
		}
	}, NodeTimeout(patience))
})

var _ = Describe("Credentials", func() {
	It("that are rotated or renamed are used without anything being made anew", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		b := natsBroker(namespace, "main")
		b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "one"}
		user := func(name string) *corev1.Secret {
			return &corev1.Secret{ObjectMeta: named(namespace, name), StringData: map[string]string{"username": "waybill", "password": "x"}}
		}
		first := user("one")
		apply(ctx, first, b, topic(namespace, "orders"))
		ready(ctx, namespace, "Topic", "orders")
		d := &appsv1.Deployment{ObjectMeta: named(namespace, "orders-topic")}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		before := d.Generation

		patch(ctx, first, `{"stringData":{"password":"another"}}`)
		settled(ctx, namespace)
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		Expect(d.Generation).To(Equal(before), "a rotated Secret rolls no Pod")

		patch(ctx, b, `{"spec":{"secretRef":{"name":"two"}}}`)
		Eventually(condition(ctx, "Broker", namespace, "main", v1alpha1.ConditionAccepted)).Should(Equal("False/SecretNotFound"))
		apply(ctx, user("two"))
		ready(ctx, namespace, "Broker", "main")
		ready(ctx, namespace, "Topic", "orders")
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
			g.Expect(d.Generation).To(BeNumerically(">", before), "another Secret is mounted")
		}).Should(Succeed())
	}, NodeTimeout(patience))
})

var _ = Describe("A Broker that is away", func() {
	It("says so, and everything gets on when it is back", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		b := natsBroker(namespace, "main")
		b.Spec.NATS.Servers = []v1alpha1.BrokerAddress{"nats://127.0.0.1:1"}
		apply(ctx, b, topic(namespace, "orders"))
		Eventually(condition(ctx, "Broker", namespace, "main", v1alpha1.ConditionReady)).Should(Equal("False/Unreachable"))
		Expect(says(ctx, "Broker", namespace, "main", v1alpha1.ConditionReady)()).To(ContainSubstring("127.0.0.1:1"))
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionAccepted)).Should(Equal("Unknown/WaitingForBroker"))
		patch(ctx, b, `{"spec":{"nats":{"servers":["%s"]}}}`, server.Addr())
		ready(ctx, namespace, "Topic", "orders")
		var live v1alpha1.Broker
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(b), &live)).To(Succeed())
		Expect(live.Status.Version).NotTo(BeEmpty())
		Expect(live.Status.Features.Product).To(Equal("NATS"))
	}, NodeTimeout(patience))
})

var _ = Describe("The operator", Label(aside), func() {
	It("goes on where it was stopped, without a write when nothing is left to do", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"), subscription(namespace, "billing", "orders"))
		ready(ctx, namespace, "Subscription", "billing")
		settled(ctx, namespace)

		stopOperator()
		Expect(k8s.Delete(ctx, &corev1.Service{ObjectMeta: named(namespace, "orders-topic")})).To(Succeed())
		apply(ctx, subscription(namespace, "late", "orders"))
		startOperator()
		ready(ctx, namespace, "Subscription", "late")
		Eventually(func() error {
			return k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "orders-topic"}, &corev1.Service{})
		}).Should(Succeed())
		counted(ctx, namespace, "billing", "late")
		settled(ctx, namespace)

		stopOperator()
		startOperator()
		apply(ctx, topic(namespace, "newest"))
		ready(ctx, namespace, "Topic", "newest")
		settled(ctx, namespace)
		Expect(writes.in(namespace)).To(HaveEach(ContainSubstring("newest")))
	}, NodeTimeout(patience))

	It("converges when it is stopped at any moment", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"), subscription(namespace, "billing", "orders"))
		for stop := 1; stop <= 12; stop++ { // after so many of its writes
			Eventually(func() bool {
				return len(writes.in(namespace)) >= 1 || condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionReady)() == "True/Running"
			}).Should(BeTrue())
			stopOperator()
			startOperator()
		}
		ready(ctx, namespace, "Subscription", "billing")
		ready(ctx, namespace, "Topic", "orders")
	}, NodeTimeout(patience))
})

// stopOperator returns when the operator has ended.
func stopOperator() {
	GinkgoHelper()
	running.stop()
	Eventually(running.ended).Should(BeClosed())
	sessions.Close()
}

// running is the operator that runs.
var running struct {
	stop  context.CancelFunc
	ended <-chan struct{}
}

// runs reports whether the operator of this process does.
func runs() bool {
	select {
	case <-running.ended:
		return false
	default:
		return running.ended != nil
	}
}
