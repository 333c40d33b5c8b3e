package envtest

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// mark is the owner mark of a resource of this cluster.
func mark(ctx context.Context, kind, namespace, name string) string {
	GinkgoHelper()
	var system corev1.Namespace
	Expect(k8s.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system)).To(Succeed())
	return "cluster-" + string(system.UID) + "/" + kind + "/" + namespace + "/" + name
}

var _ = Describe("A broker that two clusters share", func() {
	It("keeps their objects apart, in plain words", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		conn, err := server.Open(ctx, driver.Config{ClientName: "test"})
		Expect(err).NotTo(HaveOccurred())
		defer conn.Close(context.Background())
		theirs := driver.Object{Ref: driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}, Owner: "cluster-elsewhere/Topic/" + namespace + "/orders"}
		_, err = conn.Admin().Ensure(ctx, theirs)
		Expect(err).NotTo(HaveOccurred())

		// The same resource as the other cluster's, and one of our own.
		orders := topic(namespace, "orders", func(s *v1alpha1.TopicSpec) { s.DeletionPolicy = v1alpha1.DeletionDelete })
		apply(ctx, natsBroker(namespace, "main"), orders, topic(namespace, "bills"))
		ready(ctx, namespace, "Topic", "bills")
		Expect(onBroker(ctx, driver.Ref{Kind: driver.Topic, Name: namespace + "_bills"}).Owner).To(Equal(mark(ctx, "Topic", namespace, "bills")))
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionStalled)).Should(Equal("True/Conflict"))
		Expect(says(ctx, "Topic", namespace, "orders", v1alpha1.ConditionProgrammed)()).To(Equal("Topic " + namespace + "_orders on Broker " + namespace + "/main exists and belongs to Topic/" + namespace +
			"/orders of another cluster (cluster-elsewhere): give this Broker another spec.prefix, or use the object as it is by its spec.externalName"))

		// Deleting ours, whatever the policy, leaves theirs.
		Expect(k8s.Delete(ctx, orders)).To(Succeed())
		Eventually(gone(ctx, orders)).Should(BeTrue())
		Expect(onBroker(ctx, theirs.Ref).Owner).To(Equal(theirs.Owner))
	}, NodeTimeout(patience))
})

var _ = Describe("A Secret where a copy would go", func() {
	It("is a conflict, not overwritten and not deleted, even if it bears our labels", func(ctx SpecContext) {
		home, guest := newNamespace(ctx), newNamespace(ctx)
		b := natsBroker(home, "main")
		b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "nats-user"}
		b.Spec.AllowedNamespaces = &v1alpha1.AllowedNamespaces{From: v1alpha1.NamespacesAll}
		theirs := &corev1.Secret{ObjectMeta: named(guest, "waybill."+home+".nats-user"), StringData: map[string]string{"password": "theirs"}}
		theirs.Labels = map[string]string{"app.kubernetes.io/managed-by": "waybill", "waybill.dev/broker-namespace": home, "waybill.dev/broker": "main", "waybill.dev/broker-uid": "of-an-earlier-one"}
		apply(ctx, theirs, &corev1.Secret{ObjectMeta: named(home, "nats-user"), StringData: map[string]string{"username": "waybill", "password": "ours"}},
			b, topic(guest, "orders", func(s *v1alpha1.TopicSpec) { s.BrokerRef.Namespace = home }))
		Eventually(condition(ctx, "Broker", home, "main", v1alpha1.ConditionReady)).Should(Equal("False/Conflict"))
		Expect(says(ctx, "Broker", home, "main", v1alpha1.ConditionReady)()).To(Equal("Secret " + guest + "/" + theirs.Name + " exists and is not a copy of this Broker's: delete it"))
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(theirs), theirs)).To(Succeed())
		Expect(string(theirs.Data["password"])).To(Equal("theirs"))

		Expect(k8s.Delete(ctx, theirs)).To(Succeed())
		ready(ctx, home, "Broker", "main")
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(theirs), theirs)).To(Succeed())
		Expect(string(theirs.Data["password"])).To(Equal("ours"))
	}, NodeTimeout(patience))
})
