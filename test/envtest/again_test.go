package envtest

import (
	"context"
	"time"

	natsgo "github.com/nats-io/nats.go"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// collect plays the garbage collector: it takes away what was made for a resource that is gone.
func collect(ctx context.Context, r plan.Resource) {
	GinkgoHelper()
	for _, gvk := range workload.OwnedKinds() {
		all := new(unstructured.Unstructured)
		all.SetGroupVersionKind(gvk)
		Expect(k8s.DeleteAllOf(ctx, all, client.InNamespace(r.Namespace), client.MatchingLabels(workload.SelectorLabels(r)))).To(Succeed())
	}
}

var _ = Describe("What is on the broker", func() {
	It("is changed there when its declaration is", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		t := topic(namespace, "orders", func(s *v1alpha1.TopicSpec) {
			s.Retention = &v1alpha1.TopicRetention{MaxAge: &metav1.Duration{Duration: time.Hour}}
		})
		apply(ctx, natsBroker(namespace, "main"), t)
		ready(ctx, namespace, "Topic", "orders")
		conn, err := natsgo.Connect(server.Addr())
		Expect(err).NotTo(HaveOccurred())
		defer conn.Close()
		streams, err := conn.JetStream()
		Expect(err).NotTo(HaveOccurred())
		age := func() (time.Duration, error) {
			info, err := streams.StreamInfo(namespace + "_orders")
			if err != nil {
				return 0, err
			}
			return info.Config.MaxAge, nil
		}
		Expect(age()).To(Equal(time.Hour))
		patch(ctx, t, `{"spec":{"retention":{"maxAge":"2h"}}}`)
		Eventually(age).Should(Equal(2 * time.Hour))
		ready(ctx, namespace, "Topic", "orders")
	}, NodeTimeout(patience))

	It("is found again by a resource of the same name where it was kept, and made anew where it was not", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		policies := map[string]v1alpha1.DeletionPolicy{"kept": v1alpha1.DeletionRetain, "dropped": v1alpha1.DeletionDelete}
		apply(ctx, natsBroker(namespace, "main"))
		for name, policy := range policies {
			of := func(s *v1alpha1.TopicSpec) { s.DeletionPolicy = policy }
			stream := driver.Ref{Kind: driver.Topic, Name: namespace + "_" + name}
			t := topic(namespace, name, of)
			apply(ctx, t)
			ready(ctx, namespace, "Topic", name)
			publish(ctx, stream)
			Expect(k8s.Delete(ctx, t)).To(Succeed())
			Eventually(gone(ctx, t)).WithPolling(time.Millisecond).Should(BeTrue())
			apply(ctx, topic(namespace, name, of)) // perhaps before the operator has seen that the other one is gone
			collect(ctx, plan.Resource{Kind: "Topic", Namespace: namespace, Name: name})
			ready(ctx, namespace, "Topic", name)
			state := onBroker(ctx, stream)
			Expect(state.Exists).To(BeTrue(), name)
			Expect(state.Messages).To(Equal(map[string]int64{"kept": 1, "dropped": 0}[name]), name)
		}
	}, NodeTimeout(patience))
})
