package controllers

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// The world is everything that is declared, compiled. It is compiled anew when something of it has changed, and wakes those of whom something
// else is said than before.
type world struct {
	reader  client.Reader
	kinds   []kind
	secrets *secretBook
	wake    func(plan.Resource)
	dirty   chan struct{}

	mu       sync.RWMutex
	verdicts map[plan.Resource]*verdict
}

// A verdict is what the compiler says of one resource. It is not changed once it is there.
type verdict struct {
	// The object that was compiled.
	uid        types.UID
	generation int64
	deleting   bool

	outcome     compile.Outcome
	diagnostics []compile.Diagnostic
	// owned are the broker's objects that it makes; of one that is refused, those that it made when it was not. unknown are the names of such
	// as it made and of which nobody can tell any more where they are.
	owned   []plan.Object
	unknown []string
	// secrets are those that it refers to and that exist.
	secrets map[types.NamespacedName]secretFact
	// copies of a Broker's Secrets are needed by resources in other namespaces.
	copies []compile.Mirror
	// users of a Broker are the Topics and Mailboxes that name it.
	users []string
	// namespaceEnds: the namespace is being deleted with all that is in it.
	namespaceEnds bool
}

func newWorld(reader client.Reader, secrets kubernetes.Interface) *world {
	w := &world{reader: reader, kinds: kinds(), dirty: make(chan struct{}, 1), verdicts: map[plan.Resource]*verdict{}}
	w.secrets = newSecretBook(secrets, w.changed)
	return w
}

// changed has the world compiled again, soon.
func (w *world) changed() {
	select {
	case w.dirty <- struct{}{}:
	default: // it will be already
	}
}

// of returns what is said of a resource as it is now; nil when it has not been compiled yet, and then it is woken once it is.
func (w *world) of(r plan.Resource, o client.Object) *verdict {
	w.mu.RLock()
	defer w.mu.RUnlock()
	v := w.verdicts[r]
	if v == nil || v.uid != o.GetUID() || v.generation != o.GetGeneration() || v.deleting != !o.GetDeletionTimestamp().IsZero() {
		return nil
	}
	return v
}

// in lists the resources of a namespace.
func (w *world) in(namespace string) []plan.Resource {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var out []plan.Resource
	for r := range w.verdicts {
		if r.Namespace == namespace {
			out = append(out, r)
		}
	}
	return out
}

// copies are those of Secrets that Brokers hand out.
func (w *world) copies() map[types.NamespacedName]bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	all := map[types.NamespacedName]bool{}
	for _, v := range w.verdicts {
		for _, m := range v.copies {
			all[m.To] = true
		}
	}
	return all
}

const (
	// What changes within this time is compiled together.
	leastRest = 20 * time.Millisecond
	// Compiling takes at most a quarter of one core's time, however many changes come.
	restFactor = 3
	retryAfter = time.Second
)

// run compiles until ctx ends.
func (w *world) run(ctx context.Context, wake func(plan.Resource)) {
	w.wake = wake
	w.changed()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		}
		began := time.Now()
		rest := leastRest
		if err := w.compile(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "The declared resources cannot be read; trying again")
			w.changed()
			rest = retryAfter
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(rest, restFactor*time.Since(began))):
		}
	}
}

func (w *world) compile(ctx context.Context) error {
	in, objects, secrets, ending, err := w.snapshot(ctx)
	if err != nil {
		return err
	}
	result := compile.Compile(in)
	w.mu.RLock()
	before := w.verdicts
	w.mu.RUnlock()
	verdicts := make(map[plan.Resource]*verdict, len(result.Outcomes))
	for _, o := range result.Outcomes {
		object := objects[o.Resource]
		v := &verdict{uid: object.GetUID(), generation: object.GetGeneration(), deleting: !object.GetDeletionTimestamp().IsZero(),
			outcome: o, owned: o.Owned(), namespaceEnds: ending[o.Resource.Namespace]}
		if o.Plan == nil {
			v.owned, v.unknown = made(w.kind(o.Resource.Kind).parts(object), &o, before[o.Resource], v.uid)
		}
		for _, name := range secretsOf(object) {
			if f, ok := secrets[name]; ok {
				if v.secrets == nil {
					v.secrets = map[types.NamespacedName]secretFact{}
				}
				v.secrets[name] = f
			}
		}
		verdicts[o.Resource] = v
	}
	for _, d := range result.Diagnostics {
		r := plan.Resource{Kind: d.Kind, Namespace: d.Namespace, Name: d.Name}
		verdicts[r].diagnostics = append(verdicts[r].diagnostics, d)
	}
	tellBrokers(in, result.Outcomes, verdicts)

	w.mu.Lock()
	w.verdicts = verdicts
	w.mu.Unlock()
	for r, v := range verdicts {
		if old := before[r]; old == nil || !reflect.DeepEqual(old, v) {
			w.wake(r)
		}
	}
	for r := range before {
		if verdicts[r] == nil {
			w.wake(r)
		}
	}
	return nil
}

