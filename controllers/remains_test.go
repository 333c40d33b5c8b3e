package controllers

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// ensuring counts what is asked for.
type ensuring struct {
	Brokers
	asked int
}

func (e *ensuring) Ensure(context.Context, Connection, plan.Object) (bool, error) {
	e.asked++
	return true, nil
}

// A resource may be deleted, its stream with it, and made anew before anybody has looked at it in between.
func TestWhatAnEarlierResourceOfTheNameMadeIsNotTakenToBeThere(t *testing.T) {
	b := &ensuring{}
	orders := plan.Resource{Kind: "Topic", Namespace: "shop", Name: "orders"}
	broker := &verdict{outcome: compile.Outcome{Resource: mainBroker, Connection: &plan.Broker{Name: "shop/main", Protocol: "NATS"}}}
	c := &Controller{options: Options{Brokers: b, Recheck: time.Hour}, ensured: map[plan.Resource]ensured{},
		world: &world{verdicts: map[plan.Resource]*verdict{mainBroker: broker}}}
	of := func(uid types.UID) *facts {
		return &facts{resource: orders, verdict: &verdict{uid: uid, owned: []plan.Object{{Ref: plan.Ref{Broker: "shop/main", Kind: "Topic", Name: "shop_orders"}}}}}
	}
	for i, uid := range []types.UID{"first", "first", "second"} {
		if err := c.ensureAll(t.Context(), of(uid)); err != nil {
			t.Fatal(err)
		}
		if want := 1 + i/2; b.asked != want {
			t.Errorf("after %d passes the broker was asked %d times, want %d", i+1, b.asked, want)
		}
	}
}

// vanished has no object any more.
type vanished struct{ client.Client }

func (vanished) Patch(context.Context, client.Object, client.Patch, ...client.PatchOption) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "topics"}, "orders")
}

func TestNothingIsMadeForAResourceThatIsGone(t *testing.T) {
	c := &Controller{client: vanished{}}
	if err := c.setFinalizer(t.Context(), &v1alpha1.Topic{}, true); !apierrors.IsNotFound(err) {
		t.Errorf("what follows would make its objects: %v", err)
	}
	leaving := &v1alpha1.Topic{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{Finalizer}}}
	if err := c.setFinalizer(t.Context(), leaving, false); err != nil {
		t.Errorf("it may go, and has gone: %v", err)
	}
}

// Two Brokers may have one Secret, and a cache lists them in any order: from one compilation to the next the copies would change hands.
func TestOfBrokersWithOneSecretTheSameOneAlwaysHandsItOut(t *testing.T) {
	broker := func(name string) *v1alpha1.Broker {
		return &v1alpha1.Broker{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: v1alpha1.BrokerSpec{SecretRef: &v1alpha1.SecretReference{Name: "user"}}}
	}
	shop := func(name string) plan.Resource { return plan.Resource{Kind: "Broker", Namespace: "shop", Name: name} }
	copied := compile.Mirror{Broker: shop("a"), From: types.NamespacedName{Namespace: "shop", Name: "user"}, To: types.NamespacedName{Namespace: "web", Name: "user-copy"}, Keys: []string{"username"}}
	authority := copied // the same Secret may be there for several things
	authority.Keys = []string{"ca.crt"}
	another := copied
	another.Broker = shop("b")
	for _, order := range [][]*v1alpha1.Broker{{broker("a"), broker("b")}, {broker("b"), broker("a")}} {
		verdicts := map[plan.Resource]*verdict{}
		for _, b := range order {
			r := resourceOf("Broker", b)
			verdicts[r] = &verdict{outcome: compile.Outcome{Resource: r}}
		}
		tellBrokers(compile.Input{Brokers: order}, []compile.Outcome{{Mirrors: []compile.Mirror{another, copied, authority}}, {Mirrors: []compile.Mirror{copied}}}, verdicts)
		for r, v := range verdicts {
			if hands := len(v.copies) == 1; hands != (r.Name == "a") {
				t.Errorf("listed with %s first, %s hands it out: %v", order[0].Name, r.Name, hands)
			} else if hands && !slices.Equal(v.copies[0].Keys, []string{"ca.crt", "username"}) {
				t.Errorf("%v are handed out", v.copies[0].Keys)
			}
		}
	}
}

