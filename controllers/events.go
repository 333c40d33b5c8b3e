package controllers

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// announce writes an event where a person should notice: the resource has become ready, somebody has to do something, a broker is away. What
// passes by itself is only in the status.
func (c *Controller) announce(k *kind, before, now client.Object) {
	was, is := k.parts(before).common.Conditions, k.parts(now).common.Conditions
	if is := stateOf(is, v1alpha1.ConditionStalled); is != nil {
		if was := stateOf(was, v1alpha1.ConditionStalled); was == nil || was.Reason != is.Reason || was.Message != is.Message {
			c.events.Eventf(now, nil, corev1.EventTypeWarning, is.Reason, "Reconcile", "%s", is.Message)
		}
		return
	}
	old, ready := stateOf(was, v1alpha1.ConditionReady), stateOf(is, v1alpha1.ConditionReady)
	wasReady := old != nil && old.Status == metav1.ConditionTrue
	switch isReady := ready.Status == metav1.ConditionTrue; {
	case isReady && !wasReady:
		c.events.Eventf(now, nil, corev1.EventTypeNormal, ready.Reason, "Reconcile", "%s", ready.Message)
	case k.name == "Broker" && wasReady && !isReady:
		c.events.Eventf(now, nil, corev1.EventTypeWarning, ready.Reason, "Probe", "%s", ready.Message)
	}
}

// warn writes an event about a resource that is not the one being reconciled, or of which only the name is at hand.
func (c *Controller) warn(ctx context.Context, r plan.Resource, reason, action, format string, args ...any) {
	o := c.kinds[r.Kind].new()
	if c.client.Get(ctx, keyOf(r), o) != nil {
		return // nobody would find it
	}
	c.events.Eventf(o, nil, corev1.EventTypeWarning, reason, action, format, args...)
}

func stateOf(conditions []metav1.Condition, t v1alpha1.ConditionType) *metav1.Condition {
	return meta.FindStatusCondition(conditions, string(t))
}
