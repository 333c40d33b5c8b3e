package envtest

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

var _ = Describe("A hundred resources", func() {
	It("are ready after a few writes each", func(ctx SpecContext) {
		const topics, perTopic = 10, 9
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"))
		ready(ctx, namespace, "Broker", "main")
		began := time.Now()
		for i := range topics {
			name := fmt.Sprintf("topic-%d", i)
			apply(ctx, topic(namespace, name))
			for j := range perTopic {
				apply(ctx, subscription(namespace, fmt.Sprintf("%s-%d", name, j), name))
			}
		}
		Eventually(func(g Gomega) {
			n := 0
			for _, u := range everything(ctx, namespace) {
				for _, c := range conditionsOf(&u) {
					if c.Type == string(v1alpha1.ConditionReady) && c.Status == metav1.ConditionTrue {
						n++
					}
				}
			}
			g.Expect(n).To(Equal(1 + topics*(1+perTopic)))
		}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(200 * time.Millisecond).Should(Succeed())
		took := time.Since(began)
		settled(ctx, namespace)

		most, of := 0, map[string]int{}
		for _, w := range writes.in(namespace) {
			_, path, _ := strings.Cut(w, "/")
			name, _, _ := strings.Cut(path, "/")
			// NAME-KIND and NAME-KIND-HASH are the resource's.
			for _, kind := range []string{"-topic", "-subscription"} {
				if i := strings.LastIndex(name, kind); i > 0 {
					name = name[:i]
				}
			}
			of[name]++
		}
		for name, n := range of {
			if strings.HasPrefix(name, "topic-") {
				most = max(most, n)
			}
		}
		AddReportEntry("scale", fmt.Sprintf("%d resources in %v, at most %d writes a resource", topics*(1+perTopic), took.Round(100*time.Millisecond), most))
		Expect(most).To(BeNumerically("<=", 8))
		Expect(k8s.DeleteAllOf(ctx, &v1alpha1.Subscription{}, client.InNamespace(namespace))).To(Succeed())
	}, NodeTimeout(2*time.Minute))
})