// One that is refused or being deleted looks after no copy, so another one with the same Secret has to; and none is told of a copy for a
// namespace that it does not admit.
func TestABrokerThatLooksAfterNothingHandsOutNoSecretWhereAnotherOneCan(t *testing.T) {
	copied := func(of ...string) (all []compile.Mirror) {
		for _, name := range of {
			all = append(all, compile.Mirror{Broker: plan.Resource{Kind: "Broker", Namespace: "shop", Name: name},
				From: types.NamespacedName{Namespace: "shop", Name: "user"}, To: types.NamespacedName{Namespace: "web", Name: "user-copy"}, Keys: []string{"username"}})
		}
		return all
	}
	wrong := verdict{diagnostics: []compile.Diagnostic{{Kind: "Broker", Field: "spec.tls", Reason: v1alpha1.ReasonSecretNotFound, Message: "is missing"}}}
	for name, test := range map[string]struct {
		a, b  verdict
		users []string
		by    string
	}{
		"the first is refused":       {wrong, verdict{}, []string{"a", "b"}, "b"},
		"the first is being deleted": {verdict{deleting: true}, verdict{}, []string{"a", "b"}, "b"},
		"both are refused":           {wrong, wrong, []string{"a", "b"}, "a"},
		"only the second admits it":  {verdict{}, verdict{}, []string{"b"}, "b"},
		"and is refused":             {verdict{}, wrong, []string{"b"}, "b"},
	} {
		in, verdicts := compile.Input{}, map[plan.Resource]*verdict{}
		for name, v := range map[string]*verdict{"a": &test.a, "b": &test.b} {
			b := &v1alpha1.Broker{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: v1alpha1.BrokerSpec{SecretRef: &v1alpha1.SecretReference{Name: "user"}}}
			in.Brokers = append(in.Brokers, b)
			v.outcome.Resource = resourceOf("Broker", b)
			verdicts[v.outcome.Resource] = v
		}
		tellBrokers(in, []compile.Outcome{{Mirrors: copied(test.users...)}}, verdicts)
		for r, v := range verdicts {
			if (len(v.copies) == 1) != (r.Name == test.by) {
				t.Errorf("%s: %s hands out %v", name, r.Name, v.copies)
			}
		}
	}
}

// copying has copies of Secrets, and remembers how each was deleted.
type copying struct {
	client.Client
	live    []corev1.Secret
	deleted map[string]client.DeleteOptions
}

func (c copying) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*corev1.SecretList).Items = c.live
	return nil
}

func (c copying) Delete(_ context.Context, o client.Object, opts ...client.DeleteOption) error {
	var as client.DeleteOptions
	c.deleted[o.GetNamespace()] = *as.ApplyOptions(opts)
	return nil
}

// The one that hands them out from now on may not have come to it yet, or just now: Pods would wait for a Secret that is made anew.
func TestACopyThatAnotherBrokerHandsOutIsNotTakenBack(t *testing.T) {
	copied := func(namespace string) corev1.Secret {
		return corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "user-copy", UID: "its", ResourceVersion: "7"}}
	}
	secrets := copying{live: []corev1.Secret{copied("web"), copied("old")}, deleted: map[string]client.DeleteOptions{}}
	another := &verdict{copies: []compile.Mirror{{To: types.NamespacedName{Namespace: "web", Name: "user-copy"}}}}
	c := &Controller{client: secrets, world: &world{verdicts: map[plan.Resource]*verdict{{Kind: "Broker", Namespace: "shop", Name: "another"}: another}}}
	if err := c.copySecrets(t.Context(), &facts{resource: mainBroker, verdict: &verdict{}}); err != nil {
		t.Fatal(err)
	}
	if _, ok := secrets.deleted["web"]; ok || len(secrets.deleted) != 1 {
		t.Errorf("deleted: %v", secrets.deleted)
	}
	if as := secrets.deleted["old"].Preconditions; as == nil || *as.UID != "its" || as.ResourceVersion == nil || *as.ResourceVersion != "7" {
		t.Errorf("deleted is what may be another Broker's by now: %v", as)
	}
}
