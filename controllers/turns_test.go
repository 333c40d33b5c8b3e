package controllers

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestTwentyHaveATurnAtATimeInTheOrderInWhichTheyAsked(t *testing.T) {
	r := func(i int) plan.Resource { return plan.Resource{Kind: "Topic", Namespace: "shop", Name: fmt.Sprint(i)} }
	var turns turns
	seeds := 0
	take := func(i int) bool {
		t.Helper()
		ok, err := turns.take(r(i), func() ([]plan.Resource, error) { seeds++; return []plan.Resource{r(100), r(101)}, nil })
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for i := range 25 {
		if got, want := take(i), i < rollAtOnce-2; got != want { // two were on their way
			t.Errorf("%d has a turn: %v", i, got)
		}
	}
	if !take(0) || take(24) || seeds != 1 || !turns.waits(r(24)) || turns.waits(r(0)) {
		t.Error("a turn lasts until it is done, and the seed is asked once")
	}
	if next := turns.done(r(3)); len(next) != 1 || next[0] != r(18) {
		t.Errorf("next is %v", next)
	}
	if take(19) || !take(18) || take(19) {
		t.Error("who came later was first")
	}
	// One that waits and goes away is not waited for.
	turns.done(r(19))
	if next := turns.done(r(100)); len(next) != 1 || next[0] != r(20) || !take(20) {
		t.Errorf("next is %v", next)
	}
	if rolling, waiting := turns.counts(); rolling != rollAtOnce || waiting != 4 {
		t.Errorf("%d roll and %d wait", rolling, waiting)
	}
}

// Who waits for a turn may get a fault, and then it would never take the turn that all behind it wait for.
func TestWhoHasAFaultLeavesTheQueueButKeepsItsTurn(t *testing.T) {
	r := func(name string, i int) plan.Resource {
		return plan.Resource{Kind: "Topic", Namespace: "shop", Name: fmt.Sprint(name, i)}
	}
	woken := map[plan.Resource]bool{}
	c := &Controller{client: cached{live: &unstructured.Unstructured{}}, ensured: map[plan.Resource]ensured{}, world: &world{kinds: kinds(), wake: func(r plan.Resource) { woken[r] = true }}}
	take := func(r plan.Resource) bool {
		ok, _ := c.turns.take(r, func() ([]plan.Resource, error) { return nil, nil })
		return ok
	}
	for _, name := range []string{"rolls", "stalls", "well"} {
		for i := range rollAtOnce {
			take(r(name, i))
		}
	}
	fails := func(r plan.Resource) {
		t.Helper()
		if err := c.make(t.Context(), c.world.kind("Topic"), topicOf(r), withoutBroker(r)); problemOf(err).reason != v1alpha1.ReasonWaitingForBroker {
			t.Fatal(err)
		}
	}
	fails(r("rolls", 0))
	for i := 1; i < rollAtOnce; i++ {
		c.turnOver(r("rolls", i))
	}
	if rolling, _ := c.turns.counts(); rolling != 1 {
		t.Errorf("%d roll: the Pods of the first are on their way", rolling)
	}
	for i := range rollAtOnce {
		fails(r("stalls", i))
	}
	for i := range rollAtOnce - 1 {
		if !woken[r("well", i)] || !take(r("well", i)) {
			t.Errorf("%d waits for those that have faults", i)
		}
	}
	if take(r("well", rollAtOnce-1)) {
		t.Error("one more than have a turn at a time")
	}
}

// A manager from before the annotation left Deployments whose Pods have its variables and that do not say so.
func TestWhoWaitsKeepsTheVariablesThatNoAnnotationTells(t *testing.T) {
	r := plan.Resource{Kind: "Topic", Namespace: "shop", Name: "orders"}
	c := &Controller{options: Options{Settings: workload.Settings{WorkerImage: "worker:1", Env: map[string]string{"STAGE": "a"}}}}
	topic, f := topicOf(r), withoutBroker(r)
	deployment := func() *unstructured.Unstructured {
		return f.set.Owned[slices.IndexFunc(f.set.Owned, func(u *unstructured.Unstructured) bool { return u.GetKind() == "Deployment" })]
	}
	build := func() *unstructured.Unstructured {
		t.Helper()
		var err error
		if f.set, err = c.build(topic, f.verdict, c.options.Settings); err != nil {
			t.Fatal(err)
		}
		return deployment()
	}
	live := build()
	live.SetAnnotations(nil)
	live.Object["status"] = map[string]any{"replicas": int64(1), "updatedReplicas": int64(1), "availableReplicas": int64(1)}
	c.client = cached{live: live}
	c.turns.seeded, c.turns.held = true, map[plan.Resource]bool{}
	for i := range rollAtOnce {
		c.turns.held[plan.Resource{Name: fmt.Sprint(i)}] = true
	}
	build()
	if waits, err := c.keepRelease(t.Context(), topic, f); waits || err != nil {
		t.Errorf("only the annotation is new, and no Pod changes: %v, %v", waits, err)
	}
	c.options.Settings.WorkerImage = "worker:2"
	build()
	if waits, err := c.keepRelease(t.Context(), topic, f); !waits || err != nil {
		t.Fatal(waits, err)
	}
	if kept := deployment(); !reflect.DeepEqual(kept.Object["spec"], live.Object["spec"]) {
		t.Errorf("the Pods change without a turn: %v, were %v", kept.Object["spec"], live.Object["spec"])
	}
}

// cached has one object.
type cached struct {
	client.Client
	live *unstructured.Unstructured
}

func (c cached) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	c.live.DeepCopyInto(o.(*unstructured.Unstructured))
	return nil
}

func topicOf(r plan.Resource) *v1alpha1.Topic {
	return &v1alpha1.Topic{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Name, UID: "first", Finalizers: []string{Finalizer}}}
}

// withoutBroker are the facts of a resource whose Broker cannot be used.
func withoutBroker(r plan.Resource) *facts {
	return &facts{resource: r, verdict: &verdict{outcome: compile.Outcome{Resource: r, Plan: &plan.Plan{}},
		owned: []plan.Object{{Ref: plan.Ref{Broker: "shop/main", Kind: "Topic", Name: r.Name}}}}}
}
