package envtest

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/message"
)

// fill publishes messages that are all different.
func fill(ctx context.Context, ref driver.Ref, from, to int) {
	GinkgoHelper()
	conn, err := server.Open(ctx, driver.Config{ClientName: "test"})
	Expect(err).NotTo(HaveOccurred())
	defer conn.Close(context.Background())
	p, err := conn.Publisher(ctx, driver.PublisherSpec{Object: ref})
	Expect(err).NotTo(HaveOccurred())
	var batch []message.Message
	for i := from; i < to; i++ {
		batch = append(batch, message.Message{ID: fmt.Sprint(i), Source: "/test", Type: "test", Data: []byte(`{}`)})
	}
	Expect(p.Publish(ctx, batch)).To(HaveEach(BeNil()))
	Expect(p.Close(ctx)).To(Succeed())
}

// counted waits until what waits for Subscriptions has been told: it is the last thing that is written of them.
func counted(ctx context.Context, namespace string, names ...string) {
	GinkgoHelper()
	for _, name := range names {
		Eventually(func(g Gomega) {
			s := new(v1alpha1.Subscription)
			g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, s)).To(Succeed())
			g.Expect(s.Status.Backlog).NotTo(BeNil())
		}).WithContext(ctx).Should(Succeed())
	}
}

var _ = Describe("The backlog", func() {
	It("is told in the status, to two digits, and written when it has changed", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		m := &v1alpha1.Mailbox{ObjectMeta: named(namespace, "invoices"), Spec: v1alpha1.MailboxSpec{BrokerRef: v1alpha1.ResourceReference{Name: "main"}}}
		s := subscription(namespace, "billing", "orders", func(s *v1alpha1.SubscriptionSpec) {
			s.StartFrom = &v1alpha1.StartFrom{Position: v1alpha1.StartEarliest}
		})
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "orders"), s, m)
		ready(ctx, namespace, "Subscription", "billing")
		ready(ctx, namespace, "Mailbox", "invoices")
		told := func(o client.Object, at **int64) func() any {
			return func() any {
				*at = nil // what is not there leaves it alone
				if err := k8s.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil || *at == nil {
					return err
				}
				return **at
			}
		}
		Eventually(told(m, &m.Status.Backlog)).Should(Equal(int64(0)))
		fill(ctx, driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}, 0, 101)
		Eventually(told(s, &s.Status.Backlog)).Should(Equal(int64(100)))
		settled(ctx, namespace)

		before := len(writes.in(namespace))
		fill(ctx, driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}, 101, 102)
		settled(ctx, namespace)
		Expect(writes.in(namespace)[before:]).To(BeEmpty(), "102 is 100 as well")
	}, NodeTimeout(patience))
})
