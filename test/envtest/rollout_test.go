package envtest

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

func patch(ctx context.Context, o client.Object, format string, args ...any) {
	GinkgoHelper()
	Expect(k8s.Patch(ctx, o, client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, format, args...)))).To(Succeed())
}

// plans are the names of the plan ConfigMaps of a resource.
func plans(ctx context.Context, namespace, child string) []string {
	GinkgoHelper()
	var list corev1.ConfigMapList
	Expect(k8s.List(ctx, &list, client.InNamespace(namespace))).To(Succeed())
	var names []string
	for _, m := range list.Items {
		if strings.HasPrefix(m.Name, child+"-") {
			names = append(names, m.Name)
		}
	}
	return names
}

var _ = Describe("A change of a Subscription", func() {
	var namespace string
	var s *v1alpha1.Subscription
	var d *appsv1.Deployment
	BeforeEach(func(ctx SpecContext) {
		namespace = newNamespace(ctx)
		s = subscription(namespace, "billing", "orders")
		d = &appsv1.Deployment{ObjectMeta: named(namespace, "billing-subscription")}
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"), s)
		ready(ctx, namespace, "Subscription", "billing")
	}, NodeTimeout(patience))
	read := func(ctx context.Context) { Expect(k8s.Get(ctx, client.ObjectKeyFromObject(s), s)).To(Succeed()) }

	It("is ready when every Pod runs the new plan, and keeps the old plan until then", func(ctx SpecContext) {
		read(ctx)
		old := s.Status.PlanHash
		Expect(old).NotTo(BeEmpty())
		Expect(s.Status.Effective.Guarantee).To(Equal(v1alpha1.GuaranteeAtLeastOnce))
		Expect(s.Status.Objects).To(HaveLen(2)) // its position and its dead letter
		release := pods.hold(ctx, d)
		patch(ctx, s, `{"spec":{"filter":{"cel":"type == 'order.created'"}}}`)
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionReady)).Should(Equal("False/RollingOut"))
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionReconciling)).Should(Equal("True/RollingOut"))
		Expect(plans(ctx, namespace, "billing-subscription")).To(HaveLen(2))
		read(ctx)
		Expect(s.Status.PlanHash).To(Equal(old))

		release()
		ready(ctx, namespace, "Subscription", "billing")
		read(ctx)
		Expect(s.Status.PlanHash).NotTo(Equal(old))
		Eventually(func() []string { return plans(ctx, namespace, "billing-subscription") }).Should(ConsistOf("billing-subscription-" + s.Status.PlanHash))
	}, NodeTimeout(patience))

	It("that is refused is told in the command line's words, and leaves running what runs", func(ctx SpecContext) {
		read(ctx)
		old := s.Status.PlanHash
		patch(ctx, s, `{"spec":{"filter":{"cel":"type == "}}}`)
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionStalled)).Should(Equal("True/InvalidExpression"))
		Expect(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionAccepted)()).To(Equal("False/InvalidExpression"))
		Expect(says(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionAccepted)()).To(HavePrefix("spec.filter.cel: "))
		Expect(plans(ctx, namespace, "billing-subscription")).To(ConsistOf("billing-subscription-" + old))
		Eventually(func(g Gomega) {
			var events corev1.EventList
			g.Expect(k8s.List(ctx, &events, client.InNamespace(namespace), client.MatchingFields{"reason": "InvalidExpression"})).To(Succeed())
			g.Expect(events.Items).To(HaveLen(1))
		}).Should(Succeed())
		patch(ctx, s, `{"spec":{"filter":null}}`)
		ready(ctx, namespace, "Subscription", "billing")
	}, NodeTimeout(patience))

	It("pauses it and lets it go on", func(ctx SpecContext) {
		patch(ctx, s, `{"spec":{"state":"Paused"}}`)
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionReady)).Should(Equal("True/Paused"))
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(d), d)).To(Succeed())
		Expect(*d.Spec.Replicas).To(BeZero())
		Expect(onBroker(ctx, driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}).Exists).To(BeTrue())
		patch(ctx, s, `{"spec":{"state":"Running"}}`)
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionReady)).Should(Equal("True/Running"))
	}, NodeTimeout(patience))

	It("scales it by the scale subresource, also to nothing", func(ctx SpecContext) {
		scale := func(n int32) {
			GinkgoHelper()
			Expect(k8s.SubResource("scale").Update(ctx, s, client.WithSubResourceBody(&autoscalingv1.Scale{
				ObjectMeta: named(namespace, "billing"), Spec: autoscalingv1.ScaleSpec{Replicas: n}}))).To(Succeed())
		}
		scale(3)
		Eventually(func(g Gomega) {
			var is autoscalingv1.Scale
			g.Expect(k8s.SubResource("scale").Get(ctx, s, &is)).To(Succeed())
			g.Expect(is.Status.Replicas).To(Equal(int32(3)))
			g.Expect(is.Status.Selector).NotTo(BeEmpty())
		}).Should(Succeed())
		scale(0)
		Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionReady)).Should(Equal("True/ScaledToZero"))
	}, NodeTimeout(patience))
})

