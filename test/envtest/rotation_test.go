package envtest

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

var _ = Describe("A Secret that the operator made", func() {
	It("is given new content once for each request, in steps that turn nobody away", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		b := &v1alpha1.Broker{ObjectMeta: named(namespace, "main"), Spec: v1alpha1.BrokerSpec{Type: v1alpha1.BrokerEmbedded}}
		for _, name := range []string{"one", "two"} { // both look after the namespace's key
			apply(ctx, &v1alpha1.Mailbox{ObjectMeta: named(namespace, name), Spec: v1alpha1.MailboxSpec{BrokerRef: v1alpha1.ResourceReference{Name: "main"}}})
		}
		apply(ctx, b)
		ready(ctx, namespace, "Mailbox", "one", "two")
		settled(ctx, namespace)
		var before appsv1.Deployment
		Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "one-mailbox"}, &before)).To(Succeed())

		for name, keys := range map[string][3]string{"waybill-lease-key": {"current", "next", "previous"}, "main-broker": {"password", "previousPassword", "previousPassword"}} {
			s := &corev1.Secret{ObjectMeta: named(namespace, name)}
			at := func(step int) func(Gomega) {
				return func(g Gomega) {
					g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(s), s)).To(Succeed())
					if step == 3 {
						g.Expect(s.Annotations).NotTo(HaveKey("waybill.dev/rotation"))
						g.Expect(s.Annotations).To(HaveKeyWithValue("waybill.dev/rotated", "now"))
						return
					}
					g.Expect(s.Annotations["waybill.dev/rotation"]).To(HavePrefix(fmt.Sprint(step, " ")))
				}
			}
			value := func(key string) string { return string(s.Data[key]) }
			later := func() {
				step, _, _ := strings.Cut(s.Annotations["waybill.dev/rotation"], " ")
				patch(ctx, s, `{"metadata":{"annotations":{"waybill.dev/rotation":"%s %s"}}}`, step, time.Now().Add(-25*time.Hour).UTC().Format(time.RFC3339))
			}
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(s), s)).To(Succeed())
			old := value(keys[0])
			patch(ctx, s, `{"metadata":{"annotations":{"waybill.dev/rotate":"now"}}}`)
			Eventually(at(1)).Should(Succeed())
			fresh := value(keys[1])
			Expect(value(keys[0])).To(Equal(old))
			Expect(fresh).NotTo(BeEmpty())
			Expect(fresh).NotTo(Equal(old))
			settled(ctx, namespace)
			Eventually(at(1)).Should(Succeed(), "the next step waits until every Pod has seen this one")
			later()
			Eventually(at(2)).Should(Succeed())
			Expect(value(keys[0])).To(Equal(fresh))
			Expect(value(keys[2])).To(Equal(old))
			later()
			Eventually(at(3)).Should(Succeed())
			Expect(value(keys[0])).To(Equal(fresh))
			Expect(value(keys[1]) + value(keys[2])).To(BeEmpty())
			settled(ctx, namespace)
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(s), s)).To(Succeed())
			Expect(value(keys[0])).To(Equal(fresh), "a request is carried out once")
		}
		var after appsv1.Deployment
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(&before), &after)).To(Succeed())
		Expect(after.Spec).To(Equal(before.Spec), "no Pod is rolled for it")
		ready(ctx, namespace, "Broker", "main")
	}, NodeTimeout(patience))
})
