package workload

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

const (
	defaultDrain = 30 * time.Second
	// linger is for how long a gateway still serves after its Pod was told to end: until then proxies may send it requests.
	linger = 5 * time.Second
	// goodbye is what a worker may take after its drain: closing connections, writing a checkpoint.
	goodbye = 15 * time.Second
)

// worker is one resource whose plan Pods run.
type worker struct {
	owner    Owner
	settings Settings
	plan     *plan.Plan // as the Pods run it
	bytes    []byte
	hash     string
	path     string // of what is served, below its base
	served   bool
	replicas int32
	leases   bool
	secrets  []mounted
}

// Build gives everything that the resource of a compiled plan needs. An outcome without a plan (refused, or a Broker) is an error.
func Build(o *compile.Outcome, owner Owner, s Settings) (*Set, error) {
	if o.Plan == nil {
		return nil, fmt.Errorf("workload: %s has no plan", o.Resource)
	}
	if o.Resource != owner.Resource {
		return nil, fmt.Errorf("workload: the plan of %s was to be run for %s", o.Resource, owner.Resource)
	}
	w := &worker{owner: owner, settings: s, replicas: 1}
	w.path, w.served = o.Plan.Served()
	if owner.Replicas != nil {
		w.replicas = *owner.Replicas
	}
	if o.Paused && !w.served {
		w.replicas = 0 // nothing is delivered, and there is no gateway that has to go on
	}
	w.plan = runnable(o.Plan, w.served)
	var err error
	if w.bytes, err = plan.Marshal(w.plan); err != nil {
		return nil, fmt.Errorf("workload: %w", err)
	}
	w.hash = plan.Hash(w.bytes)
	w.leases = w.plan.Mailbox != nil && w.plan.Mailbox.Mode == "Leases"
	needs := compile.NeedsOf(w.plan)
	w.secrets = w.mounts(needs)

	set := &Set{
		Workload: owner.Child(), PlanHash: w.hash, Replicas: w.replicas, NeedsLeaseKeys: w.leases,
		Selector: labels.SelectorFromSet(SelectorLabels(owner.Resource)).String(),
		Secrets:  w.secretNeeds(needs),
	}
	var b builder
	b.shared(serviceAccount(owner.Namespace, sharedAccount), sharedPolicy(owner.Namespace))
	b.owned(owner, w.configMap())
	if w.plan.Poller != nil {
		b.owned(owner, serviceAccount(owner.Namespace, owner.Child()), w.role(), w.roleBinding())
		b.kept(owner, w.checkpoint())
	}
	if w.served {
		set.Address = address(owner.Resource) + w.path
		if p := w.networkPolicy(); p != nil {
			b.owned(owner, p)
		}
		b.owned(owner, w.service())
	}
	b.owned(owner, w.deployment())
	if w.replicas > 1 {
		b.owned(owner, disruptionBudget(owner.Resource))
	}
	return b.into(set)
}

// runnable is p without what is no worker's business: a change there should roll no Pod.
func runnable(p *plan.Plan, served bool) *plan.Plan {
	lean := *p
	lean.Objects, lean.Effective = nil, plan.Effective{}
	if !served {
		lean.Paused = false // then there are no Pods; those that come back run what they ran before
	}
	return &lean
}

// address is the base of what a resource serves.
func address(r plan.Resource) string { return "http://" + r.Child() + "." + r.Namespace + ".svc" }

func (w *worker) configMap() *applycore.ConfigMapApplyConfiguration {
	return applycore.ConfigMap(w.planName(), w.owner.Namespace).
		WithImmutable(true).
		WithData(map[string]string{"plan.json": string(w.bytes)})
}

// planName has the hash in it, so that a rollout has both plans beside each other and a rollback finds the old one.
func (w *worker) planName() string { return w.owner.Child() + "-" + w.hash }

// exclusive reports whether two Pods must never run the plan side by side.
func (w *worker) exclusive() bool {
	if w.plan.Poller != nil {
		return true
	}
	f := w.plan.Flow
	if f == nil || f.Source.Ordering == "" || f.Source.Ordering == string(v1alpha1.OrderingNone) {
		return false
	}
	at := slices.IndexFunc(w.plan.Brokers, func(b plan.Broker) bool { return b.Name == f.Source.Object.Broker })
	if at < 0 {
		return true
	}
	protocols := compile.Protocols()
	known := slices.IndexFunc(protocols, func(p compile.Protocol) bool { return p.Name == w.plan.Brokers[at].Protocol })
	return known < 0 || !protocols[known].OrderedReplicas.Can
}

// drain is how long the worker may take to finish, and grace how long its Pod may take to end.
func (s Settings) drain() time.Duration { return cmp.Or(s.Drain, defaultDrain) }

func (w *worker) grace() time.Duration {
	g := w.settings.drain() + goodbye
	if w.served {
		g += linger
	}
	return g
}

// secretNeeds are the Secrets that Pods cannot start without.
func (w *worker) secretNeeds(needs compile.Needs) []compile.SecretUse {
	keys := map[string][]string{}
	for _, s := range needs.Secrets {
		keys[s.Name] = append(keys[s.Name], s.Keys...)
	}
	if w.leases {
		keys[plan.LeaseKeySecret] = append(keys[plan.LeaseKeySecret], LeaseKeyCurrent)
	}
	return secretUses(w.owner, keys)
}

// secretUses lists keys by Secret, those of the environment included.
func secretUses(o Owner, keys map[string][]string) []compile.SecretUse {
	if o.Workload != nil {
		for _, e := range o.Workload.Env {
			if e.SecretRef != nil {
				keys[e.SecretRef.Name] = append(keys[e.SecretRef.Name], cmp.Or(e.SecretRef.Key, e.Name))
			}
		}
	}
	var uses []compile.SecretUse
	for name, k := range keys {
		slices.Sort(k)
		uses = append(uses, compile.SecretUse{NamespacedName: types.NamespacedName{Namespace: o.Namespace, Name: name}, Keys: slices.Compact(k)})
	}
	slices.SortFunc(uses, func(a, b compile.SecretUse) int { return strings.Compare(a.Name, b.Name) })
	return uses
}
