package envtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
)

// A cut lets so many of the operator's writes into a namespace through and no other: there it has crashed after them, as far as the API server
// and the broker can tell. With lost, the answer to the last one does not come back either.
type cut struct {
	mu   sync.Mutex
	left map[string]int
	lost map[string]bool
}

var errCut = errors.New("the operator has crashed, says the test")

// cuts is where specs say what they want cut; startOperator puts it between operator and API server.
var cuts = &cut{left: map[string]int{}, lost: map[string]bool{}}

func (c *cut) after(namespace string, writes int, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left[namespace], c.lost[namespace] = writes, lost
}

func (c *cut) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.lost = map[string]int{}, map[string]bool{}
}

// reached reports whether nothing more gets through.
func (c *cut) reached(namespace string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	left, cut := c.left[namespace]
	return cut && left <= 0
}

func (c *cut) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		namespace, write := writeInto(r)
		if !write {
			return next.RoundTrip(r)
		}
		c.mu.Lock()
		left, cut := c.left[namespace]
		lost := c.lost[namespace] && left == 1
		c.left[namespace] = left - 1
		if !cut {
			delete(c.left, namespace)
		}
		c.mu.Unlock()
		if cut && left <= 0 {
			return nil, errCut
		}
		response, err := next.RoundTrip(r)
		if lost && err == nil {
			_ = response.Body.Close()
			return nil, errCut
		}
		return response, err
	})
}

// made is what is in a namespace because of the resources there, named so that two namespaces can be compared.
func made(ctx context.Context, namespace string) []string {
	GinkgoHelper()
	var all []string
	for _, gvk := range append(workload.OwnedKinds(), corev1.SchemeGroupVersion.WithKind("Secret")) {
		list := new(unstructured.UnstructuredList)
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		Expect(k8s.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{workload.LabelManagedBy: workload.ManagedBy})).To(Succeed())
		for _, u := range list.Items {
			name := u.GetName()
			if gvk.Kind == "ConfigMap" && metav1.GetControllerOf(&u) != nil { // a plan, whose hash knows the namespace
				name = u.GetLabels()[workload.LabelName] + "'s plan"
			}
			all = append(all, gvk.Kind+" "+name)
		}
	}
	slices.Sort(all)
	return all
}

var _ = Describe("An operator that crashes", Label(aside), func() {
	kinds := [][2]string{{"Broker", "main"}, {"Topic", "orders"}, {"Subscription", "billing"}, {"Poller", "rates"}}
	declare := func(ctx context.Context, namespace string) []client.Object {
		GinkgoHelper()
		all := []client.Object{
			natsBroker(namespace, "main"),
			topic(namespace, "orders", func(s *v1alpha1.TopicSpec) { s.DeletionPolicy = v1alpha1.DeletionDelete }),
			subscription(namespace, "billing", "orders", func(s *v1alpha1.SubscriptionSpec) { s.DeletionPolicy = v1alpha1.DeletionDelete }),
			&v1alpha1.Poller{ObjectMeta: named(namespace, "rates"), Spec: v1alpha1.PollerSpec{
				Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Minute}}, HTTP: &v1alpha1.HTTPSource{URL: "https://example.com/rates"},
				To: v1alpha1.PollerTarget{TopicRef: &v1alpha1.ResourceReference{Name: "orders"}}, DeletionPolicy: v1alpha1.DeletionDelete}},
		}
		apply(ctx, all...)
		return all
	}
	restart := func() {
		stopOperator()
		cuts.mend()
		startOperator()
	}

	// Each namespace is cut after another number of writes, all at once; one more is never cut, and shows how it should end.
	It("after any of its writes is followed by one that ends where it would have", func(ctx SpecContext) {
		whole := newNamespace(ctx)
		declare(ctx, whole)
		for _, k := range kinds {
			ready(ctx, whole, k[0], k[1])
		}
		settled(ctx, whole)
		want, most := made(ctx, whole), len(writes.in(whole))

		objects := map[string][]client.Object{}
		for i := range most {
			namespace := newNamespace(ctx)
			cuts.after(namespace, i+1, i%2 == 1)
			objects[namespace] = declare(ctx, namespace)
		}
		for namespace := range objects {
			Eventually(func() bool { return cuts.reached(namespace) || allReady(ctx, namespace, len(kinds)) }).WithContext(ctx).Should(BeTrue())
		}
		restart()
		for namespace := range objects {
			for _, k := range kinds {
				ready(ctx, namespace, k[0], k[1])
			}
			Eventually(func() []string { return made(ctx, namespace) }).WithContext(ctx).Should(Equal(want))
		}
		AddReportEntry("crashes", fmt.Sprintf("%d, one after each write on the way to ready", most))

		// The same on the way out.
		i := 0
		for namespace, all := range objects {
			cuts.after(namespace, i%7, i%2 == 1)
			i++
			for _, o := range slices.Backward(all) {
				Expect(k8s.Delete(ctx, o)).To(Succeed())
			}
		}
		for namespace := range objects {
			Eventually(func() bool { return cuts.reached(namespace) || len(everything(ctx, namespace)) == 0 }).WithContext(ctx).Should(BeTrue())
		}
		restart()
		for namespace := range objects {
			Eventually(func() int { return len(everything(ctx, namespace)) }).WithContext(ctx).Should(BeZero())
			Expect(onBroker(ctx, driver.Ref{Kind: driver.Topic, Name: namespace + "_orders"}).Exists).To(BeFalse())
		}
	}, NodeTimeout(patience))
})

func allReady(ctx context.Context, namespace string, n int) bool {
	return countReady(ctx, namespace) == n
}
