package controllers

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

func TestConditionsFollowFromFacts(t *testing.T) {
	running := rollout{exists: true, current: true, generation: 2, observed: 2, wanted: 1, replicas: 1, updated: 1, available: 1}
	set := &workload.Set{Replicas: 1}
	refused := &verdict{diagnostics: []compile.Diagnostic{
		{Field: "spec.topicRef", Reason: v1alpha1.ReasonReferenceNotFound, Message: "there is none"},
		{Field: "spec.filter.cel", Reason: v1alpha1.ReasonInvalidExpression, Message: "it does not compile"},
	}}
	for name, test := range map[string]struct {
		facts                       facts
		accepted, programmed, ready string
		extra                       string
	}{
		"runs": {facts{verdict: &verdict{}, set: set, rollout: running},
			"True Accepted", "True Programmed", "True Running", ""},
		"is paused": {facts{verdict: &verdict{outcome: compile.Outcome{Paused: true}}, set: &workload.Set{}, rollout: rollout{exists: true, current: true}},
			"True Accepted", "True Programmed", "True Paused", ""},
		"is scaled to nothing": {facts{verdict: &verdict{}, set: &workload.Set{}, rollout: rollout{exists: true, current: true}},
			"True Accepted", "True Programmed", "True ScaledToZero", ""},
		"rolls out": {facts{verdict: &verdict{}, set: set, rollout: rollout{exists: true, current: true, generation: 2, observed: 1, wanted: 1, replicas: 1, updated: 1, available: 1}},
			"True Accepted", "True Programmed", "False RollingOut", "Reconciling RollingOut"},
		"was just changed": {facts{verdict: &verdict{}, set: set, rollout: rollout{exists: true, wanted: 1, replicas: 1, updated: 1, available: 1}},
			"True Accepted", "True Programmed", "False RollingOut", "Reconciling RollingOut"},
		"is stuck": {facts{verdict: &verdict{}, set: set, rollout: rollout{exists: true, wanted: 1, stuck: "no room"}},
			"True Accepted", "True Programmed", "False RolloutFailed", "Stalled RolloutFailed"},
		"is refused, by the fault that somebody has to mend": {facts{verdict: refused},
			"False InvalidExpression", "False InvalidExpression", "False InvalidExpression", "Stalled InvalidExpression"},
		"waits for what is missing": {facts{verdict: &verdict{diagnostics: refused.diagnostics[:1]}},
			"False ReferenceNotFound", "False ReferenceNotFound", "False ReferenceNotFound", "Reconciling ReferenceNotFound"},
		"waits for a probe": {facts{verdict: &verdict{diagnostics: []compile.Diagnostic{{Kind: "Topic", Reason: v1alpha1.ReasonWaitingForBroker}}}},
			"Unknown WaitingForBroker", "False WaitingForBroker", "False WaitingForBroker", "Reconciling WaitingForBroker"},
		"is a Broker that has not been probed": {facts{resource: plan.Resource{Kind: "Broker"}, verdict: &verdict{diagnostics: []compile.Diagnostic{{Kind: "Broker", Reason: v1alpha1.ReasonWaitingForBroker}}}},
			"True Accepted", "True Programmed", "True Reachable", ""},
		"has a broker that is away": {facts{verdict: &verdict{}, set: set, rollout: running, problem: &problem{class: passes, reason: v1alpha1.ReasonUnreachableFromManager}},
			"True Accepted", "False UnreachableFromManager", "False UnreachableFromManager", "Reconciling UnreachableFromManager"},
		"is a Broker that is away": {facts{verdict: &verdict{}, problem: &problem{class: passes, reason: v1alpha1.ReasonUnreachable, afterMaking: true}},
			"True Accepted", "True Programmed", "False Unreachable", "Reconciling Unreachable"},
		"drains": {facts{verdict: &verdict{}, leaving: draining("")},
			"True Accepted", "True Programmed", "False Draining", "Reconciling Draining"},
	} {
		t.Run(name, func(t *testing.T) {
			accepted, programmed, ready, reconciling, stalled := conclude(&test.facts)
			text := func(a answer) string { return string(a.status) + " " + string(a.reason) }
			extra := ""
			if reconciling != nil {
				extra += "Reconciling " + string(reconciling.reason)
			}
			if stalled != nil {
				extra += "Stalled " + string(stalled.reason)
			}
			if text(accepted) != test.accepted || text(programmed) != test.programmed || text(ready) != test.ready || extra != test.extra {
				t.Errorf("Accepted=%s Programmed=%s Ready=%s and %q", text(accepted), text(programmed), text(ready), extra)
			}
		})
	}
}

func TestARefusalNamesEachFieldAndEndsSomewhere(t *testing.T) {
	v := &verdict{}
	for range 20 {
		v.diagnostics = append(v.diagnostics, compile.Diagnostic{Field: "spec.x", Reason: v1alpha1.ReasonInvalid, Message: "is wrong"})
	}
	lines := strings.Split(refusal(v).message, "\n")
	if len(lines) != 9 || lines[0] != "spec.x: is wrong" || lines[8] != "and 12 more" {
		t.Errorf("%q", lines)
	}
}

