package compile

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// Input is everything that Compile knows. It reads and never changes it; the order of the slices does not matter. Objects are taken to have
// passed the validation of their definitions: what those check is not checked again here, but nothing breaks on it either.
type Input struct {
	Brokers       []*v1alpha1.Broker
	Topics        []*v1alpha1.Topic
	Subscriptions []*v1alpha1.Subscription
	Mailboxes     []*v1alpha1.Mailbox
	Pollers       []*v1alpha1.Poller
	Endpoints     []*v1alpha1.Endpoint
	Pipelines     []*v1alpha1.Pipeline

	// Refused are resources, and Secrets, that were declared with faults of their own and so are not in the lists: a reference to one of them
	// is not a missing one.
	Refused []plan.Resource

	// Secrets are the keys of each Secret, never a value. Nil: not known, so references to Secrets are not checked.
	Secrets map[types.NamespacedName][]string
	// Flaws are what may keep values of theirs from being used, by key.
	Flaws map[types.NamespacedName]map[string]secret.Flaw
	// Namespaces are the labels of the namespaces, for allowedNamespaces with a selector. One that is not in it has its name's label only.
	Namespaces map[string]map[string]string
	// Features are what probes found, by Broker. One that is not in it is as its status says, else as Unprobed says.
	Features map[types.NamespacedName]v1alpha1.BrokerFeatures
	Unprobed Unprobed

	// Host is who makes the broker objects, a cluster or a laptop, and stands first in their owner marks: the same resource declared
	// elsewhere is another one. Empty: marks without it.
	Host string
}

// Unprobed says what to take a broker for that nobody has probed.
type Unprobed int

const (
	// AssumeFloor takes it to have what every supported version of its type has.
	AssumeFloor Unprobed = iota
	// WaitForBroker gives no plan: it might change with the probe.
	WaitForBroker
)

// Result is what became of each resource.
type Result struct {
	Outcomes    []Outcome    // sorted by namespace, kind and name
	Diagnostics []Diagnostic // sorted likewise
}

// Outcome is what became of one resource.
type Outcome struct {
	Resource plan.Resource
	// Refused: there are diagnostics about it, and no plan.
	Refused bool
	// Plan is nil when the resource is refused, and for a Broker, which runs nothing. Its Objects are all that must exist, those of other
	// resources included; Owned has this one's.
	Plan *plan.Plan
	// Reserved are the broker objects that it makes once it has a plan, as far as they can be told: also those of a refused one, which may
	// have made them before it was.
	Reserved []plan.Object
	// Canonical are the plan's canonical bytes.
	Canonical []byte
	// Effective is also there for a resource that is refused only because this build cannot run its broker.
	Effective plan.Effective
	// Paused: spec.state is Paused. Its objects are made and kept; nothing is delivered.
	Paused bool
	// DeadLetter is where its undeliverable messages go; nil: nowhere.
	DeadLetter *plan.Ref
	// Mirrors are the Secrets of other namespaces that its plan reads under a name in its own.
	Mirrors []Mirror
	// Connection is how a Broker is administered: as plans of its own namespace reach it, but with adminSecretRef where there is one. Nil for
	// other kinds, and for a Broker with faults.
	Connection *plan.Broker

	mark string
}

// Owned returns the broker objects that the resource itself makes.
func (o *Outcome) Owned() []plan.Object {
	if o.Plan == nil {
		return nil
	}
	return ownedBy(o.mark, o.Plan.Objects)
}

func ownedBy(mark string, objects []plan.Object) []plan.Object {
	var own []plan.Object
	for _, obj := range objects {
		if obj.Owner == mark {
			own = append(own, obj)
		}
	}
	return own
}

// Mirror is a Secret that has to be there under another name, because a Pod reads Secrets of its own namespace only.
type Mirror struct {
	// Broker is whose Secret it is: several may have the same one.
	Broker plan.Resource
	From   types.NamespacedName
	To     types.NamespacedName
	// Keys are those that Pods read there. A Secret may have others, which are nobody else's business: the private key of an authority, say.
	Keys []string
}

// With is m with more keys.
func (m Mirror) With(keys []string) Mirror {
	m.Keys = slices.Compact(slices.Sorted(slices.Values(slices.Concat(m.Keys, keys))))
	return m
}

// Plans are the plans of all resources that have one, in the order of Outcomes.
func (r *Result) Plans() []*plan.Plan {
	var plans []*plan.Plan
	for i := range r.Outcomes {
		if p := r.Outcomes[i].Plan; p != nil {
			plans = append(plans, p)
		}
	}
	return plans
}

// Outcome returns what became of a resource, nil when it was not in the input.
func (r *Result) Outcome(res plan.Resource) *Outcome {
	i, found := slices.BinarySearchFunc(r.Outcomes, res, func(o Outcome, res plan.Resource) int { return compareResources(o.Resource, res) })
	if !found {
		return nil
	}
	return &r.Outcomes[i]
}

func compareResources(a, b plan.Resource) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// order is a resource's age: where two cannot both have something, the younger one is refused.
type order struct {
	created  time.Time
	resource plan.Resource
}