// made are the broker objects of a resource that is refused now: those that are remembered, else those that its status names, which only the
// operator writes. Where a resource that it refers to is gone too, a name is all that is left.
func made(at parts, o *compile.Outcome, before *verdict, uid types.UID) (owned []plan.Object, unknown []string) {
	if before != nil && before.uid == uid && len(before.owned) > 0 {
		return before.owned, nil
	}
	if at.objects == nil {
		return nil, nil
	}
	for _, told := range *at.objects {
		i := slices.IndexFunc(o.Reserved, func(r plan.Object) bool { return r.Name == told.Name })
		if i < 0 {
			unknown = append(unknown, told.Kind+" "+told.Name)
		} else {
			owned = append(owned, o.Reserved[i])
		}
	}
	return owned, unknown
}

// kind finds one of the kinds by its name.
func (w *world) kind(name string) *kind {
	return &w.kinds[slices.IndexFunc(w.kinds, func(k kind) bool { return k.name == name })]
}

// tellBrokers tells each Broker what others want of it.
func tellBrokers(in compile.Input, outcomes []compile.Outcome, verdicts map[plan.Resource]*verdict) {
	// Of several Brokers with one Secret that a copy is made for, the first by name hands it out; one that is refused or being deleted, which
	// looks after nothing, only where there is no other.
	by := map[types.NamespacedName]*verdict{}
	for _, o := range outcomes {
		for _, m := range o.Mirrors {
			if v := verdicts[m.Broker]; v != nil && (by[m.To] == nil || handsOutBefore(v, by[m.To])) {
				by[m.To] = v
			}
		}
	}
	at := map[types.NamespacedName]int{}
	for _, o := range outcomes { // in their order, so that nothing changes when nothing does
		for _, m := range o.Mirrors {
			v := by[m.To]
			if v == nil {
				continue
			}
			i, ok := at[m.To]
			if !ok {
				i, at[m.To] = len(v.copies), len(v.copies)
				v.copies = append(v.copies, compile.Mirror{Broker: v.outcome.Resource, From: m.From, To: m.To})
			}
			v.copies[i] = v.copies[i].With(m.Keys)
		}
	}
	use := func(by plan.Resource, ref v1alpha1.ResourceReference) {
		if v := verdicts[plan.Resource{Kind: "Broker", Namespace: cmp.Or(ref.Namespace, by.Namespace), Name: ref.Name}]; v != nil {
			v.users = append(v.users, by.String())
		}
	}
	for _, t := range in.Topics {
		use(resourceOf("Topic", t), t.Spec.BrokerRef)
	}
	for _, m := range in.Mailboxes {
		use(resourceOf("Mailbox", m), m.Spec.BrokerRef)
	}
	for _, b := range in.Brokers {
		slices.Sort(verdicts[resourceOf("Broker", b)].users)
	}
}

func handsOutBefore(a, b *verdict) bool {
	idle := func(v *verdict) bool { return v.deleting || refusal(v) != nil }
	if idle(a) != idle(b) {
		return idle(b)
	}
	return a.outcome.Resource.Name < b.outcome.Resource.Name
}

// snapshot reads all that is declared.
func (w *world) snapshot(ctx context.Context) (in compile.Input, objects map[plan.Resource]client.Object, secrets map[types.NamespacedName]secretFact, ending map[string]bool, err error) {
	in = compile.Input{Unprobed: compile.WaitForBroker, Namespaces: map[string]map[string]string{}, Secrets: map[types.NamespacedName][]string{},
		Flaws: map[types.NamespacedName]map[string]secret.Flaw{}}
	objects = map[plan.Resource]client.Object{}
	wanted := map[types.NamespacedName]bool{}
	for _, k := range w.kinds {
		err := k.list(ctx, w.reader, &in, func(o client.Object) {
			objects[resourceOf(k.name, o)] = o
			for _, s := range secretsOf(o) {
				wanted[s] = true
			}
		})
		if err != nil {
			return in, nil, nil, nil, err
		}
	}
	var namespaces metav1.PartialObjectMetadataList
	namespaces.SetGroupVersionKind(namespaceKind)
	if err := w.reader.List(ctx, &namespaces, client.UnsafeDisableDeepCopy); err != nil {
		return in, nil, nil, nil, err
	}
	ending = map[string]bool{}
	for i := range namespaces.Items {
		n := &namespaces.Items[i]
		in.Namespaces[n.Name] = n.Labels
		if !n.DeletionTimestamp.IsZero() {
			ending[n.Name] = true
		}
		if n.Name == metav1.NamespaceSystem {
			in.Host = hostOf(n)
		}
	}
	if in.Host == "" {
		return in, nil, nil, nil, fmt.Errorf("there is no namespace %s, by whose UID broker objects are marked as this cluster's", metav1.NamespaceSystem)
	}

	if secrets, err = w.secrets.facts(ctx, wanted); err != nil {
		return in, nil, nil, nil, err
	}
	for name, f := range secrets {
		in.Secrets[name], in.Flaws[name] = f.Keys, f.Flaws
	}
	return in, objects, secrets, ending, nil
}
