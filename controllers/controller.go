package controllers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Options are the operator's own.
type Options struct {
	Settings workload.Settings
	Brokers  Brokers
	// Concurrency is how many resources are reconciled at once; 0: 4.
	Concurrency int
	// Probe is how often a Broker is asked whether it is there; 0: 30s. Recheck is how often a resource's broker objects are compared with
	// what is declared; 0: 10m.
	Probe, Recheck time.Duration
	// Workers is how Pods are asked for their status; nil: over the network.
	Workers http.RoundTripper
	// What a deletion waits for a broker that does not answer, and for one that cannot be asked any more because its Broker, its credentials or
	// the whole namespace go away too; 0: 5m and 60s.
	AwayDeadline, GoneDeadline time.Duration
	// Metrics is where the operator's own are registered.
	Metrics prometheus.Registerer
}

// What the operator may do in a cluster, and why.
//
// The seven kinds, and their finalizers and status:
// +kubebuilder:rbac:groups=waybill.dev,resources=brokers;topics;subscriptions;mailboxes;pollers;endpoints;pipelines,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=waybill.dev,resources=brokers/status;topics/status;subscriptions/status;mailboxes/status;pollers/status;endpoints/status;pipelines/status,verbs=patch
// +kubebuilder:rbac:groups=waybill.dev,resources=brokers/finalizers;topics/finalizers;subscriptions/finalizers;mailboxes/finalizers;pollers/finalizers;endpoints/finalizers;pipelines/finalizers,verbs=update
//
// What they become:
// +kubebuilder:rbac:groups="",resources=configmaps;services;serviceaccounts;persistentvolumeclaims,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
//
// A Poller's right to its own checkpoint. Who gives a right has to have it: get and update of ConfigMaps.
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=roles;rolebindings,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=update
//
// Secrets that resources name, read and watched one by one; lease keys, an Embedded Broker's password and the copies for other namespaces:
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;update;delete
//
// Namespaces are selected by label and may be ending; Pods are counted while they drain, and asked which credentials they use; ReplicaSets still need old plans:
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=list
// +kubebuilder:rbac:groups=apps,resources=replicasets,verbs=list
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Controller makes all kinds be as they are declared. See the package's comment for the way through.
type Controller struct {
	options Options
	kinds   map[string]*kind
	client  client.Client // reads from the caches
	direct  client.Reader // asks the API server
	world   *world
	events  events.EventRecorder
	left    prometheus.Counter
	retry   workqueue.TypedRateLimiter[plan.Resource]

	turns       turns
	backlogs    backlogs
	credentials credentials

	mu      sync.Mutex
	ensured map[plan.Resource]ensured
	probed  map[plan.Resource]*Found
	// reachable says of each Broker how its last probe went.
	reachable map[plan.Resource]bool
	wrote     map[plan.Resource]version
}

// A version is what a write of a status has made of a resource.
type version struct {
	of string // resourceVersion
	at time.Time
}

// catchesUp is how long the caches may take to show what was written, before it counts as never seen: as where the API server's storage was
// restored, and its versions went back.
const catchesUp = 5 * time.Second

// New adds the controller to a manager that was made with ManagerOptions.
func New(mgr manager.Manager, opts Options) (*Controller, error) {
	defaults(&opts)
	clients, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return nil, err
	}
	c := &Controller{
		options: opts, kinds: map[string]*kind{}, client: mgr.GetClient(), direct: mgr.GetAPIReader(), events: mgr.GetEventRecorder("waybill"),
		left:    prometheus.NewCounter(prometheus.CounterOpts{Name: "waybill_left_behind_total", Help: "Broker objects that deleted resources left on their brokers because these could not be asked in time."}),
		retry:   workqueue.NewTypedItemExponentialFailureRateLimiter[plan.Resource](500*time.Millisecond, 2*time.Minute),
		ensured: map[plan.Resource]ensured{}, probed: map[plan.Resource]*Found{}, reachable: map[plan.Resource]bool{}, wrote: map[plan.Resource]version{},
		backlogs:    backlogs{of: map[plan.Resource]*int64{}, counted: map[plan.Resource]time.Time{}},
		credentials: credentials{told: map[plan.Resource]told{}},
	}
	c.world = newWorld(c.client, clients)
	if err := opts.Metrics.Register(c); err != nil {
		return nil, err
	}
	for _, k := range kinds() {
		c.kinds[k.name] = &k
	}
	ctl, err := controller.NewTyped("waybill", mgr, controller.TypedOptions[plan.Resource]{
		Reconciler: c, MaxConcurrentReconciles: opts.Concurrency,
		LogConstructor: func(r *plan.Resource) logr.Logger {
			if r == nil {
				return mgr.GetLogger()
			}
			return mgr.GetLogger().WithValues("resource", r.String())
		},
	})
	if err != nil {
		return nil, err
	}
	if err := c.watch(mgr, ctl); err != nil {
		return nil, err
	}
	return c, nil
}

