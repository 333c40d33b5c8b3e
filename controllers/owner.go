package controllers

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Broker objects bear a mark of who made them: a cluster's are cluster-UID/KIND/NAMESPACE/NAME, a laptop's only KIND/NAMESPACE/NAME. Two
// clusters, or a cluster and a laptop, may share a broker and have resources of the same names; with one mark for both each would take the
// other's objects for its own.
const hostCluster = "cluster-"

// hostOf is this cluster's part of the marks: a cluster has no identity but its oldest namespace's.
func hostOf(kubeSystem metav1.Object) string { return hostCluster + string(kubeSystem.GetUID()) }

// taken explains that a broker refuses an object because somebody else has it; nil where that is not why.
func (c *Controller) taken(ctx context.Context, to Connection, o plan.Object, err error) *problem {
	if brokerReason(err) != v1alpha1.ReasonConflict {
		return nil
	}
	states, inspected := c.options.Brokers.Inspect(ctx, to, []plan.Ref{o.Ref})
	if inspected != nil || !states[0].Exists || states[0].Owner == o.Owner {
		return nil // what is in conflict is something else
	}
	host, _, _ := strings.Cut(o.Owner, "/")
	return &problem{class: stalls, reason: v1alpha1.ReasonConflict, again: lookAgain, err: err,
		message: fmt.Sprintf("%s %s on Broker %s exists and %s: give this Broker another spec.prefix, or use the object as it is by its spec.externalName",
			o.Kind, o.Name, o.Broker, belongs(states[0].Owner, host))}
}

// belongs says in words whose an object is.
func belongs(mark, here string) string {
	host, resource, ok := strings.Cut(mark, "/")
	switch {
	case mark == "":
		return "was not made by Waybill"
	case ok && host == here:
		return "belongs to " + resource
	case ok && strings.HasPrefix(host, hostCluster):
		return "belongs to " + resource + " of another cluster (" + host + ")"
	}
	return "belongs to " + mark + " of a laptop"
}
