package envtest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/broker/driver"
	"github.com/waybill-dev/waybill/runtime/engine"
	"github.com/waybill-dev/waybill/runtime/outbound"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
	"github.com/waybill-dev/waybill/runtime/telemetry"
)

// workers are the Pods that answer, by their address; all others do not.
var workers = &network{pods: map[string]http.Handler{}}

type network struct {
	mu    sync.Mutex
	pods  map[string]http.Handler
	asked int
}

func (n *network) requests() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	n.asked++
	pod := n.pods[r.URL.Host]
	n.mu.Unlock()
	if pod == nil {
		return nil, errors.New("no route to host")
	}
	w := httptest.NewRecorder()
	pod.ServeHTTP(w, r)
	return w.Result(), nil
}

// A worker is a Pod's engine, which runs the plan of a resource with a Secret as the kubelet has mounted it.
type worker struct {
	engine *engine.Engine
	mount  string // the folder of the Secret

	mu  sync.Mutex
	err error // of new sessions on the broker
}

// refuse has the broker turn away those who come from now on.
func (w *worker) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *worker) open(ctx context.Context, cfg driver.Config) (driver.Conn, error) {
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return server.Open(ctx, cfg)
}

// startWorker starts a Pod of a resource at an address, with a Secret mounted.
func startWorker(ctx context.Context, r plan.Resource, address string, mounted *corev1.Secret) *worker {
	GinkgoHelper()
	var d appsv1.Deployment
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: r.Child()}, &d)).To(Succeed())
	var text corev1.ConfigMap
	Expect(k8s.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: r.Child() + "-" + d.Spec.Template.Annotations[workload.AnnotationPlan]}, &text)).To(Succeed())
	p, err := plan.Unmarshal([]byte(text.Data["plan.json"]))
	Expect(err).NotTo(HaveOccurred())
	root := GinkgoT().TempDir()
	w := &worker{mount: filepath.Join(root, mounted.Name)}
	w.update(mounted)
	held := secret.Dir(root)
	w.engine = engine.New(engine.Host{
		Drivers: map[string]driver.Open{"NATS": w.open}, Secrets: held, Outbound: outbound.New(outbound.Config{Secrets: held}),
		Base: func(plan.Resource) string { return "" },
	})
	w.engine.Start(context.WithoutCancel(ctx), []*plan.Plan{p})
	DeferCleanup(func(ctx SpecContext) { w.engine.Drain(ctx, func(context.Context) {}) })
	Eventually(w.engine.Ready).WithContext(ctx).Should(Succeed())

	workers.mu.Lock()
	workers.pods[address+":8081"] = telemetry.Handler(w.engine, nil)
	workers.mu.Unlock()
	readyPod(ctx, r, address)
	return w
}

// readyPod plays the kubelet that has started a Pod of a resource.
func readyPod(ctx context.Context, r plan.Resource, address string) {
	GinkgoHelper()
	pod := &corev1.Pod{ObjectMeta: named(r.Namespace, r.Child()+"-"+strings.ReplaceAll(address, ".", "-")), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "worker", Image: "x"}}}}
	pod.Labels = workload.Labels(r)
	apply(ctx, pod)
	pod.Status = corev1.PodStatus{PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	Expect(k8s.Status().Update(ctx, pod)).To(Succeed())
}

// update is what the kubelet does some time after a Secret was changed.
func (w *worker) update(s *corev1.Secret) {
	GinkgoHelper()
	Expect(os.MkdirAll(w.mount, 0o700)).To(Succeed())
	for key, value := range s.Data {
		next := filepath.Join(w.mount, "next")
		Expect(os.WriteFile(next, value, 0o600)).To(Succeed())
		Expect(os.Rename(next, filepath.Join(w.mount, key))).To(Succeed())
	}
}

