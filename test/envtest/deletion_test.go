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
	"github.com/waybill-dev/waybill/runtime/broker/nats"
	"github.com/waybill-dev/waybill/runtime/message"
)

// onBroker looks at the NATS server without the operator's help.
func onBroker(ctx context.Context, ref driver.Ref) driver.State {
	GinkgoHelper()
	return onServer(ctx, server, ref)
}

func onServer(ctx context.Context, at *nats.Embedded, ref driver.Ref) driver.State {
	GinkgoHelper()
	conn, err := at.Open(ctx, driver.Config{ClientName: "test"})
	Expect(err).NotTo(HaveOccurred())
	defer conn.Close(context.Background())
	states, err := conn.Admin().Inspect(ctx, []driver.Ref{ref})
	Expect(err).NotTo(HaveOccurred())
	return states[0]
}

func publish(ctx context.Context, ref driver.Ref) {
	GinkgoHelper()
	publishTo(ctx, server, ref)
}

func publishTo(ctx context.Context, at *nats.Embedded, ref driver.Ref) {
	GinkgoHelper()
	conn, err := at.Open(ctx, driver.Config{ClientName: "test"})
	Expect(err).NotTo(HaveOccurred())
	defer conn.Close(context.Background())
	p, err := conn.Publisher(ctx, driver.PublisherSpec{Object: ref})
	Expect(err).NotTo(HaveOccurred())
	Expect(p.Publish(ctx, []message.Message{{ID: "1", Source: "/test", Type: "test", Data: []byte(`{}`)}})).To(HaveEach(BeNil()))
	Expect(p.Close(ctx)).To(Succeed())
}

var _ = Describe("Deleting a Topic", func() {
	var namespace string
	var stream driver.Ref
	var t *v1alpha1.Topic
	begin := func(ctx SpecContext, policy v1alpha1.DeletionPolicy) {
		GinkgoHelper()
		namespace = newNamespace(ctx)
		stream = driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}
		t = topic(namespace, "orders", func(s *v1alpha1.TopicSpec) { s.DeletionPolicy = policy })
		apply(ctx, natsBroker(namespace, "main"), t)
		ready(ctx, namespace, "Topic", "orders")
		Expect(onBroker(ctx, stream).Exists).To(BeTrue())
		publish(ctx, stream)
	}

	It("with Delete removes them, after its Pods have gone", func(ctx SpecContext) {
		begin(ctx, v1alpha1.DeletionDelete)
		pod := &corev1.Pod{ObjectMeta: named(namespace, "draining"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "worker", Image: "x"}}}}
		pod.Labels = map[string]string{"waybill.dev/kind": "Topic", "waybill.dev/name": "orders"}
		apply(ctx, pod)
		Expect(k8s.Delete(ctx, t)).To(Succeed())
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionReady)).Should(Equal("False/Draining"))
		Eventually(says(ctx, "Topic", namespace, "orders", v1alpha1.ConditionReady)).Should(ContainSubstring("1 Pods are ending"))
		d := &appsv1.Deployment{}
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "orders-topic"}, d)).To(Succeed())
		Expect(*d.Spec.Replicas).To(BeZero())
		Expect(onBroker(ctx, stream).Exists).To(BeTrue())

		Expect(k8s.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		Eventually(gone(ctx, t)).Should(BeTrue())
		Expect(onBroker(ctx, stream).Exists).To(BeFalse())
	}, NodeTimeout(patience))

	It("lets go after a while when the broker is gone for good, and says so on the Broker", func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		b := natsBroker(namespace, "main")
		t = topic(namespace, "orders", func(s *v1alpha1.TopicSpec) { s.DeletionPolicy = v1alpha1.DeletionDelete })
		apply(ctx, b, t)
		ready(ctx, namespace, "Topic", "orders")
		Expect(k8s.Patch(ctx, b, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"nats":{"servers":["nats://127.0.0.1:1"]}}}`)))).To(Succeed())
		Eventually(condition(ctx, "Broker", namespace, "main", v1alpha1.ConditionReady)).Should(Equal("False/Unreachable"))
		Expect(k8s.Delete(ctx, t)).To(Succeed())
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionReady)).Should(Equal("False/UnreachableFromManager"))
		Eventually(gone(ctx, t)).Should(BeTrue())
		Eventually(func(g Gomega) {
			var events corev1.EventList
			g.Expect(k8s.List(ctx, &events, client.InNamespace(namespace), client.MatchingFields{"reason": "LeftBehind"})).To(Succeed())
			g.Expect(events.Items).To(HaveLen(1))
			g.Expect(events.Items[0].Message).To(ContainSubstring(namespace + "_orders"))
		}).Should(Succeed())
	}, NodeTimeout(patience))

	It("comes before deleting its Broker", func(ctx SpecContext) {
		begin(ctx, v1alpha1.DeletionDelete)
		b := &v1alpha1.Broker{ObjectMeta: named(namespace, "main")}
		Expect(k8s.Delete(ctx, b)).To(Succeed())
		Eventually(condition(ctx, "Broker", namespace, "main", v1alpha1.ConditionReady)).Should(Equal("False/InUse"))
		Expect(says(ctx, "Broker", namespace, "main", v1alpha1.ConditionReady)()).To(ContainSubstring("Topic/" + namespace + "/orders"))
		Expect(k8s.Delete(ctx, t)).To(Succeed())
		Eventually(gone(ctx, t)).Should(BeTrue())
		Eventually(gone(ctx, b)).Should(BeTrue())
		Expect(onBroker(ctx, stream).Exists).To(BeFalse())
	}, NodeTimeout(patience))
})