func TestAnErrorHasOneClass(t *testing.T) {
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for name, test := range map[string]struct {
		err    error
		class  class
		reason v1alpha1.Reason
	}{
		"a broker that is away":        {&BrokerError{v1alpha1.ReasonUnreachable, errors.New("no route")}, passes, v1alpha1.ReasonUnreachableFromManager},
		"another owner on the broker":  {&BrokerError{v1alpha1.ReasonConflict, errors.New("taken")}, stalls, v1alpha1.ReasonConflict},
		"refused credentials":          {&BrokerError{v1alpha1.ReasonDenied, errors.New("no")}, stalls, v1alpha1.ReasonDenied},
		"a stream that is not there":   {&BrokerError{v1alpha1.ReasonReferenceNotFound, errors.New("none")}, passes, v1alpha1.ReasonReferenceNotFound},
		"somebody was quicker":         {apierrors.NewConflict(deployments, "x", errors.New("modified")), passes, v1alpha1.ReasonRollingOut},
		"an object that is not taken":  {apierrors.NewForbidden(deployments, "x", errors.New("quota")), stalls, v1alpha1.ReasonInvalid},
		"an API server that is away":   {errors.New("connection refused"), passes, v1alpha1.ReasonRollingOut},
		"what has a class, in a chain": {errors.Join(draining("")), waits, v1alpha1.ReasonDraining},
	} {
		if p := problemOf(test.err); p.class != test.class || p.reason != test.reason {
			t.Errorf("%s: class %d, reason %s", name, p.class, p.reason)
		}
	}
}

func TestOnlyWhatDiffersIsApplied(t *testing.T) {
	object := func(applied string, spec map[string]any) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
		u.SetAnnotations(map[string]string{workload.AnnotationApplied: applied})
		return u
	}
	env := func(names ...string) []any {
		var list []any
		for _, n := range names {
			list = append(list, map[string]any{"name": n, "value": "1"})
		}
		return list
	}
	for name, test := range map[string]struct {
		desired, live *unstructured.Unstructured
		same          bool
	}{
		"the same":                      {object("a", map[string]any{"n": int64(1)}), object("a", map[string]any{"n": int64(1)}), true},
		"a default was added":           {object("a", map[string]any{"n": int64(1)}), object("a", map[string]any{"n": 1.0, "policy": "Always"}), true},
		"another value":                 {object("a", map[string]any{"n": int64(1)}), object("a", map[string]any{"n": int64(2)}), false},
		"a field was taken out":         {object("b", map[string]any{}), object("a", map[string]any{"n": int64(1)}), false},
		"a field is missing":            {object("a", map[string]any{"n": int64(1)}), object("a", nil), false},
		"others named one more":         {object("a", map[string]any{"env": env("X")}), object("a", map[string]any{"env": env("THEIRS", "X")}), true},
		"one of ours is gone":           {object("a", map[string]any{"env": env("X", "Y")}), object("a", map[string]any{"env": env("X")}), false},
		"a list without names is ours":  {object("a", map[string]any{"args": []any{"x"}}), object("a", map[string]any{"args": []any{"x", "y"}}), false},
		"nothing wanted, nothing there": {object("a", map[string]any{"selector": map[string]any{}}), object("a", map[string]any{}), true},
	} {
		if inPlace(test.desired, test.live) != test.same {
			t.Errorf("%s: want same=%v", name, test.same)
		}
	}
}

func TestSecretsAreFoundWhereverTheyAreNamed(t *testing.T) {
	p := &v1alpha1.Poller{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "rates"}}
	p.Spec.HTTP = &v1alpha1.HTTPSource{Auth: &v1alpha1.ClientAuth{Bearer: &v1alpha1.BearerAuth{SecretRef: v1alpha1.SecretKeyReference{Name: "token"}}}}
	p.Spec.Workload = &v1alpha1.Workload{
		Env:              []v1alpha1.EnvVar{{Name: "A", SecretRef: &v1alpha1.SecretKeyReference{Name: "env"}}, {Name: "B", SecretRef: &v1alpha1.SecretKeyReference{Name: "env"}}},
		ImagePullSecrets: []v1alpha1.SecretReference{{Name: "pull"}},
	}
	var names []string
	for _, s := range secretsOf(p) {
		names = append(names, s.String())
	}
	if got := strings.Join(names, " "); got != "shop/env shop/pull shop/token" {
		t.Error(got)
	}
	embedded := &v1alpha1.Broker{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "main"}, Spec: v1alpha1.BrokerSpec{Type: v1alpha1.BrokerEmbedded}}
	if got := secretsOf(embedded); len(got) != 1 || got[0].Name != "main-broker" {
		t.Error(got)
	}
}

func TestTheStatusCountsPodsAlsoWhileSomethingIsWrong(t *testing.T) {
	r := plan.Resource{Kind: "Topic", Namespace: "shop", Name: "orders"}
	live := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"replicas": int64(3)}}}
	c := &Controller{client: cached{live: live}, ensured: map[plan.Resource]ensured{}, world: &world{kinds: kinds()}}
	topic, f := topicOf(r), withoutBroker(r)
	if f.problem = asProblem(c.make(t.Context(), c.world.kind("Topic"), topic, f)); f.problem == nil {
		t.Fatal("its Broker cannot be used")
	}
	if c.world.kind("Topic").report(topic, f); topic.Status.Replicas != 3 {
		t.Errorf("replicas: %d", topic.Status.Replicas)
	}
}
