package controllers

import (
	"context"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/compile"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// build gives the objects that the resource needs in the cluster; nil for a Broker that runs elsewhere.
func (c *Controller) build(o client.Object, v *verdict, settings workload.Settings) (*workload.Set, error) {
	if b, ok := o.(*v1alpha1.Broker); ok {
		return workload.BuildBroker(b, settings)
	}
	owner, err := workload.OwnerOf(o)
	if err != nil {
		return nil, err
	}
	return workload.Build(&v.outcome, owner, settings)
}

// secrets makes the Secrets of random bytes that are missing, and says which others are: without them no Pod is started.
func (c *Controller) secrets(ctx context.Context, o client.Object, f *facts) error {
	for _, use := range f.set.Secrets {
		found, err := c.hasSecret(ctx, use, f.verdict)
		if err != nil {
			return err
		}
		if found {
			if c.randomSecret(o, f.set, use.Name) != nil {
				if err := c.rotate(ctx, f, use.Name); err != nil {
					return err
				}
			}
			continue
		}
		switch made := c.randomSecret(o, f.set, use.Name); {
		case made != nil:
			if err := c.create(ctx, made); err != nil {
				return err
			}
		default:
			return &problem{class: waits, reason: v1alpha1.ReasonSecretNotFound, again: lookAgain,
				message: fmt.Sprintf("Secret %s is missing, or lacks one of the keys %v: Pods are started when it is there", use.Name, use.Keys)}
		}
	}
	return nil
}

// randomSecret is a Secret that the operator makes itself; nil when name is another one's.
func (c *Controller) randomSecret(o client.Object, set *workload.Set, name string) *corev1.Secret {
	if set.NeedsLeaseKeys && name == plan.LeaseKeySecret {
		key := make([]byte, workload.LeaseKeyBytes)
		_, _ = rand.Read(key) // it never fails
		return workload.LeaseKeys(o.GetNamespace(), key)
	}
	if b, ok := o.(*v1alpha1.Broker); ok {
		if made := workload.BrokerCredentials(b, rand.Text()); made != nil && made.Name == name {
			return made
		}
	}
	return nil
}

// hasSecret looks among those that the resource's spec names, then among our own, which are cached.
func (c *Controller) hasSecret(ctx context.Context, use compile.SecretUse, v *verdict) (bool, error) {
	if fact, ok := v.secrets[use.NamespacedName]; ok {
		return containsAll(fact.Keys, use.Keys), nil
	}
	s := new(corev1.Secret)
	for _, from := range []client.Reader{c.client, c.direct} {
		err := from.Get(ctx, use.NamespacedName, s)
		if err == nil {
			return containsAll(factOf(s).Keys, use.Keys), nil
		}
		if !apierrors.IsNotFound(err) {
			return false, err
		}
	}
	return false, nil
}

// copySecrets hands a Broker's credentials to the namespaces that need and may have them, keeps the copies as the original is, and takes back
// those that are not needed or allowed any more. What one namespace has in the way keeps none from the others: the first fault is told.
func (c *Controller) copySecrets(ctx context.Context, f *facts) error {
	wanted := c.world.copies() // one that another Broker is to take over is not made anew
	var first error
	for _, m := range f.verdict.copies {
		wanted[m.To] = true
		source := new(corev1.Secret)
		err := c.direct.Get(ctx, m.From, source)
		if err == nil {
			err = c.copySecret(ctx, workload.Mirror(source, m, f.resource, f.verdict.uid))
		}
		if first == nil {
			first = err
		}
	}
	if err := c.dropCopies(ctx, f, wanted); first == nil {
		first = err
	}
	return first
}

func (c *Controller) copySecret(ctx context.Context, want *corev1.Secret) error {
	live := new(corev1.Secret)
	err := c.client.Get(ctx, client.ObjectKeyFromObject(want), live)
	switch {
	case apierrors.IsNotFound(err):
		if err := c.client.Create(ctx, want, fieldOwner); !apierrors.IsAlreadyExists(err) {
			return err
		}
		// Ours, and not in the cache yet, or a stranger's.
		if err := c.direct.Get(ctx, client.ObjectKeyFromObject(want), live); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	ours := hasLabels(live, want.Labels)
	switch {
	case !ours && !c.lends(ctx, live, want):
		return &problem{class: stalls, reason: v1alpha1.ReasonConflict, again: lookAgain, afterMaking: true,
			message: fmt.Sprintf("Secret %s/%s exists and is not a copy of this Broker's: delete it", want.Namespace, want.Name)}
	case live.Type != want.Type:
		return c.remove(ctx, live) // it cannot be changed, only made anew
	case ours && factOf(live).Digest == factOf(want).Digest:
		return nil
	}
	live = live.DeepCopy()
	live.Labels, live.Data = want.Labels, want.Data
	return c.client.Update(ctx, live, fieldOwner)
}

// lends reports whether a copy is that of another Broker with the same Secret. It is taken over: who is refused, or being deleted and still in
// use, does not take back what it handed out.
func (c *Controller) lends(ctx context.Context, live, want *corev1.Secret) bool {
	by, b := client.ObjectKey{Namespace: want.Labels[workload.LabelBrokerNamespace], Name: live.Labels[workload.LabelBroker]}, new(v1alpha1.Broker)
	return by.Name != want.Labels[workload.LabelBroker] && c.client.Get(ctx, by, b) == nil &&
		hasLabels(live, workload.MirrorLabels(plan.Resource{Namespace: by.Namespace, Name: by.Name}, b.UID))
}

// dropCopies deletes the copies of a Broker's Secrets that are not wanted.
func (c *Controller) dropCopies(ctx context.Context, f *facts, wanted map[types.NamespacedName]bool) error {
	var copies corev1.SecretList
	if err := c.client.List(ctx, &copies, client.MatchingLabels(workload.MirrorLabels(f.resource, f.verdict.uid)), client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range copies.Items {
		s := &copies.Items[i]
		if wanted[client.ObjectKeyFromObject(s)] {
			continue
		}
		// As it was seen, for another Broker may have taken it over since.
		as := client.Preconditions{UID: new(s.UID), ResourceVersion: new(s.ResourceVersion)}
		if err := client.IgnoreNotFound(c.client.Delete(ctx, s.DeepCopy(), as)); err != nil {
			return err
		}
	}
	return nil
}
