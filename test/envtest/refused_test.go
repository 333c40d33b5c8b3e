package envtest

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

var _ = Describe("Deleting what is refused", func() {
	for _, test := range []struct {
		policy v1alpha1.DeletionPolicy
		stays  bool
	}{{v1alpha1.DeletionDelete, false}, {v1alpha1.DeletionDeleteIfEmpty, false}, {v1alpha1.DeletionRetain, true}} {
		It("does as deletionPolicy says with what was made before, also by another manager: "+string(test.policy), func(ctx SpecContext) {
			namespace := newNamespace(ctx)
			s := subscription(namespace, "billing", "orders", func(s *v1alpha1.SubscriptionSpec) { s.DeletionPolicy = test.policy })
			m := &v1alpha1.Mailbox{ObjectMeta: named(namespace, "invoices"), Spec: v1alpha1.MailboxSpec{
				BrokerRef: v1alpha1.ResourceReference{Name: "main"}, DeletionPolicy: test.policy, DeliverTo: &v1alpha1.Handler{URI: "https://example.com/events"}}}
			apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"), s, m)
			ready(ctx, namespace, "Subscription", "billing")
			ready(ctx, namespace, "Mailbox", "invoices")
			made := []driver.Ref{
				{Kind: driver.Group, Name: namespace + "_billing_subscription", Of: namespace + "_orders"},
				{Kind: driver.Queue, Name: namespace + "_billing_subscription_dead"},
				{Kind: driver.Queue, Name: namespace + "_invoices_mailbox"},
			}
			for _, ref := range made {
				Expect(onBroker(ctx, ref).Exists).To(BeTrue(), ref.Name)
			}

			patch(ctx, s, `{"spec":{"filter":{"cel":"type == "}}}`)
			patch(ctx, m, `{"spec":{"deadLetter":{"mailboxRef":{"name":"nowhere"}}}}`)
			Eventually(condition(ctx, "Subscription", namespace, "billing", v1alpha1.ConditionAccepted)).Should(HavePrefix("False/"))
			Eventually(condition(ctx, "Mailbox", namespace, "invoices", v1alpha1.ConditionAccepted)).Should(HavePrefix("False/"))
			stopOperator()
			startOperator()
			for _, o := range []client.Object{s, m} {
				Expect(k8s.Delete(ctx, o)).To(Succeed())
				Eventually(gone(ctx, o)).Should(BeTrue())
			}
			for _, ref := range made {
				Expect(onBroker(ctx, ref).Exists).To(Equal(test.stays), ref.Name)
			}
		}, NodeTimeout(patience))
	}

	It("says what nobody can find any more, when what it refers to is gone too", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		t := topic(namespace, "orders")
		s := subscription(namespace, "billing", "orders", func(s *v1alpha1.SubscriptionSpec) { s.DeletionPolicy = v1alpha1.DeletionDelete })
		apply(ctx, natsBroker(namespace, "main"), t, s)
		ready(ctx, namespace, "Subscription", "billing")
		stopOperator()
		patch(ctx, t, `{"metadata":{"finalizers":null}}`)
		Expect(k8s.Delete(ctx, t)).To(Succeed())
		Expect(k8s.Delete(ctx, s)).To(Succeed())
		startOperator()
		Eventually(gone(ctx, s)).Should(BeTrue())
		Eventually(func(g Gomega) {
			var events corev1.EventList
			g.Expect(k8s.List(ctx, &events, client.InNamespace(namespace), client.MatchingFields{"reason": "LeftBehind"})).To(Succeed())
			g.Expect(events.Items).NotTo(BeEmpty())
		}).Should(Succeed())
	}, NodeTimeout(patience))

	It("takes a Poller's checkpoint along with Delete and not with Retain", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "rates"))
		for policy, stays := range map[v1alpha1.DeletionPolicy]bool{v1alpha1.DeletionRetain: true, v1alpha1.DeletionDelete: false} {
			name := map[bool]string{true: "kept", false: "dropped"}[stays]
			p := &v1alpha1.Poller{ObjectMeta: named(namespace, name), Spec: v1alpha1.PollerSpec{
				Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: patience}}, DeletionPolicy: policy,
				HTTP: &v1alpha1.HTTPSource{URL: "https://example.com/rates"}, To: v1alpha1.PollerTarget{TopicRef: &v1alpha1.ResourceReference{Name: "rates"}},
			}}
			apply(ctx, p)
			ready(ctx, namespace, "Poller", name)
			patch(ctx, p, `{"spec":{"items":{"cel":"body.("}}}`)
			Eventually(condition(ctx, "Poller", namespace, name, v1alpha1.ConditionAccepted)).Should(HavePrefix("False/"))
			Expect(k8s.Delete(ctx, p)).To(Succeed())
			Eventually(gone(ctx, p)).Should(BeTrue())
			checkpoint := &corev1.ConfigMap{ObjectMeta: named(namespace, name+"-poller-checkpoint")}
			Expect(gone(ctx, checkpoint)()).To(Equal(!stays), name)
		}
	}, NodeTimeout(patience))
})