func defaults(o *Options) {
	for _, d := range []struct {
		at *time.Duration
		is time.Duration
	}{{&o.Probe, 30 * time.Second}, {&o.Recheck, 10 * time.Minute}, {&o.AwayDeadline, 5 * time.Minute}, {&o.GoneDeadline, time.Minute}} {
		if *d.at == 0 {
			*d.at = d.is
		}
	}
	if o.Concurrency == 0 {
		o.Concurrency = 4
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	if o.Workers == nil {
		o.Workers = &http.Transport{DisableKeepAlives: true} // and no proxy: Pods are near
	}
}

// Reconcile brings one resource closer to what is declared and tells in its status how it is.
func (c *Controller) Reconcile(ctx context.Context, r plan.Resource) (reconcile.Result, error) {
	k := c.kinds[r.Kind]
	o := k.new()
	if err := c.client.Get(ctx, keyOf(r), o); err != nil {
		if apierrors.IsNotFound(err) {
			c.forget(r)
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, err
	}
	if c.outdated(r, o) { // else it would be told twice, events too
		return reconcile.Result{RequeueAfter: catchesUp}, nil // it is woken before, when the caches show it
	}
	v := c.world.of(r, o)
	if v == nil {
		c.world.changed() // which wakes it
		return reconcile.Result{}, nil
	}

	f := &facts{resource: r, verdict: v}
	f.backlog, f.counted = c.backlogs.get(r)
	f.credentials = c.credentials.get(r, c.world.asks(v))
	if !o.GetDeletionTimestamp().IsZero() {
		c.turnOver(r)
		if f.leaving = asProblem(c.leave(ctx, k, o, f)); f.leaving == nil {
			return reconcile.Result{}, nil // it may go
		}
	} else {
		f.problem = asProblem(c.make(ctx, k, o, f))
	}
	if f.problem != nil && f.problem.race || f.leaving != nil && f.leaving.race {
		return reconcile.Result{RequeueAfter: c.retry.When(r)}, nil
	}
	if err := c.tell(ctx, k, o, f); err != nil {
		f.problem, f.leaving = problemOf(err), nil
	}
	return reconcile.Result{RequeueAfter: c.again(r, f)}, nil
}

func asProblem(err error) *problem {
	if err == nil {
		return nil
	}
	return problemOf(err)
}

// again is when to look once more if nothing happens; 0: never.
func (c *Controller) again(r plan.Resource, f *facts) time.Duration {
	p := f.problem
	if f.leaving != nil {
		p = f.leaving
	}
	switch {
	case p == nil:
		c.retry.Forget(r)
	case p.again > 0:
		return p.again
	case p.class == passes && (p.reason == v1alpha1.ReasonReferenceNotFound || p.reason == v1alpha1.ReasonSecretNotFound):
		return min(c.retry.When(r), beingMade) // each pass counts, also one that something else has woken
	case p.class == passes:
		return c.retry.When(r)
	default:
		return 0
	}
	// Not all at the same moment.
	spread := func(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }
	switch {
	case r.Kind == "Broker" && refusal(f.verdict) == nil:
		return sooner(spread(c.options.Probe), f.again)
	case len(f.verdict.owned) > 0:
		return sooner(spread(c.options.Recheck), f.again)
	}
	return f.again
}

// sooner is the shorter of two times, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if b == 0 || a != 0 && a < b {
		return a
	}
	return b
}