var _ = Describe("An object that belongs to somebody else", func() {
	It("is left alone and named; when it is gone the resource gets on", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		stranger := &corev1.Service{ObjectMeta: named(namespace, "orders-topic"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}}}
		apply(ctx, stranger, natsBroker(namespace, "main"), topic(namespace, "orders"))
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionProgrammed)).Should(Equal("False/Conflict"))
		Expect(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionStalled)()).To(Equal("True/Conflict"))
		Expect(says(ctx, "Topic", namespace, "orders", v1alpha1.ConditionProgrammed)()).To(HavePrefix("Service orders-topic exists and was not made by Waybill"))
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(stranger), stranger)).To(Succeed())
		Expect(stranger.Spec.Ports).To(HaveLen(1))
		Expect(k8s.Delete(ctx, stranger)).To(Succeed())
		patch(ctx, topic(namespace, "orders"), `{"spec":{"maxMessageBytes":"256Ki"}}`) // else it is looked at now and then
		ready(ctx, namespace, "Topic", "orders")
	}, NodeTimeout(patience))

	It("on the broker is a conflict too, and two resources never share one", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		conn, err := server.Open(ctx, driver.Config{ClientName: "test"})
		Expect(err).NotTo(HaveOccurred())
		defer conn.Close(context.Background())
		ref := driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}
		_, err = conn.Admin().Ensure(ctx, driver.Object{Ref: ref, Owner: "Topic/elsewhere/orders"})
		Expect(err).NotTo(HaveOccurred())
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"))
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionProgrammed)).Should(Equal("False/Conflict"))
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "orders-topic"}, &appsv1.Deployment{})).NotTo(Succeed())

		apply(ctx, topic(namespace, "first", func(s *v1alpha1.TopicSpec) { s.ExternalName = namespace + "_orders" }))
		apply(ctx, topic(namespace, "second", func(s *v1alpha1.TopicSpec) { s.ExternalName = namespace + "_orders" }))
		Eventually(condition(ctx, "Topic", namespace, "second", v1alpha1.ConditionAccepted)).Should(Equal("False/Conflict"))
	}, NodeTimeout(patience))

	It("that is removed from the broker is made again", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"))
		ready(ctx, namespace, "Topic", "orders")
		conn, err := server.Open(ctx, driver.Config{ClientName: "test"})
		Expect(err).NotTo(HaveOccurred())
		defer conn.Close(context.Background())
		ref := driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}
		Expect(conn.Admin().Delete(ctx, ref, mark(ctx, "Topic", namespace, "orders"), false)).To(Succeed())
		Eventually(func() bool { return onBroker(ctx, ref).Exists }).Should(BeTrue())
		Eventually(func(g Gomega) {
			var events corev1.EventList
			g.Expect(k8s.List(ctx, &events, client.InNamespace(namespace), client.MatchingFields{"reason": "Drifted"})).To(Succeed())
			g.Expect(events.Items).To(HaveLen(1))
		}).Should(Succeed())
	}, NodeTimeout(patience))
})
