package controllers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// scripted answers probes and counts as it is told to.
type scripted struct {
	Brokers
	found  Found
	err    error
	states map[string]State
	asked  []int // objects in each call of Inspect
}

func (s *scripted) Probe(context.Context, Connection) (Found, error) { return s.found, s.err }

func (s *scripted) Inspect(_ context.Context, _ Connection, objects []plan.Ref) ([]State, error) {
	s.asked = append(s.asked, len(objects))
	out := make([]State, len(objects))
	for i, o := range objects {
		out[i] = s.states[o.Name]
	}
	return out, s.err
}

func (s *scripted) Forget(types.NamespacedName) {}

var mainBroker = plan.Resource{Kind: "Broker", Namespace: "shop", Name: "main"}

func probing(b *scripted) (*Controller, *facts) {
	c := &Controller{
		options: Options{Brokers: b, Probe: time.Hour}, probed: map[plan.Resource]*Found{}, reachable: map[plan.Resource]bool{}, world: &world{},
		retry:    workqueue.NewTypedItemExponentialFailureRateLimiter[plan.Resource](time.Second, time.Minute),
		backlogs: backlogs{of: map[plan.Resource]*int64{}, counted: map[plan.Resource]time.Time{}},
		left:     prometheus.NewCounter(prometheus.CounterOpts{Name: "left_total", Help: "."}),
	}
	v := &verdict{outcome: compile.Outcome{Resource: mainBroker, Connection: &plan.Broker{Name: "shop/main", Protocol: "NATS"}}}
	return c, &facts{resource: mainBroker, verdict: v}
}

// Everything on a broker is compiled by its features: what one odd answer says must not roll a thousand Pods.
func TestOtherFeaturesAreTakenOverWhenTheyAreFoundTwice(t *testing.T) {
	with := func(flags ...string) Found {
		return Found{Version: "1", Features: v1alpha1.BrokerFeatures{Flags: flags}}
	}
	b := &scripted{found: with("AtomicBatch")}
	c, f := probing(b)
	o := &v1alpha1.Broker{}
	probe := func(found Found, want bool) {
		t.Helper()
		b.found, f.found = found, nil
		if err := c.probe(t.Context(), o, f); err != nil {
			t.Fatal(err)
		}
		if got := f.found != nil; got != want {
			t.Errorf("%v is taken over: %v", found, got)
		}
		if f.found != nil {
			o.Status.Features = &f.found.Features
		}
	}
	probe(with("AtomicBatch"), true) // nothing was known
	probe(with(), false)
	probe(with("AtomicBatch"), false) // two that differ are no pair, and it is what is known anyway
	probe(with("AtomicBatch"), true)
	probe(with(), false)
	b.err = &BrokerError{v1alpha1.ReasonUnreachable, errors.New("no route")}
	f.found = nil
	if err := c.probe(t.Context(), o, f); err == nil || f.found != nil {
		t.Errorf("away: %v", err)
	}
	b.err = nil
	probe(with(), true) // an outage in between is no third answer
}