// tell writes the status when it says something else than before, and events for what a person should notice.
func (c *Controller) tell(ctx context.Context, k *kind, o client.Object, f *facts) error {
	now := o.DeepCopyObject().(client.Object)
	k.report(now, f)
	if reflect.DeepEqual(o, now) {
		return nil
	}
	if err := c.client.Status().Patch(ctx, now, client.MergeFrom(o), fieldOwner); err != nil {
		return client.IgnoreNotFound(err)
	}
	if now.GetResourceVersion() != o.GetResourceVersion() {
		c.mu.Lock()
		c.wrote[f.resource] = version{of: now.GetResourceVersion(), at: time.Now()}
		c.mu.Unlock()
	}
	for _, p := range []*problem{f.problem, f.leaving} {
		if p != nil && p.err != nil {
			log.FromContext(ctx).Info("Not as declared", "reason", p.reason, "error", p.err.Error())
		}
	}
	c.announce(k, o, now)
	return nil
}

// outdated tells an object from the caches that does not show yet what was written into its status.
func (c *Controller) outdated(r plan.Resource, o client.Object) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, ok := c.wrote[r]
	if !ok {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), last.of)
	if err == nil && order < 0 && time.Since(last.at) < catchesUp {
		return true
	}
	delete(c.wrote, r)
	return false
}

// forget drops what was remembered of a resource that is gone.
func (c *Controller) forget(r plan.Resource) {
	c.turnOver(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ensured, r)
	delete(c.probed, r)
	delete(c.reachable, r)
	delete(c.wrote, r)
	c.backlogs.forget(r)
	c.credentials.forget(r)
	c.retry.Forget(r)
	if r.Kind == "Broker" {
		c.options.Brokers.Forget(keyOf(r))
	}
}

// make gives the resource everything it needs, or says what keeps it from having it.
func (c *Controller) make(ctx context.Context, k *kind, o client.Object, f *facts) error {
	if refusal(f.verdict) != nil {
		c.turnOver(f.resource)
		return nil // what it had when it was accepted goes on
	}
	away, err := c.prepare(ctx, k, o, f)
	if err != nil {
		c.leaveQueue(f.resource)
		return err
	}
	if f.set != nil {
		waits, err := c.keepRelease(ctx, o, f)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, o, f.resource, f.set); err != nil {
			return err
		}
		if f.rollout, err = c.rollout(ctx, f.resource, f.set); err != nil {
			return err
		}
		if f.rollout.complete() && !waits {
			c.turnOver(f.resource)
		}
	}
	if f.resource.Kind == "Broker" {
		copied := c.copySecrets(ctx, f)
		if f.set == nil || f.rollout.complete() {
			if err := c.probe(ctx, o, f); err != nil {
				return err
			}
			c.countBacklogs(ctx, f)
		}
		if copied != nil {
			return copied
		}
	}
	if away != nil {
		return away
	}
	return nil
}

// prepare does all that comes before the resource's own objects. away: a broker did not do its part this time, for which these need not wait.
func (c *Controller) prepare(ctx context.Context, k *kind, o client.Object, f *facts) (away *problem, err error) {
	if f.set, err = c.build(o, f.verdict, c.options.Settings); err != nil {
		return nil, fmt.Errorf("building its objects: %w", err)
	}
	if f.set != nil { // whatever comes up, the status says how many Pods run
		if f.rollout, err = c.rollout(ctx, f.resource, f.set); err != nil {
			return nil, err
		}
	}
	if c.needsFarewell(k, o, f) {
		if err := c.setFinalizer(ctx, o, true); err != nil {
			return nil, err
		}
	}
	away = asProblem(c.ensure(ctx, k, o, f))
	if away != nil && away.class != passes {
		return nil, away
	}
	if f.set != nil {
		err = c.secrets(ctx, o, f)
	}
	return away, err
}
