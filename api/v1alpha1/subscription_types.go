package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=subscriptions,scope=Namespaced,shortName=wbs,categories=waybill
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:printcolumn:name="Topic",type=string,JSONPath=`.spec.topicRef.name`
// +kubebuilder:printcolumn:name="Guarantee",type=string,JSONPath=`.status.effective.guarantee`,priority=1
// +kubebuilder:printcolumn:name="Backlog",type=integer,JSONPath=`.status.backlog`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be at most 48 characters, lower case letters, digits and '-', begin with a letter and not end with '-'",fieldPath=".metadata"

// Subscription is one subscriber of a Topic: it gets every message, and its position is its own.
type Subscription struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's own.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec SubscriptionSpec `json:"spec"`

	// status is what was found; the operator writes it.
	// +optional
	// +kubebuilder:default={observedGeneration: 0}
	Status SubscriptionStatus `json:"status,omitempty"`
}

// SubscriptionList is a list of them.
// +kubebuilder:object:root=true
type SubscriptionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Subscription `json:"items"`
}

// SubscriptionSpec is what should be delivered, where and how.
// +kubebuilder:validation:XValidation:rule="!has(self.externalName) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",message="an object named by externalName is never deleted: use Retain, or leave deletionPolicy out",fieldPath=".deletionPolicy"
// +kubebuilder:validation:XValidation:rule="has(self.externalName) == has(oldSelf.externalName) && (!has(self.externalName) || self.externalName == oldSelf.externalName)",message="externalName cannot be changed, set later or removed: delete the resource and create it anew",fieldPath=".externalName"
type SubscriptionSpec struct {
	// topicRef names the Topic. It cannot be changed.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="topicRef cannot be changed, for the position belongs to that Topic: create a new Subscription"
	TopicRef ResourceReference `json:"topicRef"`

	// filter picks messages: a CEL expression that gives true or false. Those not picked count as done. Default: all.
	// +optional
	Filter *Expression `json:"filter,omitempty"`

	// deliverTo is where messages are delivered.
	// +required
	DeliverTo Destination `json:"deliverTo"`

	// reply is where a CloudEvent in the response goes; without it a response body is dropped.
	// +optional
	Reply *ReplyTo `json:"reply,omitempty"`

	// startFrom is where reading begins when the position is created; default Latest.
	// +optional
	StartFrom *StartFrom `json:"startFrom,omitempty"`

	// ordering is None, Key or Strict; default None.
	// +optional
	Ordering Ordering `json:"ordering,omitempty"`

	// guarantee is AtMostOnce, AtLeastOnce or ExactlyOnce; default AtLeastOnce. What cannot be met is refused.
	// +optional
	Guarantee Guarantee `json:"guarantee,omitempty"`

	// ackWait is how long the broker waits for a worker that is lost before it delivers again, 1s to 12h; default 30s. It is extended while a
	// delivery goes on.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1s') && duration(self) <= duration('12h')",message="must be a duration from 1s to 12h, such as 30s or 5m"
	AckWait *metav1.Duration `json:"ackWait,omitempty"`

	// timeout bounds one delivery, 1ms to 1h; default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="must be a duration from 1ms to 1h, such as 10s or 2m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// maxInFlight is the number of messages handled at one time by a replica, 1 to 10000; default 64, and 2048 where they are published in
	// batches to a Topic or a Mailbox; with ordering Strict always 1. Messages that wait for their next attempt do not count.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`

	// retry says how often and how soon a failed message is tried again.
	// +optional
	Retry *Retry `json:"retry,omitempty"`

	// onFailure is Park (to the dead letter; the others go on) or Block (keep trying; those of the same key wait, with ordering None
	// nobody); default Park.
	// +optional
	OnFailure OnFailure `json:"onFailure,omitempty"`

	// deadLetter is where undeliverable messages go; default: an object of its own on the same broker, named in status.
	// +optional
	DeadLetter *DeadLetter `json:"deadLetter,omitempty"`

	// state is Running or Paused; default Running. Paused delivers nothing and keeps the position.
	// +optional
	State RunState `json:"state,omitempty"`

	// deletionPolicy is what becomes of the position when this resource is deleted: Retain, DeleteIfEmpty or Delete; default Retain.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// externalName names a consumer, group or queue that exists already, to be used instead of one that Waybill makes. It is checked, never altered and never
	// deleted. It cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-._:/A-Za-z0-9]*[A-Za-z0-9])?$')",message="must be a name that brokers take: letters, digits, '-', '_', '.', ':' and '/', such as legacy.orders"
	ExternalName string `json:"externalName,omitempty"`

	// replicas is the number of Pods, 0 to 1000; default 1. On NATS and RabbitMQ ordering Key and Strict allow one. On a laptop it is always 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// workload overrides how its Pods are run.
	// +optional
	Workload *Workload `json:"workload,omitempty"`
}

// Destination is where messages are delivered: exactly one of its members.
// +kubebuilder:validation:XValidation:rule="[has(self.uri), has(self.serviceRef), has(self.mailboxRef), has(self.topicRef)].exists_one(x, x)",message="exactly one of uri, serviceRef, mailboxRef and topicRef must be set"
type Destination struct {
	// uri is an HTTP address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/ ]+')",message="must be an http or https address, such as https://example.com/events"
	URI string `json:"uri,omitempty"`

	// serviceRef names a Kubernetes Service in the same namespace.
	// +optional
	ServiceRef *ServiceReference `json:"serviceRef,omitempty"`

	// mailboxRef names a Mailbox.
	// +optional
	MailboxRef *ResourceReference `json:"mailboxRef,omitempty"`

	// topicRef names another Topic.
	// +optional
	TopicRef *ResourceReference `json:"topicRef,omitempty"`
}

// ReplyTo is where responses are published.
type ReplyTo struct {
	// topicRef names the Topic.
	// +required
	TopicRef ResourceReference `json:"topicRef"`
}

// SubscriptionStatus is what was found.
type SubscriptionStatus struct {
	ResourceStatus `json:",inline"`
	WorkloadStatus `json:",inline"`

	// effective is the guarantee and the ordering that hold in fact.
	// +optional
	Effective *EffectiveGuarantee `json:"effective,omitempty"`

	// backlog is the number of messages not yet delivered, to two significant digits and at most a minute old.
	// +optional
	Backlog *int64 `json:"backlog,omitempty"`

	// objects are the broker's objects in use.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Objects []BrokerObject `json:"objects,omitempty"`

	// deadLetter says where undeliverable messages lie.
	// +optional
	DeadLetter *DeadLetterStatus `json:"deadLetter,omitempty"`
}
