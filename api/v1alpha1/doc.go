// Package v1alpha1 holds the seven kinds of the group waybill.dev, with which a team declares how messages are delivered: Broker, Topic,
// Subscription, Mailbox, Poller, Endpoint and Pipeline.
//
// The types say what may be written and, in each field's comment, its unit, its bounds and what holds when it is left out. Bounds, unions and
// immutable fields are part of the generated CustomResourceDefinitions, so that the API server and the command line refuse the same input with
// the same words. Defaults are filled in by the compiler and reported in status; the one exception is replicas, which the scale subresource
// reads from the object itself. There is no logic here.
//
// +kubebuilder:object:generate=true
// +groupName=waybill.dev
package v1alpha1
