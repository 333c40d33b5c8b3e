package controllers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
	"github.com/waybill-dev/waybill/runtime/secret"
)

// A cluster has Secrets by name, of which some cannot be read, and a ready Pod of each resource, all of which answer the same.
type cluster struct {
	client.Reader

	secrets map[string]*corev1.Secret // nil: it cannot be read
	pods    []plan.Resource
	status  string
}

func (c *cluster) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	switch s, ok := c.secrets[key.Name]; {
	case !ok:
		return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, key.Name)
	case s == nil:
		return errors.New("a bad day")
	default:
		s.DeepCopyInto(o.(*corev1.Secret))
	}
	return nil
}

func (c *cluster) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	for _, r := range c.pods {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: workload.Labels(r)}}
		p.Status = corev1.PodStatus{PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		list.(*corev1.PodList).Items = append(list.(*corev1.PodList).Items, p)
	}
	return nil
}

func (c *cluster) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(c.status))}, nil
}

// asking is a controller of a cluster with these resources.
func (c *cluster) asking(of map[plan.Resource]*verdict) *Controller {
	w := &world{verdicts: of, wake: func(plan.Resource) {}}
	return &Controller{options: Options{Workers: c}, direct: c, world: w, credentials: credentials{told: map[plan.Resource]told{}}}
}

func using(name string, brokers ...plan.Broker) (plan.Resource, *verdict) {
	r := plan.Resource{Kind: "Pipeline", Namespace: "shop", Name: name}
	return r, &verdict{uid: types.UID(name), outcome: compile.Outcome{Resource: r, Plan: &plan.Plan{Resource: r, Brokers: brokers}}}
}

// The sessions on one Broker read other keys of the same Secret than those on another, and a worker tells of each.
func TestTwoBrokersMayReadOtherKeysOfOneSecret(t *testing.T) {
	data := map[string][]byte{"username": []byte("u"), "password": []byte("p"), "token": []byte("t"), "ca.crt": []byte("c")}
	says := func(broker string, keys ...string) string {
		return `{"broker":"` + broker + `","secret":"user","generation":"` + secret.Generation("shop", "user", only(keys, data)) + `"}`
	}
	cluster := &cluster{secrets: map[string]*corev1.Secret{"user": {ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}, Data: data}}}
	r, v := using("copy",
		plan.Broker{Name: "shop/nats", Protocol: "NATS", Secret: "user", TLS: &plan.TLS{CA: &plan.SecretRef{Name: "user", Key: "ca.crt"}}},
		plan.Broker{Name: "shop/own", Protocol: "Embedded", Secret: "user"})
	cluster.pods = []plan.Resource{r}
	c := cluster.asking(map[plan.Resource]*verdict{r: v})
	ours := says("shop/nats", "ca.crt", "password", "token", "username")
	for _, test := range []struct{ status, want string }{
		{ours, "NotTold"},
		{ours + "," + says("shop/own", "username"), "Rotating"},
		{ours + "," + says("shop/own", "password", "username"), "UpToDate"},
	} {
		cluster.status = `{"credentials":[` + test.status + `]}`
		if err := c.askWorkers(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := c.credentials.get(r, c.world.asks(v))
		if a == nil || string(a.reason) != test.want || strings.Count(a.message, "Secret user (resourceVersion 7)") != 1 {
			t.Errorf("%s: %+v", test.want, a)
		}
	}
}

func TestASecretThatCannotBeReadKeepsNoOtherResourceFromBeingAsked(t *testing.T) {
	c := &cluster{secrets: map[string]*corev1.Secret{"unreadable": nil}, status: "{}"}
	all := map[plan.Resource]*verdict{}
	for _, name := range []string{"unreadable", "a", "b", "c"} {
		r, v := using(name, plan.Broker{Name: "shop/main", Protocol: "NATS", Secret: name})
		all[r], c.pods = v, append(c.pods, r)
	}
	ctl := c.asking(all)
	if err := ctl.askWorkers(t.Context()); err == nil {
		t.Error("nobody is told that one could not be read")
	}
	for r, v := range all {
		a := ctl.credentials.get(r, ctl.world.asks(v))
		if (a != nil) != (r.Name != "unreadable") || a != nil && !strings.Contains(a.message, "Secret "+r.Name+" (which is gone)") {
			t.Errorf("%s: %+v", r.Name, a)
		}
	}
}

// What Pods told of something else, or those of an earlier resource of the name, is not told of what there is now.
func TestAnAnswerIsOfWhatWasAskedAbout(t *testing.T) {
	r, v := using("copy", plan.Broker{Name: "shop/main", Protocol: "NATS", Secret: "user"})
	c := (&cluster{}).asking(map[plan.Resource]*verdict{r: v})
	c.credentials.set(r, told{c.world.asks(v), answer{status: metav1.ConditionTrue}})
	for name, change := range map[string]func(v *verdict){
		"another resource": func(v *verdict) { v.uid = "its successor" },
		"another Broker": func(v *verdict) {
			v.outcome.Plan = &plan.Plan{Brokers: []plan.Broker{{Name: "shop/another", Secret: "user"}}}
		},
	} {
		now := *v
		change(&now)
		if c.credentials.get(r, c.world.asks(&now)) != nil || c.credentials.get(r, c.world.asks(v)) == nil {
			t.Error(name)
		}
	}
	c.world.verdicts = nil // it has gone, and its answer came after that
	if err := c.askWorkers(t.Context()); err != nil || len(c.credentials.told) != 0 {
		t.Errorf("%v, %v", c.credentials.told, err)
	}

	k := kinds()[slices.IndexFunc(kinds(), func(k kind) bool { return k.name == "Topic" })]
	topic := &v1alpha1.Topic{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	report := func(a *answer) *metav1.Condition {
		k.report(topic, &facts{resource: r, verdict: v, credentials: a})
		return stateOf(topic.Status.Conditions, v1alpha1.ConditionCredentialsCurrent)
	}
	report(&answer{status: metav1.ConditionTrue, reason: v1alpha1.ReasonUpToDate})
	if report(nil) == nil {
		t.Error("another manager has nothing against what was told before")
	}
	topic.Generation = 2
	if said := report(nil); said != nil {
		t.Errorf("of what is declared now nobody has told, and it says %v", said)
	}
}