var _ = Describe("The credentials in use", func() {
	It("are named in a condition, which turns when the Pods have taken the new content of the Secret", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		b := natsBroker(namespace, "main")
		b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "nats-user"}
		user := &corev1.Secret{ObjectMeta: named(namespace, "nats-user"), Data: map[string][]byte{"username": []byte("waybill"), "password": []byte("corr3ct-horse")}}
		apply(ctx, user, b, topic(namespace, "orders"), topic(namespace, "quiet", func(s *v1alpha1.TopicSpec) { s.Replicas = new(int32(0)) }))
		ready(ctx, namespace, "Topic", "orders", "quiet")
		orders := plan.Resource{Kind: "Topic", Namespace: namespace, Name: "orders"}
		is := condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionCredentialsCurrent)
		says := says(ctx, "Topic", namespace, "orders", v1alpha1.ConditionCredentialsCurrent)
		settled(ctx, namespace)
		Expect(is()).To(BeEmpty(), "no Pod has told anything yet")

		first := startWorker(ctx, orders, "10.1.2.3", user)
		second := startWorker(ctx, orders, "10.1.2.4", user)
		Eventually(is).Should(Equal("True/UpToDate"))
		Expect(says()).To(Equal("Every Pod uses Secret nats-user (resourceVersion " + user.ResourceVersion + ")."))
		settled(ctx, namespace)
		before := len(writes.in(namespace))

		patch(ctx, user, `{"metadata":{"labels":{"team":"a"}}}`)
		user.Data["password"] = []byte("battery-staple")
		Expect(k8s.Update(ctx, user)).To(Succeed())
		Eventually(is).Should(Equal("False/Rotating"))
		first.update(user)
		first.engine.RefreshSecrets(ctx)
		settled(ctx, namespace)
		Expect(is()).To(Equal("False/Rotating"), "one of two")
		second.refuse(errors.New("the broker knows no such password"))
		second.update(user)
		second.engine.RefreshSecrets(ctx)
		Eventually(is).Should(Equal("False/CredentialsRefused"))
		Expect(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionReady)()).To(Equal("True/Running"), "it goes on with what it has")
		second.refuse(nil)
		second.engine.RefreshSecrets(ctx)
		Eventually(is).Should(Equal("True/UpToDate"))
		Expect(says()).To(ContainSubstring("(resourceVersion " + user.ResourceVersion + ")"))
		settled(ctx, namespace)
		Expect(writes.in(namespace)[before:]).To(HaveLen(3), "a write for each turn, and no other")

		stopOperator()
		asked := workers.requests()
		startOperator()
		Eventually(workers.requests).Should(Equal(asked+2), "another manager asks each once")
		settled(ctx, namespace)
		Expect(writes.in(namespace)).To(BeEmpty(), "and finds the same")
		patch(ctx, &v1alpha1.Topic{ObjectMeta: named(namespace, "orders")}, `{"spec":{"replicas":0}}`)
		Eventually(is).Should(BeEmpty(), "nobody uses any")
		for _, u := range everything(ctx, namespace) {
			for _, c := range conditionsOf(&u) {
				Expect(c.Message).NotTo(MatchRegexp("corr3ct|battery"))
			}
		}
		Expect(condition(ctx, "Topic", namespace, "quiet", v1alpha1.ConditionCredentialsCurrent)()).To(BeEmpty())
	}, NodeTimeout(patience))

	It("are unknown where a Pod does not answer", func(ctx SpecContext) {
		namespace := newNamespace(ctx)
		b := natsBroker(namespace, "main")
		b.Spec.SecretRef = &v1alpha1.SecretReference{Name: "nats-user"}
		user := &corev1.Secret{ObjectMeta: named(namespace, "nats-user"), Data: map[string][]byte{"username": []byte("waybill"), "password": []byte("x")}}
		apply(ctx, user, b, topic(namespace, "orders"))
		ready(ctx, namespace, "Topic", "orders")
		readyPod(ctx, plan.Resource{Kind: "Topic", Namespace: namespace, Name: "orders"}, "10.1.2.5")
		Eventually(condition(ctx, "Topic", namespace, "orders", v1alpha1.ConditionCredentialsCurrent)).Should(Equal("Unknown/NotTold"))
		ready(ctx, namespace, "Topic", "orders")
	}, NodeTimeout(patience))
})
