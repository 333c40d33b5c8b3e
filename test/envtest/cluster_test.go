package envtest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// A cluster plays what starts Pods: it says of each Deployment and StatefulSet that they run as wanted, but of those that are held.
type cluster struct {
	client client.Client

	mu   sync.Mutex
	held map[client.ObjectKey]bool
}

func startCluster(ctx context.Context, cfg *rest.Config, scheme *runtime.Scheme) *cluster {
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}})
	Expect(err).NotTo(HaveOccurred())
	c := &cluster{client: mgr.GetClient(), held: map[client.ObjectKey]bool{}}
	Expect(ctrl.NewControllerManagedBy(mgr).For(&appsv1.Deployment{}).Named("deployments").
		Complete(reconcile.AsReconciler(c.client, reconcile.ObjectReconciler[*appsv1.Deployment](objectFunc[*appsv1.Deployment](c.runDeployment))))).To(Succeed())
	Expect(ctrl.NewControllerManagedBy(mgr).For(&appsv1.StatefulSet{}).Named("statefulsets").
		Complete(reconcile.AsReconciler(c.client, reconcile.ObjectReconciler[*appsv1.StatefulSet](objectFunc[*appsv1.StatefulSet](c.runStatefulSet))))).To(Succeed())
	go func() {
		defer GinkgoRecover()
		Expect(mgr.Start(ctx)).To(Succeed())
	}()
	return c
}

type objectFunc[T client.Object] func(context.Context, T) (reconcile.Result, error)

func (f objectFunc[T]) Reconcile(ctx context.Context, o T) (reconcile.Result, error) {
	return f(ctx, o)
}

func (c *cluster) runDeployment(ctx context.Context, d *appsv1.Deployment) (reconcile.Result, error) {
	if c.holds(d) {
		return reconcile.Result{}, nil
	}
	n := *d.Spec.Replicas
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
	return reconcile.Result{}, client.IgnoreNotFound(c.client.Status().Update(ctx, d))
}

func (c *cluster) runStatefulSet(ctx context.Context, s *appsv1.StatefulSet) (reconcile.Result, error) {
	if c.holds(s) {
		return reconcile.Result{}, nil
	}
	n := *s.Spec.Replicas
	s.Status = appsv1.StatefulSetStatus{ObservedGeneration: s.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
	return reconcile.Result{}, client.IgnoreNotFound(c.client.Status().Update(ctx, s))
}

// hold keeps a workload from making progress until the function that it returns is called.
func (c *cluster) hold(ctx context.Context, o client.Object) (release func()) {
	key := client.ObjectKeyFromObject(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held[key] = true
	return func() {
		c.mu.Lock()
		delete(c.held, key)
		c.mu.Unlock()
		touch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{"released":"%s"}}}`, time.Now().Format(time.RFC3339Nano)))
		Expect(client.IgnoreNotFound(k8s.Patch(ctx, o, touch))).To(Succeed())
	}
}

func (c *cluster) holds(o client.Object) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held[client.ObjectKeyFromObject(o)]
}

// A counter counts the requests that write something, by namespace, at the place where they leave. Events are not counted: they are notes.
type counter struct {
	mu     sync.Mutex
	writes map[string][]string
}

func newCounter() *counter { return &counter{writes: map[string][]string{}} }

func (c *counter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if namespace, write := writeInto(r); write {
			_, rest, _ := strings.Cut(r.URL.Path, "/namespaces/")
			_, what, _ := strings.Cut(rest, "/")
			c.mu.Lock()
			c.writes[namespace] = append(c.writes[namespace], r.Method+" "+what)
			c.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// writeInto tells a request that writes something, and into which namespace.
func writeInto(r *http.Request) (namespace string, write bool) {
	_, rest, namespaced := strings.Cut(r.URL.Path, "/namespaces/")
	namespace, what, _ := strings.Cut(rest, "/")
	return namespace, namespaced && r.Method != http.MethodGet && !strings.HasPrefix(what, "events")
}

// in are the writes into a namespace so far.
func (c *counter) in(namespace string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.writes[namespace]...)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
