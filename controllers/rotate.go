package controllers

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/waybill-dev/waybill/controllers/workload"
	"github.com/waybill-dev/waybill/runtime/plan"
)

const (
	// everybodySees is how long it takes at the most until every Pod reads a changed Secret: kubelets look once a minute or two.
	everybodySees = 5 * time.Minute
	// everyLeaseEnded is how long a lease lives, extended once at its longest. A token that is older than a rotation and this is refused.
	everyLeaseEnded = 24 * time.Hour
)

// rotate changes the content of a Secret that the operator made when somebody asks for it by an annotation, in three steps of which none turns
// anybody away. Where the steps are is written on the Secret itself, so that any manager goes on with them.
func (c *Controller) rotate(ctx context.Context, f *facts, name string) error {
	s := new(corev1.Secret)
	key := client.ObjectKey{Namespace: f.resource.Namespace, Name: name}
	if err := c.client.Get(ctx, key, s); err != nil {
		return client.IgnoreNotFound(err) // it was made just now, or is not ours
	}
	step, since, going := rotationOf(s)
	asked := s.Annotations[workload.AnnotationRotate]
	if !going && (asked == "" || asked == s.Annotations[workload.AnnotationRotated]) {
		return nil
	}
	leases := name == plan.LeaseKeySecret
	rest := everybodySees
	if leases && step == 2 {
		rest = everyLeaseEnded
	}
	if left := time.Until(since.Add(rest)); going && left > 0 {
		f.again = sooner(f.again, left+time.Second)
		return nil
	}

	step++
	var next *corev1.Secret
	if leases {
		fresh := make([]byte, workload.LeaseKeyBytes)
		_, _ = rand.Read(fresh) // it never fails
		next = workload.RotateLeaseKeys(s, step, fresh)
	} else {
		next = workload.RotateBrokerCredentials(s, step, rand.Text())
	}
	if step == 1 {
		next.Annotations[workload.AnnotationRotated] = asked
	}
	next.Annotations[workload.AnnotationRotation] = fmt.Sprintf("%d %s", step, time.Now().UTC().Format(time.RFC3339))
	if step == 3 {
		delete(next.Annotations, workload.AnnotationRotation)
	}
	switch err := c.client.Update(ctx, next, fieldOwner); {
	case apierrors.IsConflict(err):
		f.again = sooner(f.again, time.Second) // another resource of the namespace was quicker, or the cache is behind
		return nil
	case err != nil:
		return err
	}
	says := map[int]string{
		1: "New content has been drawn; Pods are being told of it.", 2: "Pods use the new content, and the old one is still taken.", 3: "The old content is not taken any more.",
	}
	log.FromContext(ctx).Info("Rotating", "secret", key.String(), "step", step)
	c.events.Eventf(next, nil, corev1.EventTypeNormal, "Rotating", "Rotate", "Step %d of 3: %s", step, says[step])
	if step < 3 {
		f.again = sooner(f.again, everybodySees)
	}
	return nil
}

// rotationOf is the step that a rotation has reached, and when.
func rotationOf(s *corev1.Secret) (step int, since time.Time, going bool) {
	var at string
	if n, _ := fmt.Sscanf(s.Annotations[workload.AnnotationRotation], "%d %s", &step, &at); n != 2 || step < 1 || step > 2 {
		return 0, time.Time{}, false
	}
	since, err := time.Parse(time.RFC3339, at)
	if err != nil {
		since = s.CreationTimestamp.Time // long ago
	}
	return step, since, true
}
