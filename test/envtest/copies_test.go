package envtest

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
)

var _ = Describe("Copies of a Broker's Secret", func() {
	user := func(namespace, name string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: named(namespace, name), StringData: map[string]string{"username": "waybill", "password": "x"}}
	}
	shared := func(home, name string) *v1alpha1.Broker {
		b := natsBroker(home, name)
		b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "nats-user"}
		b.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesAll}
		return b
	}
	from := func(home, broker string) func(*v1alpha1.TopicSpec) {
		return func(s *v1alpha1.TopicSpec) { s.BrokerRef = v1alpha1.ResourceReference{Namespace: home, Name: broker} }
	}

	It("reach every namespace but the one that has something in their way, and the Broker says which", func(ctx SpecContext) {
		home, crowded, roomy := newNamespace(ctx), newNamespace(ctx), newNamespace(ctx)
		crowded, roomy = min(crowded, roomy), max(crowded, roomy) // it comes first
		apply(ctx, user(crowded, "waybill."+home+".nats-user"), user(home, "nats-user"), shared(home, "main"))
		apply(ctx, topic(crowded, "orders", from(home, "main")), topic(roomy, "orders", from(home, "main")))
		ready(ctx, roomy, "Topic", "orders")
		Eventually(condition(ctx, "Broker", home, "main", v1alpha1.ConditionReady)).Should(Equal("False/Conflict"))
		Expect(says(ctx, "Broker", home, "main", v1alpha1.ConditionReady)()).To(ContainSubstring("Secret " + crowded + "/"))
		Expect(k8s.Delete(ctx, user(crowded, "waybill."+home+".nats-user"))).To(Succeed())
		patch(ctx, &v1alpha1.Broker{ObjectMeta: named(home, "main")}, `{"metadata":{"annotations":{"look":"again"}}}`) // and not in half a minute
		ready(ctx, home, "Broker", "main")
	}, NodeTimeout(patience))

	It("are handed over when another Broker with the same Secret comes to give them out", func(ctx SpecContext) {
		home, guest := newNamespace(ctx), newNamespace(ctx)
		main, another := shared(home, "main"), shared(home, "another")
		own := user(home, "nats-user")
		own.StringData["tls.key"] = "nobody else's"
		apply(ctx, own, main, topic(guest, "orders", from(home, "main")))
		ready(ctx, guest, "Topic", "orders")
		owner := func() string { return ownerOfCopy(ctx, guest, home) }
		Expect(owner()).To(Equal("main"))
		apply(ctx, another, topic(guest, "bills", from(home, "another")))
		ready(ctx, guest, "Topic", "bills")
		Eventually(owner).WithContext(ctx).Should(Equal("another"))
		ready(ctx, home, "Broker", "main", "another")
		copied := new(corev1.Secret)
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: guest, Name: "waybill." + home + ".nats-user"}, copied)).To(Succeed())
		Expect(copied.Data).To(And(HaveLen(2), HaveKey("username"), HaveKey("password")), "what no Pod reads stays where it is")

		// One that is refused lets go of nothing by itself.
		patch(ctx, another, `{"spec":{"nats":{"tls":{"caSecretRef":{"name":"missing"}}}}}`)
		Eventually(condition(ctx, "Broker", home, "another", v1alpha1.ConditionAccepted)).Should(HavePrefix("False/"))
		Eventually(owner).WithContext(ctx).Should(Equal("main"))
		ready(ctx, home, "Broker", "main")
		patch(ctx, own, `{"stringData":{"password":"another"}}`)
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(copied), copied)).To(Succeed())
			g.Expect(string(copied.Data["password"])).To(Equal("another"))
		}).Should(Succeed())
	}, NodeTimeout(patience))
})

// ownerOfCopy is the Broker whose copy a Secret is.
func ownerOfCopy(ctx context.Context, guest, home string) string {
	s := new(corev1.Secret)
	if k8s.Get(ctx, client.ObjectKey{Namespace: guest, Name: "waybill." + home + ".nats-user"}, s) != nil {
		return ""
	}
	return s.Labels[workload.LabelBroker]
}