func TestBacklogsAreCountedForAllInOneCallAndAtMostOnceAMinute(t *testing.T) {
	b := &scripted{states: map[string]State{"invoices": {Exists: true, Messages: 4711}, "billing": {Exists: true, Messages: -1}}}
	c, f := probing(b)
	invoices, billing, other := plan.Resource{Kind: "Mailbox", Namespace: "shop", Name: "invoices"}, plan.Resource{Kind: "Subscription", Namespace: "shop", Name: "billing"}, plan.Resource{Kind: "Mailbox", Namespace: "shop", Name: "other"}
	mailbox := func(broker, name string) *verdict {
		return &verdict{outcome: compile.Outcome{Plan: &plan.Plan{Mailbox: &plan.Mailbox{Object: plan.Ref{Broker: broker, Kind: "Queue", Name: name}}}}}
	}
	c.world.verdicts = map[plan.Resource]*verdict{
		invoices: mailbox("shop/main", "invoices"), other: mailbox("shop/another", "other"), mainBroker: f.verdict,
		billing: {outcome: compile.Outcome{Plan: &plan.Plan{Flow: &plan.Flow{Source: plan.Source{Object: plan.Ref{Broker: "shop/main", Kind: "Topic", Name: "orders"}, Group: "billing"}}}}},
	}
	var woken []plan.Resource
	c.world.wake = func(r plan.Resource) { woken = append(woken, r) }
	for range 3 {
		c.countBacklogs(t.Context(), f)
	}
	if len(b.asked) != 1 || b.asked[0] != 2 || len(woken) != 2 {
		t.Errorf("asked %v, woke %v", b.asked, woken)
	}
	if n, ok := c.backlogs.get(invoices); !ok || n == nil || *n != 4700 {
		t.Errorf("%v %v", n, ok)
	}
	if n, ok := c.backlogs.get(billing); !ok || n != nil {
		t.Errorf("a broker that cannot say: %v %v", n, ok)
	}
	if _, ok := c.backlogs.get(other); ok {
		t.Error("what is on another Broker was counted")
	}
	b.states["invoices"] = State{Exists: true, Messages: 4790}
	c.backlogs.counted[mainBroker] = time.Time{}
	if c.countBacklogs(t.Context(), f); len(b.asked) != 2 || len(woken) != 2 {
		t.Errorf("woke %v for a difference that nobody sees", woken)
	}
	for n, want := range map[int64]int64{0: 0, 9: 9, 99: 99, 100: 100, 119: 110, 12345: 12000} {
		if got := twoDigits(n); got != want {
			t.Errorf("%d is told as %d", n, got)
		}
	}
}

func TestTheOperatorsMetrics(t *testing.T) {
	c, f := probing(&scripted{})
	c.world.verdicts = map[plan.Resource]*verdict{mainBroker: f.verdict, {Kind: "Topic", Name: "orders"}: {diagnostics: []compile.Diagnostic{{Kind: "Topic", Reason: v1alpha1.ReasonInvalid}}}}
	c.reachable[mainBroker] = true
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, family := range families {
		got[family.GetName()] = len(family.GetMetric())
	}
	if got["waybill_resources"] != 2 || got["waybill_broker_reachable"] != 1 || got["waybill_image_rollouts"] != 2 || got["left_total"] != 1 {
		t.Errorf("%v", got)
	}
}

func TestSomebodyElsesObjectIsToldInPlainWords(t *testing.T) {
	ours := plan.Object{Ref: plan.Ref{Broker: "shop/main", Kind: "Topic", Name: "orders"}, Owner: "cluster-1/Topic/shop/orders"}
	taken := &BrokerError{v1alpha1.ReasonConflict, errors.New("owner")}
	for theirs, want := range map[string]string{
		"cluster-2/Topic/shop/orders": "belongs to Topic/shop/orders of another cluster (cluster-2)",
		"cluster-1/Topic/shop/bills":  "belongs to Topic/shop/bills",
		"Topic/shop/orders":           "belongs to Topic/shop/orders of a laptop",
		"":                            "was not made by Waybill",
	} {
		c, _ := probing(&scripted{states: map[string]State{"orders": {Exists: true, Owner: theirs}}})
		want := "Topic orders on Broker shop/main exists and " + want + ": give this Broker another spec.prefix, or use the object as it is by its spec.externalName"
		if p := c.taken(t.Context(), Connection{}, ours, taken); p == nil || p.message != want || p.class != stalls || p.reason != v1alpha1.ReasonConflict {
			t.Errorf("%+v", p)
		}
	}
	c, _ := probing(&scripted{states: map[string]State{"orders": {Exists: true, Owner: ours.Owner}}})
	if p := c.taken(t.Context(), Connection{}, ours, taken); p != nil {
		t.Errorf("a conflict about something else: %v", p)
	}
}
