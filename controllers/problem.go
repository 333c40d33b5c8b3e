package controllers

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// A class says who has to do something about a problem, and so everything else about it: when it is tried again, whether the resource counts
// as stalled, and whether there is an event.
type class int

const (
	// waits: something else has to appear or to happen first, and its watch wakes the resource. No event: in a while it is well.
	waits class = iota
	// stalls: somebody has to change something. An event says so once; trying again by itself would be of no use.
	stalls
	// passes: a broker or the API server did not do its part this time. It is tried again, ever more slowly.
	passes
)

// A problem keeps a resource from being as it is declared. As an error it carries its class to whoever decides.
type problem struct {
	class   class
	reason  v1alpha1.Reason
	message string // for people: no clock and no generated name, or status would never settle
	// again is when to look once more, where nothing wakes the resource; 0: the class decides.
	again time.Duration
	err   error // for the log; may be nil
	// race: somebody wrote the same object at the same time. It is tried again at once, and nobody is told.
	race bool
	// afterMaking: everything is in place, and the problem came up behind that.
	afterMaking bool
}

func (p *problem) Error() string { return string(p.reason) + ": " + p.message }
func (p *problem) Unwrap() error { return p.err }

const (
	// What a stranger may undo in a place that is not watched is looked at now and then.
	lookAgain = 30 * time.Second
	// What another resource is about to make on a broker, or a Secret that is about to be written, is looked for as often as this at the least.
	beingMade = 3 * time.Second
)

// problemOf is the one place where an error gets its class.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if reason := brokerReason(err); reason != "" {
		p := &problem{class: passes, reason: reason, message: err.Error(), err: err}
		switch reason { // what is not there yet, a Secret or the stream of a Topic, may be being made
		case v1alpha1.ReasonUnreachable:
			p.reason = v1alpha1.ReasonUnreachableFromManager
		case v1alpha1.ReasonConflict, v1alpha1.ReasonDenied, v1alpha1.ReasonInvalid:
			p.class, p.again = stalls, lookAgain // it is mended on the broker, where nobody watches
		}
		return p
	}
	switch {
	case apierrors.IsConflict(err):
		return &problem{class: passes, reason: v1alpha1.ReasonRollingOut, message: "objects are being written", err: err, race: true}
	case apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err),
		apierrors.HasStatusCause(err, "NamespaceTerminating"), errors.Is(err, context.Canceled):
		// Somebody was quicker; what that was comes by the watch. Trying again is for the case that it has come already.
		return &problem{class: passes, reason: v1alpha1.ReasonRollingOut, message: "objects are being written", err: err}
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
		return &problem{class: stalls, reason: v1alpha1.ReasonInvalid, message: "the API server refuses an object: " + err.Error(), again: lookAgain, err: err}
	}
	message := "the API server did not take all objects yet"
	if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown { // it said why; of a broken connection a port would be in the words
		message += ": " + err.Error()
	}
	return &problem{class: passes, reason: v1alpha1.ReasonRollingOut, message: message, err: err}
}

// classOf is the class of what the compiler says. What refers to something that has a fault of its own waits: the other one is told.
func classOf(reason v1alpha1.Reason) class {
	switch reason {
	case v1alpha1.ReasonReferenceNotFound, v1alpha1.ReasonReferenceInvalid, v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonWaitingForBroker:
		return waits
	}
	return stalls
}
