package controllers

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// facts are everything that a status is made of.
type facts struct {
	resource plan.Resource
	verdict  *verdict
	set      *workload.Set // nil: nothing runs for it
	rollout  rollout
	// problem keeps it from being in place; nil: it is.
	problem *problem
	// leaving says how far its deletion is; nil: it is not being deleted.
	leaving *problem
	found   *Found // of a Broker: the last probe that succeeded in this process
	// backlog is what waits for it; counted: somebody has asked, and nil is an answer.
	backlog *int64
	counted bool
	// credentials are what its Pods said of those that they are to use now; nil: they have not been asked.
	credentials *answer
	// again is when to look once more although nothing is wrong; 0: as ever.
	again time.Duration
}

// answer is what a condition says.
type answer struct {
	status  metav1.ConditionStatus
	reason  v1alpha1.Reason
	message string
}

// conclude answers the questions that conditions are. Reconciling and Stalled are nil while they are not true.
func conclude(f *facts) (accepted, programmed, ready answer, reconciling, stalled *answer) {
	is := func(reason v1alpha1.Reason, message string) answer {
		return answer{metav1.ConditionTrue, reason, message}
	}
	not := func(p *problem) answer { return answer{metav1.ConditionFalse, p.reason, p.message} }
	hold := func(p *problem) {
		a := is(p.reason, p.message)
		if p.class == stalls {
			stalled = &a
		} else {
			reconciling = &a
		}
	}

	accepted = is(v1alpha1.ReasonAccepted, "The declaration is valid, and what it asks for can be given.")
	if p := refusal(f.verdict); p != nil {
		accepted = not(p)
		if p.reason == v1alpha1.ReasonWaitingForBroker {
			accepted.status = metav1.ConditionUnknown
		}
		programmed, ready = not(p), not(p)
		hold(p)
	} else {
		switch r := f.rollout; {
		case f.problem != nil:
			programmed, ready = not(f.problem), not(f.problem)
			hold(f.problem)
		case f.set != nil && r.stuck != "":
			ready = not(&problem{reason: v1alpha1.ReasonRolloutFailed, message: r.stuck})
			hold(&problem{class: stalls, reason: v1alpha1.ReasonRolloutFailed, message: r.stuck})
		case f.set != nil && !r.complete():
			p := &problem{class: waits, reason: v1alpha1.ReasonRollingOut, message: "Pods are being started or replaced to run the current plan; kubectl get pods -l " + f.set.Selector + " shows how far they are."}
			ready = not(p)
			hold(p)
		case f.resource.Kind == "Broker":
			ready = is(v1alpha1.ReasonReachable, "The broker answers.")
		case f.verdict.outcome.Paused:
			ready = is(v1alpha1.ReasonPaused, "spec.state is Paused: messages are kept and none is delivered.")
		case f.set != nil && f.set.Replicas == 0:
			ready = is(v1alpha1.ReasonScaledToZero, "spec.replicas is 0: messages are kept and nothing runs.")
		default:
			ready = is(v1alpha1.ReasonRunning, "Every Pod runs the current plan.")
		}
		if f.problem == nil || f.problem.afterMaking {
			programmed = is(v1alpha1.ReasonProgrammed, "Everything it needs is in place.")
		}
	}
	if f.leaving != nil {
		ready, reconciling, stalled = not(f.leaving), nil, nil
		hold(f.leaving)
	}
	return accepted, programmed, ready, reconciling, stalled
}

// refusal is what the compiler has against a resource; nil: nothing.
func refusal(v *verdict) *problem {
	const most = 8
	var told []string
	p := &problem{class: waits}
	for _, d := range v.diagnostics {
		if d.Kind == "Broker" && d.Reason == v1alpha1.ReasonWaitingForBroker {
			continue // that it has not been reached yet is for its own probe to mend
		}
		// Of several the one that somebody has to do something about gives the reason.
		if c := classOf(d.Reason); len(told) == 0 || c == stalls && p.class != stalls {
			p.class, p.reason = c, d.Reason
		}
		told = append(told, d.Field+": "+d.Message)
	}
	switch {
	case len(told) == 0:
		return nil
	case len(told) > most:
		told = append(told[:most], fmt.Sprintf("and %d more", len(told)-most))
	}
	p.message = strings.Join(told, "\n")
	return p
}

