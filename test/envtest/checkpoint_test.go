package envtest

import (
	"log/slog"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/checkpoint"
	"github.com/waybill-dev/waybill/runtime/checkpoint/configmap"
	"github.com/waybill-dev/waybill/runtime/plan"
)

var _ = Describe("A poller's checkpoint", func() {
	It("can be written by its Pod, by nobody twice, and nothing else can", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		apply(ctx, natsBroker(namespace, "main"), topic(namespace, "rates"), &v1alpha1.Poller{ObjectMeta: named(namespace, "rates"), Spec: v1alpha1.PollerSpec{
			Schedule: v1alpha1.Schedule{Every: &metav1.Duration{Duration: time.Minute}},
			HTTP:     &v1alpha1.HTTPSource{URL: "https://example.com/rates"},
			To:       v1alpha1.PollerTarget{TopicRef: &v1alpha1.ResourceReference{Name: "rates"}},
		}})
		ready(ctx, namespace, "Poller", "rates")

		// The token is what the kubelet would mount.
		request := new(authenticationv1.TokenRequest)
		account := &corev1.ServiceAccount{ObjectMeta: named(namespace, "rates-poller")}
		Expect(k8s.SubResource("token").Create(ctx, account, request)).To(Succeed())
		anonymous := rest.AnonymousClientConfig(manager)
		transport, err := rest.HTTPClientFor(anonymous)
		Expect(err).NotTo(HaveOccurred())
		api := configmap.NewAPI(anonymous.Host, transport, func() ([]byte, error) { return []byte(request.Status.Token), nil })
		name := plan.Resource{Kind: "Poller", Namespace: namespace, Name: "rates"}.Checkpoint()
		log := slog.New(slog.NewTextHandler(GinkgoWriter, nil))
		one, two := configmap.New(api, namespace, name, log), configmap.New(api, namespace, name, log)
		for _, s := range []checkpoint.Store{one, two} {
			Expect(s.Load(ctx)).To(BeNil())
		}
		Expect(one.Save(ctx, []byte(`{"n":1}`))).To(Succeed())
		Expect(two.Save(ctx, []byte(`{"n":2}`))).To(MatchError(checkpoint.ErrConflict))

		// The operator's own changes are no conflict, and do not touch the content.
		held := &corev1.ConfigMap{ObjectMeta: named(namespace, name)}
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(held), held)).To(Succeed())
		Expect(held.OwnerReferences).To(BeEmpty())
		held.Labels["touched"] = "yes"
		Expect(k8s.Update(ctx, held)).To(Succeed())
		Expect(one.Save(ctx, []byte(`{"n":3}`))).To(Succeed())
		Expect(k8s.Get(ctx, client.ObjectKeyFromObject(held), held)).To(Succeed())
		Expect(held.Data).To(HaveKeyWithValue(plan.CheckpointKey, `{"n":3}`))
		Expect(held.Labels).To(HaveKeyWithValue("touched", "yes"))

		other := &corev1.ConfigMap{ObjectMeta: named(namespace, "another")}
		Expect(k8s.Create(ctx, other)).To(Succeed())
		Expect(configmap.New(api, namespace, "another", log).Save(ctx, []byte(`{}`))).To(MatchError(ContainSubstring("403")))
	}, SpecTimeout(patience))
})
