package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// Brokers administers message brokers. Calls are safe for concurrent use, bounded in time, and answer at once that a broker is away when it
// has just been found to be. Errors of the broker are *BrokerError.
type Brokers interface {
	// Probe says what the server is.
	Probe(ctx context.Context, to Connection) (Found, error)
	// Ensure makes an object as it is declared and reports whether it had to.
	Ensure(ctx context.Context, to Connection, o plan.Object) (changed bool, err error)
	// Delete deletes an object of owner's. One that is not there is success; with onlyIfEmpty reason NotEmpty says that messages are left.
	Delete(ctx context.Context, to Connection, o plan.Ref, owner string, onlyIfEmpty bool) error
	// Inspect looks at objects; the answers are in their order.
	Inspect(ctx context.Context, to Connection, objects []plan.Ref) ([]State, error)
	// Forget ends the session of a Broker that is gone.
	Forget(broker types.NamespacedName)
}

// Connection is how a Broker is reached for administering it.
type Connection struct {
	plan.Broker

	Key types.NamespacedName
	// Version is another one when the Broker, its address or its credentials are: then an open session is of no use.
	Version string
}

// State is what an object on a broker is like.
type State struct {
	Exists bool
	// Owner is the mark that it bears; "" where there is none, or the broker has no place for one.
	Owner string
	// Messages that it holds, of a Group its backlog; -1: the broker cannot say.
	Messages int64
}

// Found is what a probe found out.
type Found struct {
	Version  string // the server's
	Features v1alpha1.BrokerFeatures
}

// BrokerError says why a broker did not do what it was asked to.
type BrokerError struct {
	// Reason is Unreachable, Denied, Conflict, NotEmpty, SecretNotFound or Invalid.
	Reason v1alpha1.Reason
	Err    error
}

func (e *BrokerError) Error() string { return e.Err.Error() }
func (e *BrokerError) Unwrap() error { return e.Err }

// brokerReason is the reason of a broker's error; "" when it is none.
func brokerReason(err error) v1alpha1.Reason {
	if e, ok := errors.AsType[*BrokerError](err); ok {
		return e.Reason
	}
	return ""
}

// connection is how the Broker of a verdict is reached; false while it has faults.
func (v *verdict) connection() (Connection, bool) {
	b := v.outcome.Connection
	if b == nil {
		return Connection{}, false
	}
	version := []string{fmt.Sprint(v.uid, " ", v.generation)}
	for name, s := range v.secrets {
		version = append(version, name.Name+" "+s.Digest)
	}
	slices.Sort(version[1:])
	return Connection{Broker: *b, Key: keyOf(v.outcome.Resource), Version: strings.Join(version, " ")}, true
}

// ensured is what was seen to be in place on brokers, so that it is not asked for at each pass.
type ensured struct {
	what string
	at   time.Time
}

// ensure makes the broker's objects that the resource owns, and looks now and then whether they still are as they should be. A broker that is away is no news for what has been made on it: that stands on the Broker alone, and is not copied to all that use it.
func (c *Controller) ensure(ctx context.Context, k *kind, o client.Object, f *facts) error {
	err := c.ensureAll(ctx, f)
	if brokerReason(err) == v1alpha1.ReasonUnreachable && wasMade(k, o, f) {
		f.again = 2 * c.options.Probe
		return nil
	}
	return err
}

// wasMade reports whether the status, which only the operator writes, says that everything is in place for what is declared now.
func wasMade(k *kind, o client.Object, f *facts) bool {
	at := k.parts(o)
	programmed := stateOf(at.common.Conditions, v1alpha1.ConditionProgrammed)
	return at.objects != nil && programmed != nil && programmed.Status == metav1.ConditionTrue && programmed.ObservedGeneration == o.GetGeneration() &&
		slices.Equal(*at.objects, brokerObjects(&f.verdict.outcome))
}

func (c *Controller) ensureAll(ctx context.Context, f *facts) error {
	if len(f.verdict.owned) == 0 {
		return nil
	}
	text, err := json.Marshal(f.verdict.owned)
	if err != nil {
		return err
	}
	connections := make([]Connection, len(f.verdict.owned))
	seen := []string{string(f.verdict.uid), string(text)} // what an earlier one of this name had went with it
	for i, o := range f.verdict.owned {
		var ok bool
		if connections[i], ok = c.world.connection(o.Broker); !ok {
			return &problem{class: waits, reason: v1alpha1.ReasonWaitingForBroker, message: "Broker " + o.Broker + " has faults of its own: put them right first"}
		}
		seen = append(seen, connections[i].Version)
	}
	what := strings.Join(seen, "\n")
	c.mu.Lock()
	before := c.ensured[f.resource]
	c.mu.Unlock()
	if before.what == what && time.Since(before.at) < c.options.Recheck*4/5 {
		return nil
	}
	for i, o := range f.verdict.owned {
		changed, err := c.options.Brokers.Ensure(ctx, connections[i], o)
		if err != nil {
			if p := c.taken(ctx, connections[i], o, err); p != nil {
				return p
			}
			return fmt.Errorf("%s %s on Broker %s: %w", o.Kind, o.Name, o.Broker, err)
		}
		if changed && before.what == what {
			log.FromContext(ctx).Info("A broker object was changed from outside and has been put right", "object", o.Name, "broker", o.Broker)
			c.warn(ctx, f.resource, string(v1alpha1.ReasonDrifted), "Ensure", "%s %s on Broker %s was changed or removed from outside, and has been put right", o.Kind, o.Name, o.Broker)
		}
	}
	c.mu.Lock()
	c.ensured[f.resource] = ensured{what, time.Now()}
	c.mu.Unlock()
	return nil
}

// probe asks a Broker what it is. What is found goes into its status, by which everything on it is compiled; so what differs from before has
// to be found twice.
func (c *Controller) probe(ctx context.Context, o client.Object, f *facts) error {
	to, ok := f.verdict.connection()
	if !ok {
		return nil
	}
	found, err := c.options.Brokers.Probe(ctx, to)
	c.mu.Lock()
	c.reachable[f.resource] = err == nil
	c.mu.Unlock()
	if err != nil {
		p := problemOf(err)
		p.afterMaking = true
		p.again = min(c.retry.When(f.resource), c.options.Probe)
		if p.reason == v1alpha1.ReasonUnreachableFromManager {
			p.reason = v1alpha1.ReasonUnreachable
		}
		return p
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.probed[f.resource]
	c.probed[f.resource] = &found
	known := o.(*v1alpha1.Broker).Status.Features
	if known == nil || before != nil && reflect.DeepEqual(*before, found) {
		f.found = &found
	}
	return nil
}

// connection finds the Broker of an object by its name in plans, NAMESPACE/NAME.
func (w *world) connection(name string) (Connection, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.connectionTo(name)
}

// connectionTo is connection for who has locked already.
func (w *world) connectionTo(name string) (Connection, bool) {
	key, ok := brokerKey(name)
	if !ok {
		return Connection{}, false
	}
	v := w.verdicts[plan.Resource{Kind: "Broker", Namespace: key.Namespace, Name: key.Name}]
	if v == nil {
		return Connection{}, false
	}
	return v.connection()
}