// report writes what is known into the status of o. It is pure but for the times of transitions, which are those of now where an answer is
// another one than before.
func (k *kind) report(o client.Object, f *facts) {
	at := k.parts(o)
	generation := o.GetGeneration()
	set := func(t v1alpha1.ConditionType, a *answer) {
		if a == nil {
			meta.RemoveStatusCondition(&at.common.Conditions, string(t))
			return
		}
		meta.SetStatusCondition(&at.common.Conditions, metav1.Condition{
			Type: string(t), Status: a.status, Reason: string(a.reason), Message: bounded(a.message), ObservedGeneration: generation,
		})
	}
	accepted, programmed, ready, reconciling, stalled := conclude(f)
	at.common.ObservedGeneration = generation
	set(v1alpha1.ConditionAccepted, &accepted)
	set(v1alpha1.ConditionProgrammed, &programmed)
	set(v1alpha1.ConditionReady, &ready)
	set(v1alpha1.ConditionReconciling, reconciling)
	set(v1alpha1.ConditionStalled, stalled)

	if b, ok := o.(*v1alpha1.Broker); ok {
		reportBroker(b, f)
		return
	}
	if f.set != nil {
		at.workload.Replicas, at.workload.Selector = int32(f.rollout.replicas), f.set.Selector
		if f.rollout.complete() {
			at.workload.PlanHash = f.set.PlanHash
		}
		if at.address != nil {
			*at.address = nil
			if f.set.Address != "" {
				*at.address = &v1alpha1.Address{URL: f.set.Address}
			}
		}
	}
	reportBacklog(k, o, f)
	const current = v1alpha1.ConditionCredentialsCurrent
	switch before := stateOf(at.common.Conditions, current); {
	case f.set != nil && (f.set.Replicas == 0 || len(usedSecrets(&f.verdict.outcome)) == 0):
		set(current, nil)
	case f.credentials != nil:
		set(current, f.credentials)
	case before != nil && before.ObservedGeneration != generation: // it was told of something else, perhaps
		set(current, nil)
	}
	outcome := &f.verdict.outcome
	if outcome.Plan == nil {
		return // what it was told when it was accepted still says how its Pods run
	}
	if e := outcome.Effective; at.effective != nil {
		*at.effective = nil
		if e.Guarantee != "" && e.Ordering != "" {
			*at.effective = &v1alpha1.EffectiveGuarantee{Guarantee: v1alpha1.Guarantee(e.Guarantee), Ordering: v1alpha1.Ordering(e.Ordering), Mechanism: e.Mechanism, Limits: e.Limits}
		}
	}
	if at.objects != nil {
		*at.objects = brokerObjects(outcome)
	}
	if at.deadLetter != nil {
		*at.deadLetter = nil
		if d := outcome.DeadLetter; d != nil {
			*at.deadLetter = &v1alpha1.DeadLetterStatus{Object: d.Name}
		}
	}
}

func reportBroker(b *v1alpha1.Broker, f *facts) {
	if f.set != nil {
		b.Status.Selector = f.set.Selector
	}
	if f.found != nil {
		features := f.found.Features
		b.Status.Version, b.Status.Features = f.found.Version, &features
	}
	others := map[string]bool{}
	for _, m := range f.verdict.copies {
		others[m.To.Namespace] = true
	}
	b.Status.Namespaces = new(int32(len(others)))
}

// words are what the brokers themselves call a Topic, a Queue and a Group.
var words = map[string]map[string]string{
	"Embedded": {"Topic": "stream", "Queue": "stream", "Group": "consumer"},
	"NATS":     {"Topic": "stream", "Queue": "stream", "Group": "consumer"},
	"Kafka":    {"Topic": "topic", "Queue": "topic", "Group": "group"},
	"RabbitMQ": {"Topic": "exchange", "Queue": "queue", "Group": "queue"},
	"SQS":      {"Topic": "topic", "Queue": "queue", "Group": "queue"},
}

func brokerObjects(o *compile.Outcome) []v1alpha1.BrokerObject {
	protocols := map[string]string{}
	for _, b := range o.Plan.Brokers {
		protocols[b.Name] = b.Protocol
	}
	var out []v1alpha1.BrokerObject
	for _, obj := range o.Owned() {
		out = append(out, v1alpha1.BrokerObject{Kind: words[protocols[obj.Broker]][obj.Kind], Name: obj.Name})
	}
	return out
}

// bounded cuts a message that would make the status too large.
func bounded(message string) string {
	const most = 2 << 10
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most-3], "") + "…"
}