func compareAge(a, b *subject) int {
	return cmp.Or(a.order.created.Compare(b.order.created), compareResources(a.resource, b.resource))
}

// compiler holds the resources of one Compile by name.
type compiler struct {
	in       Input
	subjects []*subject

	brokers       map[types.NamespacedName]*broker
	topics        map[types.NamespacedName]*channel
	mailboxes     map[types.NamespacedName]*channel
	subscriptions []*item[v1alpha1.Subscription]
	pipelines     []*item[v1alpha1.Pipeline]
	pollers       []*item[v1alpha1.Poller]
	endpoints     []*item[v1alpha1.Endpoint]

	// checked are the expressions looked at so far: many resources have the same.
	checked map[expression]error

	consumers  []*consumer // oldest first
	consumerOf map[*subject]*consumer
}

// mark is how a resource signs the broker objects that it makes.
func (c *compiler) mark(r plan.Resource) string {
	if c.in.Host == "" {
		return r.String()
	}
	return c.in.Host + "/" + r.String()
}

// item is a declared object and its subject.
type item[T any] struct {
	*subject
	api *T
}

// Compile resolves, checks and plans. It does the same for the same set, whatever its order.
func Compile(in Input) Result {
	c := &compiler{in: in, checked: map[expression]error{}}

	// Who there is, and what everyone is called on its broker.
	c.brokers = map[types.NamespacedName]*broker{}
	for _, it := range items(c, "Broker", in.Brokers) {
		c.brokers[key(it.resource)] = c.broker(it)
	}
	c.topics = map[types.NamespacedName]*channel{}
	for _, it := range items(c, "Topic", in.Topics) {
		c.topics[key(it.resource)] = c.declareTopic(it)
	}
	c.mailboxes = map[types.NamespacedName]*channel{}
	for _, it := range items(c, "Mailbox", in.Mailboxes) {
		c.mailboxes[key(it.resource)] = c.declareMailbox(it)
	}
	c.subscriptions = items(c, "Subscription", in.Subscriptions)
	c.pipelines = items(c, "Pipeline", in.Pipelines)
	c.pollers = items(c, "Poller", in.Pollers)
	c.endpoints = items(c, "Endpoint", in.Endpoints)
	slices.SortFunc(c.subjects, func(a, b *subject) int { return compareResources(a.resource, b.resource) })

	// Who may have what, where only one can.
	c.resolve()
	c.modes()
	c.own()
	c.claims()
	c.loops()

	// Each resource by itself.
	for _, t := range sorted(c.topics) {
		c.topic(t)
	}
	for _, m := range sorted(c.mailboxes) {
		c.mailbox(m)
	}
	for _, it := range c.subscriptions {
		c.subscription(it)
	}
	for _, it := range c.pipelines {
		c.pipeline(it)
	}
	for _, it := range c.pollers {
		c.poller(it)
	}
	for _, it := range c.endpoints {
		c.endpoint(it)
	}
	return c.result()
}

// object is what every declared kind has.
type object[T any] interface {
	*T
	metav1.Object
}

// items makes a subject of each declared object, sorted by name. Of two with the same name the one whose JSON sorts first is taken, and refused.
func items[T any, P object[T]](c *compiler, kind string, declared []P) []*item[T] {
	list := make([]*item[T], 0, len(declared))
	for _, o := range declared {
		if o == nil {
			continue
		}
		r := plan.Resource{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
		list = append(list, &item[T]{&subject{resource: r, order: order{o.GetCreationTimestamp().Time, r}}, (*T)(o)})
	}
	slices.SortStableFunc(list, func(a, b *item[T]) int { return compareResources(a.resource, b.resource) })
	var out []*item[T]
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && list[j].resource == list[i].resource {
			j++
		}
		first := list[i]
		if j > i+1 {
			first = slices.MinFunc(list[i:j], func(a, b *item[T]) int { return cmp.Compare(jsonOf(a.api), jsonOf(b.api)) })
			first.refuse("metadata.name", v1alpha1.ReasonDuplicate, "%s is declared %d times: keep one of them, or give the others names of their own", first, j-i)
		}
		c.subjects = append(c.subjects, first.subject)
		out = append(out, first)
		i = j
	}
	return out
}

// jsonOf orders what has nothing else to be ordered by. What cannot be marshalled (a duration never fails, a raw schema can) sorts first.
func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// findIn returns the declared object of a subject.
func findIn[T any](list []*item[T], s *subject) *T {
	for _, it := range list {
		if it.subject == s {
			return it.api
		}
	}
	return nil
}

func key(r plan.Resource) types.NamespacedName {
	return types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
}

// sorted are the values of m in the order of their names.
func sorted(m map[types.NamespacedName]*channel) []*channel {
	list := make([]*channel, 0, len(m))
	for _, ch := range m {
		list = append(list, ch)
	}
	slices.SortFunc(list, func(a, b *channel) int { return compareResources(a.resource, b.resource) })
	return list
}
