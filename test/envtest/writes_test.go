package envtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

var _ = Describe("The operator's writes", func() {
	// Events are not counted: they are notes.
	It("are at most six a resource until it is ready, and nine for a Poller", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "first"), subscription(namespace, "second", "first"))
		ready(ctx, namespace, "Broker", "main")
		ready(ctx, namespace, "Topic", "first") // and with it what the namespace has only once
		ready(ctx, namespace, "Subscription", "second")
		settled(ctx, namespace)

		backlog := map[string]bool{}
		of := func(kind, name string, o client.Object) []string {
			GinkgoHelper()
			apply(ctx, o)
			ready(ctx, namespace, kind, name)
			settled(ctx, namespace) // a write that is on its way is counted, but not seen yet in what is read below
			requests := slices.DeleteFunc(writes.in(namespace), func(w string) bool { return !strings.Contains(w, "/"+name) })
			now := &unstructured.Unstructured{}
			now.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
			Expect(k8s.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, now)).To(Succeed())
			_, backlog[kind], _ = unstructured.NestedFieldNoCopy(now.Object, "status", "backlog")
			return requests
		}
		counts := map[string][]string{
			"Topic":        of("Topic", "orders", topic(namespace, "orders")),
			"Subscription": of("Subscription", "billing", subscription(namespace, "billing", "orders")),
			"Mailbox": of("Mailbox", "invoices", &v1alpha1.Mailbox{ObjectMeta: named(namespace, "invoices"), Spec: v1alpha1.MailboxSpec{
				BrokerRef: v1alpha1.ResourceReference{Name: "main"}, DeliverTo: &v1alpha1.Handler{URI: "https://example.com/events"}}}),
			"Endpoint": of("Endpoint", "intake", &v1alpha1.Endpoint{ObjectMeta: named(namespace, "intake"), Spec: v1alpha1.EndpointSpec{
				Pattern: v1alpha1.PatternRequestAck, To: v1alpha1.EndpointTarget{TopicRef: &v1alpha1.ResourceReference{Name: "orders"}}}}),
			"Poller": of("Poller", "rates", &v1alpha1.Poller{ObjectMeta: named(namespace, "rates"), Spec: v1alpha1.PollerSpec{
				Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Minute}},
				HTTP:     &v1alpha1.HTTPSource{URL: "https://example.com/rates"},
				To:       v1alpha1.PollerTarget{TopicRef: &v1alpha1.ResourceReference{Name: "orders"}},
			}}),
		}
		for kind, requests := range counts {
			most := 6
			if kind == "Poller" {
				most = 9
			}
			if backlog[kind] {
				most++ // written when the resource was ready
			}
			AddReportEntry(kind, fmt.Sprint(len(requests)))
			Expect(len(requests)).To(BeNumerically("<=", most), "%s:\n%s", kind, strings.Join(requests, "\n"))
		}
	}, NodeTimeout(patience))
})
