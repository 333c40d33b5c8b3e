package envtest

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/broker/nats"
)

var _ = Describe("A broker that goes away", func() {
	It("is told of on its Broker, and not on all that was made on it", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		own, err := nats.StartEmbedded(ctx, nats.EmbeddedConfig{Dir: GinkgoT().TempDir(), Listen: "127.0.0.1:0"})
		Expect(err).NotTo(HaveOccurred())
		down := false
		shutDown := func() {
			if !down {
				down = true
				_ = own.Shutdown(context.Background())
			}
		}
		DeferCleanup(shutDown)
		b := natsBroker(namespace, "main")
		b.Spec.NATS.Servers = []v1alpha1.BrokerAddress{v1alpha1.BrokerAddress(own.Addr())}
		apply(ctx, b, topic(namespace, "orders"))
		ready(ctx, namespace, "Topic", "orders")
		settled(ctx, namespace)

		shutDown()
		Eventually(condition(ctx, "Broker", namespace, "main", v1alpha1.ConditionReady)).Should(Equal("False/Unreachable"))
		settled(ctx, namespace)
		before := len(writes.in(namespace))
		// Longer than what is made is looked at again, and by a manager that has never seen it.
		Consistently(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionReady)).WithTimeout(7 * time.Second).Should(Equal("True/Running"))
		Expect(len(writes.in(namespace))-before).To(BeNumerically("<=", 1), "a Broker's status is not written at each probe")
		stopOperator()
		startOperator()
		Consistently(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionReady)).WithTimeout(2 * time.Second).Should(Equal("True/Running"))

		// What is declared anew cannot be made, and says so.
		patch(ctx, topic(namespace, "orders"), `{"spec":{"retention":{"maxAge":"1h"}}}`)
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionProgrammed)).Should(Equal("False/UnreachableFromManager"))
	}, NodeTimeout(patience))
})
